//! A fixture rewritten into every form in which people have checkpoints, and damage of every kind.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use candle_core::quantized::{GgmlDType, QTensor, gguf_file};
use candle_core::{DType, Device, Tensor};
use proptest::prelude::*;
use safetensors::tensor::TensorView;
use zoetrope_checkpoint::{Adapter, Blob, Delta, Layout, Role, Storage, Weights};

type Tensors = BTreeMap<String, Tensor>;

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(path)
}

/// The published tensors of a part, float32.
fn published(part: &str, strip: &str) -> Tensors {
    let mut all = Tensors::new();
    for entry in fs::read_dir(fixture("turbo/model").join(part)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            for (name, tensor) in candle_core::safetensors::load(&path, &Device::Cpu).unwrap() {
                let name = name.strip_prefix(strip).unwrap_or(&name).to_string();
                all.insert(name, tensor.to_dtype(DType::F32).unwrap());
            }
        }
    }
    assert!(all.len() > 20);
    all
}

fn write(path: &Path, tensors: &Tensors) {
    let map: std::collections::HashMap<_, _> = tensors.clone().into_iter().collect();
    candle_core::safetensors::save(&map, path).unwrap();
}

fn open(path: &Path, role: Role) -> Weights {
    Weights::open(&[Blob::File(path.into())], role).unwrap()
}

/// Fails unless `weights` hold exactly `want`, within `relative` of each tensor's size.
fn check(weights: &Weights, want: &Tensors, relative: f32) {
    for (name, want) in want {
        let got = weights.tensor(name, want.dims()).unwrap();
        let norm =
            |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
        let error = norm(&(&got - want).unwrap()) / norm(want).max(1e-12);
        assert!(error <= relative, "{name}: {error}");
    }
    weights.finish().unwrap();
}

/// ComfyUI's names for the transformer, qkv fused.
fn to_comfy(published: &Tensors, prefix: &str) -> Tensors {
    let mut out = Tensors::new();
    for (name, tensor) in published {
        if let Some(block) = name.strip_suffix("to_q.weight") {
            let parts =
                ["to_q", "to_k", "to_v"].map(|p| published[&format!("{block}{p}.weight")].clone());
            out.insert(format!("{prefix}{block}qkv.weight"), Tensor::cat(&parts, 0).unwrap());
        } else if !name.ends_with("to_k.weight") && !name.ends_with("to_v.weight") {
            let name = name
                .replace("all_x_embedder.2-1", "x_embedder")
                .replace("all_final_layer.2-1", "final_layer");
            let name = name
                .replace("to_out.0", "out")
                .replace("norm_q", "q_norm")
                .replace("norm_k", "k_norm");
            out.insert(format!("{prefix}{name}"), tensor.clone());
        }
    }
    out
}

#[test]
fn comfy_files_hold_the_published_transformer() {
    let want = published("transformer", "");
    let folder = tempfile::tempdir().unwrap();
    for prefix in ["", "model.diffusion_model."] {
        let path = folder.path().join("comfy.safetensors");
        write(&path, &to_comfy(&want, prefix));
        let weights = open(&path, Role::Transformer);
        assert_eq!(weights.dialect(), "ComfyUI");
        check(&weights, &want, 0.0);
    }
}

#[test]
fn text_encoders_are_read_with_and_without_their_prefix_and_from_llama_names() {
    let want = published("text_encoder", "model.");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.safetensors");
    for prefix in ["", "model."] {
        write(
            &path,
            &want.iter().map(|(name, t)| (format!("{prefix}{name}"), t.clone())).collect(),
        );
        check(&open(&path, Role::TextEncoder), &want, 0.0);
    }
    let llama = |name: &str| {
        let rules = [
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
        let name =
            if name == "norm.weight" { "output_norm.weight".into() } else { name.to_string() };
        rules.iter().fold(name, |name, (from, to)| name.replace(from, to))
    };
    let path = folder.path().join("text.gguf");
    write_gguf(
        &path,
        &want.iter().map(|(name, t)| (llama(name), t.clone())).collect(),
        GgmlDType::F32,
    );
    let weights = open(&path, Role::TextEncoder);
    assert_eq!(weights.dialect(), "llama.cpp");
    check(&weights, &want, 0.0);
}

fn write_gguf(path: &Path, tensors: &Tensors, kind: GgmlDType) {
    let quantised: Vec<(String, QTensor)> = tensors
        .iter()
        .map(|(name, t)| {
            let whole = t.rank() == 2 && t.dim(1).unwrap() % kind.block_size() == 0;
            (name.clone(), QTensor::quantize(t, if whole { kind } else { GgmlDType::F32 }).unwrap())
        })
        .collect();
    let list: Vec<(&str, &QTensor)> =
        quantised.iter().map(|(name, t)| (name.as_str(), t)).collect();
    let architecture = gguf_file::Value::String("lumina2".into());
    let mut file = BufWriter::new(fs::File::create(path).unwrap());
    gguf_file::write(&mut file, &[("general.architecture", &architecture)], &list).unwrap();
}

/// A transformer wide enough for every block format: rows of 256 values.
fn wide() -> Tensors {
    let mut tensors = Tensors::new();
    let random = |shape: (usize, usize)| Tensor::randn(0f32, 0.05, shape, &Device::Cpu).unwrap();
    for part in ["to_q", "to_k", "to_v", "to_out.0"] {
        tensors.insert(format!("layers.0.attention.{part}.weight"), random((256, 256)));
    }
    tensors.insert("layers.0.feed_forward.w1.weight".into(), random((96, 256)));
    tensors.insert(
        "layers.0.attention_norm1.weight".into(),
        Tensor::ones(256, DType::F32, &Device::Cpu).unwrap(),
    );
    tensors
}

const KINDS: [(GgmlDType, Storage, f32); 5] = [
    (GgmlDType::Q8_0, Storage::Q8_0, 0.01),
    (GgmlDType::Q6K, Storage::Q6K, 0.03),
    (GgmlDType::Q5K, Storage::Q5K, 0.05),
    (GgmlDType::Q4K, Storage::Q4K, 0.1),
    (GgmlDType::Q4_0, Storage::Q4_0, 0.12),
];

#[test]
fn gguf_files_of_every_kind_keep_their_blocks_fused_or_not() {
    let want = wide();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    for (kind, _, relative) in KINDS {
        for tensors in [want.clone(), to_comfy(&want, "")] {
            write_gguf(&path, &tensors, kind);
            check(&open(&path, Role::Transformer), &want, relative);
            let weights = open(&path, Role::Transformer);
            let matrix =
                weights.at("layers.0.attention").matrix("to_k.weight", [256, 256]).unwrap();
            // Blocks as they are, not widened: the other formats would take another number of bytes.
            assert_eq!(matrix.memory_bytes(), 256 * 256 / kind.block_size() * kind.type_size());
            let values = matrix.to_f32().unwrap();
            let published = &want["layers.0.attention.to_k.weight"];
            let difference =
                (values - published).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            assert!(difference.to_scalar::<f32>().unwrap() < 0.05, "{kind:?}");
        }
    }
}

#[test]
fn every_storage_is_within_its_rounding() {
    let want = wide();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write(&path, &want);
    let name = "layers.0.attention.to_q.weight";
    let others =
        [(Storage::F32, 0.0), (Storage::Bf16, 0.003), (Storage::F16, 0.0005), (Storage::Fp8, 0.04)];
    for (storage, relative) in others.into_iter().chain(KINDS.map(|(_, s, r)| (s, r))) {
        let weights = open(&path, Role::Transformer).with_storage(storage);
        let got = weights.matrix(name, [256, 256]).unwrap().to_f32().unwrap();
        let norm =
            |t: &Tensor| t.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap().sqrt();
        let error = norm(&(&got - &want[name]).unwrap()) / norm(&want[name]);
        assert!(error <= relative, "{storage}: {error}");
    }
}

/// Writes matrices as fp8, each with `scale` beside it when there is one.
fn write_fp8(path: &Path, tensors: &Tensors, scale: Option<f32>) {
    let mut bytes: Vec<(String, safetensors::Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, t) in tensors {
        let values = t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        if t.rank() != 2 {
            let raw = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            bytes.push((name.clone(), safetensors::Dtype::F32, t.dims().into(), raw));
            continue;
        }
        let divided = values
            .iter()
            .map(|v| zoetrope_kernels::fp8_e4m3fn_from_f32(v / scale.unwrap_or(1.0)))
            .collect();
        bytes.push((name.clone(), safetensors::Dtype::F8_E4M3, t.dims().into(), divided));
        if let Some(scale) = scale {
            let name = name.replace(".weight", ".scale_weight");
            bytes.push((name, safetensors::Dtype::F32, vec![], scale.to_le_bytes().to_vec()));
        }
    }
    if scale.is_some() {
        bytes.push(("scaled_fp8".into(), safetensors::Dtype::F8_E4M3, vec![2], vec![0, 0]));
    }
    let views = bytes.iter().map(|(name, dtype, shape, raw)| {
        (name.as_str(), TensorView::new(*dtype, shape.clone(), raw).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn fp8_files_are_read_with_and_without_scales_fused_or_not() {
    let want = wide();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fp8.safetensors");
    for (scale, relative) in [(None, 0.07), (Some(0.0005), 0.03)] {
        for tensors in [want.clone(), to_comfy(&want, "model.diffusion_model.")] {
            write_fp8(&path, &tensors, scale);
            check(&open(&path, Role::Transformer), &want, relative);
        }
    }
}

#[test]
fn old_autoencoders_hold_the_published_one() {
    let want = published("vae", "");
    let old = |name: &str| {
        let mut name = name.to_string();
        if let Some(rest) = name.strip_prefix("decoder.up_blocks.") {
            let (level, rest) = rest.split_once('.').unwrap();
            name = format!("decoder.up.{}.{rest}", 3 - level.parse::<usize>().unwrap());
        }
        let rules = [
            ("mid_block.attentions.0.group_norm", "mid.attn_1.norm"),
            ("mid_block.attentions.0.to_q", "mid.attn_1.q"),
            ("mid_block.attentions.0.to_k", "mid.attn_1.k"),
            ("mid_block.attentions.0.to_v", "mid.attn_1.v"),
            ("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out"),
            ("mid_block.resnets.0", "mid.block_1"),
            ("mid_block.resnets.1", "mid.block_2"),
            ("down_blocks", "down"),
            ("resnets", "block"),
            ("conv_shortcut", "nin_shortcut"),
            ("conv_norm_out", "norm_out"),
            ("downsamplers.0", "downsample"),
            ("upsamplers.0", "upsample"),
        ];
        rules.iter().fold(name, |name, (from, to)| name.replace(from, to))
    };
    let convolved = |name: &str, t: &Tensor| match t.rank() {
        2 => (old(name), t.unsqueeze(2).unwrap().unsqueeze(3).unwrap()),
        _ => (old(name), t.clone()),
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ae.safetensors");
    write(&path, &want.iter().map(|(name, t)| convolved(name, t)).collect());
    let weights = open(&path, Role::Vae);
    assert_eq!(weights.dialect(), "Flux autoencoder");
    check(&weights, &want, 0.0);
}

fn modules() -> BTreeMap<String, [usize; 2]> {
    let two = |(name, t): (String, Tensor)| {
        let module = name.strip_suffix(".weight")?.to_string();
        Some((module, [t.dims().first().copied()?, *t.dims().get(1)?]))
    };
    published("transformer", "")
        .into_iter()
        .filter(|(_, t)| t.rank() == 2)
        .filter_map(two)
        .collect()
}

/// What an adapter does to each layer, written out.
fn effects(file: &str) -> Tensors {
    let adapter = Adapter::read(&Blob::File(fixture("turbo/lora").join(file)), &modules()).unwrap();
    let effect = |delta: Delta| match delta {
        Delta::LowRank { down, up, scale } => {
            (up.matmul(&down).unwrap() * f64::from(scale)).unwrap()
        }
        Delta::Dense { delta, scale } => (delta * f64::from(scale)).unwrap(),
        Delta::Kronecker { .. } => panic!("no LoKr here"),
    };
    adapter.deltas.into_iter().map(|(name, delta)| (name, effect(delta))).collect()
}

#[test]
fn every_spelling_of_an_adapter_has_the_same_effect() {
    let groups = [
        (
            "style.peft",
            &["style.peft_alpha", "style.comfy", "style.comfy_alpha", "style.kohya"][..],
        ),
        ("subject.peft", &["subject.kohya"][..]),
        ("fused.peft", &["fused.kohya_fused", "fused.comfy_fused"][..]),
    ];
    for (first, others) in groups {
        let want = effects(&format!("{first}.safetensors"));
        for other in others {
            let got = effects(&format!("{other}.safetensors"));
            assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>(), "{other}");
            for (name, want) in &want {
                let error = (&got[name] - want)
                    .unwrap()
                    .abs()
                    .unwrap()
                    .flatten_all()
                    .unwrap()
                    .max(0)
                    .unwrap();
                assert!(error.to_scalar::<f32>().unwrap() < 1e-6, "{other} {name}");
            }
        }
    }
}

fn adapter_error(tensors: Tensors) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.safetensors");
    write(&path, &tensors);
    Adapter::read(&Blob::File(path), &modules()).err().unwrap().to_string()
}

#[test]
fn adapters_that_do_not_fit_are_refused_by_name() {
    let t = |rows: usize, columns: usize| {
        Tensor::ones((rows, columns), DType::F32, &Device::Cpu).unwrap()
    };
    let key = |end: &str| format!("transformer.layers.0.attention.to_q.{end}");
    let one = |name: &str, t: Tensor| Tensors::from([(name.to_string(), t)]);
    let pair = |down: Tensor, up: Tensor| {
        Tensors::from([(key("lora_A.weight"), down), (key("lora_B.weight"), up)])
    };
    let infinite = (t(4, 48) / 0.0).unwrap();
    let cases = [
        (
            one("lora_unet_double_blocks_0_img_attn_proj.lora_down.weight", t(4, 48)),
            "1 of 1 keys fit no layer of Z-Image, first `lora_unet_double",
        ),
        (one(&key("lora_A.weight"), t(4, 48)), "lacks its other half"),
        (pair(t(4, 40), t(48, 4)), "is [4, 40], but the layer wants [any, 48]"),
        (pair(t(4, 48), t(48, 3)), "is [48, 3], but the layer wants [48, 4]"),
        (pair(infinite, t(48, 4)), "holds a value that is not a finite number"),
        (one(&key("dora_scale"), t(48, 1)), "is a DoRA adapter"),
        (one(&key("hada_w1_a"), t(48, 1)), "is a LoHa adapter"),
        (one(&key("lokr_w1"), t(4, 4)), "lacks a factor of its LoKr"),
    ];
    for (tensors, want) in cases {
        let message = adapter_error(tensors);
        assert!(message.contains(want) && message.contains("bad.safetensors"), "{want}: {message}");
    }
}

#[test]
fn wrong_tensors_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write(&path, &wide());
    let weights = open(&path, Role::Transformer);
    let error =
        weights.matrix("layers.0.attention.to_q.weight", [512, 256]).err().unwrap().to_string();
    assert!(
        error.contains(
            "`layers.0.attention.to_q.weight` is [256, 256], but the model wants [512, 256]"
        ),
        "{error}"
    );
    assert!(
        weights.tensor("nothing", &[1]).err().unwrap().to_string().contains("`nothing` is missing")
    );
    let left = weights.finish().err().unwrap().to_string();
    assert!(left.contains("6 tensors fit no layer"), "{left}");
    let mut broken = wide();
    broken.insert(
        "layers.0.feed_forward.w1.weight".into(),
        (wide()["layers.0.feed_forward.w1.weight"].clone() / 0.0).unwrap(),
    );
    write(&path, &broken);
    for storage in [Storage::AsStored, Storage::Bf16, Storage::Fp8, Storage::Q8_0] {
        let weights = open(&path, Role::Transformer).with_storage(storage);
        let error =
            weights.matrix("layers.0.feed_forward.w1.weight", [96, 256]).err().unwrap().to_string();
        assert!(error.contains("not a finite number"), "{error}");
    }
}

#[test]
fn a_missing_shard_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let part = folder.path().join("transformer");
    fs::create_dir(&part).unwrap();
    fs::write(
        part.join("x.safetensors.index.json"),
        r#"{"weight_map": {"a": "x-00002-of-00002.safetensors"}}"#,
    )
    .unwrap();
    let error = Layout::locate(folder.path(), None, None).err().unwrap().to_string();
    assert!(error.contains("names `x-00002-of-00002.safetensors`, which is not there"), "{error}");
    fs::write(
        part.join("x.safetensors.index.json"),
        r#"{"weight_map": {"a": "../../etc/passwd"}}"#,
    )
    .unwrap();
    assert!(
        Layout::locate(folder.path(), None, None)
            .err()
            .unwrap()
            .to_string()
            .contains("outside its folder")
    );
}

#[test]
fn a_file_cut_at_any_length_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let small = Tensors::from([(
        "layers.0.a.weight".to_string(),
        Tensor::ones((2, 32), DType::F32, &Device::Cpu).unwrap(),
    )]);
    let (plain, gguf) = (folder.path().join("a.safetensors"), folder.path().join("a.gguf"));
    write(&plain, &small);
    write_gguf(&gguf, &small, GgmlDType::Q8_0);
    for path in [plain, gguf] {
        let bytes = fs::read(&path).unwrap();
        let cut =
            folder.path().join(format!("cut-{}", path.file_name().unwrap().to_str().unwrap()));
        // GGUF ends in padding up to 31 bytes, which nobody would miss.
        for length in 0..bytes.len() - 31 {
            fs::write(&cut, &bytes[..length]).unwrap();
            assert!(
                Weights::open(&[Blob::File(cut.clone())], Role::Transformer).is_err(),
                "{length} of {}",
                bytes.len()
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn damaged_headers_never_panic(gguf: bool, at in 0..400usize, bytes in prop::collection::vec(any::<u8>(), 1..9)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(if gguf { "a.gguf" } else { "a.safetensors" });
        let tensors = Tensors::from([("layers.0.a.weight".to_string(), Tensor::ones((2, 32), DType::F32, &Device::Cpu).unwrap())]);
        if gguf { write_gguf(&path, &tensors, GgmlDType::Q8_0) } else { write(&path, &tensors) }
        let mut file = fs::read(&path).unwrap();
        let start = at % (file.len() - bytes.len());
        file[start..start + bytes.len()].copy_from_slice(&bytes);
        fs::write(&path, file).unwrap();
        if let Ok(weights) = Weights::open(&[Blob::File(path)], Role::Transformer) {
            let _ = weights.tensor("layers.0.a.weight", &[2, 32]);
            let _ = weights.matrix("layers.0.a.weight", [2, 32]);
            let _ = weights.memory_bytes(Storage::Q4K);
        }
    }
}
