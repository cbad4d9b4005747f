//! Adapters as files that other tools load.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use half::bf16;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Adapter, Delta};
use crate::{Error, Result, hex};

/// How an adapter's tensors are called. diffusers loads all three, and so does [`Adapter::read`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// PEFT's, as diffusers saves them: `transformer.layers.0.attention.to_q.lora_A.weight`. ComfyUI takes them too.
    ///
    /// These names have no place for alpha, which diffusers keeps in the file's metadata and most others do not look for. So the scale is
    /// multiplied into `lora_B`, and everybody's default of 1 is right.
    #[default]
    Diffusers,
    /// `diffusion_model.layers.0.attention.to_q.lora_A.weight` with an `alpha`, as ai-toolkit writes them. ComfyUI's own model has one matrix for
    /// queries, keys and values, and takes adapters of its three parts by their published names.
    ComfyUi,
    /// kohya's and musubi-tuner's: `lora_unet_layers_0_attention_to_q.lora_down.weight` with an `alpha`. ComfyUI looks for its own fused matrices
    /// under such names: of a file like this it takes the feed-forward layers alone.
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

/// A tensor of the file.
#[derive(serde::Serialize)]
struct Stored {
    dtype: &'static str,
    shape: Vec<usize>,
    /// Where its bytes are, from the end of the header on.
    data_offsets: [usize; 2],
    #[serde(skip)]
    bytes: Vec<u8>,
}

impl Adapter {
    /// The file of a LoRA, in safetensors: `named` as it is called, its values as `dtype`, float32 or bfloat16. `about` is what it says about itself beside its
    /// rank, its alpha and a digest of its values. The same adapter gives the same bytes.
    pub fn to_bytes(
        &self,
        named: Naming,
        dtype: DType,
        about: &BTreeMap<String, String>,
    ) -> Result<Vec<u8>> {
        let mut tensors = BTreeMap::new();
        let mut ranks = BTreeMap::new();
        let mut alphas = Vec::new();
        for (module, delta) in &self.deltas {
            let Delta::LowRank { down, up, scale } = delta else {
                let problem = format!(
                    "changes `{module}` by no low-rank product: it cannot be written as a LoRA"
                );
                return Err(Error::broken(&self.name, problem));
            };
            let rank = down.dim(0)?;
            ranks.insert(module.as_str(), rank);
            let alpha = *scale * rank as f32;
            alphas.push(alpha);
            let (down_key, up_key, alpha_key) = named.keys(module);
            let up = match alpha_key {
                Some(key) => {
                    tensors.insert(key, Stored::new("F32", &[], alpha.to_le_bytes().to_vec()));
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
        metadata.insert("ss_network_dim".into(), common(ranks.values()));
        metadata.insert("ss_network_alpha".into(), common(alphas.iter()));
        if named == Naming::Diffusers {
            metadata.insert("lora_adapter_metadata".into(), peft_config(&ranks));
        }
        Ok(safetensors_bytes(tensors, metadata))
    }
}

/// What all `numbers` are; kohya's word where they differ.
fn common<T: PartialEq + ToString>(mut numbers: impl Iterator<Item = T>) -> String {
    match numbers.next() {
        Some(first) if numbers.all(|number| number == first) => first.to_string(),
        _ => "Dynamic".into(),
    }
}

/// PEFT's configuration of layers of these ranks, as diffusers keeps it in a file. The scales are in the values, so every alpha is the rank.
fn peft_config(ranks: &BTreeMap<&str, usize>) -> String {
    let rank = ranks.values().copied().max().unwrap_or_default();
    let others: BTreeMap<_, _> = ranks.iter().filter(|(_, r)| **r != rank).collect();
    json!({
        "transformer.r": rank,
        "transformer.lora_alpha": rank,
        "transformer.rank_pattern": others,
        "transformer.alpha_pattern": others,
        "transformer.lora_dropout": 0.0,
        "transformer.bias": "none",
        "transformer.target_modules": ranks.keys().collect::<Vec<_>>(),
        "transformer.use_rslora": false,
        "transformer.use_dora": false,
    })
    .to_string()
}

impl Stored {
    fn new(dtype: &'static str, shape: &[usize], bytes: Vec<u8>) -> Self {
        Self { dtype, shape: shape.to_vec(), data_offsets: [0; 2], bytes }
    }
}

fn stored(tensor: &Tensor, dtype: DType) -> Result<Stored> {
    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
    let (name, bytes) = match dtype {
        DType::F32 => ("F32", values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        _ => ("BF16", values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect()),
    };
    Ok(Stored::new(name, tensor.dims(), bytes))
}

/// A safetensors file. The library writes its metadata in an order of chance, and the same adapter shall be the same file.
fn safetensors_bytes(
    mut tensors: BTreeMap<String, Stored>,
    mut metadata: BTreeMap<String, String>,
) -> Vec<u8> {
    // As the library: those of 4 bytes first, so that all begin at a multiple of their own size.
    let mut order: Vec<&mut Stored> = tensors.values_mut().collect();
    order.sort_by_key(|tensor| tensor.dtype != "F32");
    let mut values = Vec::new();
    for tensor in order {
        let start = values.len();
        values.append(&mut tensor.bytes);
        tensor.data_offsets = [start, values.len()];
    }
    let hash = hex(&Sha256::digest(&values));
    metadata.insert("sshs_model_hash".into(), hash);
    let header = Header { metadata, tensors };
    let mut text = serde_json::to_vec(&header).expect("names, numbers and texts are JSON");
    // Values begin at a multiple of 8.
    text.resize(text.len().next_multiple_of(8), b' ');
    [(text.len() as u64).to_le_bytes().to_vec(), text, values].concat()
}

#[derive(serde::Serialize)]
struct Header {
    #[serde(rename = "__metadata__")]
    metadata: BTreeMap<String, String>,
    #[serde(flatten)]
    tensors: BTreeMap<String, Stored>,
}
