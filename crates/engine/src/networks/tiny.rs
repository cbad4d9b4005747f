//! A decoder of Flux's latents that is small enough for every step: diffusers' AutoencoderTiny, as TAEF1 is published.

use candle_core::Tensor;
use zoetrope_kernels::Wrap;

use crate::config::TinyConfig;
use crate::layers::{Conv2d, Parameters};
use crate::{Result, Watch};

/// The decoder; previews need no encoder.
pub struct TinyDecoder {
    layers: Vec<Layer>,
    scaling_factor: f64,
    shift_factor: f64,
}

/// The published network is one list; what has no weights in it counts too.
enum Layer {
    Conv(Conv2d),
    Relu,
    Block(Box<Block>),
    /// Twice the size, through the convolution that follows in the list.
    Double(Conv2d),
}

impl TinyDecoder {
    /// The network in `parameters`.
    pub fn load(parameters: &Parameters, config: &TinyConfig) -> Result<Self> {
        let p = parameters.at("decoder").at("layers");
        let channels = &config.decoder_block_out_channels;
        let mut layers =
            vec![Layer::Conv(Conv2d::load(&p.at(0), channels[0], config.latent_channels, 3)?)];
        layers.push(Layer::Relu);
        let mut number = layers.len();
        for (i, (count, width)) in config.num_decoder_blocks.iter().zip(channels).enumerate() {
            for _ in 0..*count {
                layers.push(Layer::Block(Box::new(Block::load(&p.at(number), *width)?)));
                number += 1;
            }
            layers.push(if i + 1 == channels.len() {
                Layer::Conv(Conv2d::load(&p.at(number), config.out_channels, *width, 3)?)
            } else {
                number += 1; // the doubling
                Layer::Double(Conv2d::load_without_bias(&p.at(number), *width, *width)?)
            });
            number += 1;
        }
        // Previews have no use for the encoder.
        parameters.weights().ignore("encoder.");
        parameters.weights().finish()?;
        Ok(Self {
            layers,
            scaling_factor: config.scaling_factor,
            shift_factor: config.shift_factor,
        })
    }

    /// `latents`: `[batch, channels, h, w]` in the transformer's scale; the result is `[batch, 3, 8 h, 8 w]` in about −1..1.
    pub fn decode(&self, latents: &Tensor, watch: &dyn Watch) -> Result<Tensor> {
        let z = ((latents / self.scaling_factor)? + self.shift_factor)?;
        let mut x = ((z / 3.0)?.tanh()? * 3.0)?;
        let edges = Wrap::default();
        for (i, layer) in self.layers.iter().enumerate() {
            x = match layer {
                Layer::Conv(conv) => conv.forward(&x, edges)?,
                Layer::Relu => x.relu()?,
                Layer::Block(block) => block.forward(&x)?,
                Layer::Double(conv) => conv.forward_doubled(&x, edges)?,
            };
            watch.stage(&format_args!("tiny.{i}"), &x)?;
        }
        Ok(((x * 2.0)? - 1.0)?)
    }
}

/// Three convolutions, added to what enters them.
struct Block {
    convs: [Conv2d; 3],
}

impl Block {
    fn load(p: &Parameters, width: usize) -> Result<Self> {
        // Between two convolutions stands what has no weights.
        let conv = |i: usize| Conv2d::load(&p.at("conv").at(2 * i), width, width, 3);
        Ok(Self { convs: [conv(0)?, conv(1)?, conv(2)?] })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let edges = Wrap::default();
        let [first, second, third] = &self.convs;
        let h = first.forward(x, edges)?.relu()?;
        let h = second.forward(&h, edges)?.relu()?;
        Ok((third.forward(&h, edges)? + x)?.relu()?)
    }
}
