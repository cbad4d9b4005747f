//! The autoencoder between pixels and latents: diffusers' AutoencoderKL as Flux published it.

mod strips;

use candle_core::Tensor;
use zoetrope_kernels::{Input, Mask, Precision, Wrap, attention};

use crate::config::VaeConfig;
use crate::layers::{Conv2d, GroupNorm, Linear, Parameters};
use crate::{Result, Watch};

/// Encoder and decoder.
pub struct Vae {
    encoder: Encoder,
    decoder: Decoder,
    scaling_factor: f64,
    shift_factor: f64,
}

/// How a picture goes through the autoencoder; in one piece with zeros around it unless told otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passage {
    /// Which of its edges meet.
    pub wrap: Wrap,
    /// Values of a level's tensors together above which it is computed in strips: the same numbers in less memory, and up to
    /// half as long again.
    pub values_max: Option<usize>,
}

/// The encoder's distribution over latents, before scaling.
pub struct Posterior {
    /// `[batch, channels, height / 8, width / 8]`
    pub mean: Tensor,
    /// Logarithm of the variance, as `mean`.
    pub logvar: Tensor,
}

impl Posterior {
    /// `mean + exp(logvar / 2) · noise`.
    pub fn sample(&self, noise: &Tensor) -> Result<Tensor> {
        let deviation = (self.logvar.clamp(-30f32, 20f32)? * 0.5)?.exp()?;
        Ok((&self.mean + deviation.broadcast_mul(noise)?)?)
    }
}

impl Vae {
    /// The network in `parameters`.
    pub fn load(parameters: &Parameters, config: &VaeConfig) -> Result<Self> {
        let network = Self {
            encoder: Encoder::load(&parameters.at("encoder"), config)?,
            decoder: Decoder::load(&parameters.at("decoder"), config)?,
            scaling_factor: config.scaling_factor,
            shift_factor: config.shift_factor.unwrap_or(0.0),
        };
        parameters.weights().finish()?;
        Ok(network)
    }

    /// `image`: `[batch, 3, height, width]` in −1..1, both multiples of 8.
    pub fn encode(&self, image: &Tensor, watch: &dyn Watch) -> Result<Posterior> {
        self.encode_by(image, Passage::default(), watch)
    }

    /// The same by another passage.
    pub fn encode_by(
        &self,
        image: &Tensor,
        Passage { wrap, values_max }: Passage,
        watch: &dyn Watch,
    ) -> Result<Posterior> {
        let moments = match values_max {
            None => self.encoder.forward(image, wrap, watch)?,
            Some(most) => each(image, |one| self.encoder.in_strips(one, (most, wrap), watch))?,
        };
        let moments = moments.chunk(2, 1)?;
        Ok(Posterior { mean: moments[0].contiguous()?, logvar: moments[1].contiguous()? })
    }

    /// The scale that the transformer works in: `(z − shift) · scaling`.
    pub fn scale(&self, z: &Tensor) -> Result<Tensor> {
        Ok(((z - self.shift_factor)? * self.scaling_factor)?)
    }

    /// `latents`: `[batch, channels, h, w]` in the transformer's scale; the result is `[batch, 3, 8 h, 8 w]`.
    pub fn decode(&self, latents: &Tensor, watch: &dyn Watch) -> Result<Tensor> {
        self.decode_by(latents, Passage::default(), watch)
    }

    /// The same by another passage.
    pub fn decode_by(
        &self,
        latents: &Tensor,
        Passage { wrap, values_max }: Passage,
        watch: &dyn Watch,
    ) -> Result<Tensor> {
        let z = ((latents / self.scaling_factor)? + self.shift_factor)?;
        match values_max {
            None => self.decoder.forward(&z, wrap, watch),
            Some(most) => each(&z, |one| self.decoder.in_strips(one, (most, wrap), watch)),
        }
    }
}

/// What `f` makes of each picture of a batch, together.
fn each(batch: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let done = (0..batch.dim(0)?).map(|i| f(&batch.narrow(0, i, 1)?));
    Ok(Tensor::cat(&done.collect::<Result<Vec<_>>>()?, 0)?)
}

impl Vae {
    /// Operations of decoding latents of this size: convolutions, and the middle's attention.
    pub fn decode_operations(&self, height: usize, width: usize) -> f64 {
        let Decoder { conv_in, mid_block, up_blocks, conv_out, .. } = &self.decoder;
        let mut pixels = (height * width) as f64;
        let mut work = pixels * conv_in.operations_a_pixel() + mid_block.operations(pixels);
        for block in up_blocks {
            let resnets = block.resnets.iter().map(Resnet::operations_a_pixel).sum::<f64>();
            work += pixels * resnets;
            if let Some(upsampler) = &block.upsampler {
                pixels *= 4.0;
                work += pixels * upsampler.operations_a_pixel();
            }
        }
        work + pixels * conv_out.operations_a_pixel()
    }
}

struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<DownBlock>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    fn load(p: &Parameters, config: &VaeConfig) -> Result<Self> {
        let channels = &config.block_out_channels;
        let last = channels[channels.len() - 1];
        let down = (0..channels.len()).map(|i| {
            let from = channels[i.saturating_sub(1)];
            DownBlock::load(
                &p.at("down_blocks").at(i),
                from,
                channels[i],
                i + 1 < channels.len(),
                config,
            )
        });
        Ok(Self {
            conv_in: Conv2d::load(&p.at("conv_in"), channels[0], config.in_channels, 3)?,
            down_blocks: down.collect::<Result<_>>()?,
            mid_block: MidBlock::load(&p.at("mid_block"), last, config)?,
            conv_norm_out: GroupNorm::load(&p.at("conv_norm_out"), last, config.norm_num_groups)?,
            conv_out: Conv2d::load(&p.at("conv_out"), 2 * config.latent_channels, last, 3)?,
        })
    }

    fn forward(&self, image: &Tensor, wrap: Wrap, watch: &dyn Watch) -> Result<Tensor> {
        let mut x = self.conv_in.forward(image, wrap)?; // [batch, channels[0], height, width]
        watch.stage(&"conv_in", &x)?;
        for (i, block) in self.down_blocks.iter().enumerate() {
            x = block.forward(&x, wrap)?;
            watch.stage(&format_args!("down.{i}"), &x)?;
        }
        let x = self.mid_block.forward(&x, wrap, watch)?;
        self.conv_out.forward_normed(&self.conv_norm_out, &x, None, wrap)
    }
}

struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    fn load(p: &Parameters, config: &VaeConfig) -> Result<Self> {
        let channels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let last = channels[channels.len() - 1];
        let up = (0..channels.len()).map(|i| {
            let from = channels[i.saturating_sub(1)];
            UpBlock::load(
                &p.at("up_blocks").at(i),
                from,
                channels[i],
                i + 1 < channels.len(),
                config,
            )
        });
        Ok(Self {
            conv_in: Conv2d::load(&p.at("conv_in"), channels[0], config.latent_channels, 3)?,
            mid_block: MidBlock::load(&p.at("mid_block"), channels[0], config)?,
            up_blocks: up.collect::<Result<_>>()?,
            conv_norm_out: GroupNorm::load(&p.at("conv_norm_out"), last, config.norm_num_groups)?,
            conv_out: Conv2d::load(&p.at("conv_out"), config.out_channels, last, 3)?,
        })
    }

    fn forward(&self, z: &Tensor, wrap: Wrap, watch: &dyn Watch) -> Result<Tensor> {
        let x = self.conv_in.forward(z, wrap)?; // [batch, channels, h, w]
        watch.stage(&"conv_in", &x)?;
        let mut x = self.mid_block.forward(&x, wrap, watch)?;
        for (i, block) in self.up_blocks.iter().enumerate() {
            x = block.forward(&x, wrap, watch)?;
            watch.stage(&format_args!("up.{i}"), &x)?;
        }
        self.conv_out.forward_normed(&self.conv_norm_out, &x, None, wrap)
    }
}

struct DownBlock {
    resnets: Vec<Resnet>,
    downsampler: Option<Conv2d>,
}

impl DownBlock {
    fn load(
        p: &Parameters,
        from: usize,
        to: usize,
        halve: bool,
        config: &VaeConfig,
    ) -> Result<Self> {
        let resnets = load_resnets(p, from, to, config.layers_per_block, config)?;
        let downsampler = match halve {
            true => Some(Conv2d::load_halving(&p.at("downsamplers.0.conv"), to, to)?),
            false => None,
        };
        Ok(Self { resnets, downsampler })
    }

    fn forward(&self, x: &Tensor, wrap: Wrap) -> Result<Tensor> {
        let mut x = x.clone();
        for resnet in &self.resnets {
            x = resnet.forward(&x, wrap)?;
        }
        match &self.downsampler {
            Some(conv) => conv.forward(&x, wrap),
            None => Ok(x),
        }
    }
}

struct UpBlock {
    resnets: Vec<Resnet>,
    upsampler: Option<Conv2d>,
}

impl UpBlock {
    fn load(
        p: &Parameters,
        from: usize,
        to: usize,
        double: bool,
        config: &VaeConfig,
    ) -> Result<Self> {
        let resnets = load_resnets(p, from, to, config.layers_per_block + 1, config)?;
        let upsampler = match double {
            true => Some(Conv2d::load(&p.at("upsamplers.0.conv"), to, to, 3)?),
            false => None,
        };
        Ok(Self { resnets, upsampler })
    }

    fn forward(&self, x: &Tensor, wrap: Wrap, watch: &dyn Watch) -> Result<Tensor> {
        let mut x = x.clone();
        for (i, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(&x, wrap)?;
            watch.stage(&format_args!("resnet.{i}"), &x)?;
        }
        match &self.upsampler {
            Some(conv) => conv.forward_doubled(&x, wrap),
            None => Ok(x),
        }
    }
}

fn load_resnets(
    p: &Parameters,
    from: usize,
    to: usize,
    count: usize,
    config: &VaeConfig,
) -> Result<Vec<Resnet>> {
    let from = |i: usize| if i == 0 { from } else { to };
    (0..count).map(|i| Resnet::load(&p.at("resnets").at(i), from(i), to, config)).collect()
}

struct MidBlock {
    resnets: [Resnet; 2],
    attention: Option<Attention>,
}

impl MidBlock {
    fn load(p: &Parameters, channels: usize, config: &VaeConfig) -> Result<Self> {
        let resnet = |i: usize| Resnet::load(&p.at("resnets").at(i), channels, channels, config);
        let attention = match config.mid_block_add_attention {
            true => Some(Attention::load(&p.at("attentions.0"), channels, config)?),
            false => None,
        };
        Ok(Self { resnets: [resnet(0)?, resnet(1)?], attention })
    }

    fn forward(&self, x: &Tensor, wrap: Wrap, watch: &dyn Watch) -> Result<Tensor> {
        let mut x = self.resnets[0].forward(x, wrap)?;
        watch.stage(&"mid.resnet.0", &x)?;
        if let Some(attention) = &self.attention {
            x = attention.forward(&x)?;
            watch.stage(&"mid.attention", &x)?;
        }
        let x = self.resnets[1].forward(&x, wrap)?;
        watch.stage(&"mid", &x)?;
        Ok(x)
    }
}

impl MidBlock {
    fn operations(&self, pixels: f64) -> f64 {
        let resnets = self.resnets.iter().map(Resnet::operations_a_pixel).sum::<f64>();
        let attention = self.attention.as_ref().map_or(0.0, |a| {
            let linears = [&a.to_q, &a.to_k, &a.to_v, &a.to_out].map(Linear::operations_a_token);
            linears.iter().sum::<f64>() + 4.0 * pixels * a.to_q.shape()[0] as f64
        });
        pixels * (resnets + attention)
    }
}

struct Resnet {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
}

impl Resnet {
    fn load(p: &Parameters, from: usize, to: usize, config: &VaeConfig) -> Result<Self> {
        let groups = config.norm_num_groups;
        let conv_shortcut = match from == to {
            true => None,
            false => Some(Conv2d::load(&p.at("conv_shortcut"), to, from, 1)?),
        };
        Ok(Self {
            norm1: GroupNorm::load(&p.at("norm1"), from, groups)?,
            conv1: Conv2d::load(&p.at("conv1"), to, from, 3)?,
            norm2: GroupNorm::load(&p.at("norm2"), to, groups)?,
            conv2: Conv2d::load(&p.at("conv2"), to, to, 3)?,
            conv_shortcut,
        })
    }

    fn operations_a_pixel(&self) -> f64 {
        let shortcut = self.conv_shortcut.as_ref().map_or(0.0, Conv2d::operations_a_pixel);
        self.conv1.operations_a_pixel() + self.conv2.operations_a_pixel() + shortcut
    }

    /// `x`: `[batch, from, height, width]`.
    fn forward(&self, x: &Tensor, wrap: Wrap) -> Result<Tensor> {
        let h = self.conv1.forward_normed(&self.norm1, x, None, wrap)?;
        let shortcut = match &self.conv_shortcut {
            Some(shortcut) => &shortcut.forward(x, wrap)?,
            None => x,
        };
        self.conv2.forward_normed(&self.norm2, &h, Some(shortcut), wrap)
    }
}

/// One head over all pixels of the smallest level.
struct Attention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    precision: Precision,
}

impl Attention {
    fn load(p: &Parameters, channels: usize, config: &VaeConfig) -> Result<Self> {
        let square = |name: &str| Linear::load_precise(&p.at(name), channels, channels);
        Ok(Self {
            group_norm: GroupNorm::load(&p.at("group_norm"), channels, config.norm_num_groups)?,
            to_q: square("to_q")?,
            to_k: square("to_k")?,
            to_v: square("to_v")?,
            to_out: square("to_out.0")?,
            precision: p.precision(),
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, channels, height, width) = x.dims4()?;
        let pixels_first = |x: &Tensor| x.permute((0, 2, 3, 1)); // [batch, height, width, channels]
        let tokens = pixels_first(&self.group_norm.forward(x)?)?;
        let tokens = tokens.reshape((batch, height * width, channels))?;
        let projections = [&self.to_q, &self.to_k, &self.to_v];
        let [q, k, v] = Linear::forward_all(Input::Plain(&tokens), projections)?;
        let y = attention(
            &q.unsqueeze(1)?,
            &k.unsqueeze(1)?,
            &v.unsqueeze(1)?,
            Mask::None,
            self.precision,
        )?;
        let y = self.to_out.forward(&y.squeeze(1)?)?; // [batch, pixels, channels]
        let y = (pixels_first(x)? + y.reshape((batch, height, width, channels))?)?;
        Ok(y.permute((0, 3, 1, 2))?)
    }
}
