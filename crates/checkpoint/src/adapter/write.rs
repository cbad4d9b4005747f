//! Adapters as files that other tools load.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use half::bf16;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Adapter, Delta};
use crate::{Error, Result};

/// How an adapter's tensors are called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// PEFT's, as diffusers saves them: `transformer.layers.0.attention.to_q.lora_A.weight`.
    ///
    /// These names have no place for alpha, which diffusers keeps in the file's metadata and most others do not look for. So the scale is
    /// multiplied into `lora_B`, and everybody's default of 1 is right.
    #[default]
    Diffusers,
    /// `diffusion_model.layers.0.attention.to_q.lora_A.weight` with an `alpha`. ComfyUI's own model has one matrix for queries, keys and values, and
    /// takes adapters of its three parts by their published names.
    ComfyUi,
    /// kohya's: `lora_unet_layers_0_attention_to_q.lora_down.weight` with an `alpha`.
    Kohya,
}

impl std::str::FromStr for Naming {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "diffusers" => Ok(Self::Diffusers),
            "comfyui" => Ok(Self::ComfyUi),
            "kohya" => Ok(Self::Kohya),
            _ => Err(format!("`{text}` is no naming of adapters; use diffusers, comfyui or kohya")),
        }
    }
}

impl Naming {
    /// The names of `down`, `up` and, where there is one, alpha.
    fn keys(self, module: &str) -> (String, String, Option<String>) {
        let (base, down, up, alpha) = match self {
            Self::Diffusers => (format!("transformer.{module}"), "lora_A", "lora_B", false),
            Self::ComfyUi => (format!("diffusion_model.{module}"), "lora_A", "lora_B", true),
            Self::Kohya => {
                (format!("lora_unet_{}", module.replace('.', "_")), "lora_down", "lora_up", true)
            }
        };
        let alpha = alpha.then(|| format!("{base}.alpha"));
        (format!("{base}.{down}.weight"), format!("{base}.{up}.weight"), alpha)
    }
}

/// A tensor of the file: its type's name, its shape and its bytes.
type Stored = (&'static str, Vec<usize>, Vec<u8>);

impl Adapter {
    /// The file of a LoRA, in safetensors: `named` as it is called, its values as `dtype`, float32 or bfloat16. `about` is what it says about itself beside its
    /// rank, its alpha and a digest of its values. The same adapter gives the same bytes.
    pub fn to_bytes(
        &self,
        named: Naming,
        dtype: DType,
        about: &BTreeMap<String, String>,
    ) -> Result<Vec<u8>> {
        let mut tensors: BTreeMap<String, Stored> = BTreeMap::new();
        let (mut rank, mut alpha) = (0, 0.0);
        for (module, delta) in &self.deltas {
            let Delta::LowRank { down, up, scale } = delta else {
                return Err(Error::broken(
                    &self.name,
                    format!(
                        "changes `{module}` by no low-rank product: it cannot be written as a LoRA"
                    ),
                ));
            };
            rank = down.dim(0)?;
            alpha = *scale * rank as f32;
            let (down_key, up_key, alpha_key) = named.keys(module);
            let up = match alpha_key {
                Some(key) => {
                    tensors.insert(key, ("F32", Vec::new(), alpha.to_le_bytes().to_vec()));
                    up.clone()
                }
                None => (up * f64::from(*scale))?,
            };
            tensors.insert(down_key, stored(down, dtype)?);
            tensors.insert(up_key, stored(&up, dtype)?);
        }
        let mut metadata = about.clone();
        metadata.insert("format".into(), "pt".into());
        metadata.insert("ss_network_module".into(), "networks.lora".into());
        metadata.insert("ss_network_dim".into(), rank.to_string());
        metadata.insert("ss_network_alpha".into(), alpha.to_string());
        if named == Naming::Diffusers {
            // PEFT's configuration of what is written: the scale is in the values.
            let modules: Vec<&String> = self.deltas.keys().collect();
            let config = json!({
                "transformer.r": rank,
                "transformer.lora_alpha": rank,
                "transformer.lora_dropout": 0.0,
                "transformer.bias": "none",
                "transformer.target_modules": modules,
                "transformer.use_rslora": false,
                "transformer.use_dora": false,
            });
            metadata.insert("lora_adapter_metadata".into(), config.to_string());
        }
        Ok(safetensors_bytes(&tensors, metadata))
    }
}

fn stored(tensor: &Tensor, dtype: DType) -> Result<Stored> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    let (name, bytes) = match dtype {
        DType::F32 => ("F32", values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        _ => ("BF16", values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect()),
    };
    Ok((name, tensor.dims().to_vec(), bytes))
}

/// A safetensors file. The library writes its metadata in an order of chance, and the same adapter shall be the same file.
fn safetensors_bytes(
    tensors: &BTreeMap<String, Stored>,
    mut metadata: BTreeMap<String, String>,
) -> Vec<u8> {
    let mut digest = Sha256::new();
    let mut header = serde_json::Map::new();
    let mut start = 0;
    for (name, (dtype, shape, bytes)) in tensors {
        let end = start + bytes.len();
        header.insert(
            name.clone(),
            json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]}),
        );
        digest.update(bytes);
        start = end;
    }
    let hash: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    metadata.insert("sshs_model_hash".into(), hash);
    header.insert("__metadata__".into(), json!(metadata));
    let mut text = Value::Object(header).to_string().into_bytes();
    // Values begin at a multiple of 8.
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.extend(text);
    tensors.values().for_each(|(_, _, bytes)| file.extend(bytes));
    file
}
