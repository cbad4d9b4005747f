//! Where the parts of a model are: a diffusers directory, single files, or the binary itself.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::blob::Blob;
use crate::file::{WeightFile, gguf_content};
use crate::{Error, Result};

/// The files of a model, part by part.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the parts' names")]
pub struct Layout {
    pub transformer: Vec<Blob>,
    pub transformer_config: Option<Blob>,
    pub text_encoder: Vec<Blob>,
    pub text_encoder_config: Option<Blob>,
    pub vae: Vec<Blob>,
    pub vae_config: Option<Blob>,
    /// A decoder for previews, as TAEF1, where there is one.
    pub tiny: Vec<Blob>,
    pub tiny_config: Option<Blob>,
    pub scheduler_config: Option<Blob>,
    pub tokenizer: Option<Blob>,
    /// The tower of models that see pictures.
    pub vision: Vec<Blob>,
    pub vision_config: Option<Blob>,
    pub vision_processor: Option<Blob>,
    /// A control network beside the model.
    pub control: Vec<Blob>,
    pub control_config: Option<Blob>,
    /// What the model was called by: a path or `demo`.
    pub name: String,
}

/// The two models that single files are of; only their names tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// 8 steps, no guidance.
    Turbo,
    /// Many steps with guidance.
    Base,
}

impl Family {
    /// The published schedule's shift.
    pub fn shift(self) -> f64 {
        match self {
            Self::Turbo => 3.0,
            Self::Base => 6.0,
        }
    }
}

impl Layout {
    /// The parts of `model`: a diffusers directory, or the transformer's file (`.safetensors`, `.gguf`). The other two
    /// files are given, part of the same file, or found where ComfyUI keeps them.
    pub fn locate(model: &Path, text_encoder: Option<&Path>, vae: Option<&Path>) -> Result<Self> {
        let metadata = std::fs::metadata(model).map_err(|e| Error::io(model, e))?;
        let mut layout = if metadata.is_dir() { directory(model)? } else { single(model)? };
        if let Some(path) = text_encoder {
            (layout.text_encoder, layout.text_encoder_config) = part(path)?;
            layout.tokenizer = tokenizer_beside(path).or(layout.tokenizer);
        }
        if let Some(path) = vae {
            (layout.vae, layout.vae_config) = part(path)?;
        }
        layout.check()
    }

    /// The same files with the configurations and the tokenizer of `folder`, a diffusers directory: single files of
    /// weights carry none.
    pub fn with_configs(self, folder: &Path) -> Self {
        let config = |part: &str| existing(folder.join(part).join("config.json"));
        Self {
            transformer_config: config("transformer"),
            text_encoder_config: config("text_encoder"),
            vae_config: config("vae"),
            scheduler_config: existing(folder.join("scheduler/scheduler_config.json")),
            tokenizer: existing(folder.join("tokenizer/tokenizer.json")).or(self.tokenizer),
            ..self
        }
    }

    /// The same model with the control network in `path`: a published file, or a folder as diffusers saves it.
    pub fn with_control(self, path: &Path) -> Result<Self> {
        let (control, control_config) = part(path)?;
        if control.is_empty() {
            let problem = format!(
                "{}: there are no weights of a control network (a .safetensors file) in this folder",
                path.display()
            );
            return Err(Error::NoPart(problem));
        }
        Ok(Self { control, control_config, ..self })
    }

    /// Every file of weights.
    pub fn weights(&self) -> impl Iterator<Item = &Blob> {
        let parts = [&self.transformer, &self.text_encoder, &self.vae, &self.vision, &self.control];
        parts.into_iter().flatten()
    }

    /// The model inside the binary: paths as `transformer/config.json` with their bytes.
    pub fn from_static(
        name: &str,
        files: &'static [(&'static str, &'static [u8])],
    ) -> Result<Self> {
        let blob = |path: &str| {
            files
                .iter()
                .find(|(name, _)| *name == path)
                .map(|(name, bytes)| Blob::Static { name, bytes })
        };
        let weights = |folder: &str| {
            let inside =
                files.iter().filter(|(n, _)| n.starts_with(folder) && n.ends_with(".safetensors"));
            inside.map(|(name, bytes)| Blob::Static { name, bytes }).collect()
        };
        Self {
            transformer: weights("transformer/"),
            transformer_config: blob("transformer/config.json"),
            text_encoder: weights("text_encoder/"),
            text_encoder_config: blob("text_encoder/config.json"),
            vae: weights("vae/"),
            vae_config: blob("vae/config.json"),
            tiny: Vec::new(),
            tiny_config: None,
            scheduler_config: blob("scheduler/scheduler_config.json"),
            tokenizer: blob("tokenizer/tokenizer.json"),
            vision: Vec::new(),
            vision_config: None,
            vision_processor: None,
            control: Vec::new(),
            control_config: None,
            name: name.into(),
        }
        .check()
    }

    /// Turbo, unless the name says otherwise.
    pub fn family(&self) -> Family {
        let name = self.name.to_ascii_lowercase();
        let plain = name.contains("z-image") || name.contains("z_image") || name.contains("zimage");
        if plain && !name.contains("turbo") { Family::Base } else { Family::Turbo }
    }

    /// `tokenizer.json`: a file, or made from what a GGUF text encoder carries.
    pub fn tokenizer_json(&self) -> Result<Vec<u8>> {
        if let Some(blob) = &self.tokenizer {
            return blob.read();
        }
        if let Some(blob) = self.text_encoder.first().filter(|b| b.ends_with("gguf")) {
            return tokenizer_of_gguf(blob);
        }
        Err(Error::NoPart(format!(
            "{}: there is no tokenizer.json. Put the one of the model's repository (tokenizer/tokenizer.json) beside the \
             text encoder's file.",
            self.name
        )))
    }

    fn check(self) -> Result<Self> {
        let parts = [
            (&self.transformer, "transformer", "give its file or its directory as --model"),
            (
                &self.text_encoder,
                "text encoder",
                "give its file (qwen_3_4b.safetensors, say) as --text-encoder FILE",
            ),
            (&self.vae, "VAE", "give its file (ae.safetensors, say) as --vae FILE"),
        ];
        let missing = parts
            .into_iter()
            .find(|(blobs, ..)| blobs.is_empty())
            .map(|(_, part, remedy)| (part, remedy));
        match missing {
            Some((part, remedy)) => {
                Err(Error::NoPart(format!("{}: the {part} is missing; {remedy}", self.name)))
            }
            None => Ok(self),
        }
    }
}

pub(crate) fn existing(path: PathBuf) -> Option<Blob> {
    path.is_file().then_some(Blob::File(path))
}

fn directory(model: &Path) -> Result<Layout> {
    let (tiny, tiny_config) = tiny_in(model)?;
    let config = |part: &str| existing(model.join(part).join("config.json"));
    Ok(Layout {
        transformer: weights_in(&model.join("transformer"))?,
        transformer_config: config("transformer"),
        text_encoder: weights_in(&model.join("text_encoder"))?,
        text_encoder_config: config("text_encoder"),
        vae: weights_in(&model.join("vae"))?,
        vae_config: config("vae"),
        tiny,
        tiny_config,
        scheduler_config: existing(model.join("scheduler/scheduler_config.json")),
        tokenizer: existing(model.join("tokenizer/tokenizer.json")),
        vision: weights_in(&model.join("siglip"))?,
        vision_config: config("siglip"),
        vision_processor: existing(model.join("siglip_processor/preprocessor_config.json")),
        control: Vec::new(),
        control_config: None,
        name: model.display().to_string(),
    })
}

/// The decoder for previews in `folder`'s own folder `taef1`, where there is one.
fn tiny_in(folder: &Path) -> Result<(Vec<Blob>, Option<Blob>)> {
    let folder = folder.join("taef1");
    match existing(folder.join("config.json")) {
        Some(config) => Ok((weights_in(&folder)?, Some(config))),
        None => Ok((Vec::new(), None)),
    }
}

/// The weight files of a part's folder: those of the index, or the single file.
pub(crate) fn weights_in(folder: &Path) -> Result<Vec<Blob>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|e| Ok(e?.path())).collect())
        .map_err(|e| Error::io(folder, e))?;
    files.sort();
    let name = |p: &Path| p.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if let Some(index) = files.iter().find(|p| name(p).ends_with(".safetensors.index.json")) {
        return shards(folder, index);
    }
    let is_weights = |p: &PathBuf| {
        let plain = p.extension().is_some_and(|e| e == "safetensors" || e == "gguf");
        plain && !name(p).contains(".fp16.")
    };
    let found: Vec<_> = files.into_iter().filter(is_weights).collect();
    match found.as_slice() {
        [] | [_] => Ok(found.into_iter().map(Blob::File).collect()),
        several => {
            let split = several.iter().all(|p| name(p).contains("-of-"));
            let files = several.iter().map(|p| name(p)).collect::<Vec<_>>().join(", ");
            match split {
                true => Ok(found.into_iter().map(Blob::File).collect()),
                false => Err(Error::broken(
                    folder.display().to_string(),
                    format!("has several files of weights ({files}): keep one"),
                )),
            }
        }
    }
}

fn shards(folder: &Path, index: &Path) -> Result<Vec<Blob>> {
    let broken = |problem: String| Error::broken(index.display().to_string(), problem);
    let json: Value = serde_json::from_slice(&Blob::File(index.into()).read()?)
        .map_err(|e| broken(format!("is no index ({e}): download it again")))?;
    let map = json.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| broken("has no `weight_map`: download it again".into()))?;
    let names: BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
    let mut blobs = Vec::new();
    for name in names {
        if Path::new(name).components().count() != 1 {
            return Err(broken(format!("names a shard outside its folder, `{name}`")));
        }
        let path = folder.join(name);
        if !path.is_file() {
            return Err(broken(format!("names `{name}`, which is not there: download it")));
        }
        blobs.push(Blob::File(path));
    }
    Ok(blobs)
}

/// A part given by itself: a file or its folder.
fn part(path: &Path) -> Result<(Vec<Blob>, Option<Blob>)> {
    let metadata = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
    match metadata.is_dir() {
        true => Ok((weights_in(path)?, existing(path.join("config.json")))),
        false => Ok((vec![Blob::File(path.into())], None)),
    }
}

/// A transformer's file; in an all-in-one file the other parts too.
fn single(model: &Path) -> Result<Layout> {
    let blob = Blob::File(model.into());
    let file = WeightFile::open(&blob)?;
    let holds = |prefix: &[&str]| {
        file.entries.keys().any(|name| prefix.iter().any(|p| name.starts_with(p)))
    };
    let own = |prefix: &[&str]| if holds(prefix) { vec![blob.clone()] } else { Vec::new() };
    let (text_encoder, vae) =
        (own(&["text_encoders.", "text_encoder."]), own(&["first_stage_model.", "vae."]));
    // ComfyUI keeps models/diffusion_models, models/text_encoders and models/vae side by side.
    let beside = |folder: &str| -> Vec<Blob> {
        let folder = model.parent().and_then(Path::parent).map(|up| up.join(folder));
        folder
            .and_then(|f| weights_in(&f).ok())
            .filter(|found| found.len() == 1)
            .unwrap_or_default()
    };
    let text_encoder = if text_encoder.is_empty() { beside("text_encoders") } else { text_encoder };
    let vae = if vae.is_empty() { beside("vae") } else { vae };
    let tokenizer = match text_encoder.first() {
        Some(Blob::File(path)) => tokenizer_beside(path),
        _ => None,
    };
    let (tiny, tiny_config) = match model.parent() {
        Some(folder) => tiny_in(folder)?,
        None => (Vec::new(), None),
    };
    Ok(Layout {
        transformer: vec![blob.clone()],
        transformer_config: None,
        text_encoder,
        text_encoder_config: None,
        vae,
        vae_config: None,
        tiny,
        tiny_config,
        scheduler_config: None,
        tokenizer: tokenizer.or_else(|| tokenizer_beside(model)),
        vision: Vec::new(),
        vision_config: None,
        vision_processor: None,
        control: Vec::new(),
        control_config: None,
        name: model.display().to_string(),
    })
}

/// tokenizer.json beside a text encoder, or in the folder `tokenizer` beside it or one level up.
fn tokenizer_beside(path: &Path) -> Option<Blob> {
    let folder = if path.is_dir() { path } else { path.parent()? };
    let up = folder.parent().map(|up| up.join("tokenizer/tokenizer.json"));
    let places =
        [Some(folder.join("tokenizer.json")), Some(folder.join("tokenizer/tokenizer.json")), up];
    places.into_iter().flatten().find_map(existing)
}

/// Qwen's byte-pair tokenizer from a GGUF's vocabulary and merges.
fn tokenizer_of_gguf(blob: &Blob) -> Result<Vec<u8>> {
    let name = blob.name();
    let bytes = blob.map()?;
    let content = gguf_content(&name, bytes.all())?;
    let list = |key: &str| {
        let values = content.metadata.get(key).and_then(|v| v.to_vec().ok());
        values.ok_or_else(|| {
            Error::broken(
                &name,
                format!("has no `{key}`: put the model's tokenizer.json beside it"),
            )
        })
    };
    let text =
        |v: &candle_core::quantized::gguf_file::Value| v.to_string().cloned().unwrap_or_default();
    let tokens: Vec<String> = list("tokenizer.ggml.tokens")?.iter().map(text).collect();
    let merges: Vec<String> = list("tokenizer.ggml.merges")?.iter().map(text).collect();
    // 3: control tokens, 4: user-defined ones; both are matched in the text as they stand.
    let kinds: Vec<i64> = list("tokenizer.ggml.token_type")?
        .iter()
        .map(|v| v.to_i64().or_else(|_| v.to_i32().map(i64::from)).unwrap_or(1))
        .collect();
    let kind = |id: usize| kinds.get(id).copied().unwrap_or(1);
    let vocab: serde_json::Map<String, Value> = tokens
        .iter()
        .enumerate()
        .filter(|(id, _)| !matches!(kind(*id), 3 | 4))
        .map(|(id, t)| (t.clone(), id.into()))
        .collect();
    let added: Vec<Value> = (0..tokens.len())
        .filter(|id| matches!(kind(*id), 3 | 4))
        .map(|id| {
            serde_json::json!({"id": id, "content": tokens[id], "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": kind(id) == 3})
        })
        .collect();
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": QWEN_SPLIT}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}]},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges},
    });
    Ok(json.to_string().into_bytes())
}

/// How Qwen2 and Qwen3 cut text before byte pairs are merged; llama.cpp knows it as the pre-tokenizer `qwen2`.
const QWEN_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
