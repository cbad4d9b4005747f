//! The names of Flux's own autoencoder file, `ae.safetensors`.

use super::replace_parts;

/// Names that only this dialect has.
pub(super) fn is_typical(name: &str) -> bool {
    name.contains(".mid.block_1.") || name.contains(".down.0.block.")
}

/// Levels of the decoder; its `up` counts from the full size, diffusers' from the smallest.
const LEVELS: usize = 4;

pub(super) fn published(name: &str) -> String {
    let name = name.replace("mid.attn_1.norm.", "mid_block.attentions.0.group_norm.");
    let name = name.replace("mid.attn_1.", "mid_block.attentions.0.");
    let name = name
        .replace("mid.block_1.", "mid_block.resnets.0.")
        .replace("mid.block_2.", "mid_block.resnets.1.");
    let name = replace_parts(
        &name,
        &[
            ("block", "resnets"),
            ("nin_shortcut", "conv_shortcut"),
            ("norm_out", "conv_norm_out"),
            ("downsample", "downsamplers.0"),
            ("upsample", "upsamplers.0"),
            ("down", "down_blocks"),
        ],
    );
    if name.contains(".attentions.") {
        let rules = [("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")];
        return replace_parts(&name, &rules);
    }
    let Some((before, after)) =
        name.split_once("decoder.up.").filter(|(before, _)| before.is_empty())
    else {
        return name;
    };
    match after.split_once('.').and_then(|(level, rest)| Some((level.parse::<usize>().ok()?, rest)))
    {
        Some((level, rest)) if level < LEVELS => {
            format!("{before}decoder.up_blocks.{}.{rest}", LEVELS - 1 - level)
        }
        _ => name,
    }
}
