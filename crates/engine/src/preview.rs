//! What a picture looks like on its way, told from its latents without the autoencoder: by a linear map, or by a decoder made for it.
//!
//! An autoencoder's latents hold the colour of their 8 × 8 pixels nearly linearly. The map is fitted to the autoencoder that is
//! loaded, whichever it is: a made-up picture of patches is encoded, and the colours of its pixels are told from its latents by
//! least squares.

use candle_core::{Device, Tensor};
use zoetrope_api::Seed;

use crate::networks::{TinyDecoder, Vae};
use crate::noise::Generator;
use crate::pixels::{self, Rgb};
use crate::{Result, Watch};

/// Pixels of a preview's longer side, at most: enough to see.
pub const PREVIEW_SIDE: usize = 256;

/// Tells pictures from latents.
pub(crate) enum Previewer {
    Linear(Projection),
    Tiny(Box<TinyDecoder>),
}

impl Previewer {
    /// `latents`: `[1, channels, height, width]` in the transformer's scale.
    pub(crate) fn picture(&self, latents: &Tensor, watch: &dyn Watch) -> Result<Rgb> {
        match self {
            Self::Linear(projection) => projection.picture(latents),
            Self::Tiny(decoder) => {
                let (_, _, height, width) = latents.dims4()?;
                let shrink = height.max(width).div_ceil(PREVIEW_SIDE / 8);
                let small = latents.avg_pool2d(shrink.min(height).min(width))?;
                let pictures = pixels::to_pictures(&decoder.decode(&small, watch)?)?;
                Ok(pictures.into_iter().next().expect("one picture was decoded"))
            }
        }
    }
}

/// A linear map from latents to colours.
pub struct Projection {
    /// `[3, channels]`
    weights: Tensor,
    /// `[3, 1]`
    offsets: Tensor,
}

/// Sides of the made-up picture and of its patches, in pixels.
const SIDE: usize = 256;
const PATCH: usize = 32;
/// What is added to the diagonal of the equations, relative to the number of samples: it matters only where latents say nothing.
const RIDGE: f64 = 1e-6;

impl Projection {
    /// Fitted to `vae`, at the cost of encoding a picture of 256 × 256 pixels once.
    pub fn fit(vae: &Vae, device: &Device, watch: &dyn Watch) -> Result<Self> {
        let image = patches()?.to_device(device)?;
        let latents = vae.scale(&vae.encode(&image, watch)?.mean)?;
        let colours = rows(&image.avg_pool2d(8)?)?; // [pixels][3]
        let samples = rows(&latents)?; // [pixels][channels]
        let channels = samples[0].len();
        // The last sample is 1: its factor is the offset.
        let with_one =
            |row: &[f32]| row.iter().map(|v| f64::from(*v)).chain([1.0]).collect::<Vec<_>>();
        let samples: Vec<Vec<f64>> = samples.iter().map(|row| with_one(row)).collect();
        let of = |channel: usize| {
            let wanted: Vec<f64> = colours.iter().map(|row| f64::from(row[channel])).collect();
            least_squares(&samples, &wanted)
        };
        let maps = [of(0), of(1), of(2)];
        let weights: Vec<f32> =
            maps.iter().flat_map(|map| map[..channels].iter().map(|v| *v as f32)).collect();
        let offsets: Vec<f32> = maps.iter().map(|map| map[channels] as f32).collect();
        Ok(Self {
            weights: Tensor::from_vec(weights, (3, channels), device)?,
            offsets: Tensor::from_vec(offsets, (3, 1), device)?,
        })
    }

    /// A pixel for each of `latents`, `[1, channels, height, width]`, made larger up to [`PREVIEW_SIDE`].
    pub fn picture(&self, latents: &Tensor) -> Result<Rgb> {
        let (_, channels, height, width) = latents.dims4()?;
        let flat = latents.reshape((channels, height * width))?;
        let colours = self.weights.matmul(&flat)?.broadcast_add(&self.offsets)?;
        let small = colours.reshape((1, 3, height, width))?;
        let small = pixels::to_pictures(&small)?.into_iter().next().expect("one picture was made");
        Ok(enlarged(&small, (PREVIEW_SIDE / height.max(width)).clamp(1, 8)))
    }
}

/// `[1, channels, height, width]` as a row for each pixel.
fn rows(x: &Tensor) -> Result<Vec<Vec<f32>>> {
    let (_, channels, height, width) = x.dims4()?;
    Ok(x.reshape((channels, height * width))?.t()?.to_vec2()?)
}

/// Patches that run from one colour to another: light and dark, grey and strong, flat and steep. `[1, 3, SIDE, SIDE]` in −1..1.
fn patches() -> Result<Tensor> {
    const ACROSS: usize = SIDE / PATCH;
    let mut generator = Generator::new(Seed(0));
    let draws = generator.normal(&[ACROSS * ACROSS, 8], &Device::Cpu)?.to_vec2::<f32>()?;
    let value = |channel: usize, y: usize, x: usize| {
        let draw = &draws[y / PATCH * ACROSS + x / PATCH];
        let at = |i: usize| (i % PATCH) as f32 / PATCH as f32 - 0.5;
        let slope = draw[6].sin() * at(x) + draw[6].cos() * at(y);
        let steepness = draw[7].clamp(-1.5, 1.5) * slope;
        (0.7 * draw[channel] + 0.6 * steepness * draw[3 + channel]).clamp(-1.0, 1.0)
    };
    let pixels = (0..3 * SIDE * SIDE).map(|i| value(i / SIDE / SIDE, i / SIDE % SIDE, i % SIDE));
    Ok(Tensor::from_iter(pixels, &Device::Cpu)?.reshape((1, 3, SIDE, SIDE))?)
}

/// The factors by which `samples` come nearest to `wanted`: the normal equations, solved by Gauss's elimination.
fn least_squares(samples: &[Vec<f64>], wanted: &[f64]) -> Vec<f64> {
    let n = samples[0].len();
    let mut system = vec![vec![0.0; n + 1]; n];
    for (row, wanted) in samples.iter().zip(wanted) {
        for (i, equation) in system.iter_mut().enumerate() {
            for (j, value) in equation[..n].iter_mut().enumerate() {
                *value += row[i] * row[j];
            }
            equation[n] += row[i] * wanted;
        }
    }
    for (i, equation) in system.iter_mut().enumerate() {
        equation[i] += RIDGE * samples.len() as f64;
    }
    // Positive definite, so that no rows need be exchanged.
    for i in 0..n {
        for j in i + 1..n {
            let factor = system[j][i] / system[i][i];
            let (above, below) = system.split_at_mut(j);
            below[0][i..].iter_mut().zip(&above[i][i..]).for_each(|(b, a)| *b -= factor * a);
        }
    }
    let mut solved = vec![0.0; n];
    for i in (0..n).rev() {
        let known: f64 = (i + 1..n).map(|j| system[i][j] * solved[j]).sum();
        solved[i] = (system[i][n] - known) / system[i][i];
    }
    solved
}

/// `picture` at `times` its size, with colours between neighbouring pixels' in between.
fn enlarged(picture: &Rgb, times: usize) -> Rgb {
    let Rgb { width, height, bytes } = picture;
    // Before and after a place, and how far it is from the one to the other.
    let between = |i: usize, length: usize| {
        let place = ((i as f32 + 0.5) / times as f32 - 0.5).clamp(0.0, (length - 1) as f32);
        let before = place as usize;
        (before, (before + 1).min(length - 1), place.fract())
    };
    let mut out = Vec::with_capacity(bytes.len() * times * times);
    for y in 0..height * times {
        let (top, bottom, down) = between(y, *height);
        for x in 0..width * times {
            let (left, right, across) = between(x, *width);
            for channel in 0..3 {
                let at = |x: usize, y: usize| f32::from(bytes[3 * (y * width + x) + channel]);
                let row = |y: usize| at(left, y) * (1.0 - across) + at(right, y) * across;
                out.push((row(top) * (1.0 - down) + row(bottom) * down).round() as u8);
            }
        }
    }
    Rgb { width: width * times, height: height * times, bytes: out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_squares_find_the_line_through_points() {
        let samples: Vec<Vec<f64>> =
            (0..50).map(|i| vec![f64::from(i), f64::from(i * i), 1.0]).collect();
        let wanted: Vec<f64> = samples.iter().map(|s| 3.0 * s[0] - 0.5 * s[1] + 7.0).collect();
        let found = least_squares(&samples, &wanted);
        for (found, want) in found.iter().zip([3.0, -0.5, 7.0]) {
            assert!((found - want).abs() < 1e-3, "{found} is not {want}");
        }
    }

    #[test]
    fn an_enlarged_picture_keeps_its_corners_and_runs_between_them() {
        let picture = Rgb { width: 2, height: 1, bytes: vec![0, 0, 0, 200, 100, 40] };
        let large = enlarged(&picture, 4);
        assert_eq!((large.width, large.height), (8, 4));
        let red: Vec<u8> = large.bytes[..24].iter().step_by(3).copied().collect();
        assert_eq!(red, [0, 0, 25, 75, 125, 175, 200, 200]);
        assert_eq!(enlarged(&picture, 1), picture);
    }
}
