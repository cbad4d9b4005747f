//! llama.cpp's names for Qwen3, as GGUF text encoders have them.

use super::Meaning;

const LAYER: &[(&str, &str)] = &[
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_norm", "input_layernorm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Names that only this dialect has.
pub(super) fn is_typical(name: &str) -> bool {
    name.starts_with("blk.")
}

pub(super) fn meaning(name: &str) -> Meaning {
    match name {
        "token_embd.weight" => return Meaning::Tensor("embed_tokens.weight".into()),
        "output_norm.weight" => return Meaning::Tensor("norm.weight".into()),
        "output.weight" => return Meaning::Tensor("lm_head.weight".into()),
        "rope_freqs.weight" => return Meaning::Nothing,
        _ => {}
    }
    let parts = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
    let published = parts.and_then(|(layer, rest)| {
        let (part, ending) = rest.rsplit_once('.')?;
        let (_, to) = LAYER.iter().find(|(from, _)| *from == part)?;
        Some(format!("layers.{layer}.{to}.{ending}"))
    });
    Meaning::Tensor(published.unwrap_or_else(|| name.into()))
}
