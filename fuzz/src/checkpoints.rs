//! Files of weights: their headers, in every dialect, and adapters with their values.

use std::collections::BTreeMap;

use zoetrope_checkpoint::{Adapter, Blob, Role, Weights};

/// Tensors larger than this are not asked for: their memory is not what is looked at here.
const VALUES_MAX: usize = 1 << 16;

/// Opens `data` as a checkpoint of each network and reads what it says it has.
pub fn weights(data: &[u8]) {
    lent(data, |blob| {
        for role in [Role::Transformer, Role::TextEncoder, Role::Vae] {
            let Ok(weights) = Weights::open(std::slice::from_ref(blob), role) else { continue };
            for name in ["norm.weight", "layers.0.attention.to_q.weight", "decoder.conv_in.weight"]
            {
                let Some(shape) = weights.shape(name) else { continue };
                let values = shape.iter().try_fold(1_usize, |all, side| all.checked_mul(*side));
                if values.is_some_and(|values| values <= VALUES_MAX) {
                    let _ = weights.tensor(name, &shape);
                }
            }
            let _ = weights.finish();
        }
    });
}

/// Opens `data` as an adapter of a small transformer.
pub fn adapter(data: &[u8]) {
    let layers = ["to_q", "to_k", "to_v", "to_out.0"];
    let modules: BTreeMap<String, [usize; 2]> = layers
        .map(|layer| (format!("layers.0.attention.{layer}"), [16, 16]))
        .into_iter()
        .chain([("layers.0.feed_forward.w1".into(), [32, 16])])
        .collect();
    lent(data, |blob| {
        if let Ok(adapter) = Adapter::read(blob, &modules) {
            assert!(adapter.deltas.keys().all(|name| modules.contains_key(name)));
        }
    });
}

/// Shows `data` as a file; the ending is that of a client's upload.
fn lent(data: &[u8], show: impl FnOnce(&Blob)) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("file.safetensors");
    std::fs::write(&path, data).expect("it can be written");
    show(&Blob::File(path));
}
