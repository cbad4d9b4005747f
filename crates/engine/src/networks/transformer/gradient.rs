//! Gradients of a loss with respect to what is trained beside the layers: adapters. The layers' own weights are frozen.

use candle_core::backprop::GradStore;
use candle_core::{Tensor, TensorId, Var};

use super::{Batch, Time, Transformer};
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
        let time = &self.time(point.t, false)?;
        let patches = self.patches(&batch, std::slice::from_ref(point.latents), watch)?;
        let entered = batch.unified(&self.refine(&batch, &patches, time, (&[], watch))?)?;
        if checkpointing {
            return self.backward_in_parts(&batch, &entered, time, watch, loss);
        }
        let mut x = entered;
        for i in 0..self.layers.len() {
            x = self.layer(i, &x, time, &batch, watch)?;
        }
        let velocities = self.finish(&batch, &x, time, watch)?;
        let loss = loss(&velocities[0])?;
        Ok((loss.to_scalar()?, Gradients(gradients(&loss)?)))
    }

    /// From what entered the main layers, keeping no more of each than its input.
    fn backward_in_parts(
        &self,
        batch: &Batch,
        entered: &Tensor,
        time: &Time,
        watch: &dyn Watch,
        loss: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<(f32, Gradients)> {
        let mut inputs = Vec::with_capacity(self.layers.len());
        let mut x = entered.detach();
        for i in 0..self.layers.len() {
            let left = self.layer(i, &x, time, batch, watch)?.detach();
            inputs.push(x);
            x = left;
        }
        let left = Var::from_tensor(&x)?;
        let velocities = self.finish(batch, &left, time, watch)?;
        let loss = loss(&velocities[0])?;
        let mut all = gradients(&loss)?;
        let mut upstream = all.remove(&left);
        for (i, input) in inputs.into_iter().enumerate().rev() {
            let Some(gradient) = upstream else { break };
            let input = Var::from_tensor(&input)?;
            let left = self.layer(i, &input, time, batch, watch)?;
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
    gradients(&(y * gradient)?.sum_all()?)
}

/// The gradients of `loss`, without the graph that they were computed by: it would keep what each layer computed.
fn gradients(loss: &Tensor) -> Result<GradStore> {
    let mut all = loss.backward()?;
    let ids: Vec<TensorId> = all.get_ids().copied().collect();
    for id in ids {
        if let Some(gradient) = all.get_id(id).map(Tensor::detach) {
            all.insert_id(id, gradient);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use candle_core::Device;
    use zoetrope_checkpoint::{Layout, Role, Storage, Weights};

    use super::*;
    use crate::config;
    use crate::layers::{Delta, Parameters};
    use crate::{Unwatched, lora};

    /// ‖got − want‖ / ‖want‖
    fn relative(got: &Tensor, want: &Tensor) -> f32 {
        let size = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        (size(&(got - want).unwrap()) / size(want)).sqrt()
    }

    /// As `tests/fixtures/gradients/record.py` recorded it.
    #[test]
    fn one_layer_has_pytorch_s_gradients() {
        for name in ["slim", "turbo"] {
            let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
            let recorded = fixtures.join(format!("gradients/{name}.safetensors"));
            let recorded: HashMap<String, Tensor> =
                candle_core::safetensors::load(recorded, &Device::Cpu).unwrap();
            let layout = Layout::locate(&fixtures.join(name).join("model"), None, None).unwrap();
            let blob = layout.transformer_config.unwrap();
            let config = config::parse(&blob.name(), &blob.read().unwrap()).unwrap();
            let weights = Weights::open(&layout.transformer, Role::Transformer).unwrap();
            let parameters = Parameters::new(weights.with_storage(Storage::F32), &Device::Cpu);
            let mut transformer = Transformer::load(&parameters, &config).unwrap();

            let var = |key: &str| Var::from_tensor(&recorded[&format!("adapter.{key}")]).unwrap();
            let of_block = |key: &&String| key.starts_with("block.gradient.layers.0.");
            let keys: Vec<&str> = recorded
                .keys()
                .filter(of_block)
                .filter_map(|key| key.strip_prefix("block.gradient."))
                .collect();
            assert_eq!(keys.len(), 2 * 8, "{name}: {keys:?}");
            let vars: HashMap<&str, Var> = keys.iter().map(|key| (*key, var(key))).collect();
            let delta = |module: &str| {
                let part = |part| Some(vars.get(&*format!("{module}.{part}"))?.as_tensor().clone());
                Some(Delta::LowRank { down: part("down")?, up: part("up")?, scale: 2.0 })
            };
            lora::apply_with(&mut transformer, &[], delta, &Device::Cpu).unwrap();

            let t: Vec<f32> = recorded["t"].to_vec1().unwrap();
            let time = transformer.time(f64::from(t[0]), false).unwrap();
            let caption = transformer.caption(&recorded["features"], &Unwatched).unwrap();
            let (_, height, width) = recorded["latents"].dims3().unwrap();
            let batch = transformer.batch([(&caption, (height, width))]).unwrap();
            let x = Var::from_tensor(&recorded["block.x"]).unwrap();
            let y = transformer.layer(0, &x, &time, &batch, &Unwatched).unwrap();
            let gradients = pull_back(&y, &recorded["block.upstream"]).unwrap();
            let off = relative(gradients.get(&x).unwrap(), &recorded["block.gradient.x"]);
            assert!(off < 1e-4, "{name}, x: {off:.1e}");
            for (key, var) in &vars {
                let want = &recorded[&format!("block.gradient.{key}")];
                let off = relative(gradients.get(var).unwrap(), want);
                assert!(off < 1e-4, "{name}, {key}: {off:.1e}");
            }
        }
    }
}
