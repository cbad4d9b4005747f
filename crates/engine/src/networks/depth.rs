//! How near things are: Depth Anything (Yang et al., 2024; transformers' `DepthAnythingForDepthEstimation`), DINOv2's features through
//! the neck and head of a DPT (Ranftl et al., 2021).

use candle_core::Tensor;
use zoetrope_kernels::Wrap;

use super::Dino;
use super::vision::Sizes;
use crate::layers::{Conv2d, Linear, Parameters, bilinear};
use crate::{Result, Watch};

/// What the network's configuration says.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Of the features.
    pub backbone: Sizes,
    /// Layers whose features are looked at, counted from 1, and so many channels and which size they are brought to.
    pub taken: Vec<(usize, usize, Resized)>,
    /// Channels between these.
    pub fusion: usize,
    /// Which of the fused features, counted from the deepest, the head looks at.
    pub head_in: usize,
    /// Channels before the last layer.
    pub head: usize,
}

/// The size that a layer's features are brought to, beside one pixel for a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resized {
    /// So many times larger.
    Larger(usize),
    /// As they are.
    Same,
    /// Half as large.
    Half,
}

/// The network.
pub struct DepthNetwork {
    backbone: Dino,
    taken: Vec<usize>,
    reassemble: Vec<Reassemble>,
    convs: Vec<Conv2d>,
    fusion: Vec<Fusion>,
    head: Head,
    head_in: usize,
    patch: usize,
}

impl DepthNetwork {
    /// The network in `parameters`.
    pub fn load(parameters: &Parameters, shape: &Shape) -> Result<Self> {
        let (neck, hidden) = (parameters.at("neck"), shape.backbone.hidden);
        let stage = neck.at("reassemble_stage.layers");
        let layers = || shape.taken.iter().enumerate();
        let fused = neck.at("fusion_stage.layers");
        // Published, but nothing comes before the first fusion that could be added there.
        fused.at(0).weights().ignore("residual_layer1.");
        let network = Self {
            backbone: Dino::load(&parameters.at("backbone"), &shape.backbone)?,
            taken: shape.taken.iter().map(|(layer, ..)| *layer).collect(),
            reassemble: layers()
                .map(|(i, (_, channels, resized))| {
                    Reassemble::load(&stage.at(i), hidden, *channels, *resized)
                })
                .collect::<Result<_>>()?,
            convs: layers()
                .map(|(i, (_, channels, _))| {
                    Conv2d::load_without_bias(&neck.at("convs").at(i), shape.fusion, *channels)
                })
                .collect::<Result<_>>()?,
            fusion: layers()
                .map(|(i, _)| Fusion::load(&fused.at(i), shape.fusion, i > 0))
                .collect::<Result<_>>()?,
            head: Head::load(&parameters.at("head"), shape.fusion, shape.head)?,
            head_in: shape.head_in,
            patch: shape.backbone.patch,
        };
        parameters.weights().finish()?;
        Ok(network)
    }

    /// How near everything in `pixels` is, `[batch, 3, height, width]` as the processor makes them: `[batch, height, width]`, larger is
    /// nearer, from 0 on, in no unit.
    pub fn forward(&self, pixels: &Tensor, watch: &dyn Watch) -> Result<Tensor> {
        let (_, _, height, width) = pixels.dims4()?;
        let seen = self.backbone.forward(pixels, &self.taken, watch)?;
        let mut features = Vec::with_capacity(seen.len());
        for (i, (x, reassemble)) in seen.iter().zip(&self.reassemble).enumerate() {
            let x = reassemble.forward(x)?;
            watch.stage(&format_args!("reassemble.{i}"), &x)?;
            features.push(self.convs[i].forward(&x, Wrap::default())?);
        }
        let mut fused: Option<Tensor> = None;
        // From the deepest layer on, each to the size of the one before it.
        for (i, fusion) in self.fusion.iter().enumerate().take(self.head_in + 1) {
            let of = features.len() - 1 - i;
            let size = match of.checked_sub(1).map(|next| features[next].dims4()) {
                Some(next) => next.map(|(_, _, height, width)| (height, width))?,
                None => (2 * features[of].dim(2)?, 2 * features[of].dim(3)?),
            };
            let x = fusion.forward(fused.as_ref(), &features[of], size)?;
            watch.stage(&format_args!("fusion.{i}"), &x)?;
            fused = Some(x);
        }
        let fused = fused.expect("a configuration has features");
        let size = (height / self.patch * self.patch, width / self.patch * self.patch);
        let depth = self.head.forward(&fused, size)?;
        watch.stage(&"depth", &depth)?;
        Ok(depth)
    }
}

/// Features of a layer, at a size of their own.
struct Reassemble {
    projection: Conv2d,
    resize: Resize,
}

enum Resize {
    Larger(Linear, usize),
    Same,
    Half(Conv2d),
}

impl Reassemble {
    fn load(p: &Parameters, hidden: usize, channels: usize, resized: Resized) -> Result<Self> {
        let resize = p.at("resize");
        let resize = match resized {
            Resized::Larger(times) => {
                let layer = Linear::load_spreading(&resize, [channels, channels, times])?;
                Resize::Larger(layer, times)
            }
            Resized::Same => Resize::Same,
            Resized::Half => {
                Resize::Half(Conv2d::load_halving_around(&resize, channels, channels)?)
            }
        };
        Ok(Self { projection: Conv2d::load(&p.at("projection"), channels, hidden, 1)?, resize })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.projection.forward(x, Wrap::default())?;
        match &self.resize {
            Resize::Same => Ok(x),
            Resize::Half(conv) => conv.forward(&x, Wrap::default()),
            Resize::Larger(layer, times) => {
                let (batch, channels, height, width) = x.dims4()?;
                let x = layer.forward(&x.permute((0, 2, 3, 1))?.contiguous()?)?;
                let x = x.reshape(&[batch, height, width, *times, *times, channels][..])?;
                let x = x.permute([0, 1, 3, 2, 4, 5])?.contiguous()?; // [batch, height, times, width, times, channels]
                let x = x.reshape((batch, height * times, width * times, channels))?;
                Ok(x.permute((0, 3, 1, 2))?)
            }
        }
    }
}

/// What was fused so far, with the features of the next layer.
struct Fusion {
    residual_layer1: Option<Residual>,
    residual_layer2: Residual,
    projection: Conv2d,
}

impl Fusion {
    fn load(p: &Parameters, channels: usize, adds: bool) -> Result<Self> {
        let residual = |name: &str| Residual::load(&p.at(name), channels);
        Ok(Self {
            residual_layer1: if adds { Some(residual("residual_layer1")?) } else { None },
            residual_layer2: residual("residual_layer2")?,
            projection: Conv2d::load(&p.at("projection"), channels, channels, 1)?,
        })
    }

    fn forward(&self, before: Option<&Tensor>, x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
        let x = match (before, &self.residual_layer1) {
            (Some(before), Some(layer)) => (before + layer.forward(x)?)?,
            _ => x.clone(),
        };
        let x = stretched(&self.residual_layer2.forward(&x)?, size)?;
        self.projection.forward(&x, Wrap::default())
    }
}

/// Two convolutions, each behind a ReLU, added to what enters them.
struct Residual {
    convolution1: Conv2d,
    convolution2: Conv2d,
}

impl Residual {
    fn load(p: &Parameters, channels: usize) -> Result<Self> {
        let conv = |name: &str| Conv2d::load(&p.at(name), channels, channels, 3);
        Ok(Self { convolution1: conv("convolution1")?, convolution2: conv("convolution2")? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let h = self.convolution1.forward(&x.relu()?, Wrap::default())?;
        Ok((self.convolution2.forward(&h.relu()?, Wrap::default())? + x)?)
    }
}

/// From fused features to a value for every pixel.
struct Head {
    conv1: Conv2d,
    conv2: Conv2d,
    conv3: Conv2d,
}

impl Head {
    fn load(p: &Parameters, fusion: usize, head: usize) -> Result<Self> {
        Ok(Self {
            conv1: Conv2d::load(&p.at("conv1"), fusion / 2, fusion, 3)?,
            conv2: Conv2d::load(&p.at("conv2"), head, fusion / 2, 3)?,
            conv3: Conv2d::load(&p.at("conv3"), 1, head, 1)?,
        })
    }

    fn forward(&self, x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
        let x = stretched(&self.conv1.forward(x, Wrap::default())?, size)?;
        let x = self.conv2.forward(&x, Wrap::default())?.relu()?;
        Ok(self.conv3.forward(&x, Wrap::default())?.relu()?.squeeze(1)?)
    }
}

/// `x`, `[batch, channels, …]`, at another `size`.
fn stretched(x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
    Ok(bilinear(&x.permute((0, 2, 3, 1))?, size)?.permute((0, 3, 1, 2))?)
}
