//! A contender is added to a challenge.

use axum::Form;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use zoetrope_api::fal::{Draws, ENDPOINTS, Endpoint, Makes};
use zoetrope_arena::{Contender, Error, Wrong};
use zoetrope_jobs::Challenge;
use zoetrope_server::App;

use super::challenge::{changeable, page_of};
use super::{In, caller_of, fault_of, invalid};
use crate::fault::Fault;
use crate::text::arena::Arena as Words;
use crate::visitor::Visitor;

/// As it was typed.
#[derive(Default, Deserialize)]
pub(super) struct Sent {
    #[serde(default)]
    name: String,
    model: String,
    #[serde(default)]
    acceleration: String,
    #[serde(default)]
    steps: String,
    #[serde(default)]
    guidance: String,
    #[serde(default)]
    lora: String,
    #[serde(default)]
    scale: String,
    #[serde(default)]
    other: String,
}

pub(super) async fn entered(
    visitor: Visitor,
    State(app): State<App>,
    In(arena): In,
    Path(id): Path<String>,
    Form(sent): Form<Sent>,
) -> Result<Response, Fault> {
    let challenge = arena.challenge(&id).await?;
    changeable(&visitor, &challenge)?;
    let words = Words::of(visitor.look.language);
    let caller = caller_of(&visitor);
    let made = async {
        let (model, settings) = sent.settings()?;
        let contender =
            Contender::check(&sent.name, &model, settings, (app.gateway(), &caller)).await?;
        match arena.enter(&challenge, &contender).await? {
            true => Ok(()),
            false => Err(Error::Wrong(vec![Wrong::new("model", words.already)])),
        }
    };
    match made.await {
        Ok(()) => Ok(Redirect::to(&format!("/arena/{id}#contenders")).into_response()),
        Err(Error::Wrong(wrong)) => {
            let shown = page_of(&visitor, &app, &arena, &challenge, (&sent, &wrong)).await?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, shown).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

impl Sent {
    /// The model and its settings, in the words of whoever serves it.
    fn settings(&self) -> Result<(String, Map<String, Value>), Error> {
        let mut wrong = Vec::new();
        let mut settings = match self.other.trim() {
            "" => Map::new(),
            text => match serde_json::from_str(text) {
                Ok(Value::Object(settings)) => settings,
                _ => {
                    wrong.push(Wrong::new(
                        "settings",
                        "This is no JSON object; write one as {\"negative_prompt\": \"fog\"}.",
                    ));
                    Map::new()
                }
            },
        };
        let endpoint = Endpoint::find(&self.model);
        if !self.acceleration.is_empty() {
            settings.insert("acceleration".into(), json!(self.acceleration));
        }
        let mut number = |field: &str, text: &str| match text.trim() {
            "" => None,
            text => match text.parse::<Value>() {
                Ok(value) if value.is_number() => Some(value),
                _ => {
                    wrong.push(Wrong::new(
                        format!("settings.{field}"),
                        format!("`{text}` is no number."),
                    ));
                    None
                }
            },
        };
        let guidance = if endpoint.is_some() { "guidance_scale" } else { "cfg_scale" };
        for (field, text) in [("num_inference_steps", &self.steps), (guidance, &self.guidance)] {
            if let Some(value) = number(field, text) {
                settings.insert(field.into(), value);
            }
        }
        let mut model = self.model.clone();
        if !self.lora.trim().is_empty() {
            let scale = number("loras", &self.scale).unwrap_or(json!(1));
            settings.insert("loras".into(), json!([{"path": self.lora.trim(), "scale": scale}]));
            // The endpoint that takes adapters is the same model.
            if let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.takes_loras()) {
                model = format!("{}/lora", endpoint.id);
            }
        }
        if wrong.is_empty() { Ok((model, settings)) } else { Err(Error::Wrong(wrong)) }
    }
}

/// The form under a challenge's contenders.
pub(super) fn form(
    words: &Words,
    app: &App,
    challenge: &Challenge,
    sent: &Sent,
    wrong: &[Wrong],
) -> Markup {
    let here = ENDPOINTS.iter().filter(|endpoint| {
        matches!(endpoint.makes, Makes::Pictures { draws: Draws::Text, loras: false })
    });
    let catalogue = app.gateway().catalogue();
    let mut elsewhere: Vec<&str> = catalogue.models.iter().map(|model| model.id.as_str()).collect();
    elsewhere.extend(catalogue.deployments().map(|(_, deployment)| deployment.key.as_str()));
    let number = |id: &str, name: &str, title: &str, value: &str, field: &str| {
        html! {
            div.field {
                label for=(id) { (title) }
                input id=(id) name=(name) inputmode="decimal" value=(value) aria-invalid=[invalid(wrong, field)];
                (fault_of(wrong, field))
            }
        }
    };
    // What is wrong with a field that has no input of its own is told at the last one.
    let own = [
        "model",
        "name",
        "settings.num_inference_steps",
        "settings.guidance_scale",
        "settings.cfg_scale",
        "settings.loras",
    ];
    let rest = wrong.iter().filter(|each| !own.contains(&each.field.as_str()));
    html! {
        details.more open[!wrong.is_empty()] {
            summary { (words.add) }
            form.stack.contender method="post" action=(format!("/arena/{}/contenders#contenders", challenge.id)) {
                div.field {
                    label for="model" { (words.model) }
                    select #model name="model" aria-invalid=[invalid(wrong, "model")] {
                        optgroup label=(words.model_here) {
                            @for endpoint in here { option value=(endpoint.id) selected[sent.model == endpoint.id] { (endpoint.title) } }
                        }
                        optgroup label=(words.model_elsewhere) {
                            @for name in &elsewhere { option value=(name) selected[sent.model == *name] { (name) } }
                        }
                    }
                    (fault_of(wrong, "model"))
                }
                div.field {
                    label for="contender-name" { (words.contender_name) }
                    input #contender-name name="name" value=(sent.name) aria-invalid=[invalid(wrong, "name")] aria-describedby="contender-name-help";
                    p.help #contender-name-help { (words.contender_name_help) }
                    (fault_of(wrong, "name"))
                }
                div.three {
                    div.field {
                        label for="acceleration" { (words.acceleration) }
                        select #acceleration name="acceleration" {
                            option value="" { (words.as_it_comes) }
                            @for name in zoetrope_api::Acceleration::NAMES { option value=(name) selected[sent.acceleration == name] { (name) } }
                        }
                    }
                    (number("steps", "steps", words.steps, &sent.steps, "settings.num_inference_steps"))
                    div {
                        (number("guidance", "guidance", words.guidance, &sent.guidance, "settings.guidance_scale"))
                        (fault_of(wrong, "settings.cfg_scale"))
                    }
                }
                div.two {
                    div.field {
                        label for="lora" { (words.lora) }
                        input #lora name="lora" value=(sent.lora) aria-invalid=[invalid(wrong, "settings.loras")] aria-describedby="lora-help";
                        p.help #lora-help { (words.lora_help) }
                        (fault_of(wrong, "settings.loras"))
                    }
                    (number("scale", "scale", words.lora_scale, &sent.scale, ""))
                }
                div.field {
                    label for="other" { (words.other) }
                    textarea.mono #other name="other" rows="2" aria-describedby="other-help" { (sent.other) }
                    p.help #other-help { (words.other_help) }
                    @for each in rest { p.fault role="alert" { (each.message) } }
                }
                button.primary { (words.add) }
            }
        }
    }
}
