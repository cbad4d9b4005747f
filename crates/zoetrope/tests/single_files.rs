//! A model of single files, as ComfyUI and llama.cpp have them: nothing but weights, so that every size is inferred and the
//! tokenizer comes out of the text encoder's own file.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::fs;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{DType, Device, Tensor};

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/turbo").join(path)
}

/// The published tensors of a part, float32.
fn published(part: &str) -> HashMap<String, Tensor> {
    let files = fs::read_dir(fixture("model").join(part)).unwrap().map(|e| e.unwrap().path());
    let shards = files.filter(|p| p.extension().is_some_and(|e| e == "safetensors"));
    let tensors = shards.flat_map(|p| candle_core::safetensors::load(p, &Device::Cpu).unwrap());
    tensors.map(|(name, t)| (name, t.to_dtype(DType::F32).unwrap())).collect()
}

/// llama.cpp's names for Qwen3.
fn llama(name: &str) -> String {
    let rules = [
        ("model.", ""),
        ("embed_tokens", "token_embd"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("layers.", "blk."),
    ];
    let name = rules.iter().fold(name.to_string(), |name, (from, to)| name.replace(from, to));
    if name == "norm.weight" { "output_norm.weight".into() } else { name }
}

/// The text encoder as one GGUF, its tokenizer in the metadata as llama.cpp's converter writes it.
fn write_text_encoder(path: &Path) {
    let tensors: Vec<(String, QTensor)> = published("text_encoder")
        .iter()
        .map(|(name, t)| (llama(name), QTensor::quantize(t, GgmlDType::F32).unwrap()))
        .collect();
    let tokenizer = fs::read(fixture("model/tokenizer/tokenizer.json")).unwrap();
    let tokenizer: serde_json::Value = serde_json::from_slice(&tokenizer).unwrap();
    let vocab = tokenizer["model"]["vocab"].as_object().unwrap();
    let mut tokens: Vec<(u64, &str, i32)> =
        vocab.iter().map(|(token, id)| (id.as_u64().unwrap(), token.as_str(), 1)).collect();
    for added in tokenizer["added_tokens"].as_array().unwrap() {
        let kind = if added["special"] == true { 3 } else { 4 };
        tokens.push((added["id"].as_u64().unwrap(), added["content"].as_str().unwrap(), kind));
    }
    tokens.sort_unstable();
    assert!(tokens.iter().enumerate().all(|(at, token)| token.0 == at as u64));
    let text = |s: &str| gguf_file::Value::String(s.into());
    let merge = |m: &serde_json::Value| {
        text(&format!("{} {}", m[0].as_str().unwrap(), m[1].as_str().unwrap()))
    };
    let merges = tokenizer["model"]["merges"].as_array().unwrap().iter().map(merge).collect();
    let lists = [
        ("general.architecture", text("qwen3")),
        (
            "tokenizer.ggml.tokens",
            gguf_file::Value::Array(tokens.iter().map(|t| text(t.1)).collect()),
        ),
        (
            "tokenizer.ggml.token_type",
            gguf_file::Value::Array(tokens.iter().map(|t| gguf_file::Value::I32(t.2)).collect()),
        ),
        ("tokenizer.ggml.merges", gguf_file::Value::Array(merges)),
    ];
    let metadata: Vec<_> = lists.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, t)| (name.as_str(), t)).collect();
    let mut file = BufWriter::new(fs::File::create(path).unwrap());
    gguf_file::write(&mut file, &metadata, &tensors).unwrap();
}

/// The transformer under ComfyUI's names, query, key and value in one matrix.
fn write_transformer(path: &Path) {
    let tensors = published("transformer");
    let mut out = HashMap::new();
    for (name, tensor) in &tensors {
        if let Some(block) = name.strip_suffix("to_q.weight") {
            let parts = ["to_q", "to_k", "to_v"].map(|p| &tensors[&format!("{block}{p}.weight")]);
            out.insert(format!("{block}qkv.weight"), Tensor::cat(&parts, 0).unwrap());
        } else if !name.ends_with("to_k.weight") && !name.ends_with("to_v.weight") {
            let rules = [
                ("all_x_embedder.2-1", "x_embedder"),
                ("all_final_layer.2-1", "final_layer"),
                ("to_out.0", "out"),
                ("norm_q", "q_norm"),
                ("norm_k", "k_norm"),
            ];
            let name = rules.iter().fold(name.clone(), |n, (from, to)| n.replace(from, to));
            out.insert(name, tensor.clone());
        }
    }
    candle_core::safetensors::save(&out, path).unwrap();
}

fn latents(path: &Path) -> Vec<f32> {
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    tensors["latents"].flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn single_files_without_configurations_make_the_reference_s_picture() {
    let folder = tempfile::tempdir().unwrap();
    write_transformer(&folder.path().join("z_image_turbo.safetensors"));
    write_text_encoder(&folder.path().join("qwen3.gguf"));
    let output = Command::new(env!("CARGO_BIN_EXE_zoetrope"))
        .current_dir(folder.path())
        .arg("generate")
        .arg("A red fox sleeping under an old pine tree, snow on the hills, soft morning light")
        .args(["--model", "z_image_turbo.safetensors", "--text-encoder", "qwen3.gguf", "--vae"])
        .arg(fixture("model/vae"))
        .args(["--seed", "42", "--size", "96x96", "-o", "a.png", "--save-latents", "l.safetensors"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let got = latents(&folder.path().join("l.safetensors"));
    let want = latents(&fixture("golden/t2i_seed.safetensors"));
    assert_eq!(got.len(), want.len());
    let worst = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(worst < 1e-3, "{worst}");
}

#[test]
fn a_model_beyond_this_machine_s_memory_is_refused_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let transformer = folder.path().join("huge/transformer");
    fs::create_dir_all(&transformer).unwrap();
    let config = "config.json";
    fs::copy(fixture("model/transformer").join(config), transformer.join(config)).unwrap();
    let path = transformer.join("huge.safetensors");
    // A file with a hole: 4 TB to every program that asks, nothing on the disk.
    let side = 1u64 << 20;
    let bytes = side * side * 4;
    let header = serde_json::json!({
        "layers.0.attention.to_q.weight": {"dtype": "F32", "shape": [16, 16], "data_offsets": [0, 1024]},
        "layers.0.feed_forward.w1.weight": {"dtype": "F32", "shape": [side, side], "data_offsets": [1024, 1024 + bytes]},
    });
    let header = header.to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    fs::write(&path, &file).unwrap();
    let whole = file.len() as u64 + 1024 + bytes;
    let set = fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(whole);
    if let Err(error) = set {
        eprintln!("skipped: this file system holds no file of 4 TB with a hole ({error})");
        return;
    }
    let model = fixture("model");
    let output = Command::new(env!("CARGO_BIN_EXE_zoetrope"))
        .current_dir(folder.path())
        .args(["generate", "fox", "--model", "huge", "--text-encoder"])
        .arg(model.join("text_encoder"))
        .arg("--vae")
        .arg(model.join("vae"))
        .output()
        .unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("the transformer needs 2200.1 GB of memory and"), "{message}");
    assert!(message.contains("even --dtype q4_k takes"), "{message}");
}

/// Ctrl-C once the work has begun: it ends soon, says so and leaves nothing.
#[cfg(target_os = "linux")]
#[test]
fn control_c_stops_between_layers_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_zoetrope"))
        .current_dir(folder.path())
        .args(["generate", "a red house", "--size", "1024x1024", "--steps", "100", "-o", "a.png"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let catches = || {
        let text = fs::read_to_string(&status).unwrap();
        let mask = text.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        u64::from_str_radix(mask, 16).unwrap() & 0b10 != 0
    };
    while !catches() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let code = child.wait().unwrap().code();
    let mut message = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut message).unwrap();
    assert_eq!(code, Some(130), "{message}");
    assert!(message.contains("interrupted; nothing was written"), "{message}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
