//! `/playground/read`: the parameters that are written in a picture's file become a link to the form that made it.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use zoetrope_api::fal::Endpoint;
use zoetrope_server::App;

use super::form::to;
use crate::fault::Fault;
use crate::form::{Filled, receive};
use crate::text::playground::Playground;
use crate::visitor::Visitor;

pub(super) async fn read(
    State(_): State<App>,
    visitor: Visitor,
    sent: Request,
) -> Result<Response, Fault> {
    let nothing = || {
        let words = Playground::of(visitor.look.language);
        Fault::new(StatusCode::UNPROCESSABLE_ENTITY, words.read_none)
    };
    let file = receive(sent).await?.files.pop().ok_or_else(nothing)?;
    let text = zoetrope_files::read_parameters(&file.bytes).ok_or_else(nothing)?;
    let parameters: Value = serde_json::from_str(&text).map_err(|_| nothing())?;
    let (endpoint, filled) = filled(&parameters);
    Ok(to(&filled.link(&format!("/playground/{}", endpoint.id), endpoint), visitor.look.partial))
}

/// The form that parameters of this program's pictures stand for, whether the server or `zoetrope generate` wrote them. A picture
/// that another began with begins with nothing here: only its file is known.
fn filled(parameters: &Value) -> (&'static Endpoint, Filled) {
    let named = parameters["endpoint"].as_str().and_then(Endpoint::find);
    let guided = parameters["guidance_scale"].as_f64().is_some_and(|scale| scale > 0.0);
    let guess = if guided { "fal-ai/z-image/base" } else { "fal-ai/z-image/turbo" };
    let endpoint =
        named.or_else(|| Endpoint::find(guess)).expect("these endpoints are in the table");
    let mut input = json!({});
    let names = [
        ("prompt", "prompt"),
        ("negative_prompt", "negative_prompt"),
        ("steps", "num_inference_steps"),
        ("seed", "seed"),
        ("guidance_scale", "guidance_scale"),
        ("acceleration", "acceleration"),
        ("strength", "strength"),
        ("loras", "loras"),
    ];
    for (written, field) in names {
        if !parameters[written].is_null() {
            input[field] = parameters[written].clone();
        }
    }
    if parameters["width"].is_u64() && parameters["height"].is_u64() {
        input["image_size"] = json!({"width": parameters["width"], "height": parameters["height"]});
    }
    (endpoint, Filled::of_input(endpoint, &input))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_become_the_form_that_made_the_picture() {
        let server = json!({"prompt": "a", "endpoint": "fal-ai/z-image/base", "width": 192, "height": 128, "steps": 4, "seed": 7,
            "guidance_scale": 3.5, "acceleration": "none", "negative_prompt": "fog"});
        let (endpoint, form) = filled(&server);
        assert_eq!(endpoint.id, "fal-ai/z-image/base");
        let input = json!({"prompt": "a", "image_size": {"width": 192, "height": 128}, "num_inference_steps": 4, "seed": 7,
            "guidance_scale": 3.5, "acceleration": "none", "negative_prompt": "fog"});
        assert_eq!(form.input(endpoint, ""), input);
        let command_line = json!({"prompt": "b", "model": "demo", "width": 64, "height": 64, "steps": 8, "seed": 1, "guidance_scale": 0.0});
        assert_eq!(filled(&command_line).0.id, "fal-ai/z-image/turbo");
    }
}
