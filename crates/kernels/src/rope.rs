//! Rotary position embedding, in the two layouts that are in use (Su et al., 2021).

use candle_core::{Result, Tensor};

/// Rotates neighbours, `(2i, 2i + 1)`, as the transformer does. `x`: `[batch, heads, tokens, d]`;
/// `cos`, `sin`: `[tokens, d / 2]`.
pub fn rotate_pairs(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    candle_nn::rotary_emb::rope_i(&x.contiguous()?, cos, sin)
}

/// Rotates halves, `(i, i + d / 2)`, as Qwen3 does. Shapes as for [`rotate_pairs`].
pub fn rotate_halves(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    candle_nn::rotary_emb::rope(&x.contiguous()?, cos, sin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn each_layout_turns_its_own_pairs() {
        let x = Tensor::new(&[[[[1f32, 2.0, 3.0, 4.0]]]], &Device::Cpu).unwrap();
        // A quarter turn for the first pair, none for the second.
        let cos = Tensor::new(&[[0f32, 1.0]], &Device::Cpu).unwrap();
        let sin = Tensor::new(&[[1f32, 0.0]], &Device::Cpu).unwrap();
        let flat = |t: Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(flat(rotate_pairs(&x, &cos, &sin).unwrap()), [-2.0, 1.0, 3.0, 4.0]);
        assert_eq!(flat(rotate_halves(&x, &cos, &sin).unwrap()), [-3.0, 2.0, 1.0, 4.0]);
    }
}
