//! What is written of a generation: files by their names, what each was made from, and what the terminal says.

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde_json::{Value, json};
use zoetrope_engine::pipeline::Request;
use zoetrope_files::Format;

use super::{Args, Made, strength};

/// The files to write for each request, checked before the work begins.
pub(super) fn outputs(
    args: &Args,
    requests: &[Request],
) -> anyhow::Result<Vec<Vec<(PathBuf, Format)>>> {
    if args.save_latents.is_some() && requests.len() > 1 {
        bail!("--save-latents keeps those of one prompt; there are {}", requests.len());
    }
    let pictures = requests.iter().map(|request| request.count.get()).sum::<usize>();
    let (mut all, mut number) = (Vec::new(), 0);
    for (i, request) in requests.iter().enumerate() {
        // Prompts of a batch may begin alike.
        let before = if requests.len() > 1 { format!("{:03}-", i + 1) } else { String::new() };
        let own = || format!("{before}{}-{}.png", slug(&request.prompt), request.seed.0).into();
        let named = args.output.clone().unwrap_or_else(own);
        let format = Format::of(&named)?;
        let count = request.count.get();
        let mut paths = Vec::new();
        for nth in 1..=count {
            number += 1;
            paths.push(match &args.output {
                Some(_) if pictures > 1 => (numbered(&named, number), format),
                None if count > 1 => (numbered(&named, nth), format),
                _ => (named.clone(), format),
            });
        }
        all.push(paths);
    }
    for path in all.iter().flatten().map(|(path, _)| path).chain(&args.save_latents) {
        zoetrope_files::check_writable(path)?;
    }
    Ok(all)
}

fn numbered(named: &Path, number: usize) -> PathBuf {
    let stem = named.file_stem().unwrap_or_default().to_string_lossy();
    let ending = named.extension().unwrap_or_default().to_string_lossy();
    named.with_file_name(format!("{stem}-{number}.{ending}"))
}

/// A file name from a prompt: its first words.
fn slug(prompt: &str) -> String {
    let words = prompt.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
    let name: String =
        words.take(6).collect::<Vec<_>>().join("-").to_lowercase().chars().take(48).collect();
    if name.is_empty() { "zoetrope".into() } else { name }
}

pub(super) fn save(
    args: &Args,
    request: &Request,
    made: &Made,
    outputs: &[(PathBuf, Format)],
) -> anyhow::Result<()> {
    // Everything is encoded before anything is written.
    let mut files = Vec::new();
    for (i, (picture, (path, format))) in made.pictures.iter().zip(outputs).enumerate() {
        let parameters = parameters(args, request, made, i).to_string();
        files.push((path, zoetrope_files::encode(picture, *format, Some(&parameters))?));
    }
    if let Some(path) = &args.save_latents {
        files.push((path, latents_file(&made.latents)?));
    }
    for (path, bytes) in files {
        zoetrope_files::write(path, &bytes)?;
    }
    Ok(())
}

fn latents_file(latents: &candle_core::Tensor) -> anyhow::Result<Vec<u8>> {
    let values = latents.flatten_all()?.to_vec1::<f32>()?;
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let shape = latents.dims().to_vec();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &bytes)?;
    Ok(safetensors::serialize([("latents", view)], None)?)
}

/// What a picture was made from; enough to make it again. An expanded prompt makes it without being expanded again.
fn parameters(args: &Args, request: &Request, made: &Made, index: usize) -> Value {
    let mut fields = json!({
        "prompt": made.expanded.as_ref().unwrap_or(&request.prompt),
        "model": args.model.model,
        "width": request.size.width(),
        "height": request.size.height(),
        "steps": request.schedule_steps().get(),
        "seed": request.seed.0,
        "guidance_scale": request.guidance.scale(),
        "dtype": args.dtype,
        "acceleration": args.acceleration,
        "version": env!("CARGO_PKG_VERSION"),
    });
    let mut add = |name: &str, value: Value| fields[name] = value;
    if made.expanded.is_some() {
        add("expanded_from", request.prompt.clone().into());
    }
    if let Some(flagged) = &made.flagged {
        add("has_nsfw_concept", flagged.get(index).copied().into());
    }
    if request.count.get() > 1 {
        add("count", request.count.get().into());
        add("index", (index + 1).into());
    }
    if request.guidance.is_on() {
        add("negative_prompt", request.negative_prompt.clone().unwrap_or_default().into());
        add("cfg_normalization", args.cfg_normalization.into());
        add("cfg_truncation", args.cfg_truncation.into());
    }
    let path = |p: &PathBuf| Value::String(p.display().to_string());
    if let Some(image) = &args.image {
        add("image", path(image));
        add("strength", strength(args).into());
    }
    for (name, file) in
        [("mask", &args.mask), ("text_encoder", &args.model.text_encoder), ("vae", &args.model.vae)]
    {
        if let Some(file) = file {
            add(name, path(file));
        }
    }
    args.guides.describe(&mut add);
    if !args.lora.is_empty() {
        add("lora", args.lora.clone().into());
    }
    for (name, value) in args.controls.parameters(&request.controls) {
        add(&name, value);
    }
    fields
}

pub(super) fn report(
    args: &Args,
    request: &Request,
    made: &Made,
    outputs: &[(PathBuf, Format)],
    seconds: f64,
) {
    if args.json {
        let images: Vec<Value> =
            outputs.iter().map(|(path, _)| json!({"path": path.display().to_string()})).collect();
        let mut fields = parameters(args, request, made, 0);
        if let Some(flagged) = &made.flagged {
            fields["has_nsfw_concepts"] = flagged.clone().into();
        }
        fields["images"] = images.into();
        fields["seconds"] = ((seconds * 1000.0).round() / 1000.0).into();
        println!("{fields}");
        return;
    }
    if let Some(expanded) = &made.expanded {
        eprintln!("prompt: {expanded}");
    }
    for (path, _) in outputs {
        println!("{} ({}, seed {}, {seconds:.1} s)", path.display(), request.size, request.seed.0);
    }
}
