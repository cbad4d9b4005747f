//! Rotary position embedding, in the two layouts that are in use (Su et al., 2021), of heads that are normed first.

use candle_core::{Result, Tensor};

use crate::gradient::{Path, join};
use crate::math::sum;
use crate::norm::{RmsNorm, pull_back_row, rms_norm_plain};
use crate::rows::{Source, collect};
use crate::simd::{Level, Simd};
use crate::values::Values;

/// Which values of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// `(2i, 2i + 1)`, as the transformer does.
    Neighbours,
    /// `(i, i + d / 2)`, as Qwen3 does.
    Halves,
}

/// Norms every head of `x`, `[batch, tokens, heads, d]`, and turns it by its token's angles; `cos`, `sin`:
/// `[tokens, d / 2]`. The result is `[batch, heads, tokens, d]` and lies in memory as `x` does.
pub fn norm_and_rotate(
    x: &Tensor,
    norm: &RmsNorm,
    (cos, sin): (&Tensor, &Tensor),
    pairs: Pairs,
) -> Result<Tensor> {
    let (_, tokens, heads, d) = x.dims4()?;
    if cos.dims() != [tokens, d / 2] || sin.dims() != cos.dims() || norm.weight.dims() != [d] {
        candle_core::bail!(
            "rotation: angles {:?} and a norm over {:?} do not fit {:?}",
            cos.dims(),
            norm.weight.dims(),
            x.dims()
        );
    }
    let shape = (pairs, tokens, heads);
    match Path::of(&[Some(x), Some(cos)]) {
        Path::Kernels => at_level(Level::best(), x, norm, (cos, sin), shape),
        Path::Plain => {
            #[cfg(feature = "cuda")]
            if let Some(y) = crate::cuda::norm_and_rotate(x, norm, (cos, sin), pairs)? {
                return Ok(y);
            }
            plain(x, norm, (cos, sin), pairs)
        }
        Path::Gradients => {
            let y = at_level(Level::best(), &x.detach(), norm, (cos, sin), shape)?;
            // Joined as it lies in memory.
            let y = y.transpose(1, 2)?;
            let (held, norm, angles) = (x.detach(), norm.clone(), (cos.clone(), sin.clone()));
            let y = join(&[x], &y, move |g| Ok(vec![pull_back(&held, &norm, &angles, shape, g)?]))?;
            y.transpose(1, 2)
        }
    }
}

/// The gradient of `x`, `[batch, tokens, heads, d]`, where that of the result is `gradient`, of the same shape: turned back, and then that of
/// the norm.
fn pull_back(
    x: &Tensor,
    norm: &RmsNorm,
    (cos, sin): &(Tensor, Tensor),
    (pairs, tokens, heads): (Pairs, usize, usize),
    gradient: &Tensor,
) -> Result<Tensor> {
    let values = Values::of(gradient);
    let gradient = values.f32()?;
    with_rotated(x, norm, (cos, sin), (pairs, tokens, heads), |of| {
        collect(Level::best(), &TurnedBack { of, gradient }, x.shape())
    })
}

fn at_level(
    level: Level,
    x: &Tensor,
    norm: &RmsNorm,
    (cos, sin): (&Tensor, &Tensor),
    (pairs, tokens, heads): (Pairs, usize, usize),
) -> Result<Tensor> {
    let turned = with_rotated(x, norm, (cos, sin), (pairs, tokens, heads), |source| {
        collect(level, source, x.shape())
    });
    turned?.transpose(1, 2)
}

/// Calls `f` with the rows of normed, turned heads.
fn with_rotated<R>(
    x: &Tensor,
    norm: &RmsNorm,
    (cos, sin): (&Tensor, &Tensor),
    (pairs, tokens, heads): (Pairs, usize, usize),
    f: impl FnOnce(&Rotated) -> Result<R>,
) -> Result<R> {
    let (x, weight) = (x.contiguous()?, norm.weight.contiguous()?);
    let (cos, sin) = (cos.contiguous()?, sin.contiguous()?);
    let (values, weight) = (Values::of(&x), Values::of(&weight));
    let (cos, sin) = (Values::of(&cos), Values::of(&sin));
    f(&Rotated {
        x: values.f32()?,
        weight: weight.f32()?,
        eps: norm.eps,
        angles: (cos.f32()?, sin.f32()?),
        pairs,
        tokens,
        heads,
    })
}

/// The plain twin.
pub(crate) fn plain(
    x: &Tensor,
    norm: &RmsNorm,
    (cos, sin): (&Tensor, &Tensor),
    pairs: Pairs,
) -> Result<Tensor> {
    let x = rms_norm_plain(x, norm, None)?.transpose(1, 2)?.contiguous()?;
    match pairs {
        Pairs::Neighbours => candle_nn::rotary_emb::rope_i_slow(&x, cos, sin),
        Pairs::Halves => candle_nn::rotary_emb::rope_slow(&x, cos, sin),
    }
}

/// Rows of normed, turned heads.
struct Rotated<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f64,
    /// Cosines and sines, `[tokens, d / 2]`.
    angles: (&'a [f32], &'a [f32]),
    pairs: Pairs,
    tokens: usize,
    heads: usize,
}

impl Source for Rotated<'_> {
    #[inline(always)]
    fn row<S: Simd>(&self, _: S, index: usize, to: &mut [f32]) {
        let d = to.len();
        let x = &self.x[index * d..][..d];
        let mean = f64::from(sum(x, |v| v * v)) / d as f64;
        let factor = (1.0 / (mean + self.eps).sqrt()) as f32;
        to.iter_mut().zip(x.iter().zip(self.weight)).for_each(|(to, (x, w))| *to = x * factor * w);

        self.turn(index, 1.0, to);
    }
}

impl Rotated<'_> {
    /// Turns row `index` by its token's angles, forwards with 1 and back with −1.
    #[inline(always)]
    fn turn(&self, index: usize, direction: f32, to: &mut [f32]) {
        let half = to.len() / 2;
        let token = index / self.heads % self.tokens;
        let cos = &self.angles.0[token * half..][..half];
        let sin = &self.angles.1[token * half..][..half];
        let turn = |a: &mut f32, b: &mut f32, (cos, sin): (&f32, &f32)| {
            let sin = direction * sin;
            (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
        };
        let angles = cos.iter().zip(sin);
        match self.pairs {
            Pairs::Neighbours => {
                for (pair, angle) in to.chunks_exact_mut(2).zip(angles) {
                    let (a, b) = pair.split_at_mut(1);
                    turn(&mut a[0], &mut b[0], angle);
                }
            }
            Pairs::Halves => {
                let (a, b) = to.split_at_mut(half);
                a.iter_mut().zip(b).zip(angles).for_each(|((a, b), angle)| turn(a, b, angle));
            }
        }
    }
}

/// Rows of the gradient of what was normed and turned.
struct TurnedBack<'a> {
    of: &'a Rotated<'a>,
    gradient: &'a [f32],
}

impl Source for TurnedBack<'_> {
    #[inline(always)]
    fn row<S: Simd>(&self, _: S, index: usize, to: &mut [f32]) {
        let row = index * to.len()..(index + 1) * to.len();
        to.copy_from_slice(&self.gradient[row.clone()]);
        self.of.turn(index, -1.0, to);
        to.iter_mut().zip(self.of.weight).for_each(|(u, w)| *u *= w);
        pull_back_row(&self.of.x[row], self.of.eps, to);
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::testing::{random, worst};

    #[test]
    fn each_layout_turns_its_own_pairs() {
        let x = Tensor::new(&[[[[1f32, 2.0, 3.0, 4.0]]]], &Device::Cpu).unwrap();
        // A quarter turn for the first pair, none for the second; the norm is taken back by its weight.
        let cos = Tensor::new(&[[0f32, 1.0]], &Device::Cpu).unwrap();
        let sin = Tensor::new(&[[1f32, 0.0]], &Device::Cpu).unwrap();
        let root = 7.5f32.sqrt();
        let norm = RmsNorm { weight: Tensor::new(&[root; 4], &Device::Cpu).unwrap(), eps: 0.0 };
        for (pairs, want) in
            [(Pairs::Neighbours, [-2.0, 1.0, 3.0, 4.0]), (Pairs::Halves, [-3.0, 2.0, 1.0, 4.0])]
        {
            let got = norm_and_rotate(&x, &norm, (&cos, &sin), pairs).unwrap();
            let got = got.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-6), "{got:?}");
        }
    }

    #[test]
    fn every_level_agrees_with_the_plain_twin() {
        for (tokens, heads, d) in [(1, 1, 2), (5, 3, 20), (9, 2, 128), (3, 4, 66)] {
            let x = random(&[2, tokens, heads, d]);
            let norm = RmsNorm { weight: random(&[d]), eps: 1e-5 };
            let angles = random(&[tokens, d / 2]);
            let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
            for pairs in [Pairs::Neighbours, Pairs::Halves] {
                let want = plain(&x, &norm, (&cos, &sin), pairs).unwrap();
                for level in Level::available() {
                    let shape = (pairs, tokens, heads);
                    let got = at_level(level, &x, &norm, (&cos, &sin), shape).unwrap();
                    assert_eq!(got.dims(), want.dims());
                    let error = worst(&got, &want);
                    assert!(error < 2e-5, "{level} {pairs:?} d {d}: {error}");
                }
            }
        }
    }
}
