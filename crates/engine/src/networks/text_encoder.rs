//! The text encoder: Qwen3. Captions are made of the input of its last layer; all of it is a language model.

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use zoetrope_checkpoint::Table;
use zoetrope_kernels::{Input, Mask, Pairs, attention, norm_and_rotate};

use crate::config::TextEncoderConfig;
use crate::layers::{Angles, Linear, Parameters, RmsNorm, half_angles};
use crate::{Error, Result, Watch};

/// How much of the network to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Up to the input of the last layer: what caption features need.
    Features,
    /// All of it: a language model.
    Full,
}

/// Qwen3.
pub struct TextEncoder {
    embed_tokens: Table, // [vocabulary, hidden]
    device: Device,
    layers: Vec<Layer>, // all but the last
    head: Option<Head>,
    head_dim: usize,
    rope_theta: f64,
}

/// What makes words of features.
struct Head {
    layer: Layer, // the last
    norm: RmsNorm,
    lm_head: Linear, // [vocabulary, hidden], the embedding's values
}

impl TextEncoder {
    /// The network in `parameters`; what `depth` leaves out is not read.
    pub fn load(parameters: &Parameters, config: &TextEncoderConfig, depth: Depth) -> Result<Self> {
        let weights = parameters.weights();
        let embed_tokens =
            weights.table("embed_tokens.weight", [config.vocab_size, config.hidden_size])?;
        let last = config.num_hidden_layers - 1;
        let layer = |i| Layer::load(&parameters.at("layers").at(i), config);
        let head = match depth {
            Depth::Full => Some(Head {
                layer: layer(last)?,
                norm: RmsNorm::load(
                    &parameters.at("norm"),
                    config.hidden_size,
                    config.rms_norm_eps,
                )?,
                lm_head: Linear::load_without_bias(
                    &parameters.at("embed_tokens"),
                    config.vocab_size,
                    config.hidden_size,
                )?,
            }),
            Depth::Features => {
                weights.ignore(&format!("layers.{last}."));
                weights.ignore("norm.");
                None
            }
        };
        weights.ignore("lm_head."); // tied to the embedding, or a copy of it
        let layers = (0..last).into_par_iter().map(layer).collect::<Result<_>>()?;
        weights.finish()?;
        let rope_theta = config.rope_theta().ok_or_else(|| Error::Config {
            file: "text_encoder/config.json".into(),
            problem: "has no `rope_theta`".into(),
        })?;
        let (head_dim, device) = (config.head_dim(), parameters.device().clone());
        Ok(Self { embed_tokens, device, layers, head, head_dim, rope_theta })
    }

    /// How much of the network is loaded.
    pub fn depth(&self) -> Depth {
        if self.head.is_some() { Depth::Full } else { Depth::Features }
    }

    /// Operations for the features of a prompt of `tokens`: linear layers and attention.
    pub fn operations(&self, tokens: usize) -> f64 {
        let of_layer = |layer: &Layer| {
            let linears = layer.linears().map(Linear::operations_a_token).iter().sum::<f64>();
            // Half of the keys are hidden from the average token.
            tokens as f64 * (linears + 2.0 * (tokens * layer.self_attn.q_proj.shape()[0]) as f64)
        };
        self.layers.iter().map(of_layer).sum()
    }

    /// Operations for a token of an answer, without its attention; 0 where only features were loaded.
    pub fn operations_a_word(&self) -> f64 {
        self.word_linears().map(Linear::operations_a_token).sum()
    }

    /// Bytes of weights that every token of an answer is multiplied with; 0 where only features were loaded.
    pub fn bytes_a_token(&self) -> usize {
        self.word_linears().map(Linear::memory_bytes).sum()
    }

    /// The layers that a token of an answer passes.
    fn word_linears(&self) -> impl Iterator<Item = &Linear> {
        self.head.iter().flat_map(|head| {
            let layers = self.layers.iter().chain([&head.layer]);
            layers.flat_map(Layer::linears).chain([&head.lm_head])
        })
    }

    /// Caption features of a prompt's tokens, `[tokens, hidden]`: the hidden states that enter the last layer.
    ///
    /// Only real tokens are run. The reference pads to 512, which a causal network does not see.
    pub fn forward(&self, ids: &[u32], watch: &dyn Watch) -> Result<Tensor> {
        Ok(self.run(ids, &mut Past::none(), watch)?.0.squeeze(0)?)
    }

    /// Logits of the token that follows `ids`, which follow those that `past` has seen: `[vocabulary]`. Only with
    /// [`Depth::Full`].
    pub fn next(&self, ids: &[u32], past: &mut Past, watch: &dyn Watch) -> Result<Tensor> {
        let (x, rope) = self.run(ids, past, watch)?; // [1, tokens, hidden]
        let Some(Head { layer, norm, lm_head }) = &self.head else {
            let problem = "a text encoder that was loaded for features has no words";
            return Err(candle_core::Error::msg(problem).into());
        };
        let last = self.layers.len();
        let x = norm.forward(&layer.forward(&x, &rope, past.of(last))?)?;
        watch.stage(&format_args!("hidden.{}", last + 1), &x)?;
        past.tokens += ids.len();
        Ok(lm_head.forward(&x.narrow(1, ids.len() - 1, 1)?)?.flatten_all()?)
    }

    /// A past that holds up to `tokens` tokens of one text.
    pub fn past(&self, tokens: usize) -> Past {
        let layers = self.layers.len() + 1;
        Past { layers: (0..layers).map(|_| None).collect(), tokens: 0, tokens_max: tokens }
    }

    /// The hidden states that enter the last layer, `[1, tokens, hidden]`, and the tokens' angles.
    fn run(&self, ids: &[u32], past: &mut Past, watch: &dyn Watch) -> Result<(Tensor, Angles)> {
        let x = self.embed_tokens.rows(ids)?.to_device(&self.device)?;
        let positions = past.tokens..past.tokens + ids.len();
        let rope = half_angles(self.rope_theta, self.head_dim, positions, &self.device)?;
        let mut x = x.unsqueeze(0)?; // [1, tokens, hidden]
        watch.stage(&"hidden.0", &x)?;
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, &rope, past.of(i))?;
            watch.stage(&format_args!("hidden.{}", i + 1), &x)?;
        }
        Ok((x, rope))
    }
}

/// The keys and values of the tokens that a language model has seen, so that each is computed once.
pub struct Past {
    layers: Vec<Option<Seen>>,
    tokens: usize,
    tokens_max: usize,
}

/// Of one layer: both `[1, kv heads, tokens_max, d]`, of which the first `tokens` are filled.
struct Seen {
    k: Tensor,
    v: Tensor,
    tokens: usize,
}

impl Past {
    /// For a text that is seen all at once.
    fn none() -> Self {
        Self { layers: Vec::new(), tokens: 0, tokens_max: 0 }
    }

    /// Tokens seen so far.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// What layer `index` keeps, and for how many tokens.
    fn of(&mut self, index: usize) -> Option<(&mut Option<Seen>, usize)> {
        let most = self.tokens_max;
        self.layers.get_mut(index).map(|seen| (seen, most))
    }
}

/// `k` and `v`, `[1, kv heads, tokens, d]`, behind those that came before them.
fn joined(
    past: Option<(&mut Option<Seen>, usize)>,
    k: Tensor,
    v: Tensor,
) -> Result<(Tensor, Tensor)> {
    let Some((seen, most)) = past else { return Ok((k, v)) };
    let (_, heads, tokens, d) = k.dims4()?;
    if seen.is_none() {
        let room = || Tensor::zeros((1, heads, most, d), k.dtype(), k.device());
        *seen = Some(Seen { k: room()?, v: room()?, tokens: 0 });
    }
    let seen = seen.as_mut().expect("it was made just now");
    if seen.tokens + tokens > most {
        let problem = format!("a past for {most} tokens cannot hold {}", seen.tokens + tokens);
        return Err(candle_core::Error::msg(problem).into());
    }
    seen.k.slice_set(&k.contiguous()?, 2, seen.tokens)?;
    seen.v.slice_set(&v.contiguous()?, 2, seen.tokens)?;
    seen.tokens += tokens;
    Ok((seen.k.narrow(2, 0, seen.tokens)?, seen.v.narrow(2, 0, seen.tokens)?))
}

struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

impl Layer {
    fn load(p: &Parameters, config: &TextEncoderConfig) -> Result<Self> {
        let norm = |name: &str| RmsNorm::load(&p.at(name), config.hidden_size, config.rms_norm_eps);
        Ok(Self {
            input_layernorm: norm("input_layernorm")?,
            self_attn: Attention::load(&p.at("self_attn"), config)?,
            post_attention_layernorm: norm("post_attention_layernorm")?,
            mlp: Mlp::load(&p.at("mlp"), config)?,
        })
    }

    /// `x`: `[1, tokens, hidden]`, which see what the layer keeps in `past`.
    fn forward(
        &self,
        x: &Tensor,
        rope: &Angles,
        past: Option<(&mut Option<Seen>, usize)>,
    ) -> Result<Tensor> {
        let x = (x + self.self_attn.forward(self.input_layernorm.input(x, None), rope, past)?)?;
        Ok((&x + self.mlp.forward(self.post_attention_layernorm.input(&x, None))?)?)
    }

    fn linears(&self) -> [&Linear; 7] {
        let Attention { q_proj, k_proj, v_proj, o_proj, .. } = &self.self_attn;
        let Mlp { gate_proj, up_proj, down_proj } = &self.mlp;
        [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]
    }
}

struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: RmsNorm,
    k_norm: RmsNorm,
    head_dim: usize,
}

impl Attention {
    fn load(p: &Parameters, config: &TextEncoderConfig) -> Result<Self> {
        let (hidden, head_dim) = (config.hidden_size, config.head_dim());
        let (all, shared) =
            (config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim);
        Ok(Self {
            q_proj: Linear::load_without_bias(&p.at("q_proj"), all, hidden)?,
            k_proj: Linear::load_without_bias(&p.at("k_proj"), shared, hidden)?,
            v_proj: Linear::load_without_bias(&p.at("v_proj"), shared, hidden)?,
            o_proj: Linear::load_without_bias(&p.at("o_proj"), hidden, all)?,
            q_norm: RmsNorm::load(&p.at("q_norm"), head_dim, config.rms_norm_eps)?,
            k_norm: RmsNorm::load(&p.at("k_norm"), head_dim, config.rms_norm_eps)?,
            head_dim,
        })
    }

    fn forward(
        &self,
        x: Input,
        rope: &Angles,
        past: Option<(&mut Option<Seen>, usize)>,
    ) -> Result<Tensor> {
        let [q, k, v] = Linear::forward_all(x, [&self.q_proj, &self.k_proj, &self.v_proj])?;
        let (batch, tokens, _) = q.dims3()?;
        let heads = |y: Tensor| y.reshape((batch, tokens, (), self.head_dim)); // [batch, tokens, heads, d]
        let (q, k, v) = (heads(q)?, heads(k)?, heads(v)?.transpose(1, 2)?);
        let angles = (&rope.cos, &rope.sin);
        let q = norm_and_rotate(&q, self.q_norm.kernel(), angles, Pairs::Halves)?; // [batch, heads, tokens, d]
        let k = norm_and_rotate(&k, self.k_norm.kernel(), angles, Pairs::Halves)?; // [batch, kv heads, tokens, d]
        let (k, v) = joined(past, k, v)?;
        let precision = self.q_proj.precision(q.device());
        let y = attention(&q, &k, &v, Mask::Causal, precision)?; // [batch, heads, tokens, d]
        self.o_proj.forward(&y.transpose(1, 2)?.flatten_from(2)?)
    }
}

struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Mlp {
    fn load(p: &Parameters, config: &TextEncoderConfig) -> Result<Self> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        Ok(Self {
            gate_proj: Linear::load_without_bias(&p.at("gate_proj"), inner, hidden)?,
            up_proj: Linear::load_without_bias(&p.at("up_proj"), inner, hidden)?,
            down_proj: Linear::load_without_bias(&p.at("down_proj"), hidden, inner)?,
        })
    }

    fn forward(&self, x: Input) -> Result<Tensor> {
        let [gate, up] = Linear::forward_all(x, [&self.gate_proj, &self.up_proj])?;
        self.down_proj.forward_input(Input::Gated { gate: &gate, up: &up })
    }
}
