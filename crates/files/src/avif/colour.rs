//! From luma and chroma to red, green and blue (ITU-T H.273).

use moxcms::{
    CicpColorPrimaries, CicpProfile, ColorProfile, MatrixCoefficients, TransferCharacteristics,
};

/// A decoded picture's planes, each with the bytes of its rows.
pub(super) struct Planes<'a> {
    pub(super) size: (usize, usize),
    /// 8, or 10 and 12 in two bytes.
    pub(super) bits: u32,
    pub(super) luma: (&'a [u8], usize),
    pub(super) chroma: Option<[(&'a [u8], usize); 2]>,
    /// Whether chroma has half as many columns, and rows.
    pub(super) halved: (bool, bool),
    /// As H.273 numbers it.
    pub(super) matrix: u16,
    pub(super) full: bool,
}

/// How colours are coded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Coding {
    scheme: Scheme,
    full: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Scheme {
    /// Luma and two differences; what red and blue weigh in luma.
    Weights(f32, f32),
    /// Green, blue and red.
    Identity,
    YCgCo,
}

impl Coding {
    /// What the file says, or else the AV1 data; `None` for what is not read.
    pub(super) fn of(planes: &Planes, nclx: Option<([u16; 3], bool)>) -> Option<Self> {
        let (matrix, full) = match nclx {
            Some(([_, _, matrix], full)) => (matrix, full),
            None => (planes.matrix, planes.full),
        };
        let scheme = match matrix {
            0 if planes.chroma.is_some() && planes.halved == (false, false) => Scheme::Identity,
            1 => Scheme::Weights(0.2126, 0.0722),
            4 => Scheme::Weights(0.30, 0.11),
            // Where nothing is said, as JPEG has it.
            2 | 5 | 6 => Scheme::Weights(0.299, 0.114),
            7 => Scheme::Weights(0.212, 0.087),
            8 => Scheme::YCgCo,
            9 | 10 => Scheme::Weights(0.2627, 0.0593),
            _ => return None,
        };
        Some(Self { scheme, full })
    }
}

impl Planes<'_> {
    fn sample(&self, (bytes, stride): (&[u8], usize), x: usize, y: usize) -> f32 {
        match self.bits {
            8 => f32::from(bytes[y * stride + x]),
            _ => f32::from(u16::from_ne_bytes([
                bytes[y * stride + 2 * x],
                bytes[y * stride + 2 * x + 1],
            ])),
        }
    }

    /// The largest value.
    fn most(&self) -> f32 {
        ((1u32 << self.bits) - 1) as f32
    }

    /// Of `(black, white)`, levels that are used where not all are.
    fn limits(&self, white: u32) -> (f32, f32) {
        let shift = self.bits - 8;
        ((16u32 << shift) as f32, (white << shift) as f32)
    }

    /// Luma in 0..1.
    fn luma(&self, x: usize, y: usize, full: bool) -> f32 {
        let value = self.sample(self.luma, x, y);
        match full {
            true => value / self.most(),
            false => {
                let (black, white) = self.limits(235);
                (value - black) / (white - black)
            }
        }
    }

    /// Both chroma values in −½..½. Where there is one for several pixels, it lies between them: neighbours count by nearness.
    fn chroma(&self, planes: [(&[u8], usize); 2], x: usize, y: usize, full: bool) -> [f32; 2] {
        let (width, height) = self.size;
        let (left, right, across) = neighbours(x, width, self.halved.0);
        let (top, bottom, down) = neighbours(y, height, self.halved.1);
        planes.map(|plane| {
            let row = |y| {
                let at = |x| self.sample(plane, x, y);
                if left == right {
                    at(left)
                } else {
                    at(left) * (1.0 - across) + at(right) * across
                }
            };
            let value =
                if top == bottom { row(top) } else { row(top) * (1.0 - down) + row(bottom) * down };
            let middle = (1u32 << (self.bits - 1)) as f32;
            match full {
                true => (value - middle) / self.most(),
                false => {
                    let (black, white) = self.limits(240);
                    (value - middle) / (white - black)
                }
            }
        })
    }
}

/// The samples before and after position `at` of `length`, and how near it is to the second.
fn neighbours(at: usize, length: usize, halved: bool) -> (usize, usize, f32) {
    if !halved {
        return (at, at, 0.0);
    }
    let last = length.div_ceil(2) - 1;
    match at % 2 {
        0 => ((at / 2).saturating_sub(1), at / 2, 0.75),
        _ => (at / 2, (at / 2 + 1).min(last), 0.25),
    }
}

/// Writes the colours of `planes` at `place` into `rgba`, whose rows have `width` pixels.
pub(super) fn to_rgb(
    planes: &Planes,
    Coding { scheme, full }: Coding,
    place: (usize, usize),
    (rgba, width): (&mut [u8], usize),
) {
    each(planes, place, (rgba, width), |x, y, pixel| {
        let Some(chroma) = planes.chroma else {
            pixel[..3].fill(level(planes.luma(x, y, full)));
            return;
        };
        let luma = planes.luma(x, y, full);
        let rgb = match scheme {
            // The planes are colours themselves, all coded as luma is.
            Scheme::Identity => {
                let [b, r] = planes.chroma(chroma, x, y, full);
                let most = planes.most();
                let as_luma = |difference: f32| match full {
                    true => difference + (1u32 << (planes.bits - 1)) as f32 / most,
                    false => {
                        let ((black, white), (dark, light)) =
                            (planes.limits(235), planes.limits(240));
                        (difference * (light - dark) + (1u32 << (planes.bits - 1)) as f32 - black)
                            / (white - black)
                    }
                };
                [as_luma(r), luma, as_luma(b)]
            }
            Scheme::YCgCo => {
                let [cg, co] = planes.chroma(chroma, x, y, full);
                [luma - cg + co, luma + cg, luma - cg - co]
            }
            Scheme::Weights(red, blue) => {
                let [cb, cr] = planes.chroma(chroma, x, y, full);
                let r = luma + 2.0 * (1.0 - red) * cr;
                let b = luma + 2.0 * (1.0 - blue) * cb;
                [r, (luma - red * r - blue * b) / (1.0 - red - blue), b]
            }
        };
        pixel[..3].copy_from_slice(&rgb.map(level));
    });
}

/// Writes the luma of `planes` as opacity.
pub(super) fn to_alpha(planes: &Planes, place: (usize, usize), out: (&mut [u8], usize)) {
    each(planes, place, out, |x, y, pixel| pixel[3] = level(planes.luma(x, y, planes.full)));
}

/// Takes the opacity out of colours that were multiplied by it.
pub(super) fn divide_by_alpha(rgba: &mut [u8]) {
    for pixel in rgba.chunks_exact_mut(4).filter(|pixel| pixel[3] > 0) {
        let alpha = f32::from(pixel[3]) / 255.0;
        pixel[..3].iter_mut().for_each(|v| *v = level(f32::from(*v) / 255.0 / alpha));
    }
}

fn level(value: f32) -> u8 {
    (value.clamp(0.0, 1.0) * 255.0).round() as u8
}

/// Calls `f` with every pixel of `planes` that lies in the picture when they begin at `place`.
fn each(
    planes: &Planes,
    (left, top): (usize, usize),
    (rgba, width): (&mut [u8], usize),
    f: impl Fn(usize, usize, &mut [u8]),
) {
    let columns = planes.size.0.min(width.saturating_sub(left));
    let rows = rgba.chunks_exact_mut(4 * width).skip(top).take(planes.size.1);
    for (y, row) in rows.enumerate() {
        for (x, pixel) in row[4 * left..][..4 * columns].chunks_exact_mut(4).enumerate() {
            f(x, y, pixel);
        }
    }
}

/// The profile of colours with these primaries and this transfer; `None` where they are sRGB's, or unknown.
pub(super) fn profile([primaries, transfer, _]: [u16; 3]) -> Option<Vec<u8>> {
    // BT.709's and BT.601's transfer is taken for sRGB's by everybody: pictures are meant as they are seen on a screen.
    if matches!(primaries, 1 | 2) && matches!(transfer, 1 | 2 | 6 | 13) {
        return None;
    }
    let (primaries, transfer) = (u8::try_from(primaries).ok()?, u8::try_from(transfer).ok()?);
    let transfer = if matches!(transfer, 1 | 2 | 6) { 13 } else { transfer };
    let profile = ColorProfile::new_from_cicp(CicpProfile {
        color_primaries: CicpColorPrimaries::try_from(if primaries == 2 { 1 } else { primaries })
            .ok()?,
        transfer_characteristics: TransferCharacteristics::try_from(transfer).ok()?,
        matrix_coefficients: MatrixCoefficients::Identity,
        full_range: true,
    });
    profile.encode().ok()
}
