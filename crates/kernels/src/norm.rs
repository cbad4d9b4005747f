//! RMS norm and layer norm over the last dimension, and what networks do with normed values at once.

use candle_core::{D, Result, Tensor};

use crate::gradient::{Path, join};
use crate::math::{dot, sum};
use crate::rows::{Source, collect};
use crate::simd::{Level, Simd};
use crate::values::Values;

/// The weight and epsilon of an RMS norm (Zhang & Sennrich, 2019).
#[derive(Clone, Debug)]
pub struct RmsNorm {
    /// `[width]`
    pub weight: Tensor,
    /// Added to the mean square.
    pub eps: f64,
}

/// `x / √(mean(x²) + eps) · weight` over the last dimension of `x`, times `scale` if there is one: `[batch, 1, width]`, or of the shape of `x`
/// where every row has its own.
pub fn rms_norm(x: &Tensor, norm: &RmsNorm, scale: Option<&Tensor>) -> Result<Tensor> {
    let kernel = |x: &Tensor, scale: Option<&Tensor>| {
        let inputs = NormInputs::new(x, norm, scale)?;
        inputs.with(|source| collect(Level::best(), source, x.shape()))
    };
    match Path::of(&[Some(x), scale]) {
        Path::Kernels => kernel(x, scale),
        Path::Plain => {
            #[cfg(feature = "cuda")]
            if let Some(y) = crate::cuda::rms_norm(x, norm, scale)? {
                return Ok(y);
            }
            rms_norm_plain(x, norm, scale)
        }
        Path::Gradients => {
            let held = Held::new(x, norm, scale);
            let y = kernel(&held.x, held.scale.as_ref())?;
            match scale {
                Some(scale) => {
                    join(&[x, scale], &y, move |g| Ok(vec![held.of_x(g)?, held.of_scale(g)?]))
                }
                None => join(&[x], &y, move |g| Ok(vec![held.of_x(g)?])),
            }
        }
    }
}

/// `x + gate · norm(y)`: how a block's result joins the stream. `gate`: `[batch, 1, width]`, or of the shape of `y`; absent it is 1.
pub fn add_gated(x: &Tensor, y: &Tensor, norm: &RmsNorm, gate: Option<&Tensor>) -> Result<Tensor> {
    if x.dims() != y.dims() {
        candle_core::bail!("{:?} cannot be added to {:?}", y.dims(), x.dims());
    }
    let kernel = |x: &Tensor, y: &Tensor, gate: Option<&Tensor>| {
        let (x, inputs) = (x.contiguous()?, NormInputs::new(y, norm, gate)?);
        let values = Values::of(&x);
        let values = values.f32()?;
        inputs.with(|normed| collect(Level::best(), &Added { values, normed }, x.shape()))
    };
    match Path::of(&[Some(x), Some(y), gate]) {
        Path::Kernels => kernel(x, y, gate),
        Path::Plain => {
            #[cfg(feature = "cuda")]
            if let Some(y) = crate::cuda::add_gated(x, y, norm, gate)? {
                return Ok(y);
            }
            x + rms_norm_plain(y, norm, gate)?
        }
        Path::Gradients => {
            let held = Held::new(y, norm, gate);
            let result = kernel(&x.detach(), &held.x, held.scale.as_ref())?;
            match gate {
                Some(gate) => join(&[x, y, gate], &result, move |g| {
                    Ok(vec![g.clone(), held.of_x(g)?, held.of_scale(g)?])
                }),
                None => join(&[x, y], &result, move |g| Ok(vec![g.clone(), held.of_x(g)?])),
            }
        }
    }
}

/// What a norm's gradients are made of: its inputs without their graph.
struct Held {
    x: Tensor,
    norm: RmsNorm,
    scale: Option<Tensor>,
}

impl Held {
    fn new(x: &Tensor, norm: &RmsNorm, scale: Option<&Tensor>) -> Self {
        Self { x: x.detach(), norm: norm.clone(), scale: scale.map(Tensor::detach) }
    }

    /// That of what is normed, where that of the result is `gradient`.
    fn of_x(&self, gradient: &Tensor) -> Result<Tensor> {
        let inputs = NormInputs::new(&self.x, &self.norm, self.scale.as_ref())?;
        let values = Values::of(gradient);
        let gradient = values.f32()?;
        inputs.with(|normed| {
            collect(Level::best(), &NormGradient { normed, gradient }, self.x.shape())
        })
    }

    /// That of the scale, which all of a batch's rows share.
    fn of_scale(&self, gradient: &Tensor) -> Result<Tensor> {
        let each = (rms_norm(&self.x, &self.norm, None)? * gradient)?;
        let scale = self.scale.as_ref().map_or(each.shape(), Tensor::shape);
        each.reshape((scale.elem_count() / self.x.dim(D::Minus1)?, (), self.x.dim(D::Minus1)?))?
            .sum(1)?
            .reshape(scale)
    }
}

/// The plain twin.
pub(crate) fn rms_norm_plain(x: &Tensor, norm: &RmsNorm, scale: Option<&Tensor>) -> Result<Tensor> {
    let root = (x.sqr()?.mean_keepdim(D::Minus1)? + norm.eps)?.sqrt()?;
    let y = x.broadcast_div(&root)?.broadcast_mul(&norm.weight)?;
    scale.map_or(Ok(y.clone()), |scale| y.broadcast_mul(scale))
}

/// How many rows of `x` in a row share one of `scale`: all of a picture's, or each has its own. An error where the norm does not fit `x`, or
/// where scales are shared in another way.
pub(crate) fn rows_of_a_scale(x: &Tensor, norm: &RmsNorm, scale: Option<&Tensor>) -> Result<usize> {
    let width = x.dim(D::Minus1)?;
    let shared = match scale {
        None => Some(x.elem_count() / width.max(1)),
        Some(scale) => {
            // The first dimensions are those of `x`, and then there are ones up to the width.
            let own = x.dims().iter().zip(scale.dims()).take_while(|(x, s)| x == s).count();
            let own = own.min(x.rank() - 1);
            let between = scale.dims().get(own..x.rank() - 1);
            let fits = scale.rank() == x.rank() && scale.dims().last() == Some(&width);
            let ones = between.is_some_and(|dims| dims.iter().all(|n| *n == 1));
            (fits && ones).then(|| x.dims()[own..x.rank() - 1].iter().product())
        }
    };
    match shared {
        Some(shared) if norm.weight.dims() == [width] => Ok(shared),
        _ => candle_core::bail!(
            "a norm over {:?} with scales {:?} does not fit {:?}",
            norm.weight.dims(),
            scale.map(Tensor::dims),
            x.dims()
        ),
    }
}

/// The tensors of a norm, without gaps.
pub(crate) struct NormInputs {
    x: Tensor,
    weight: Tensor,
    scale: Option<Tensor>,
    eps: f64,
    /// Rows that share a row of `scale`.
    shared: usize,
}

impl NormInputs {
    pub(crate) fn new(x: &Tensor, norm: &RmsNorm, scale: Option<&Tensor>) -> Result<Self> {
        let shared = rows_of_a_scale(x, norm, scale)?;
        Ok(Self {
            x: x.contiguous()?,
            weight: norm.weight.contiguous()?,
            scale: scale.map(Tensor::contiguous).transpose()?,
            eps: norm.eps,
            shared,
        })
    }

    /// Calls `f` with the normed rows.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&Normed) -> Result<R>) -> Result<R> {
        let (x, weight) = (Values::of(&self.x), Values::of(&self.weight));
        let scale = self.scale.as_ref().map(Values::of);
        let scale = scale.as_ref().map(Values::f32).transpose()?;
        let (eps, shared) = (self.eps, self.shared);
        f(&Normed { x: x.f32()?, weight: weight.f32()?, scale, eps, shared })
    }
}

/// Rows of `norm(x) · scale`.
pub(crate) struct Normed<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    scale: Option<&'a [f32]>,
    eps: f64,
    shared: usize,
}

impl Source for Normed<'_> {
    #[inline(always)]
    fn row<S: Simd>(&self, _: S, index: usize, to: &mut [f32]) {
        let width = to.len();
        let x = &self.x[index * width..][..width];
        let mean = f64::from(sum(x, |v| v * v)) / width as f64;
        let factor = (1.0 / (mean + self.eps).sqrt()) as f32;
        let weighted = to.iter_mut().zip(x.iter().zip(self.weight));
        weighted.for_each(|(to, (x, w))| *to = x * factor * w);
        if let Some(scale) = self.scale {
            let scale = &scale[index / self.shared * width..][..width];
            to.iter_mut().zip(scale).for_each(|(to, s)| *to *= s);
        }
    }
}

/// Rows of a norm's gradient: with `u = gradient · weight · scale` and `r = 1 / √(mean(x²) + eps)`, `r · u − x · r³ · mean(x · u)`.
struct NormGradient<'a> {
    normed: &'a Normed<'a>,
    gradient: &'a [f32],
}

impl Source for NormGradient<'_> {
    #[inline(always)]
    fn row<S: Simd>(&self, _: S, index: usize, to: &mut [f32]) {
        let (Normed { x, weight, scale, eps, shared }, width) = (self.normed, to.len());
        let x = &x[index * width..][..width];
        let gradient = &self.gradient[index * width..][..width];
        to.iter_mut().zip(gradient.iter().zip(*weight)).for_each(|(u, (g, w))| *u = g * w);
        if let Some(scale) = scale {
            let scale = &scale[index / shared * width..][..width];
            to.iter_mut().zip(scale).for_each(|(u, s)| *u *= s);
        }
        pull_back_row(x, *eps, to);
    }
}

/// Makes of `u`, the gradient of a normed row of `x` with its weights multiplied in, that of `x`.
#[inline(always)]
pub(crate) fn pull_back_row(x: &[f32], eps: f64, u: &mut [f32]) {
    let width = x.len() as f64;
    let r = 1.0 / (f64::from(sum(x, |v| v * v)) / width + eps).sqrt();
    let along = (f64::from(dot(x, u)) / width * r * r * r) as f32;
    let r = r as f32;
    u.iter_mut().zip(x).for_each(|(u, x)| *u = r * *u - along * x);
}

/// Rows added to normed ones.
struct Added<'a> {
    values: &'a [f32],
    normed: &'a Normed<'a>,
}

impl Source for Added<'_> {
    #[inline(always)]
    fn row<S: Simd>(&self, simd: S, index: usize, to: &mut [f32]) {
        self.normed.row(simd, index, to);
        let values = &self.values[index * to.len()..][..to.len()];
        to.iter_mut().zip(values).for_each(|(to, v)| *to += v);
    }
}

/// `(x − mean) / √(variance + eps)` over the last dimension, without weights.
pub fn layer_norm(x: &Tensor, eps: f64) -> Result<Tensor> {
    let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(variance + eps)?.sqrt()?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{random, worst};

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

        #[test]
        fn every_level_agrees_with_the_plain_twin(
            batch in 1usize..4,
            tokens in 1usize..9,
            width in 1usize..200,
            scales in 0usize..3,
        ) {
            let (x, y) = (random(&[batch, tokens, width]), random(&[batch, tokens, width]));
            let norm = RmsNorm { weight: random(&[width]), eps: 1e-5 };
            // None, one for a picture, one for every token.
            let scale = (scales > 0).then(|| random(&[batch, [1, tokens][scales - 1], width]));
            let want = rms_norm_plain(&y, &norm, scale.as_ref()).unwrap();
            let inputs = NormInputs::new(&y, &norm, scale.as_ref()).unwrap();
            for level in Level::available() {
                let got = inputs.with(|source| collect(level, source, y.shape())).unwrap();
                prop_assert!(worst(&got, &want) < 2e-5, "{level}");
            }
            let got = add_gated(&x, &y, &norm, scale.as_ref()).unwrap();
            prop_assert!(worst(&got, &(&x + want).unwrap()) < 2e-5);
        }
    }

    #[test]
    fn scales_that_rows_do_not_share_in_a_row_are_refused() {
        let (x, norm) = (random(&[2, 3, 5]), RmsNorm { weight: random(&[5]), eps: 1e-5 });
        let fits = |dims: &[usize]| rows_of_a_scale(&x, &norm, Some(&random(dims)));
        assert_eq!(fits(&[2, 1, 5]).unwrap(), 3);
        assert_eq!(fits(&[2, 3, 5]).unwrap(), 1);
        assert_eq!(fits(&[1, 1, 5]).unwrap(), 6);
        // Of these the second would be taken for the scale of a picture, were only their number looked at.
        for wrong in [&[3, 1, 5][..], &[1, 3, 5], &[2, 5], &[2, 1, 1], &[2, 3, 4]] {
            let error = fits(wrong).unwrap_err().to_string();
            assert!(error.contains("does not fit [2, 3, 5]"), "{error}");
        }
    }

    #[test]
    fn both_give_what_the_formula_says() {
        let x = Tensor::new(&[[1f32, 2.0, 3.0, 6.0]], &Device::Cpu).unwrap();
        let weight = Tensor::new(&[1f32, 1.0, 2.0, 1.0], &Device::Cpu).unwrap();
        let rms = rms_norm(&x, &RmsNorm { weight, eps: 0.0 }, None).unwrap();
        let rms = rms.to_vec2::<f32>().unwrap();
        let root = 12.5f32.sqrt();
        for (got, want) in rms[0].iter().zip([1.0 / root, 2.0 / root, 6.0 / root, 6.0 / root]) {
            assert!((got - want).abs() < 1e-6);
        }
        let layer = layer_norm(&x, 0.0).unwrap().to_vec2::<f32>().unwrap();
        let deviation = 3.5f32.sqrt();
        for (got, want) in layer[0].iter().zip([-2.0, -1.0, 0.0, 3.0]) {
            assert!((got - want / deviation).abs() < 1e-6);
        }
    }

    #[test]
    fn scales_that_do_not_fit_are_named() {
        let norm = RmsNorm { weight: random(&[4]), eps: 0.0 };
        let error = rms_norm(&random(&[3, 2, 4]), &norm, Some(&random(&[4, 1, 4]))).unwrap_err();
        assert!(error.to_string().contains("[4, 1, 4]"), "{error}");
    }
}
