//! Scaled dot-product attention: `softmax(q · kᵀ / √d) · v`.

use candle_core::{Result, Tensor};

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// All of them.
    None,
    /// Those at its own position and before.
    Causal,
}

/// Scores held at once, in values: 256 MiB of float32. Longer sequences are taken in blocks of queries.
const SCORES_AT_ONCE: usize = 64 << 20;

/// `q`: `[batch, heads, queries, d]`; `k`, `v`: `[batch, kv_heads, keys, d]` with `heads` a multiple of `kv_heads`
/// (grouped queries: neighbouring heads share keys). Returns `[batch, heads, queries, d]`.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, mask: Mask) -> Result<Tensor> {
    attention_in_blocks(q, k, v, mask, SCORES_AT_ONCE)
}

fn attention_in_blocks(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    mask: Mask,
    at_once: usize,
) -> Result<Tensor> {
    let (batch, heads, queries, d) = q.dims4()?;
    let (_, kv_heads, keys, _) = k.dims4()?;
    let (k, v) = (repeat_heads(k, heads / kv_heads)?, repeat_heads(v, heads / kv_heads)?);
    let k = k.t()?.contiguous()?; // [batch, heads, d, keys]
    let v = v.contiguous()?;
    let q = (q * (1.0 / (d as f64).sqrt()))?;

    let block = (at_once / (batch * heads * keys).max(1)).clamp(1, queries.max(1));
    let mut parts = Vec::with_capacity(queries.div_ceil(block));
    for start in (0..queries).step_by(block) {
        let rows = block.min(queries - start);
        let scores = q.narrow(2, start, rows)?.contiguous()?.matmul(&k)?; // [batch, heads, rows, keys]
        let scores = match mask {
            Mask::None => scores,
            Mask::Causal => {
                scores.broadcast_add(&causal(start + keys - queries, rows, keys, &scores)?)?
            }
        };
        parts.push(candle_nn::ops::softmax_last_dim(&scores)?.matmul(&v)?);
    }
    if parts.len() == 1 { Ok(parts.remove(0)) } else { Tensor::cat(&parts, 2) }
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
    use super::*;
    use candle_core::{D, DType, Device};

    /// The plain twin, in one piece.
    fn plain(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
        let d = q.dim(D::Minus1)?;
        let scores = (q.to_dtype(DType::F32)?.matmul(&k.t()?)? / (d as f64).sqrt())?;
        let top = scores.max_keepdim(D::Minus1)?;
        let e = scores.broadcast_sub(&top)?.exp()?;
        e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?.matmul(v)
    }

    fn close(a: &Tensor, b: &Tensor) -> bool {
        let d = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
        d.max(0).unwrap().to_scalar::<f32>().unwrap() < 2e-6
    }

    fn random(shape: (usize, usize, usize, usize)) -> Tensor {
        Tensor::randn(0f32, 1.0, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn blocks_of_queries_give_the_plain_result() {
        let (q, k, v) = (random((2, 3, 7, 8)), random((2, 3, 11, 8)), random((2, 3, 11, 8)));
        let want = plain(&q, &k, &v).unwrap();
        for at_once in [1, 2 * 3 * 11, 3 * 2 * 3 * 11, 1 << 20] {
            let got = attention_in_blocks(&q, &k, &v, Mask::None, at_once).unwrap();
            assert!(close(&got, &want), "{at_once}");
        }
    }

    #[test]
    fn a_causal_query_sees_what_came_before_and_itself() {
        let (q, k, v) = (random((1, 4, 6, 8)), random((1, 2, 6, 8)), random((1, 2, 6, 8)));
        let got = attention_in_blocks(&q, &k, &v, Mask::Causal, 4 * 6 * 2).unwrap();
        let spread = |t: &Tensor| repeat_heads(t, 2).unwrap();
        for i in 0..6 {
            let one = q.narrow(2, i, 1).unwrap();
            let want = plain(
                &one.contiguous().unwrap(),
                &spread(&k).narrow(2, 0, i + 1).unwrap().contiguous().unwrap(),
                &spread(&v).narrow(2, 0, i + 1).unwrap().contiguous().unwrap(),
            );
            assert!(close(&got.narrow(2, i, 1).unwrap(), &want.unwrap()), "query {i}");
        }
    }
}
