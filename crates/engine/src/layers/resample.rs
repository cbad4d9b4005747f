//! Images at another size, as torch's `interpolate` makes them: no wider filter where they shrink.

use candle_core::Tensor;

use crate::Result;

/// Keys' cubic through two neighbours at each side (1981), with torch's choice of its free number.
const CUBIC: f32 = -0.75;

/// Of every new value one of those that it is made of: where that is among the old ones, and how much it counts.
struct Tap {
    from: Vec<u32>,
    weights: Vec<f32>,
}

/// `x`: `[batch, height, width, channels]`, to `size`, `(height, width)`: linear between two neighbours, corners on corners.
pub fn bilinear(x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
    resample(x, size, linear)
}

/// The same, cubic between four neighbours, edges on edges.
pub fn bicubic(x: &Tensor, size: (usize, usize)) -> Result<Tensor> {
    resample(x, size, cubic)
}

fn resample(
    x: &Tensor,
    (height, width): (usize, usize),
    taps: fn(usize, usize) -> Vec<Tap>,
) -> Result<Tensor> {
    let (_, rows, columns, _) = x.dims4()?;
    along(&along(x, 2, &taps(columns, width))?, 1, &taps(rows, height))
}

/// `x` with its `axis` made anew of `taps`.
fn along(x: &Tensor, axis: usize, taps: &[Tap]) -> Result<Tensor> {
    let (x, device) = (x.contiguous()?, x.device());
    let mut sum: Option<Tensor> = None;
    for tap in taps {
        let from = Tensor::from_slice(&tap.from, tap.from.len(), device)?;
        let mut shape = [1; 4];
        shape[axis] = tap.weights.len();
        let weights = Tensor::from_slice(&tap.weights, &shape, device)?;
        let part = x.index_select(&from, axis)?.broadcast_mul(&weights)?;
        sum = Some(match sum {
            Some(sum) => (sum + part)?,
            None => part,
        });
    }
    Ok(sum.expect("every kind has taps"))
}

fn linear(from: usize, to: usize) -> Vec<Tap> {
    let scale = if to > 1 { (from - 1) as f32 / (to - 1) as f32 } else { 0.0 };
    let at = |i: usize| {
        let place = i as f32 * scale;
        let first = (place as usize).min(from - 1);
        (first, place - first as f32)
    };
    let tap = |step: usize| Tap {
        from: (0..to).map(|i| (at(i).0 + step).min(from - 1) as u32).collect(),
        weights: (0..to).map(|i| if step == 0 { 1.0 - at(i).1 } else { at(i).1 }).collect(),
    };
    (0..2).map(tap).collect()
}

fn cubic(from: usize, to: usize) -> Vec<Tap> {
    let scale = from as f32 / to as f32;
    let at = |i: usize| {
        let place = (i as f32 + 0.5) * scale - 0.5;
        (place.floor() as isize, place - place.floor())
    };
    let tap = |step: usize| Tap {
        from: (0..to)
            .map(|i| (at(i).0 + step as isize - 1).clamp(0, from as isize - 1) as u32)
            .collect(),
        weights: (0..to).map(|i| weight((at(i).1 + 1.0 - step as f32).abs())).collect(),
    };
    (0..4).map(tap).collect()
}

/// The cubic at a distance of up to 2, as torch's polynomials.
fn weight(x: f32) -> f32 {
    match x <= 1.0 {
        true => ((CUBIC + 2.0) * x - (CUBIC + 3.0)) * x * x + 1.0,
        false => ((CUBIC * x - 5.0 * CUBIC) * x + 8.0 * CUBIC) * x - 4.0 * CUBIC,
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn row(values: &[f32]) -> Tensor {
        Tensor::from_slice(values, (1, 1, values.len(), 1), &Device::Cpu).unwrap()
    }

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn check(got: &[f32], want: &[f32]) {
        let near = got.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-6);
        assert!(near && got.len() == want.len(), "{got:?} {want:?}");
    }

    /// `torch.nn.functional.interpolate` of 1, 4, 2, 8.
    #[test]
    fn a_row_is_resampled_as_torch_does() {
        let x = row(&[1.0, 4.0, 2.0, 8.0]);
        let linear = |n| values(&bilinear(&x, (1, n)).unwrap());
        let cubic = |n| values(&bicubic(&x, (1, n)).unwrap());
        check(&linear(7), &[1.0, 2.5, 4.0, 3.0, 2.0, 5.0, 8.0]);
        check(&linear(1), &[1.0]);
        check(&linear(3), &[1.0, 3.0, 8.0]);
        check(&cubic(4), &[1.0, 4.0, 2.0, 8.0]);
        check(&cubic(2), &[2.6875, 4.8125]);
        check(&cubic(6), &[0.7395835, 2.6875, 3.8692126, 1.8182869, 4.8125, 8.520833]);
        let tall = bicubic(&row(&[3.0]), (3, 2)).unwrap();
        check(&values(&tall), &[3.0; 6]);
    }
}
