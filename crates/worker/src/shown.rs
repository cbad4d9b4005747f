//! What is told of pictures that are kept: to those who look through them, and in the files themselves.

use serde_json::{Value, json};
use zoetrope_api::task::{Delivery, Generate};
use zoetrope_jobs::{NewPicture, Request};

/// Whether the pictures of `request` are kept at all.
fn is_kept(task: &Generate, request: &Request) -> bool {
    request.keep_io && task.delivery == Delivery::Stored
}

/// The parameters that go into the file of a kept picture, by the names that `zoetrope generate` gives them; `expanded` is what
/// its prompt was made into, if it was.
pub(crate) fn parameters(
    task: &Generate,
    request: &Request,
    (width, height): (u32, u32),
    seed: u64,
    expanded: Option<&str>,
) -> Option<String> {
    if !is_kept(task, request) {
        return None;
    }
    let mut fields = json!({
        "prompt": expanded.unwrap_or(&task.prompt),
        "endpoint": request.endpoint,
        "width": width,
        "height": height,
        "steps": task.steps,
        "seed": seed,
        "guidance_scale": task.guidance_scale,
        "acceleration": task.acceleration,
        "version": env!("CARGO_PKG_VERSION"),
    });
    if expanded.is_some() {
        fields["expanded_from"] = task.prompt.as_str().into();
    }
    if !task.negative_prompt.is_empty() {
        fields["negative_prompt"] = task.negative_prompt.as_str().into();
    }
    if let Some(reference) = &task.image {
        fields["strength"] = reference.strength.into();
    }
    if !task.loras.is_empty() {
        let lora =
            |lora: &zoetrope_api::task::Lora| json!({"path": lora.path, "scale": lora.scale});
        fields["loras"] = task.loras.iter().map(lora).collect();
    }
    Some(fields.to_string())
}

/// `images`, as the answer has them, for those who look through pictures.
pub(crate) fn pictures(
    task: &Generate,
    request: &Request,
    images: &[Value],
    seed: u64,
    prompt: &str,
) -> Vec<NewPicture> {
    if !is_kept(task, request) {
        return Vec::new();
    }
    let side = |image: &Value, name: &str| image[name].as_u64().unwrap_or_default() as u32;
    let picture = |image: &Value| {
        let (_, file) = image["url"].as_str()?.rsplit_once("/files/")?;
        Some(NewPicture {
            file: file.into(),
            model: request.endpoint.clone(),
            prompt: prompt.into(),
            width: side(image, "width"),
            height: side(image, "height"),
            seed: Some(seed),
        })
    };
    images.iter().filter_map(picture).collect()
}
