//! Pillow's 8-bit resampling, byte for byte: the reference prepares its images with it, and no library that was
//! tried (`image`, `fast_image_resize`) rounds the same way.

use std::f64::consts::PI;

/// Bits after the point of a coefficient, as Pillow has them: 32 less the pixel's 8 less 2 for overshoot.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// What a value of the result is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Sinc in a window of three lobes.
    Lanczos,
    /// A triangle.
    Bilinear,
    /// Keys' cubic with a = −0.5.
    Bicubic,
}

/// `bytes` of `from` (width, height) with `channels` values a pixel, at the size `to`: across first, then down.
pub(crate) fn resample(
    bytes: &[u8],
    from: (u32, u32),
    to: (u32, u32),
    channels: usize,
    filter: Filter,
) -> Vec<u8> {
    let (from_width, from_height) = (from.0 as usize, from.1 as usize);
    let (width, height) = (to.0 as usize, to.1 as usize);
    let across = match width == from_width {
        true => bytes.to_vec(),
        false => pass(
            bytes,
            Lines { count: from_height, length: from_width, step: channels },
            width,
            filter,
        ),
    };
    if height == from_height {
        return across;
    }
    // A column is a line whose values lie a row apart.
    let row = width * channels;
    let weights = weights(from_height, height, filter);
    let mut out = vec![0; height * row];
    for (line, (first, coefficients)) in out.chunks_mut(row).zip(&weights) {
        for (x, value) in line.iter_mut().enumerate() {
            let column = coefficients
                .iter()
                .enumerate()
                .map(|(i, k)| i64::from(across[(first + i) * row + x]) * k);
            *value = clipped(column.sum());
        }
    }
    out
}

/// `count` lines of `length` pixels, `step` values each.
struct Lines {
    count: usize,
    length: usize,
    step: usize,
}

fn pass(bytes: &[u8], lines: Lines, length: usize, filter: Filter) -> Vec<u8> {
    let weights = weights(lines.length, length, filter);
    let mut out = Vec::with_capacity(lines.count * length * lines.step);
    for line in bytes.chunks(lines.length * lines.step) {
        for (first, coefficients) in &weights {
            for channel in 0..lines.step {
                let values = coefficients.iter().enumerate();
                let sum = values
                    .map(|(i, k)| i64::from(line[(first + i) * lines.step + channel]) * k)
                    .sum();
                out.push(clipped(sum));
            }
        }
    }
    out
}

fn clipped(sum: i64) -> u8 {
    ((sum + (1 << (PRECISION_BITS - 1))) >> PRECISION_BITS).clamp(0, 255) as u8
}

/// For every value of the result, the first value that it is made from and the coefficients of that and the next ones.
fn weights(from: usize, to: usize, filter: Filter) -> Vec<(usize, Vec<i64>)> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let one = |i: usize| {
        let centre = (i as f64 + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(from);
        let raw: Vec<f64> =
            (first..end).map(|x| filter.at((x as f64 - centre + 0.5) / stretch)).collect();
        let sum: f64 = raw.iter().sum();
        let fixed = raw.iter().map(|k| k / sum * f64::from(1 << PRECISION_BITS));
        (first, fixed.map(|k| (k + 0.5f64.copysign(k)) as i64).collect())
    };
    (0..to).map(one).collect()
}

impl Filter {
    /// Values to either side that it looks at.
    fn support(self) -> f64 {
        match self {
            Self::Lanczos => 3.0,
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    /// The weight of what lies `x` values away.
    fn at(self, x: f64) -> f64 {
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) };
        let far = x.abs();
        match self {
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Bilinear if far < 1.0 => 1.0 - far,
            Self::Bicubic if far < 1.0 => (1.5 * far - 2.5) * far * far + 1.0,
            Self::Bicubic if far < 2.0 => ((-0.5 * far + 2.5) * far - 4.0) * far + 2.0,
            _ => 0.0,
        }
    }
}
