//! A layer of the transformer: attention and a feed-forward network, each normed before and after.

use candle_core::{D, Tensor};
use rayon::prelude::*;
use zoetrope_kernels::{Input, Mask, Pairs, Precision, attention, norm_and_rotate};

use crate::config::TransformerConfig;
use crate::layers::{Angles, Linear, Parameters, RmsNorm};
use crate::{Result, Watch};

/// Tokens that pass a feed-forward network at once; more than a picture of 512 x 512 has.
const TOKENS_AT_ONCE: usize = 1400;

/// Epsilon of the query and key norms, whatever `norm_eps` says.
const QK_NORM_EPS: f64 = 1e-5;

/// Tokens of several pictures, of which each attends to its own.
pub(super) struct Sequence {
    pub(super) angles: Angles,
    pub(super) lengths: Vec<usize>,
    /// Whether queries and keys may be rounded to int8 beside wider weights.
    pub(super) round_scores: bool,
    /// Which of them belong to pictures without noise; empty where none do.
    spans: Vec<Span>,
}

/// Neighbouring tokens with or without noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    tokens: usize,
    clean: bool,
}

impl Span {
    pub(super) fn clean(tokens: usize) -> Self {
        Self { tokens, clean: true }
    }

    pub(super) fn noisy(tokens: usize) -> Self {
        Self { tokens, clean: false }
    }
}

impl Sequence {
    /// `spans` are all tokens of all pictures in their order.
    pub(super) fn new(angles: Angles, lengths: Vec<usize>, spans: &[Span]) -> Self {
        let spans: Vec<_> = spans.iter().copied().filter(|span| span.tokens > 0).collect();
        let mixed = spans.iter().any(|span| span.clean);
        let spans = if mixed { spans } else { Vec::new() };
        Self { angles, lengths, round_scores: false, spans }
    }

    /// What attention of `q` is computed in beside weights that are used with `precision`.
    fn precision(&self, precision: Precision, q: &Tensor) -> Precision {
        match precision {
            Precision::Bf16 if self.round_scores && q.device().is_cpu() => Precision::Int8,
            precision => precision,
        }
    }
}

/// The embeddings of a moment, each `[1, adaln]`.
pub(super) struct Time {
    /// Of the pictures that are drawn.
    pub(super) noisy: Tensor,
    /// Of those without noise: the end of all times.
    pub(super) clean: Option<Tensor>,
}

/// Names a block's stages for the watcher.
pub(super) struct At<'a>(pub(super) &'static str, pub(super) usize, pub(super) &'a dyn Watch);

impl At<'_> {
    fn part(&self, part: &str, x: &Tensor) -> Result<()> {
        self.2.stage(&format_args!("{}.{}.{part}", self.0, self.1), x)
    }

    fn whole(&self, x: &Tensor) -> Result<()> {
        self.2.stage(&format_args!("{}.{}", self.0, self.1), x)
    }
}

type LoadModulation = fn(&Parameters, &TransformerConfig) -> Result<Option<Modulation>>;

pub(super) fn load_blocks(
    p: &Parameters,
    count: usize,
    config: &TransformerConfig,
    modulation: LoadModulation,
) -> Result<Vec<Block>> {
    (0..count).into_par_iter().map(|i| Block::load(&p.at(i), config, modulation)).collect()
}

/// A layer of the transformer.
pub(super) struct Block {
    modulation: Option<Modulation>,
    attention: Attention,
    feed_forward: FeedForward,
    attention_norm1: RmsNorm,
    attention_norm2: RmsNorm,
    ffn_norm1: RmsNorm,
    ffn_norm2: RmsNorm,
}

impl Block {
    pub(super) fn load(
        p: &Parameters,
        config: &TransformerConfig,
        modulation: LoadModulation,
    ) -> Result<Self> {
        let norm = |name: &str| RmsNorm::load(&p.at(name), config.dim, config.norm_eps);
        Ok(Self {
            modulation: modulation(p, config)?,
            attention: Attention::load(&p.at("attention"), config)?,
            feed_forward: FeedForward::load(&p.at("feed_forward"), config)?,
            attention_norm1: norm("attention_norm1")?,
            attention_norm2: norm("attention_norm2")?,
            ffn_norm1: norm("ffn_norm1")?,
            ffn_norm2: norm("ffn_norm2")?,
        })
    }

    /// `x`: `[1, tokens, dim]`; `time` for blocks with modulation.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        time: Option<&Time>,
        sequence: &Sequence,
        at: &At,
    ) -> Result<Tensor> {
        let Scales { scale_attn, gate_attn, scale_ffn, gate_ffn } = match (&self.modulation, time) {
            // Each [1, 1, dim], or [1, tokens, dim] where tokens differ.
            (Some(modulation), Some(time)) => modulation.at(time, sequence)?,
            _ => Scales::default(),
        };
        let h = self.attention_norm1.input(x, scale_attn.as_ref());
        let h = self.attention.forward(h, sequence)?; // [1, tokens, dim]
        at.part("attention", &h)?;
        let x = self.attention_norm2.add_gated(x, &h, gate_attn.as_ref())?;
        drop(h); // As wide as the stream, and what follows is at its widest.

        let h = self.feed_forward.forward(&x, &self.ffn_norm1, scale_ffn.as_ref())?;
        at.part("feed_forward", &h)?;
        let x = self.ffn_norm2.add_gated(&x, &h, gate_ffn.as_ref())?;
        at.whole(&x)?;
        Ok(x)
    }

    /// Operations for so many tokens.
    pub(super) fn operations(&self, tokens: usize) -> f64 {
        let Attention { to_q, to_k, to_v, to_out, .. } = &self.attention;
        let FeedForward { w1, w2, w3 } = &self.feed_forward;
        let linears = [to_q, to_k, to_v, to_out, w1, w2, w3].map(Linear::operations_a_token);
        let attention = 4 * tokens * to_q.shape()[0];
        tokens as f64 * (linears.iter().sum::<f64>() + attention as f64)
    }

    /// Calls `f` with every linear layer and its name in the block.
    pub(super) fn visit_linears(&mut self, f: &mut dyn FnMut(&str, &mut Linear)) {
        if let Some(modulation) = &mut self.modulation {
            f("adaLN_modulation.0", &mut modulation.linear);
        }
        f("attention.to_q", &mut self.attention.to_q);
        f("attention.to_k", &mut self.attention.to_k);
        f("attention.to_v", &mut self.attention.to_v);
        f("attention.to_out.0", &mut self.attention.to_out);
        f("feed_forward.w1", &mut self.feed_forward.w1);
        f("feed_forward.w2", &mut self.feed_forward.w2);
        f("feed_forward.w3", &mut self.feed_forward.w3);
    }
}

/// What the time does to a block; nothing in the context refiner.
#[derive(Default)]
struct Scales {
    scale_attn: Option<Tensor>, // 1 + s
    gate_attn: Option<Tensor>,  // tanh(g)
    scale_ffn: Option<Tensor>,
    gate_ffn: Option<Tensor>,
}

impl Scales {
    /// Those of `clean` where `spans` say so, a row for every token.
    fn or(&self, clean: &Self, spans: &[Span]) -> Result<Self> {
        let rows = |noisy: &Option<Tensor>, clean: &Option<Tensor>| {
            let (Some(noisy), Some(clean)) = (noisy, clean) else { return Ok(None) };
            let row = |span: &Span| {
                let one = if span.clean { clean } else { noisy };
                one.expand((1, span.tokens, one.dim(D::Minus1)?))
            };
            let rows = spans.iter().map(row).collect::<candle_core::Result<Vec<_>>>()?;
            Ok::<_, crate::Error>(Some(Tensor::cat(&rows, 1)?))
        };
        Ok(Self {
            scale_attn: rows(&self.scale_attn, &clean.scale_attn)?,
            gate_attn: rows(&self.gate_attn, &clean.gate_attn)?,
            scale_ffn: rows(&self.scale_ffn, &clean.scale_ffn)?,
            gate_ffn: rows(&self.gate_ffn, &clean.gate_ffn)?,
        })
    }
}

pub(super) struct Modulation {
    linear: Linear,
}

impl Modulation {
    /// Of a block whose stream the time modulates.
    pub(super) fn load(p: &Parameters, config: &TransformerConfig) -> Result<Option<Self>> {
        let linear =
            Linear::load(&p.at("adaLN_modulation").at(0), 4 * config.dim, config.adaln_dim())?;
        Ok(Some(Self { linear }))
    }

    /// Of a block that does not depend on the time.
    pub(super) fn none(_: &Parameters, _: &TransformerConfig) -> Result<Option<Self>> {
        Ok(None)
    }

    /// What `time` does to the tokens of `sequence`.
    fn at(&self, time: &Time, sequence: &Sequence) -> Result<Scales> {
        let noisy = self.forward(&time.noisy)?;
        match &time.clean {
            Some(clean) if !sequence.spans.is_empty() => {
                noisy.or(&self.forward(clean)?, &sequence.spans)
            }
            _ => Ok(noisy),
        }
    }

    /// The block's linear takes `c` as it is; only the final layer puts a SiLU before its own.
    fn forward(&self, c: &Tensor) -> Result<Scales> {
        let parts = self.linear.forward(c)?.unsqueeze(1)?.chunk(4, D::Minus1)?;
        Ok(Scales {
            scale_attn: Some((&parts[0] + 1.0)?),
            gate_attn: Some(parts[1].tanh()?),
            scale_ffn: Some((&parts[2] + 1.0)?),
            gate_ffn: Some(parts[3].tanh()?),
        })
    }
}

struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    norm_q: RmsNorm,
    norm_k: RmsNorm,
    head_dim: usize,
}

impl Attention {
    fn load(p: &Parameters, config: &TransformerConfig) -> Result<Self> {
        let square = |name: &str| Linear::load_without_bias(&p.at(name), config.dim, config.dim);
        let norm = |name: &str| RmsNorm::load(&p.at(name), config.head_dim(), QK_NORM_EPS);
        Ok(Self {
            to_q: square("to_q")?,
            to_k: square("to_k")?,
            to_v: square("to_v")?,
            to_out: square("to_out.0")?,
            norm_q: norm("norm_q")?,
            norm_k: norm("norm_k")?,
            head_dim: config.head_dim(),
        })
    }

    fn forward(&self, x: Input, sequence: &Sequence) -> Result<Tensor> {
        self.to_out.forward(&self.mixed(x, sequence)?)
    }

    /// The values that tokens attend to, `[1, tokens, dim]`. Queries, keys and values, each as wide as the stream, are gone when it
    /// returns, and what they were before they were rotated is gone sooner.
    fn mixed(&self, x: Input, sequence: &Sequence) -> Result<Tensor> {
        let [q, k, v] = Linear::forward_all(x, [&self.to_q, &self.to_k, &self.to_v])?;
        let (_, tokens, _) = q.dims3()?;
        let heads = |y: Tensor| y.reshape((1, tokens, (), self.head_dim)); // [1, tokens, heads, d]
        let angles = (&sequence.angles.cos, &sequence.angles.sin);
        let rotated = |y: Tensor, norm: &RmsNorm| {
            norm_and_rotate(&heads(y)?, norm.kernel(), angles, Pairs::Neighbours) // [1, heads, tokens, d]
        };
        let (q, k) = (rotated(q, &self.norm_q)?, rotated(k, &self.norm_k)?);
        let v = heads(v)?.transpose(1, 2)?;
        let precision = sequence.precision(self.to_q.precision(q.device()), &q);
        let mut start = 0;
        let mut parts = Vec::with_capacity(sequence.lengths.len());
        for length in &sequence.lengths {
            let part = |y: &Tensor| y.narrow(2, start, *length);
            let y = attention(&part(&q)?, &part(&k)?, &part(&v)?, Mask::None, precision)?;
            parts.push(y.transpose(1, 2)?.flatten_from(2)?.squeeze(0)?); // [length, dim]
            start += length;
        }
        join(&parts)
    }
}

struct FeedForward {
    w1: Linear,
    w2: Linear,
    w3: Linear,
}

impl FeedForward {
    fn load(p: &Parameters, config: &TransformerConfig) -> Result<Self> {
        let (dim, inner) = (config.dim, config.ffn_dim());
        Ok(Self {
            w1: Linear::load_without_bias(&p.at("w1"), inner, dim)?,
            w2: Linear::load_without_bias(&p.at("w2"), dim, inner)?,
            w3: Linear::load_without_bias(&p.at("w3"), inner, dim)?,
        })
    }

    /// For `norm(x) · scale`, some tokens after others: what is between the layers is wider than all else, and memory for
    /// all tokens of a large picture at once would be most of what a step takes.
    fn forward(&self, x: &Tensor, norm: &RmsNorm, scale: Option<&Tensor>) -> Result<Tensor> {
        let some = |x: &Tensor, scale: Option<&Tensor>| {
            let [gate, up] = Linear::forward_all(norm.input(x, scale), [&self.w1, &self.w3])?;
            self.w2.forward_input(Input::Gated { gate: &gate, up: &up })
        };
        let tokens = x.dim(1)?;
        // GPUs have products of their own for so many rows, and fill up only with them.
        if tokens <= TOKENS_AT_ONCE || x.track_op() || x.device().is_cuda() {
            return some(x, scale);
        }
        let most = tokens.div_ceil(tokens.div_ceil(TOKENS_AT_ONCE));
        let part = |start: usize| {
            let rows = |all: &Tensor| all.narrow(1, start, most.min(tokens - start));
            let scale = match scale {
                Some(scale) if scale.dim(1)? > 1 => Some(rows(scale)?),
                one => one.cloned(),
            };
            some(&rows(x)?, scale.as_ref())
        };
        let parts = (0..tokens).step_by(most).map(part).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&parts, 1)?)
    }
}

/// Rows one after another, `[1, rows, …]`; alone they are not copied.
pub(super) fn join(parts: &[Tensor]) -> Result<Tensor> {
    Ok(match parts {
        [one] => one.unsqueeze(0)?,
        many => Tensor::cat(many, 0)?.unsqueeze(0)?,
    })
}
