//! The text encoder: Qwen3, of which only the input of the last layer is used.

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use zoetrope_checkpoint::Table;
use zoetrope_kernels::{Input, Mask, Pairs, attention, norm_and_rotate};

use crate::config::TextEncoderConfig;
use crate::layers::{Angles, Linear, Parameters, RmsNorm, half_angles};
use crate::{Error, Result, Watch};

/// How much of the network to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Up to the input of the last layer: what caption features need.
    Features,
    /// Every layer and the final norm: a language model's body.
    Full,
}

/// Qwen3 without its language head.
pub struct TextEncoder {
    embed_tokens: Table, // [vocabulary, hidden]
    device: Device,
    layers: Vec<Layer>,
    norm: Option<RmsNorm>,
    head_dim: usize,
    rope_theta: f64,
}

impl TextEncoder {
    /// The network in `parameters`; what `depth` leaves out is not read.
    pub fn load(parameters: &Parameters, config: &TextEncoderConfig, depth: Depth) -> Result<Self> {
        let weights = parameters.weights();
        let embed_tokens =
            weights.table("embed_tokens.weight", [config.vocab_size, config.hidden_size])?;
        let last = config.num_hidden_layers - 1;
        let (run, norm) = match depth {
            Depth::Full => (
                config.num_hidden_layers,
                Some(RmsNorm::load(
                    &parameters.at("norm"),
                    config.hidden_size,
                    config.rms_norm_eps,
                )?),
            ),
            Depth::Features => {
                weights.ignore(&format!("layers.{last}."));
                weights.ignore("norm.");
                (last, None)
            }
        };
        weights.ignore("lm_head."); // tied to the embedding, or a copy of it
        let layers =
            (0..run).into_par_iter().map(|i| Layer::load(&parameters.at("layers").at(i), config));
        let layers = layers.collect::<Result<_>>()?;
        weights.finish()?;
        let rope_theta = config.rope_theta().ok_or_else(|| Error::Config {
            file: "text_encoder/config.json".into(),
            problem: "has no `rope_theta`".into(),
        })?;
        let (head_dim, device) = (config.head_dim(), parameters.device().clone());
        Ok(Self { embed_tokens, device, layers, norm, head_dim, rope_theta })
    }

    /// Operations for a prompt of `tokens`: linear layers and attention.
    pub fn operations(&self, tokens: usize) -> f64 {
        let of_layer = |layer: &Layer| {
            let Attention { q_proj, k_proj, v_proj, o_proj, .. } = &layer.self_attn;
            let Mlp { gate_proj, up_proj, down_proj } = &layer.mlp;
            let linears = [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj];
            let linears = linears.map(Linear::operations_a_token).iter().sum::<f64>();
            // Half of the keys are hidden from the average token.
            tokens as f64 * (linears + 2.0 * (tokens * q_proj.shape()[0]) as f64)
        };
        self.layers.iter().map(of_layer).sum()
    }

    /// Caption features of a prompt's tokens, `[tokens, hidden]`: the hidden states that enter the last layer.
    ///
    /// Only real tokens are run. The reference pads to 512, which a causal network does not see.
    pub fn forward(&self, ids: &[u32], watch: &dyn Watch) -> Result<Tensor> {
        let x = self.embed_tokens.rows(ids)?.to_device(&self.device)?;
        let rope = half_angles(self.rope_theta, self.head_dim, ids.len(), &self.device)?;
        let mut x = x.unsqueeze(0)?; // [1, tokens, hidden]
        watch.stage(&"hidden.0", &x)?;
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x, &rope)?;
            if let (Some(norm), true) = (&self.norm, i + 1 == self.layers.len()) {
                x = norm.forward(&x)?;
            }
            watch.stage(&format_args!("hidden.{}", i + 1), &x)?;
        }
        Ok(x.squeeze(0)?)
    }
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

    /// `x`: `[1, tokens, hidden]`.
    fn forward(&self, x: &Tensor, rope: &Angles) -> Result<Tensor> {
        let x = (x + self.self_attn.forward(self.input_layernorm.input(x, None), rope)?)?;
        Ok((&x + self.mlp.forward(self.post_attention_layernorm.input(&x, None))?)?)
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

    fn forward(&self, x: Input, rope: &Angles) -> Result<Tensor> {
        let [q, k, v] = Linear::forward_all(x, [&self.q_proj, &self.k_proj, &self.v_proj])?;
        let (batch, tokens, _) = q.dims3()?;
        let heads = |y: Tensor| y.reshape((batch, tokens, (), self.head_dim)); // [batch, tokens, heads, d]
        let (q, k, v) = (heads(q)?, heads(k)?, heads(v)?.transpose(1, 2)?);
        let angles = (&rope.cos, &rope.sin);
        let q = norm_and_rotate(&q, self.q_norm.kernel(), angles, Pairs::Halves)?; // [batch, heads, tokens, d]
        let k = norm_and_rotate(&k, self.k_norm.kernel(), angles, Pairs::Halves)?; // [batch, kv heads, tokens, d]
        let y = attention(&q, &k, &v, Mask::Causal, self.q_proj.precision())?; // [batch, heads, tokens, d]
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
