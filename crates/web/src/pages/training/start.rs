//! The form that begins a training, and what it sends to fal's trainer of this server.

use axum::Form;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use zoetrope_api::fal::field::TRAINING_STEPS;
use zoetrope_api::fal::{ENDPOINTS, Endpoint, Makes, parse};
use zoetrope_jobs::{TrainingPicture, TrainingRun, TrainingSet};
use zoetrope_server::App;

use super::packed::pack;
use super::set::{mine, page_of};
use crate::fault::Fault;
use crate::text::filled;
use crate::text::training::Training as Words;
use crate::visitor::Visitor;

/// As it was typed.
#[derive(Default, Deserialize)]
pub(super) struct Sent {
    name: String,
    #[serde(default)]
    trainer: String,
    #[serde(default)]
    steps: String,
    #[serde(default)]
    learning_rate: String,
    #[serde(default)]
    training_type: String,
    #[serde(default)]
    default_caption: String,
}

impl Sent {
    /// A form in which nobody has typed yet: the adapter is called as its set.
    pub(super) fn fresh(set: &TrainingSet) -> Self {
        Self { name: set.name.clone(), ..Self::default() }
    }
}

/// Characters of a name.
const NAME_MAX: usize = 80;

pub(super) fn form(
    words: &Words,
    set: &TrainingSet,
    pictures: &[TrainingPicture],
    sent: &Sent,
    wrong: &[(String, String)],
) -> Markup {
    let invalid = |field: &str| wrong.iter().any(|(known, _)| known == field).then_some("true");
    let faults = |field: &str| {
        html! { @for (_, text) in wrong.iter().filter(|(known, _)| known == field) { p.fault role="alert" { (text) } } }
    };
    let bare = pictures.iter().any(|picture| picture.caption.trim().is_empty());
    let steps_help = filled(words.steps_help, &[&TRAINING_STEPS.0, &TRAINING_STEPS.1]);
    html! {
        form.stack.trainer method="post" action=(format!("/training/sets/{}/start#start", set.id)) {
            (faults("image_data_url"))
            div.two {
                div.field {
                    label for="run-name" { (words.run_name) }
                    input #run-name name="name" value=(sent.name) required maxlength=(NAME_MAX) aria-invalid=[invalid("name")];
                    (faults("name"))
                }
                div.field {
                    label for="trainer" { (words.trainer) }
                    select #trainer name="trainer" {
                        @for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.trains()) {
                            option value=(endpoint.id) selected[sent.trainer == endpoint.id] data-steps=[suggested(endpoint).map(|s| s.0)]
                                data-rate=[suggested(endpoint).map(|s| s.1)] { (endpoint.title) }
                        }
                    }
                }
            }
            div.two {
                div.field {
                    label for="steps" { (words.steps) }
                    input #steps name="steps" type="number" min=(TRAINING_STEPS.0) max=(TRAINING_STEPS.1) value=(sent.steps) placeholder="1000"
                        aria-invalid=[invalid("steps")] aria-describedby="steps-help";
                    p.help #steps-help { (steps_help) }
                    (faults("steps"))
                }
                div.field {
                    label for="learning_rate" { (words.learning_rate) }
                    input #learning_rate name="learning_rate" inputmode="decimal" value=(sent.learning_rate) placeholder="0.0001"
                        aria-invalid=[invalid("learning_rate")] aria-describedby="rate-help";
                    p.help #rate-help { (words.learning_rate_help) }
                    (faults("learning_rate"))
                }
            }
            div.field {
                label for="training_type" { (words.kind) }
                select #training_type name="training_type" aria-invalid=[invalid("training_type")] aria-describedby="kind-help" {
                    @for (name, title) in [("", words.kind_balanced), ("content", words.kind_content), ("style", words.kind_style)] {
                        option value=(name) selected[sent.training_type == name] { (title) }
                    }
                }
                p.help #kind-help { (words.kind_help) }
                (faults("training_type"))
            }
            @if bare || invalid("default_caption").is_some() {
                div.field {
                    label for="default_caption" { (words.default_caption) }
                    input #default_caption name="default_caption" value=(sent.default_caption) required aria-invalid=[invalid("default_caption")];
                    (faults("default_caption"))
                }
            }
            div.row {
                button.primary disabled[pictures.is_empty()] { (words.start) }
                span.help { (words.some) }
            }
        }
    }
}

/// Steps and learning rate of a trainer where nobody says otherwise.
fn suggested(endpoint: &Endpoint) -> Option<(u32, f64)> {
    match endpoint.makes {
        Makes::Adapter { steps, learning_rate, .. } => Some((steps, learning_rate)),
        Makes::Pictures { .. } => None,
    }
}

pub(super) async fn start(
    visitor: Visitor,
    State(app): State<App>,
    Path(id): Path<String>,
    Form(sent): Form<Sent>,
) -> Result<Response, Fault> {
    let set = mine(&visitor, &app, &id).await?;
    let pictures = app.queue().training_pictures(&set.id).await?;
    let (endpoint, mut input) = match wish(&sent, &pictures) {
        Ok(wish) => wish,
        Err(wrong) => {
            let shown = page_of(&visitor, &app, &set, (&sent, &wrong)).await?;
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, shown).into_response());
        }
    };
    let zip = pack(&visitor, &app, pictures).await?;
    let url = format!("{}/files/{}", visitor.origin.files, zip.as_str());
    input.insert("image_data_url".into(), json!(url));
    let request =
        app.submit(&visitor.caller, endpoint, Value::Object(input), &visitor.origin).await?;
    let run = TrainingRun {
        request: request.clone(),
        set: set.id,
        owner: visitor.caller.owner.clone(),
        name: sent.name.trim().into(),
        created_ms: app.now_ms(),
    };
    app.queue().insert_training_run(&run).await?;
    Ok(Redirect::to(&format!("/training/runs/{request}")).into_response())
}

type Wish = (&'static Endpoint, Map<String, Value>);

/// The endpoint and its input without the zip, or what is wrong with which field.
fn wish(sent: &Sent, pictures: &[TrainingPicture]) -> Result<Wish, Vec<(String, String)>> {
    let mut wrong = Vec::new();
    let mut say = |field: &str, text: String| wrong.push((field.to_string(), text));
    let name = sent.name.trim().chars().count();
    if name == 0 || name > NAME_MAX {
        say("name", format!("The name has {name} characters; it has to have 1 to {NAME_MAX}."));
    }
    if pictures.is_empty() {
        say("image_data_url", "The set has no picture; add some.".into());
    }
    let endpoint = Endpoint::find(&sent.trainer).filter(|endpoint| endpoint.trains());
    let Some(endpoint) = endpoint else {
        say("image_data_url", format!("`{}` is no trainer.", sent.trainer));
        return Err(wrong);
    };
    let mut input = Map::new();
    for (field, text) in [("steps", &sent.steps), ("learning_rate", &sent.learning_rate)] {
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        match text.parse::<Value>().ok().filter(Value::is_number) {
            Some(value) => drop(input.insert(field.into(), value)),
            None => say(field, format!("`{text}` is no number.")),
        }
    }
    for (field, text) in
        [("training_type", &sent.training_type), ("default_caption", &sent.default_caption)]
    {
        if !text.trim().is_empty() {
            input.insert(field.into(), json!(text.trim()));
        }
    }
    let bare = pictures.iter().find(|picture| picture.caption.trim().is_empty());
    if let Some(picture) = bare.filter(|_| sent.default_caption.trim().is_empty()) {
        say(
            "default_caption",
            format!("{} has no caption; write one, here or there.", picture.name),
        );
    }
    // All else is told by the endpoint itself, as it tells programs; the zip comes once everything is right.
    let mut probe = input.clone();
    probe.insert("image_data_url".into(), json!("https://example.com/pictures.zip"));
    if let Err(problems) = parse(endpoint, &Value::Object(probe)) {
        for problem in problems {
            let field = problem.loc.get(1).and_then(Value::as_str).unwrap_or("image_data_url");
            say(field, problem.msg);
        }
    }
    if wrong.is_empty() { Ok((endpoint, input)) } else { Err(wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(caption: &str) -> TrainingPicture {
        TrainingPicture {
            id: String::new(),
            file: String::new(),
            name: "a.png".into(),
            caption: caption.into(),
            width: 1,
            height: 1,
            bytes: 1,
        }
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let sent = Sent {
            trainer: "fal-ai/z-image-trainer".into(),
            steps: "7".into(),
            learning_rate: "fast".into(),
            training_type: "colour".into(),
            ..Sent::default()
        };
        let wrong = wish(&sent, &[picture("")]).unwrap_err();
        let mut fields: Vec<&str> = wrong.iter().map(|(field, _)| field.as_str()).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["default_caption", "learning_rate", "name", "steps", "training_type"]);
    }

    #[test]
    fn what_is_left_empty_is_left_to_the_trainer() {
        let sent = Sent {
            name: "ink".into(),
            trainer: "fal-ai/z-image-turbo-trainer".into(),
            ..Sent::default()
        };
        let (endpoint, input) = wish(&sent, &[picture("a house")]).unwrap();
        assert_eq!((endpoint.id, input.len()), ("fal-ai/z-image-turbo-trainer", 0));
    }
}
