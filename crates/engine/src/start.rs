//! What a run starts from: noise of the request's seeds, and the latents of an image if there is one.

use candle_core::Tensor;
use zoetrope_api::{Seed, Variation};

use crate::networks::vae::{Passage, Posterior};
use crate::noise::{Generator, between};
use crate::parts::Parts;
use crate::pipeline::{Listener, Request, Source};
use crate::pixels::{self, Rgb};
use crate::sampler::Start;
use crate::{Interrupt, Result};

/// The noise of all pictures and where their runs start, drawn in the reference's order: the posterior, then the noise.
pub(crate) fn draw(
    parts: &mut Parts,
    request: &Request,
    interrupt: &Interrupt,
    on: &Listener,
) -> Result<(Tensor, Start)> {
    let device = parts.device().clone();
    let channels = parts.widths.in_channels;
    let (height, width) = request.size.latent();
    let posterior = match &request.source {
        Source::Text => None,
        Source::Image { image, .. } | Source::Inpaint { image, .. } => {
            Some(posterior(parts, request, image, interrupt, on)?)
        }
    };
    let (mut latents, mut noise) = (Vec::new(), Vec::new());
    for Draw { seed, variation, pictures } in draws(request) {
        let mut generator = Generator::new(seed);
        if let Some(posterior) = &posterior {
            let drawn = generator.normal(&[1, channels, height, width], &device)?;
            latents.push(parts.vae(on)?.scale(&posterior.sample(&drawn)?)?);
        }
        let shape = [pictures, channels, height, width];
        let drawn = generator.normal(&shape, &device)?;
        noise.push(match variation {
            None => drawn,
            Some(Variation { seed, strength }) => {
                let other = Generator::new(Seed(seed)).normal(&shape, &device)?;
                between(&drawn, &other, strength)?
            }
        });
    }
    let noise = Tensor::cat(&noise, 0)?;
    let start = match &request.source {
        Source::Text => Start::Noise,
        Source::Image { strength, .. } => {
            Start::Image { latents: Tensor::cat(&latents, 0)?, strength: *strength }
        }
        Source::Inpaint { mask, strength, .. } => Start::Inpaint {
            latents: Tensor::cat(&latents, 0)?,
            mask: pixels::mask_to_latent(mask, request.size, &device)?,
            strength: *strength,
        },
    };
    Ok((noise, start))
}

/// Pictures of one draw of random numbers.
struct Draw {
    seed: Seed,
    variation: Option<Variation>,
    pictures: usize,
}

/// All pictures from one seed, as the reference draws them; or each from its own, which counts on. Variations count on in place of
/// the seed that they vary.
fn draws(request: &Request) -> Vec<Draw> {
    let (seed, variation) = (request.seed, request.controls.variation);
    let count = request.count.get();
    if !request.controls.seed_per_image {
        return vec![Draw { seed, variation, pictures: count }];
    }
    let draw = |i: usize| {
        let i = i as u64;
        match variation {
            None => Draw { seed: Seed(seed.0.wrapping_add(i)), variation, pictures: 1 },
            Some(Variation { seed: other, strength }) => {
                let variation = Variation { seed: other.wrapping_add(i), strength };
                Draw { seed, variation: Some(variation), pictures: 1 }
            }
        }
    };
    (0..count).map(draw).collect()
}

fn posterior(
    parts: &mut Parts,
    request: &Request,
    image: &Rgb,
    interrupt: &Interrupt,
    on: &Listener,
) -> Result<Posterior> {
    let device = parts.device().clone();
    let passage = passage(request, &device);
    let image = pixels::to_tensor(image, &device)?;
    parts.vae(on)?.encode_by(&image, passage, interrupt)
}

/// How the pictures of `request` go through the autoencoder: in strips where memory is short.
pub(crate) fn passage(request: &Request, device: &candle_core::Device) -> Passage {
    let pixels = request.size.width() as usize * request.size.height() as usize;
    let whole = crate::memory::decodes_whole(pixels, device);
    Passage { wrap: request.wrap(), values_max: (!whole).then_some(crate::memory::STRIPPED_VALUES) }
}
