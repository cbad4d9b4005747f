//! Adapters on a transformer: beside the weights, switched without touching them.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Device;
use zoetrope_checkpoint::Adapter;

use crate::Result;
use crate::layers::Delta;
use crate::networks::Transformer;

/// An adapter with the strength it is used at; negative ones take away.
#[derive(Clone)]
pub struct Applied {
    /// The file.
    pub adapter: Arc<Adapter>,
    /// The caller's scale; 1 is what the file was trained for.
    pub scale: f64,
}

/// Every linear layer of `transformer` with `[out, in]`: what an adapter's file is read against.
pub fn modules(transformer: &mut Transformer) -> BTreeMap<String, [usize; 2]> {
    let mut modules = BTreeMap::new();
    transformer.visit_linears(&mut |name, linear| {
        modules.insert(name, linear.shape());
    });
    modules
}

/// Puts `adapters` on `transformer`, in place of those before.
pub fn apply(transformer: &mut Transformer, adapters: &[Applied], device: &Device) -> Result<()> {
    apply_with(transformer, adapters, |_| None, device)
}

/// The same, and beside them what `more` gives for a layer's name: a delta that is trained.
pub fn apply_with(
    transformer: &mut Transformer,
    adapters: &[Applied],
    more: impl Fn(&str) -> Option<Delta>,
    device: &Device,
) -> Result<()> {
    let mut failed = None;
    transformer.visit_linears(&mut |name, linear| {
        let of_layer =
            adapters.iter().filter_map(|a| Some((a.adapter.deltas.get(&name)?, a.scale)));
        let deltas = of_layer.map(|(delta, scale)| Delta::new(delta, scale, device));
        match deltas.collect::<Result<Vec<_>>>() {
            Ok(deltas) => linear.set_deltas(deltas.into_iter().chain(more(&name)).collect()),
            Err(error) => failed = Some(error),
        }
    });
    failed.map_or(Ok(()), Err)
}
