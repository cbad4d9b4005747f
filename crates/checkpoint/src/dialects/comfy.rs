//! ComfyUI's names for the transformer, which are those of the authors' repository.

use super::{Meaning, replace_parts};

/// Names that only this dialect has.
pub(super) fn is_typical(name: &str) -> bool {
    name.contains(".attention.qkv.")
        || name.starts_with("x_embedder.")
        || name.starts_with("final_layer.")
}

pub(super) fn meaning(name: &str) -> Meaning {
    // An affine norm that the network does not have, written by some converters.
    if name == "norm_final.weight" {
        return Meaning::Nothing;
    }
    if let Some(rest) = name.strip_prefix("x_embedder.") {
        return Meaning::Tensor(format!("all_x_embedder.2-1.{rest}"));
    }
    if let Some(rest) = name.strip_prefix("final_layer.") {
        return Meaning::Tensor(format!("all_final_layer.2-1.{rest}"));
    }
    if let Some((before, after)) = name.split_once(".attention.qkv.") {
        return Meaning::Parts(
            ["to_q", "to_k", "to_v"].map(|p| format!("{before}.attention.{p}.{after}")).to_vec(),
        );
    }
    Meaning::Tensor(replace_parts(
        name,
        &[("out", "to_out.0"), ("q_norm", "norm_q"), ("k_norm", "norm_k")],
    ))
}
