//! Gradients of a loss with respect to what is trained beside the layers: adapters. The layers' own weights are frozen.

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use super::{Batch, Transformer};
use crate::{Result, Watch};

/// What a gradient is taken at: one picture with its caption at one time.
#[derive(Clone, Copy, Debug)]
pub struct Point<'a> {
    /// The caption's features, `[tokens, cap_feat_dim]`.
    pub features: &'a Tensor,
    /// `[channels, height, width]`
    pub latents: &'a Tensor,
    /// 0 (noise) to 1 (image).
    pub t: f64,
}

/// Gradients by the tensor that they belong to.
pub struct Gradients(GradStore);

impl Gradients {
    /// That of `tensor`, a `Var`'s; `None` where the loss does not depend on it.
    pub fn get(&self, tensor: &Tensor) -> Option<&Tensor> {
        self.0.get(tensor)
    }
}

impl Transformer {
    /// The loss at `point`, which `loss` makes of the velocity there, `[channels, height, width]`, and its gradients with respect to all
    /// `Var`s that the layers' deltas are made of.
    ///
    /// With `checkpointing` the main layers keep only what enters them, and compute the rest again when their gradients are due (Chen et al.,
    /// 2016): a third more work, and the memory of one layer in place of all. The gradients are the same to the bit.
    pub fn backward(
        &self,
        point: Point,
        checkpointing: bool,
        watch: &dyn Watch,
        loss: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<(f32, Gradients)> {
        let (_, height, width) = point.latents.dims3()?;
        let caption = self.caption(point.features, watch)?;
        let batch = self.batch([(&caption, (height, width))])?;
        let c = self.time(point.t)?;
        let entered = self.embed(&batch, std::slice::from_ref(point.latents), &c, watch)?;
        if checkpointing {
            return self.backward_in_parts(&batch, &entered, &c, watch, loss);
        }
        let mut x = entered;
        for i in 0..self.layers.len() {
            x = self.layer(i, &x, &c, &batch, watch)?;
        }
        let velocities = self.finish(&batch, &x, &c, watch)?;
        let loss = loss(&velocities[0])?;
        Ok((loss.to_scalar()?, Gradients(loss.backward()?)))
    }

    /// From what entered the main layers, keeping no more of each than its input.
    fn backward_in_parts(
        &self,
        batch: &Batch,
        entered: &Tensor,
        c: &Tensor,
        watch: &dyn Watch,
        loss: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<(f32, Gradients)> {
        let mut inputs = Vec::with_capacity(self.layers.len());
        let mut x = entered.detach();
        for i in 0..self.layers.len() {
            let left = self.layer(i, &x, c, batch, watch)?.detach();
            inputs.push(x);
            x = left;
        }
        let left = Var::from_tensor(&x)?;
        let velocities = self.finish(batch, &left, c, watch)?;
        let loss = loss(&velocities[0])?;
        let mut all = loss.backward()?;
        let mut upstream = all.remove(&left);
        for (i, input) in inputs.into_iter().enumerate().rev() {
            let Some(gradient) = upstream else { break };
            let input = Var::from_tensor(&input)?;
            let left = self.layer(i, &input, c, batch, watch)?;
            let mut gradients = pull_back(&left, &gradient)?;
            upstream = gradients.remove(&input);
            all.extend(gradients)?;
        }
        if let Some(gradient) = upstream.filter(|_| entered.track_op()) {
            all.extend(pull_back(entered, &gradient)?)?;
        }
        Ok((loss.to_scalar()?, Gradients(all)))
    }
}

/// Gradients of what `y` was made from, where that of `y` is `gradient`.
fn pull_back(y: &Tensor, gradient: &Tensor) -> Result<GradStore> {
    Ok((y * gradient)?.sum_all()?.backward()?)
}
