//! Pictures that a result follows: those a control network looks at, and those a caption speaks of.

use candle_core::{DType, Tensor};
use zoetrope_api::{ControlSpan, ImageSize, InvalidField};

use crate::networks::transformer;
use crate::pipeline::{Listener, Pipeline, Request};
use crate::pixels::{self, Rgb};
use crate::{Error, Interrupt, Result, start};

/// What a control network looks at.
#[derive(Clone, Debug)]
pub struct Control {
    /// Edges, depth, a pose and the like, in the request's size; absent the network gets zeros in their place.
    pub image: Option<Rgb>,
    /// A gap to fill, for networks that know of gaps (2.0 and later).
    pub gap: Option<Gap>,
    /// How strongly it works, and when.
    pub span: ControlSpan,
}

/// A picture with a part that is not there yet.
#[derive(Clone, Debug)]
pub struct Gap {
    /// Its pixels, in the request's size.
    pub image: Rgb,
    /// One byte a pixel; from 128 on the pixel is to be filled.
    pub mask: Vec<u8>,
}

/// A picture that the prompt speaks of, as [`Pipeline::fit`] has it.
#[derive(Clone, Debug)]
pub struct Reference {
    /// For the autoencoder, which takes of it what is a multiple of 16.
    pub whole: Rgb,
    /// For the vision tower.
    pub seen: Rgb,
}

/// The sizes, width and height, that a reference picture is brought to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fit {
    /// By the Lanczos filter.
    pub whole: (usize, usize),
    /// From that, by the bilinear one.
    pub seen: (usize, usize),
}

/// References of one request, as OpenAI's edits have it.
pub const REFERENCES_MAX: usize = 16;
/// Pixels above which a reference is made smaller.
const WHOLE_PIXELS_MAX: usize = 1024 * 1024;
/// The reference implementation's limits.
const SIDE_MIN: usize = 64;
const ASPECT_MAX: usize = 8;

impl Pipeline {
    /// Whether a prompt may speak of pictures.
    pub fn takes_references(&self) -> bool {
        self.parts.widths.siglip_feat_dim.is_some()
    }

    /// Whether the model's control network, if it has one, knows of gaps.
    pub fn fills_gaps(&self) -> Result<bool> {
        let config = self.parts.control_config()?;
        Ok(config.is_some_and(|config| config.fill_channels(&self.parts.widths) > 0))
    }

    /// The sizes that a reference of `width` × `height` pixels is brought to, for a result of `size` if one was asked for.
    pub fn fit(&self, width: usize, height: usize, size: Option<ImageSize>) -> Result<Fit> {
        let processor = self.parts.vision_processor()?;
        let wrong = if width.min(height) < SIDE_MIN {
            Some(format!(
                "hold a picture of {width}x{height} pixels; each side must have {SIDE_MIN}"
            ))
        } else if width.max(height) > ASPECT_MAX * width.min(height) {
            Some(format!(
                "hold a picture of {width}x{height} pixels; one side may be {ASPECT_MAX} times the other"
            ))
        } else {
            None
        };
        if let Some(problem) = wrong {
            return Err(InvalidField::new("references", problem).into());
        }
        let whole = match width * height > WHOLE_PIXELS_MAX {
            true => {
                let area = size.map_or(WHOLE_PIXELS_MAX, |s| (s.width() * s.height()) as usize);
                let scale = (area as f64 / (width * height) as f64).sqrt();
                let side = |side: usize| (side as f64 * scale) as usize;
                (side(width), side(height))
            }
            false => (width, height),
        };
        Ok(Fit { whole, seen: processor.size(whole.0, whole.1) })
    }

    /// Refuses references and control that this model cannot take, before anything is loaded.
    pub(crate) fn check_guides(&self, request: &Request) -> Result<()> {
        let references = &request.references;
        if !references.is_empty() {
            self.parts.vision_processor()?;
        }
        if references.len() > REFERENCES_MAX {
            let problem = format!("are {}; the most is {REFERENCES_MAX}", references.len());
            return Err(InvalidField::new("references", problem).into());
        }
        if references
            .iter()
            .any(|r| r.whole.width.min(r.whole.height) < ImageSize::MULTIPLE as usize)
        {
            let problem =
                "hold a picture that is less than 16 pixels wide or high once it was made smaller";
            return Err(InvalidField::new("references", problem).into());
        }
        if !references.is_empty() && request.controls.prompt_weighting {
            let problem =
                "are not combined with prompt weighting: a prompt in parts has no weights";
            return Err(InvalidField::new("references", problem).into());
        }
        let guided = match (&request.control, &references[..]) {
            (Some(_), _) => Some("control"),
            (None, []) => None,
            (None, _) => Some("references"),
        };
        if let Some(field) = guided.filter(|_| request.controls.tiling.is_some()) {
            let problem =
                "cannot be combined with tiles, whose windows see another part at every step";
            return Err(InvalidField::new(field, problem).into());
        }
        let Some(control) = &request.control else { return Ok(()) };
        let Some(config) = self.parts.control_config()? else {
            return Err(Error::nothing_controls());
        };
        let (width, height) = (request.size.width() as usize, request.size.height() as usize);
        let pictures = control.image.iter().chain(control.gap.as_ref().map(|gap| &gap.image));
        for picture in pictures {
            if (picture.width, picture.height) != (width, height) {
                let (own, other) = (picture.width, picture.height);
                let problem =
                    format!("is {own}x{other}, but the request's size is {}", request.size);
                return Err(InvalidField::new("control", problem).into());
            }
        }
        match &control.gap {
            Some(gap) if gap.mask.len() != width * height => {
                Err(InvalidField::new("mask", "has another size than the image").into())
            }
            Some(_) if config.fill_channels(&self.parts.widths) == 0 => {
                let problem = "is of version 1.0, which fills no gaps; use Z-Image-Turbo-Fun-Controlnet-Union 2.0 or later";
                Err(InvalidField::new("control", problem).into())
            }
            _ => Ok(()),
        }
    }

    /// What the transformer takes of the request's references.
    pub(crate) fn see(
        &mut self,
        request: &Request,
        interrupt: &Interrupt,
        on: &Listener,
    ) -> Result<Vec<transformer::Reference>> {
        if request.references.is_empty() {
            return Ok(Vec::new());
        }
        let processor = self.parts.vision_processor()?;
        let mut latents = Vec::with_capacity(request.references.len());
        for reference in &request.references {
            // The reference implementation hands its encoder bfloat16.
            let pixels = pixels::to_tensor(&centre(&reference.whole), self.parts.device())?;
            let pixels = pixels.to_dtype(DType::BF16)?.to_dtype(DType::F32)?;
            let vae = self.parts.vae(on)?;
            latents.push(vae.scale(&vae.encode(&pixels, interrupt)?.mean)?.squeeze(0)?);
        }
        let tower = self.parts.vision(on)?;
        let pairs = request.references.iter().zip(latents);
        let see = |(reference, latents): (&Reference, Tensor)| {
            let vision = tower.forward(&reference.seen, &processor, interrupt)?;
            Ok(transformer::Reference { latents, vision })
        };
        pairs.map(see).collect()
    }

    /// What the control network takes, `[channels, height / 8, width / 8]`: the picture's latents and, for networks that know of gaps, what is kept
    /// and the latents of that.
    pub(crate) fn context(
        &mut self,
        control: &Control,
        request: &Request,
        interrupt: &Interrupt,
        on: &Listener,
    ) -> Result<Tensor> {
        let device = self.parts.device().clone();
        let config = self.parts.control_config()?.ok_or_else(Error::nothing_controls)?;
        let (size, passage) = (request.size, start::passage(request, &device));
        let (channels, (height, width)) = (self.parts.widths.in_channels, size.latent());
        let zeros =
            |channels: usize| Tensor::zeros((1, channels, height, width), DType::F32, &device);
        let fill = config.fill_channels(&self.parts.widths);
        let vae = self.parts.vae(on)?;
        let encode = |pixels: &Tensor| vae.scale(&vae.encode_by(pixels, passage, interrupt)?.mean);
        let mut parts = vec![match &control.image {
            Some(image) => encode(&pixels::to_tensor(image, &device)?)?,
            None => zeros(channels)?,
        }];
        match &control.gap {
            Some(Gap { image, mask }) => {
                parts.push(pixels::kept_latent(mask, size, &device)?);
                parts.push(encode(&pixels::around(image, mask, &device)?)?);
            }
            None if fill > 0 => parts.push(zeros(fill)?),
            None => {}
        }
        Ok(Tensor::cat(&parts, 1)?.squeeze(0)?)
    }
}

/// The middle of `picture`, so much that both sides are multiples of 16.
fn centre(picture: &Rgb) -> Rgb {
    let down = |side: usize| side / 16 * 16;
    let (width, height) = (down(picture.width), down(picture.height));
    let (left, top) = ((picture.width - width) / 2, (picture.height - height) / 2);
    let rows = picture.bytes.chunks_exact(3 * picture.width).skip(top).take(height);
    let bytes = rows.flat_map(|row| &row[3 * left..3 * (left + width)]).copied().collect();
    Rgb { width, height, bytes }
}
