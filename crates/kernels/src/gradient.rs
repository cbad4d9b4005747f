//! Results of kernels in the graph of gradients: computed before, and joined with what to do when their gradient comes.

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor,
};

/// How an operation computes its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// By kernels.
    Kernels,
    /// By kernels, and joined to the graph of the inputs.
    Gradients,
    /// By tensor calls: other devices have no kernels here.
    Plain,
}

impl Path {
    /// That of an operation on `inputs`.
    pub(crate) fn of(inputs: &[Option<&Tensor>]) -> Self {
        let mut inputs = inputs.iter().flatten();
        if inputs.clone().any(|x| !x.device().is_cpu()) {
            Self::Plain
        } else if inputs.any(|x| x.track_op()) {
            Self::Gradients
        } else {
            Self::Kernels
        }
    }
}

/// From the gradient of a result to those of its inputs, in their order.
type Backward = dyn Fn(&Tensor) -> Result<Vec<Tensor>> + Send + Sync;

/// `y`, which kernels made of `inputs`, one to three of them, as a node of their graph. `backward` gets the gradient of `y` without gaps; what it
/// needs of the inputs it holds detached, because whatever tracks operations takes the way of gradients itself.
pub(crate) fn join(
    inputs: &[&Tensor],
    y: &Tensor,
    backward: impl Fn(&Tensor) -> Result<Vec<Tensor>> + Send + Sync + 'static,
) -> Result<Tensor> {
    let made = Made { y: y.clone(), backward: Box::new(backward) };
    match inputs {
        [a] => a.apply_op1(made),
        [a, b] => a.apply_op2(b, made),
        [a, b, c] => a.apply_op3(b, c, made),
        _ => candle_core::bail!("{} inputs cannot be joined to one result", inputs.len()),
    }
}

struct Made {
    y: Tensor,
    backward: Box<Backward>,
}

impl Made {
    fn result(&self) -> Result<(CpuStorage, Shape)> {
        let y = self.y.contiguous()?;
        let (storage, layout) = y.storage_and_layout();
        match (&*storage, layout.contiguous_offsets()) {
            (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => {
                Ok((CpuStorage::F32(values[start..end].to_vec()), y.shape().clone()))
            }
            _ => candle_core::bail!("only float32 results in main memory are joined"),
        }
    }

    fn gradients<const N: usize>(&self, gradient: &Tensor) -> Result<[Option<Tensor>; N]> {
        let gradients = (self.backward)(&gradient.detach().contiguous()?)?;
        let mut gradients = gradients.into_iter().map(Some);
        Ok(std::array::from_fn(|_| gradients.next().flatten()))
    }
}

impl CustomOp1 for Made {
    fn name(&self) -> &'static str {
        "kernel of one input"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.result()
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let [a] = self.gradients(gradient)?;
        Ok(a)
    }
}

impl CustomOp2 for Made {
    fn name(&self) -> &'static str {
        "kernel of two inputs"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.result()
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [a, b] = self.gradients(gradient)?;
        Ok((a, b))
    }
}

impl CustomOp3 for Made {
    fn name(&self) -> &'static str {
        "kernel of three inputs"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.result()
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = self.gradients(gradient)?;
        Ok((a, b, c))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::testing::{random, worst};
    use crate::{
        Input, Matrix, Pairs, RmsNorm, add_gated, linears, norm_and_rotate, rms_norm, swiglu,
    };

    /// Holds the gradients that `fast` and `plain` get for all of `inputs` against each other, for any gradient of the result.
    fn check(
        inputs: &[&Var],
        fast: impl Fn() -> Result<Tensor>,
        plain: impl Fn() -> Result<Tensor>,
    ) {
        let (got, want) = (fast().unwrap(), plain().unwrap());
        assert_eq!(got.dims(), want.dims());
        assert!(worst(&got, &want) < 1e-4);
        let upstream = random(want.shape());
        let gradients = |y: Tensor| (y * &upstream).unwrap().sum_all().unwrap().backward().unwrap();
        let (got, want) = (gradients(got), gradients(want));
        for (i, input) in inputs.iter().enumerate() {
            let off = worst(got.get(input).unwrap(), want.get(input).unwrap());
            assert!(off < 2e-4, "input {i} {:?}: {off}", input.dims());
        }
    }

    fn var(shape: &[usize]) -> Var {
        Var::from_tensor(&random(shape)).unwrap()
    }

    fn turned(
        x: &Tensor,
        norm: &RmsNorm,
        (cos, sin): (&Tensor, &Tensor),
        pairs: Pairs,
    ) -> Result<Tensor> {
        let x = normed(x, norm)?.transpose(1, 2)?.contiguous()?;
        match pairs {
            Pairs::Neighbours => candle_nn::rotary_emb::rope_i_slow(&x, cos, sin),
            Pairs::Halves => candle_nn::rotary_emb::rope_slow(&x, cos, sin),
        }
    }

    fn normed(x: &Tensor, norm: &RmsNorm) -> Result<Tensor> {
        let root = (x.sqr()?.mean_keepdim(candle_core::D::Minus1)? + norm.eps)?.sqrt()?;
        x.broadcast_div(&root)?.broadcast_mul(&norm.weight)
    }

    #[test]
    fn norms_and_gates_have_the_gradients_of_their_formulas() {
        for (batch, tokens, width) in [(1, 5, 40), (2, 3, 33), (1, 70, 192)] {
            let (x, y) = (var(&[batch, tokens, width]), var(&[batch, tokens, width]));
            let scale = var(&[batch, 1, width]);
            let norm = RmsNorm { weight: random(&[width][..]), eps: 1e-3 };
            check(&[&x], || rms_norm(&x, &norm, None), || normed(&x, &norm));
            check(
                &[&x, &scale],
                || rms_norm(&x, &norm, Some(&scale)),
                || normed(&x, &norm)?.broadcast_mul(&scale),
            );
            check(
                &[&x, &y, &scale],
                || add_gated(&x, &y, &norm, Some(&scale)),
                || x.as_tensor() + normed(&y, &norm)?.broadcast_mul(&scale)?,
            );
            check(
                &[&x, &y],
                || add_gated(&x, &y, &norm, None),
                || x.as_tensor() + normed(&y, &norm)?,
            );
            check(&[&x, &y], || swiglu(&x, &y), || x.silu()? * y.as_tensor());
        }
    }

    #[test]
    fn rotations_and_linear_layers_have_the_gradients_of_their_formulas() {
        let (tokens, heads, d) = (6, 3, 20);
        let x = var(&[2, tokens, heads, d]);
        let norm = RmsNorm { weight: random(&[d][..]), eps: 1e-3 };
        let angles = random(&[tokens, d / 2][..]);
        let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
        for pairs in [Pairs::Neighbours, Pairs::Halves] {
            let angles = (&cos, &sin);
            check(
                &[&x],
                || norm_and_rotate(&x, &norm, angles, pairs),
                || turned(&x, &norm, angles, pairs),
            );
        }
        let (x, weight, bias) = (var(&[2, 9, 70]), random((45, 70)), random(&[45][..]));
        for matrix in
            [Matrix::Dense(weight.clone()), Matrix::Dense(weight.clone()).packed().unwrap()]
        {
            check(
                &[&x],
                || Ok(linears(Input::Plain(&x), &[(&matrix, Some(&bias))])?.remove(0)),
                || x.broadcast_matmul(&weight.t()?)?.broadcast_add(&bias),
            );
        }
    }
}
