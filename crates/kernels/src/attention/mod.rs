//! Scaled dot-product attention: `softmax(q · kᵀ / √d) · v`.

mod gradient;
mod packed;
mod tiled;

use candle_core::{D, DType, Result, Tensor};

use crate::Precision;
use crate::gradient::{Path, join};
use crate::simd::Level;

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// All of them.
    None,
    /// Those at its own position and before; the last query stands at the last key.
    Causal,
}

/// `q`: `[batch, heads, queries, d]`; `k`, `v`: `[batch, kv_heads, keys, d]` with `heads` a multiple of `kv_heads`
/// (grouped queries: neighbouring heads share keys). Returns `[batch, heads, queries, d]`, which lies in memory as
/// `[batch, queries, heads, d]`: what a linear layer over all heads takes.
///
/// With [`Precision::Bf16`] queries, keys, weights and values are rounded to bfloat16 where the processor multiplies that;
/// sums and the softmax never are. With [`Precision::Int8`] queries and keys are rounded to int8 instead, each with a scale of its own,
/// keys after their mean was taken from them.
pub fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Mask,
    precision: Precision,
) -> Result<Tensor> {
    let (_, heads, queries, d) = q.dims4()?;
    let (_, kv_heads, keys, _) = k.dims4()?;
    let fits = k.dims() == v.dims()
        && k.dim(0)? == q.dim(0)?
        && k.dim(3)? == d
        && kv_heads > 0
        && heads % kv_heads == 0
        && (mask == Mask::None || queries <= keys);
    if !fits {
        candle_core::bail!(
            "attention: queries {:?}, keys {:?} and values {:?} do not fit each other",
            q.dims(),
            k.dims(),
            v.dims()
        );
    }
    match Path::of(&[Some(q), Some(k), Some(v)]) {
        Path::Kernels => tiled::attention(Level::best(), (q, k, v), mask, precision),
        Path::Gradients if mask == Mask::None && heads == kv_heads => {
            let held = [q.detach(), k.detach(), v.detach()];
            let y =
                tiled::attention(Level::best(), (&held[0], &held[1], &held[2]), mask, precision)?;
            // Joined as it lies in memory.
            let y = y.transpose(1, 2)?;
            let result = y.clone();
            let gradients = move |g: &Tensor| gradient::pull_back(&held, &result, g);
            join(&[q, k, v], &y, gradients)?.transpose(1, 2)
        }
        // No network here is trained through these.
        Path::Gradients => plain(q, k, v, mask),
        Path::Plain => {
            #[cfg(feature = "cuda")]
            if let Some(y) = crate::cuda::attention([q, k, v], mask, precision)? {
                return Ok(y);
            }
            plain_in_parts(q, k, v, mask, SCORES_AT_ONCE)
        }
    }
}

/// Scores that the plain twin makes at once where no gradients are wanted: 0.25 GB.
const SCORES_AT_ONCE: usize = 64 << 20;

/// The plain twin on devices without a kernel, some queries after others: all scores of a large picture fit into no memory.
fn plain_in_parts(q: &Tensor, k: &Tensor, v: &Tensor, mask: Mask, scores: usize) -> Result<Tensor> {
    let wide = |x: &Tensor| x.to_dtype(DType::F32);
    let (q, k, v) = (&wide(q)?, &wide(k)?, &wide(v)?);
    let (batch, heads, queries, _) = q.dims4()?;
    let keys = k.dim(2)?;
    let at_once = (scores / (batch * heads * keys).max(1)).max(1);
    if queries <= at_once || q.track_op() || k.track_op() || v.track_op() {
        return plain(q, k, v, mask);
    }
    let part = |start: usize| {
        let count = at_once.min(queries - start);
        let q = q.narrow(2, start, count)?;
        // The last query stands at the last key that it sees.
        let seen = if mask == Mask::Causal { keys - queries + start + count } else { keys };
        plain(&q, &k.narrow(2, 0, seen)?, &v.narrow(2, 0, seen)?, mask)?.transpose(1, 2)
    };
    let parts = (0..queries).step_by(at_once).map(part).collect::<Result<Vec<_>>>()?;
    Tensor::cat(&parts, 1)?.transpose(1, 2)
}

/// The plain twin, in one piece: the path of gradients and of other devices.
pub(crate) fn plain(q: &Tensor, k: &Tensor, v: &Tensor, mask: Mask) -> Result<Tensor> {
    let (_, heads, queries, d) = q.dims4()?;
    let (_, kv_heads, keys, _) = k.dims4()?;
    let (k, v) = (repeat_heads(k, heads / kv_heads)?, repeat_heads(v, heads / kv_heads)?);
    let scores = (q.contiguous()?.matmul(&k.t()?.contiguous()?)? / (d as f64).sqrt())?;
    let scores = match mask {
        Mask::None => scores,
        Mask::Causal => scores.broadcast_add(&causal(keys - queries, queries, keys, &scores)?)?,
    };
    let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    let y = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?.matmul(&v.contiguous()?)?;
    y.transpose(1, 2)?.contiguous()?.transpose(1, 2)
}

/// `[batch, heads, keys, d]` with every head `times` times in a row.
fn repeat_heads(x: &Tensor, times: usize) -> Result<Tensor> {
    if times == 1 {
        return Ok(x.clone());
    }
    let (batch, heads, keys, d) = x.dims4()?;
    let x = x.unsqueeze(2)?.expand((batch, heads, times, keys, d))?;
    x.reshape((batch, heads * times, keys, d))
}

/// 0 where query `first + row` may look, −∞ after it: `[rows, keys]`.
fn causal(first: usize, rows: usize, keys: usize, like: &Tensor) -> Result<Tensor> {
    let values: Vec<f32> = (0..rows)
        .flat_map(|row| {
            (0..keys).map(move |key| if key <= first + row { 0.0 } else { f32::NEG_INFINITY })
        })
        .collect();
    Tensor::from_vec(values, (rows, keys), like.device())?.to_dtype(like.dtype())
}

#[cfg(test)]
mod tests {
    use candle_core::Var;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{random, rounded, share, worst};

    /// Every level in both precisions, against the plain twin over the inputs that each sees.
    fn check(q: &Tensor, k: &Tensor, v: &Tensor, mask: Mask) {
        let exact = plain(q, k, v, mask).unwrap();
        let round = plain(&rounded(q), &rounded(k), &rounded(v), mask).unwrap();
        for level in Level::available() {
            let run = |precision| tiled::attention(level, (q, k, v), mask, precision).unwrap();
            let full = run(Precision::F32);
            assert_eq!(full.dims(), q.dims());
            assert!(worst(&full, &exact) < 2e-5, "{level} {mask:?}: {}", worst(&full, &exact));
            // The softmax's weights are rounded once more, by 2⁻⁹ of each, and average over values below 5.
            let (want, limit) = if level.has_bf16() { (&round, 2e-2) } else { (&exact, 2e-5) };
            let half = worst(&run(Precision::Bf16), want);
            assert!(half < limit, "{level} {mask:?}: {half}");
            // Queries and keys have a step of 1/50 or so, so that scores are off by less than a hundredth, and weights by as large a share.
            let eighth = share(&run(Precision::Int8), &exact);
            assert!(eighth < 2e-2, "{level} {mask:?}, int8: {eighth}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() })]

        #[test]
        fn every_level_agrees_with_the_plain_twin(
            batch in 1usize..3,
            kv_heads in 1usize..3,
            shared in 1usize..3,
            queries in 1usize..130,
            more in 0usize..50,
            d in 1usize..70,
            causal in any::<bool>(),
        ) {
            let keys = queries + more;
            let mask = if causal { Mask::Causal } else { Mask::None };
            let kv = (batch, kv_heads, keys, d);
            check(&random((batch, kv_heads * shared, queries, d)), &random(kv), &random(kv), mask);
        }
    }

    #[test]
    fn sequences_of_many_blocks_agree_and_so_do_fewer_keys_than_queries() {
        for (queries, keys, d) in [(40, 1100, 128), (150, 20, 32)] {
            let kv = (1, 2, keys, d);
            check(&random((1, 2, queries, d)), &random(kv), &random(kv), Mask::None);
        }
        check(
            &random((1, 1, 700, 16)),
            &random((1, 1, 700, 16)),
            &random((1, 1, 700, 16)),
            Mask::Causal,
        );
    }

    #[test]
    fn gradients_are_those_of_the_plain_twin() {
        for (batch, heads, queries, keys, d) in
            [(1, 2, 5, 7, 8), (2, 1, 200, 130, 20), (1, 3, 64, 64, 32)]
        {
            let var = |n| Var::from_tensor(&random((batch, heads, n, d))).unwrap();
            let (q, k, v) = (var(queries), var(keys), var(keys));
            let upstream = random((batch, heads, queries, d));
            let gradients =
                |y: Tensor| (y * &upstream).unwrap().sum_all().unwrap().backward().unwrap();
            let got = gradients(attention(&q, &k, &v, Mask::None, Precision::F32).unwrap());
            let want = gradients(plain(&q, &k, &v, Mask::None).unwrap());
            for x in [&q, &k, &v] {
                let off = worst(got.get(x).unwrap(), want.get(x).unwrap());
                assert!(off < 5e-5, "{queries} queries, {keys} keys: {off}");
            }
        }
    }

    #[test]
    fn the_plain_twin_in_parts_is_the_plain_twin() {
        for mask in [Mask::None, Mask::Causal] {
            let of = |n| random((2, 3, n, 8));
            let (q, k, v) = (of(37), of(50), of(50));
            let want = plain(&q, &k, &v, mask).unwrap();
            // One query at a time, some, and all.
            for scores in [1, 2 * 3 * 50 * 16, 1 << 20] {
                let got = plain_in_parts(&q, &k, &v, mask, scores).unwrap();
                assert_eq!(got.dims(), want.dims());
                assert!(worst(&got, &want) < 2e-6, "{mask:?}, {scores} scores at once");
            }
        }
    }

    #[test]
    fn heads_may_lie_between_tokens() {
        let view = |x: Tensor| x.transpose(1, 2).unwrap();
        let of = || view(random((2, 37, 3, 20))); // [batch, tokens, heads, d]
        check(&of(), &of(), &of(), Mask::None);
    }

    #[test]
    fn large_scores_neither_overflow_nor_hide_what_is_not_a_number() {
        let (k, v) = (random((1, 1, 64, 8)), random((1, 1, 64, 8)));
        let q = (random((1, 1, 9, 8)) * 300.0).unwrap();
        let want = plain(&q, &k, &v, Mask::None).unwrap();
        for level in Level::available() {
            let got = tiled::attention(level, (&q, &k, &v), Mask::None, Precision::F32).unwrap();
            assert!(worst(&got, &want) < 2e-3, "{level}: {}", worst(&got, &want));
            let bad = (&q * f64::NAN).unwrap();
            let got = tiled::attention(level, (&bad, &k, &v), Mask::None, Precision::F32).unwrap();
            let got: Vec<f32> = got.flatten_all().unwrap().to_vec1().unwrap();
            assert!(got.iter().all(|v| v.is_nan()), "{level}");
        }
    }

    #[test]
    fn what_all_keys_share_costs_int8_nothing() {
        let (q, v) = (random((1, 2, 40, 64)), random((1, 2, 90, 64)));
        let k =
            random((1, 2, 90, 64)).broadcast_add(&(random((1, 1, 1, 64)) * 30.0).unwrap()).unwrap();
        let want = plain(&q, &k, &v, Mask::None).unwrap();
        for level in Level::available() {
            let got = tiled::attention(level, (&q, &k, &v), Mask::None, Precision::Int8).unwrap();
            assert!(share(&got, &want) < 2e-2, "{level}: {}", share(&got, &want));
        }
    }

    #[test]
    fn a_query_of_zeros_takes_the_mean_in_int8_too() {
        let q = Tensor::zeros((1, 1, 3, 64), DType::F32, &candle_core::Device::Cpu).unwrap();
        let (k, v) = (random((1, 1, 33, 64)), random((1, 1, 33, 64))); // a panel of which 31 keys are hidden
        let want = plain(&q, &k, &v, Mask::None).unwrap();
        for level in Level::available() {
            let got = tiled::attention(level, (&q, &k, &v), Mask::None, Precision::Int8).unwrap();
            assert!(share(&got, &want) < 0.02, "{level}");
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_named() {
        let (q, k) = (random((1, 3, 4, 8)), random((1, 2, 4, 8)));
        let error = attention(&q, &k, &k, Mask::None, Precision::F32).unwrap_err().to_string();
        assert!(error.contains("[1, 3, 4, 8]") && error.contains("[1, 2, 4, 8]"), "{error}");
    }
}
