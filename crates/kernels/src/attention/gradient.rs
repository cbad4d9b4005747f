//! Gradients of attention, head by head and by blocks of queries, so that no matrix of all queries and keys is ever in memory (Dao et al., 2022).

use candle_core::{D, Device, Result, Tensor};
use rayon::prelude::*;

use crate::Matrix;
use crate::linear::{linear, pull_back as pull_back_linear};

/// Queries whose weights are in memory at once.
const QUERIES: usize = 256;

/// Gradients of `[q, k, v]`, each `[batch, heads, tokens, d]`, where `y` was made of them and `gradient` is that of `y`; both
/// `[batch, queries, heads, d]`. All in float32.
pub(super) fn pull_back(
    inputs: &[Tensor; 3],
    y: &Tensor,
    gradient: &Tensor,
) -> Result<Vec<Tensor>> {
    let (batch, heads, ..) = inputs[0].dims4()?;
    let places: Vec<_> = (0..batch).flat_map(|b| (0..heads).map(move |h| (b, h))).collect();
    let of_head = |(b, h): &(usize, usize)| {
        let [q, k, v] = inputs.each_ref().map(|x| x.get(*b)?.get(*h)?.contiguous());
        let [y, g] = [y, gradient].map(|x| x.get(*b)?.narrow(1, *h, 1)?.squeeze(1)?.contiguous());
        head(&q?, &k?, &v?, &y?, &g?)
    };
    let made = places.par_iter().map(of_head).collect::<Result<Vec<_>>>()?;
    let together = |i: usize| {
        let parts: Vec<&Tensor> = made.iter().map(|parts| &parts[i]).collect();
        Tensor::stack(&parts, 0)?.reshape(inputs[i].shape())
    };
    (0..3).map(together).collect()
}

/// Those of one head: `q`, `y`, `g`: `[queries, d]`; `k`, `v`: `[keys, d]`.
///
/// With `P = softmax(q kᵀ / √d)` and `S = P ∘ (g vᵀ − rows(g ∘ y)) / √d` they are `S k`, `Sᵀ q` and `Pᵀ g`.
fn head(q: &Tensor, k: &Tensor, v: &Tensor, y: &Tensor, g: &Tensor) -> Result<[Tensor; 3]> {
    let (queries, d) = q.dims2()?;
    let scale = 1.0 / (d as f64).sqrt();
    let (keys, values) = (Matrix::Dense(k.clone()), Matrix::Dense(v.clone()));
    let along = (g * y)?.sum_keepdim(D::Minus1)?; // [queries, 1]
    let mut of_q = Vec::with_capacity(queries.div_ceil(QUERIES));
    let mut of_k = Tensor::zeros(k.shape(), k.dtype(), &Device::Cpu)?;
    let mut of_v = of_k.clone();
    for first in (0..queries).step_by(QUERIES) {
        let part = |x: &Tensor| x.narrow(0, first, QUERIES.min(queries - first));
        let (q, g, along) = (part(q)?, part(g)?, part(&along)?);
        let weights = candle_nn::ops::softmax_last_dim(&(linear(&q, &keys, None)? * scale)?)?; // [part, keys]
        let errors = linear(&g, &values, None)?.broadcast_sub(&along)?;
        let scores = ((&weights * errors)? * scale)?;
        of_q.push(pull_back_linear(&scores, &keys)?);
        of_k = (of_k + pull_back_linear(&scores.t()?, &Matrix::Dense(q))?)?;
        of_v = (of_v + pull_back_linear(&weights.t()?, &Matrix::Dense(g))?)?;
    }
    Ok([Tensor::cat(&of_q, 0)?, of_k, of_v])
}
