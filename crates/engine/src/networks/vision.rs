//! What vision transformers share (Dosovitskiy et al., 2020): patches to tokens, and layers that norm before they compute.

use candle_core::Tensor;
use zoetrope_kernels::{Gelu, Mask, attention, gelu};

use crate::Result;
use crate::layers::{LayerNorm, Linear, Parameters};

/// The sizes of a vision transformer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizes {
    /// Values of a token.
    pub hidden: usize,
    /// Values between the feed-forward layers.
    pub intermediate: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of its attention.
    pub heads: usize,
    /// Pixels of a side of the pictures that it sees.
    pub image: usize,
    /// Pixels of a side of a patch.
    pub patch: usize,
    /// Added to the variance by norms.
    pub eps: f64,
    /// Between the feed-forward layers.
    pub activation: Gelu,
}

impl Sizes {
    /// Patches of a picture.
    pub fn patches(&self) -> usize {
        (self.image / self.patch).pow(2)
    }

    /// Operations for a picture whose tokens are its patches and one more, a multiply-add being two.
    pub fn operations(&self) -> f64 {
        let (tokens, hidden) = (self.patches() as f64 + 1.0, self.hidden as f64);
        let linears = 4.0 * hidden * hidden + 2.0 * hidden * self.intermediate as f64;
        let embedding = 3.0 * (self.patch * self.patch) as f64 * hidden;
        2.0 * tokens * (self.layers as f64 * (linears + 2.0 * tokens * hidden) + embedding)
    }
}

/// What a layer's parts are called in a checkpoint.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the parts, as the layer has them")]
pub struct Names {
    pub layer_norm1: &'static str,
    pub q_proj: &'static str,
    pub k_proj: &'static str,
    pub v_proj: &'static str,
    pub out_proj: &'static str,
    pub layer_norm2: &'static str,
    pub fc1: &'static str,
    pub fc2: &'static str,
    /// What both halves of a layer are multiplied by before they are added, where it has that.
    pub layer_scales: Option<[&'static str; 2]>,
}

/// CLIP's names, and SigLIP's.
pub const CLIP: Names = Names {
    layer_norm1: "layer_norm1",
    q_proj: "self_attn.q_proj",
    k_proj: "self_attn.k_proj",
    v_proj: "self_attn.v_proj",
    out_proj: "self_attn.out_proj",
    layer_norm2: "layer_norm2",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    layer_scales: None,
};

/// Those of ViT.
pub const VIT: Names = Names {
    layer_norm1: "layernorm_before",
    q_proj: "attention.attention.query",
    k_proj: "attention.attention.key",
    v_proj: "attention.attention.value",
    out_proj: "attention.output.dense",
    layer_norm2: "layernorm_after",
    fc1: "intermediate.dense",
    fc2: "output.dense",
    layer_scales: None,
};

/// Those of DINOv2.
pub const DINO: Names = Names {
    layer_norm1: "norm1",
    layer_norm2: "norm2",
    fc1: "mlp.fc1",
    fc2: "mlp.fc2",
    layer_scales: Some(["layer_scale1.lambda1", "layer_scale2.lambda1"]),
    ..VIT
};

/// `x + attention(norm1(x))`, then `x + mlp(norm2(x))`; with layer scales (Touvron et al., 2021) each times its own.
pub struct Layer {
    layer_norm1: LayerNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    head_dim: usize,
    layer_scales: Option<[Tensor; 2]>, // each [hidden]
    activation: Gelu,
}

impl Layer {
    /// The layer in `p`, whose parts are called as `names` says.
    pub fn load(p: &Parameters, sizes: &Sizes, names: &Names) -> Result<Self> {
        let Sizes { hidden, intermediate, eps, .. } = *sizes;
        let linear = |name: &str, out, width| Linear::load(&p.at(name), out, width);
        let scale = |name: &str| p.tensor(name, &[hidden]);
        let layer_scales = match names.layer_scales {
            Some([first, second]) => Some([scale(first)?, scale(second)?]),
            None => None,
        };
        Ok(Self {
            layer_norm1: LayerNorm::load(&p.at(names.layer_norm1), hidden, eps)?,
            q_proj: linear(names.q_proj, hidden, hidden)?,
            k_proj: linear(names.k_proj, hidden, hidden)?,
            v_proj: linear(names.v_proj, hidden, hidden)?,
            out_proj: linear(names.out_proj, hidden, hidden)?,
            layer_norm2: LayerNorm::load(&p.at(names.layer_norm2), hidden, eps)?,
            fc1: linear(names.fc1, intermediate, hidden)?,
            fc2: linear(names.fc2, hidden, intermediate)?,
            head_dim: hidden / sizes.heads,
            layer_scales,
            activation: sizes.activation,
        })
    }

    /// `x`: `[batch, tokens, hidden]`; every token sees all others.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let h = self.attend(&self.layer_norm1.forward(x)?)?;
        let x = (x + self.scaled(0, h)?)?;
        let h = self.fc1.forward(&self.layer_norm2.forward(&x)?)?; // [batch, tokens, intermediate]
        let h = self.fc2.forward(&gelu(&h, self.activation)?)?;
        Ok((x + self.scaled(1, h)?)?)
    }

    /// What the half numbered `half` adds.
    fn scaled(&self, half: usize, h: Tensor) -> Result<Tensor> {
        match &self.layer_scales {
            Some(scales) => Ok(h.broadcast_mul(&scales[half])?),
            None => Ok(h),
        }
    }

    fn attend(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, tokens, _) = x.dims3()?;
        let heads = |linear: &Linear| {
            let y = linear.forward(x)?.reshape((batch, tokens, (), self.head_dim))?;
            Ok::<_, crate::Error>(y.transpose(1, 2)?) // [batch, heads, tokens, d]
        };
        let (q, k, v) = (heads(&self.q_proj)?, heads(&self.k_proj)?, heads(&self.v_proj)?);
        let y = attention(&q, &k, &v, Mask::None, self.q_proj.precision())?;
        self.out_proj.forward(&y.transpose(1, 2)?.flatten_from(2)?)
    }
}

/// Patches of `pixels`, `[batch, 3, height, width]`: `[batch, rows · columns, 3 · size²]`, channels first as in the weight of a
/// convolution.
pub fn patches(pixels: &Tensor, size: usize) -> Result<Tensor> {
    let (batch, channels, height, width) = pixels.dims4()?;
    let (rows, columns) = (height / size, width / size);
    let x = pixels.reshape(&[batch, channels, rows, size, columns, size][..])?;
    let x = x.permute([0, 2, 4, 1, 3, 5])?.contiguous()?;
    Ok(x.reshape((batch, rows * columns, channels * size * size))?)
}
