//! Names: each dialect is a few rewrite rules onto the published names, in a file of its own.

mod comfy;
mod flux_vae;
mod llama;

use crate::Role;

/// What a tensor in a file is in the published model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// A tensor under its published name.
    Tensor(String),
    /// Several tensors, equal parts of the rows.
    Parts(Vec<String>),
    /// The scale of an fp8 weight with this published name.
    Scale(String),
    /// Of no use for inference.
    Nothing,
}

/// A way in which files name tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// As published by diffusers and transformers.
    Published,
    /// ComfyUI's transformer: fused `attention.qkv`.
    Comfy,
    /// Flux's own `ae.safetensors`.
    FluxVae,
    /// llama.cpp's text encoders.
    Llama,
}

/// Prefixes that tools put before all names of a network; in files of several networks they tell them apart.
const PREFIXES: &[(Role, &[&str])] = &[
    (Role::Transformer, &["model.diffusion_model.", "diffusion_model.", "transformer."]),
    (
        Role::TextEncoder,
        &[
            "text_encoders.qwen3_4b.transformer.model.",
            "text_encoders.qwen3_4b.model.",
            "text_encoder.model.",
            "model.",
        ],
    ),
    (Role::Vae, &["first_stage_model.", "vae."]),
    (Role::Control, &["controlnet."]),
    // Up to transformers 4 the tower was a part of the model of the same name.
    (Role::Vision, &["vision_model."]),
];

impl Dialect {
    /// The dialect and the prefix of a file's names.
    pub(crate) fn recognise<'a>(
        role: Role,
        names: impl Iterator<Item = &'a str> + Clone,
    ) -> (Self, &'static str) {
        let prefixes = PREFIXES.iter().find(|(r, _)| *r == role).map_or(&[][..], |(_, p)| p);
        let prefix = prefixes
            .iter()
            .find(|p| names.clone().any(|n| n.starts_with(**p)))
            .copied()
            .unwrap_or("");
        let mut bare = names.filter_map(|n| n.strip_prefix(prefix));
        let dialect = match role {
            Role::Transformer if bare.any(comfy::is_typical) => Self::Comfy,
            Role::TextEncoder if bare.any(llama::is_typical) => Self::Llama,
            Role::Vae if bare.any(flux_vae::is_typical) => Self::FluxVae,
            _ => Self::Published,
        };
        (dialect, prefix)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Published => "diffusers",
            Self::Comfy => "ComfyUI",
            Self::FluxVae => "Flux autoencoder",
            Self::Llama => "llama.cpp",
        }
    }

    /// What `name`, without its prefix, means.
    pub(crate) fn meaning(self, name: &str) -> Meaning {
        if matches!(name, "scaled_fp8")
            || name.ends_with(".scale_input")
            || name.ends_with(".input_scale")
        {
            return Meaning::Nothing;
        }
        for ending in [".scale_weight", ".weight_scale"] {
            if let Some(module) = name.strip_suffix(ending) {
                return match self.meaning(&format!("{module}.weight")) {
                    Meaning::Tensor(weight) => Meaning::Scale(weight),
                    Meaning::Parts(weights) => Meaning::Scale(weights.join("\n")),
                    other => other,
                };
            }
        }
        match self {
            Self::Published => Meaning::Tensor(name.into()),
            Self::Comfy => comfy::meaning(name),
            Self::FluxVae => Meaning::Tensor(flux_vae::published(name)),
            Self::Llama => llama::meaning(name),
        }
    }

    /// Whether the file may have further dimensions of size 1 where the published tensor has none, as 1 × 1
    /// convolutions in place of linear layers.
    pub(crate) fn squeezes(self) -> bool {
        self == Self::FluxVae
    }
}

/// `name` with the parts between dots that `rules` list replaced.
fn replace_parts(name: &str, rules: &[(&str, &str)]) -> String {
    let part = |p: &str| {
        rules.iter().find(|(from, _)| *from == p).map_or(p.to_string(), |(_, to)| to.to_string())
    };
    name.split('.').map(part).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_dialect_reach_the_published_ones() {
        use Dialect::*;
        let tensor = |n: &str| Meaning::Tensor(n.into());
        let cases = [
            (Published, "layers.0.attention.to_q.weight", tensor("layers.0.attention.to_q.weight")),
            (Comfy, "x_embedder.bias", tensor("all_x_embedder.2-1.bias")),
            (Comfy, "final_layer.linear.weight", tensor("all_final_layer.2-1.linear.weight")),
            (Comfy, "layers.3.attention.out.weight", tensor("layers.3.attention.to_out.0.weight")),
            (Comfy, "layers.3.attention.q_norm.weight", tensor("layers.3.attention.norm_q.weight")),
            (Comfy, "norm_final.weight", Meaning::Nothing),
            (
                Comfy,
                "layers.3.attention.out.scale_weight",
                Meaning::Scale("layers.3.attention.to_out.0.weight".into()),
            ),
            (
                FluxVae,
                "decoder.up.0.block.1.conv1.weight",
                tensor("decoder.up_blocks.3.resnets.1.conv1.weight"),
            ),
            (
                FluxVae,
                "encoder.down.2.block.0.nin_shortcut.bias",
                tensor("encoder.down_blocks.2.resnets.0.conv_shortcut.bias"),
            ),
            (
                FluxVae,
                "encoder.mid.attn_1.proj_out.weight",
                tensor("encoder.mid_block.attentions.0.to_out.0.weight"),
            ),
            (
                FluxVae,
                "encoder.mid.attn_1.norm.weight",
                tensor("encoder.mid_block.attentions.0.group_norm.weight"),
            ),
            (FluxVae, "decoder.norm_out.weight", tensor("decoder.conv_norm_out.weight")),
            (
                FluxVae,
                "decoder.up.3.upsample.conv.bias",
                tensor("decoder.up_blocks.0.upsamplers.0.conv.bias"),
            ),
            (Llama, "blk.7.attn_q_norm.weight", tensor("layers.7.self_attn.q_norm.weight")),
            (Llama, "blk.7.ffn_norm.weight", tensor("layers.7.post_attention_layernorm.weight")),
            (Llama, "token_embd.weight", tensor("embed_tokens.weight")),
        ];
        for (dialect, name, want) in cases {
            assert_eq!(dialect.meaning(name), want, "{name}");
        }
        let qkv = Comfy.meaning("layers.3.attention.qkv.weight");
        let parts = ["to_q", "to_k", "to_v"].map(|p| format!("layers.3.attention.{p}.weight"));
        assert_eq!(qkv, Meaning::Parts(parts.to_vec()));
    }
}
