//! What these front-ends send, in the words of the gateway's own requests.

use serde_json::{Map, Value, json};
use zoetrope_api::images::{ImageRequest, PARTIALS_MAX, Problem, Route, parse_json};

/// Pixels of a side where nobody said.
const SIDE: u32 = 512;
/// How far an image is left where nobody said.
const DENOISING_STRENGTH: f64 = 0.75;

/// Reads the body of `txt2img`, or of `img2img` where `edits`. `guided`: whether the model takes guidance; a distilled one is
/// ruined by the 7 that front-ends send without being asked.
pub(super) fn request(
    sent: &Map<String, Value>,
    (model, guided): (&str, bool),
    edits: bool,
) -> Result<ImageRequest, Problem> {
    let number = |name: &str, default: u64| match sent.get(name).filter(|value| !value.is_null()) {
        None => Ok(default),
        Some(value) => value.as_u64().ok_or_else(|| {
            Problem::invalid(name, format!("`{name}` must be a whole number of 0 or more"))
        }),
    };
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| drop(body.insert(name.into(), value));
    put("model", model.into());
    put("prompt", sent.get("prompt").cloned().unwrap_or_default());
    put("n", number("batch_size", 1)?.saturating_mul(number("n_iter", 1)?).into());
    put("width", number("width", SIDE.into())?.into());
    put("height", number("height", SIDE.into())?.into());
    put("response_format", "b64_json".into());
    put("output_format", "png".into());
    // -1 is any.
    let seed = sent.get("seed").filter(|seed| seed.as_i64() != Some(-1));
    put("seed", seed.cloned().unwrap_or_default());
    put("num_inference_steps", sent.get("steps").cloned().unwrap_or_default());
    if guided {
        put("cfg_scale", sent.get("cfg_scale").cloned().unwrap_or_default());
        put("negative_prompt", sent.get("negative_prompt").cloned().unwrap_or_default());
    }
    if edits {
        let Some(first) = sent.get("init_images").and_then(|images| images.get(0)) else {
            return Err(Problem::invalid(
                "init_images",
                "`init_images` is empty; send a picture as base64",
            ));
        };
        put("image", picture(first));
        if let Some(mask) = sent.get("mask").filter(|mask| !mask.is_null()) {
            if number("inpainting_mask_invert", 0)? != 0 {
                let text = "`inpainting_mask_invert` is not supported; send a mask that is light where the picture changes";
                return Err(Problem::invalid("inpainting_mask_invert", text));
            }
            put("mask", picture(mask));
        }
        let strength = sent.get("denoising_strength").filter(|value| !value.is_null());
        put("strength", strength.cloned().unwrap_or(json!(DENOISING_STRENGTH)));
    }
    let route = if edits { Route::Edits } else { Route::Generations };
    let mut request = parse_json(&body, route).map_err(named)?;
    // For `progress`, which shows what the picture looks like by now.
    request.reply.partials = Some(PARTIALS_MAX);
    Ok(request)
}

/// Base64 alone is a data URI without its head.
fn picture(value: &Value) -> Value {
    match value.as_str() {
        Some(text) if text.contains(':') => text.into(),
        Some(text) => format!("data:image/png;base64,{text}").into(),
        None => value.clone(),
    }
}

/// A problem under the name that was sent.
fn named(problem: Problem) -> Problem {
    let names = [
        ("num_inference_steps", "steps"),
        ("strength", "denoising_strength"),
        ("image", "init_images"),
        ("n", "batch_size"),
    ];
    let Some((ours, theirs)) =
        names.into_iter().find(|(ours, _)| problem.param.as_deref() == Some(*ours))
    else {
        return problem;
    };
    let message = problem.message.replace(&format!("`{ours}`"), &format!("`{theirs}`"));
    Problem { param: Some(theirs.into()), message, ..problem }
}

#[cfg(test)]
mod tests {
    use zoetrope_api::images::{Input, Pixels, SizeWish};

    use super::*;

    fn read(body: Value, guided: bool, edits: bool) -> Result<ImageRequest, Problem> {
        request(body.as_object().expect("an object"), ("m", guided), edits)
    }

    #[test]
    fn a_distilled_model_is_spared_the_guidance_of_others() {
        let body = json!({"prompt": "a", "steps": 20, "cfg_scale": 7, "negative_prompt": "b", "seed": -1, "n_iter": 2, "batch_size": 2,
            "sampler_name": "DPM++ 2M", "override_settings": {}});
        let turbo = read(body.clone(), false, false).unwrap();
        assert_eq!((turbo.guidance_scale, turbo.negative_prompt, turbo.seed), (None, None, None));
        assert_eq!((turbo.count, turbo.steps), (4, Some(20)));
        assert_eq!(turbo.size, SizeWish::Exactly(Pixels::new(512, 512)));
        let base = read(body, true, false).unwrap();
        assert_eq!((base.guidance_scale, base.negative_prompt.as_deref()), (Some(7.0), Some("b")));
    }

    #[test]
    fn pictures_come_as_base64_with_or_without_a_head() {
        for image in ["aGk=", "data:image/png;base64,aGk="] {
            let request =
                read(json!({"prompt": "a", "init_images": [image], "mask": image}), false, true)
                    .unwrap();
            let edit = request.edit.unwrap();
            assert_eq!(edit.images, [Input::Url("data:image/png;base64,aGk=".into())]);
            assert_eq!((edit.mask.is_some(), edit.strength), (true, Some(0.75)));
        }
    }

    #[test]
    fn what_is_wrong_is_named_as_it_was_sent() {
        let cases = [
            (json!({"prompt": "a", "steps": 0}), "steps"),
            (json!({"prompt": "a", "batch_size": 20}), "batch_size"),
            (json!({"prompt": "a", "batch_size": "x"}), "batch_size"),
            (json!({"prompt": "a", "width": 0}), "width"),
            (json!({"prompt": ""}), "prompt"),
        ];
        for (body, param) in cases {
            let problem = read(body.clone(), true, false).unwrap_err();
            assert_eq!(problem.param.as_deref(), Some(param), "{body}: {problem}");
            assert!(problem.message.contains(&format!("`{param}`")), "{problem}");
        }
        let problem = read(json!({"prompt": "a"}), true, true).unwrap_err();
        assert_eq!(problem.param.as_deref(), Some("init_images"));
    }
}
