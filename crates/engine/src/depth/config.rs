//! `config.json` of a depth network, field for field.

use serde::Deserialize;

use crate::config::{Defaults, EncoderConfig, WIDTH_MAX, check_range};
use crate::networks::{DepthShape, Resized};
use crate::{Error, Result};

/// What errors call it.
const PART: &str = "depth network";
/// What transformers takes for absent fields of a backbone.
const DINO: Defaults = Defaults { patch: 14, intermediate: None, eps: 1e-6, activation: "gelu" };
/// Networks look at features of four layers.
const TAKEN_MAX: usize = 16;
/// Features are at most so many times larger than the patches.
const LARGER_MAX: usize = 16;

/// The file. What it leaves out is what transformers takes.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(super) struct NetworkConfig {
    model_type: Option<String>,
    backbone_config: Option<BackboneConfig>,
    patch_size: usize,
    reassemble_hidden_size: usize,
    reassemble_factors: Vec<f64>,
    neck_hidden_sizes: Vec<usize>,
    fusion_hidden_size: usize,
    head_in_index: i64,
    head_hidden_size: usize,
    depth_estimation_type: String,
}

#[derive(Debug, Deserialize)]
struct BackboneConfig {
    model_type: Option<String>,
    #[serde(flatten)]
    encoder: EncoderConfig,
    out_indices: Option<Vec<usize>>,
    out_features: Option<Vec<String>>,
    #[serde(default)]
    use_swiglu_ffn: bool,
    apply_layernorm: Option<bool>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            model_type: None,
            backbone_config: None,
            patch_size: 14,
            reassemble_hidden_size: 384,
            reassemble_factors: vec![4.0, 2.0, 1.0, 0.5],
            neck_hidden_sizes: vec![48, 96, 192, 384],
            fusion_hidden_size: 64,
            head_in_index: -1,
            head_hidden_size: 32,
            depth_estimation_type: "relative".into(),
        }
    }
}

impl NetworkConfig {
    /// Refuses what is not supported; `file` is named in errors.
    pub(super) fn check(self, file: &str) -> Result<DepthShape> {
        let wrong = |problem: String| Error::Config { file: file.into(), problem };
        if self.model_type.as_deref() != Some("depth_anything") {
            return Err(wrong(format!(
                "`model_type` is `{}`; a depth network is a `depth_anything`, as depth-anything/Depth-Anything-V2-Small-hf",
                self.model_type.as_deref().unwrap_or("absent")
            )));
        }
        if self.depth_estimation_type != "relative" {
            return Err(wrong(format!(
                "`depth_estimation_type` is `{}`; only `relative` is supported, in which near things have the larger values",
                self.depth_estimation_type
            )));
        }
        let backbone = self.backbone_config.as_ref();
        let backbone = backbone.ok_or_else(|| wrong("has no `backbone_config`".into()))?;
        let sizes = backbone.encoder.sizes(PART, &DINO)?;
        let layers = backbone.taken(sizes.layers).map_err(wrong)?;
        check_range(
            PART,
            &[
                ("fusion_hidden_size", self.fusion_hidden_size, WIDTH_MAX),
                ("head_hidden_size", self.head_hidden_size, WIDTH_MAX),
            ],
        )?;
        for channels in &self.neck_hidden_sizes {
            check_range(PART, &[("neck_hidden_sizes", *channels, WIDTH_MAX)])?;
        }
        // The head halves them.
        if !self.fusion_hidden_size.is_multiple_of(2) {
            let found = self.fusion_hidden_size;
            return Err(wrong(format!("`fusion_hidden_size` is {found}; it must be even")));
        }
        let counts = [layers.len(), self.neck_hidden_sizes.len(), self.reassemble_factors.len()];
        if counts.iter().any(|count| *count != counts[0] || !(1..=TAKEN_MAX).contains(count)) {
            return Err(wrong(format!(
                "`out_indices`, `neck_hidden_sizes` and `reassemble_factors` have {counts:?} entries; it must be as many, up to {TAKEN_MAX}"
            )));
        }
        if self.patch_size != sizes.patch || self.reassemble_hidden_size != sizes.hidden {
            return Err(wrong(format!(
                "`patch_size` {} and `reassemble_hidden_size` {} are not the backbone's {} and {}",
                self.patch_size, self.reassemble_hidden_size, sizes.patch, sizes.hidden
            )));
        }
        let resized = self.reassemble_factors.iter().map(|factor| resized(*factor));
        let resized = resized.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        let count = counts[0] as i64;
        let head_in = if self.head_in_index < 0 { count } else { 0 } + self.head_in_index;
        if !(0..count).contains(&head_in) {
            return Err(wrong(format!(
                "`head_in_index` is {}; there are {count} to choose from",
                self.head_in_index
            )));
        }
        let taken = layers.iter().zip(self.neck_hidden_sizes).zip(resized);
        Ok(DepthShape {
            backbone: sizes,
            taken: taken.map(|((layer, channels), resized)| (*layer, channels, resized)).collect(),
            fusion: self.fusion_hidden_size,
            head_in: head_in as usize,
            head: self.head_hidden_size,
        })
    }
}

impl BackboneConfig {
    /// The layers whose features are looked at, counted from 1.
    fn taken(&self, layers: usize) -> Result<Vec<usize>, String> {
        if self.model_type.as_deref() != Some("dinov2")
            || self.use_swiglu_ffn
            || self.apply_layernorm == Some(false)
        {
            return Err(format!(
                "`backbone_config` is a `{}`; only a `dinov2` without `use_swiglu_ffn`, with `apply_layernorm`, is supported",
                self.model_type.as_deref().unwrap_or("network without model_type")
            ));
        }
        let named = |name: &String| name.strip_prefix("stage").and_then(|n| n.parse().ok());
        let taken = match (&self.out_indices, &self.out_features) {
            (Some(indices), _) => Some(indices.clone()),
            (None, Some(names)) => names.iter().map(named).collect(),
            (None, None) => Some(vec![layers]),
        };
        match taken {
            Some(taken)
                if taken.is_sorted_by(|a, b| a < b)
                    && taken.iter().all(|layer| (1..=layers).contains(layer)) =>
            {
                Ok(taken)
            }
            _ => Err(format!(
                "`out_indices` {:?} or `out_features` {:?} name no layers of {layers} in their order",
                self.out_indices, self.out_features
            )),
        }
    }
}

fn resized(factor: f64) -> Result<Resized, String> {
    if factor == 0.5 {
        Ok(Resized::Half)
    } else if factor == 1.0 {
        Ok(Resized::Same)
    } else if factor.fract() == 0.0 && (2.0..=LARGER_MAX as f64).contains(&factor) {
        Ok(Resized::Larger(factor as usize))
    } else {
        Err(format!(
            "`reassemble_factors` has {factor}; 0.5 and whole numbers up to {LARGER_MAX} are supported"
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// As depth-anything/Depth-Anything-V2-Small-hf is published.
    fn small() -> Value {
        json!({
            "architectures": ["DepthAnythingForDepthEstimation"], "model_type": "depth_anything", "patch_size": 14,
            "backbone_config": {"architectures": ["Dinov2Model"], "model_type": "dinov2", "hidden_size": 384, "image_size": 518,
                "num_attention_heads": 6, "out_features": ["stage3", "stage6", "stage9", "stage12"], "out_indices": [3, 6, 9, 12],
                "patch_size": 14, "reshape_hidden_states": false},
            "fusion_hidden_size": 64, "head_hidden_size": 32, "head_in_index": -1, "neck_hidden_sizes": [48, 96, 192, 384],
            "reassemble_factors": [4, 2, 1, 0.5], "reassemble_hidden_size": 384,
        })
    }

    fn checked(json: &Value) -> Result<DepthShape> {
        let json = json.to_string();
        crate::config::parse::<NetworkConfig>("config.json", json.as_bytes())?.check("config.json")
    }

    #[test]
    fn the_published_configuration_is_understood_with_what_it_leaves_out() {
        let shape = checked(&small()).unwrap();
        assert_eq!((shape.backbone.patches(), shape.backbone.intermediate), (37 * 37, 1536));
        assert_eq!((shape.backbone.layers, shape.head_in), (12, 3));
        let want = [
            (3, 48, Resized::Larger(4)),
            (6, 96, Resized::Larger(2)),
            (9, 192, Resized::Same),
            (12, 384, Resized::Half),
        ];
        assert_eq!(shape.taken, want);
        let mut named = small();
        named["backbone_config"]["out_indices"] = Value::Null;
        assert_eq!(checked(&named).unwrap(), shape);
    }

    #[test]
    fn what_is_no_such_network_is_refused_by_its_field() {
        for (path, value, says) in [
            ("/model_type", json!("dpt"), "depth-anything/"),
            ("/depth_estimation_type", json!("metric"), "relative"),
            ("/backbone_config", Value::Null, "backbone_config"),
            ("/backbone_config/model_type", json!("swin"), "dinov2"),
            ("/backbone_config/use_swiglu_ffn", json!(true), "use_swiglu_ffn"),
            ("/backbone_config/hidden_size", json!(1_u64 << 40), "hidden_size"),
            ("/backbone_config/out_indices", json!([3, 6, 9, 13]), "out_indices"),
            ("/backbone_config/out_indices", json!([6, 3, 9, 12]), "out_indices"),
            ("/backbone_config/out_indices", json!([3, 12]), "entries"),
            ("/neck_hidden_sizes", json!([48, 96, 192, 0]), "neck_hidden_sizes"),
            ("/reassemble_factors", json!([4, 2, 1, 0.3]), "reassemble_factors"),
            ("/reassemble_factors", json!([1e300, 2, 1, 0.5]), "reassemble_factors"),
            ("/head_in_index", json!(4), "head_in_index"),
            ("/head_in_index", json!(i64::MIN), "head_in_index"),
            ("/patch_size", json!(16), "patch_size"),
        ] {
            let mut config = small();
            match config.pointer_mut(path) {
                Some(field) => *field = value,
                None => {
                    let (at, name) = path.rsplit_once('/').unwrap();
                    config.pointer_mut(at).unwrap()[name] = value;
                }
            }
            let message = checked(&config).unwrap_err().to_string();
            assert!(message.contains(says), "{path}: {message}");
        }
    }
}
