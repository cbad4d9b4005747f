//! A new challenge.

use axum::Form;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use zoetrope_arena::{Contender, Draft, Error, Wrong};
use zoetrope_server::App;

use super::{In, caller_of, fault_of, invalid};
use crate::fault::Fault;
use crate::layout::{Page, Tab, page};
use crate::text::arena::Arena as Words;
use crate::visitor::Visitor;

/// As it was typed.
#[derive(Deserialize)]
pub(super) struct Sent {
    name: String,
    use_case: String,
    prompts: String,
    width: String,
    height: String,
    seed: String,
    #[serde(default)]
    begin: String,
}

/// Who takes part from the start: the question that most people come with.
const BEGINNINGS: [&str; 3] = ["bits", "steps", "none"];
/// This server's own engine, as fal calls it.
const HERE: &str = "fal-ai/z-image/turbo";

pub(super) async fn form(visitor: Visitor, State(app): State<App>) -> Result<Markup, Fault> {
    let fresh = Sent {
        name: String::new(),
        use_case: String::new(),
        prompts: String::new(),
        width: "1024".into(),
        height: "1024".into(),
        // Any number does; it is shown, so that a challenge can be made again.
        seed: (app.now_ms() % 1_000_000).to_string(),
        begin: BEGINNINGS[0].into(),
    };
    shown(&visitor, &app, &fresh, &[]).await
}

pub(super) async fn made(
    visitor: Visitor,
    State(app): State<App>,
    In(arena): In,
    Form(sent): Form<Sent>,
) -> Result<Response, Fault> {
    let caller = caller_of(&visitor);
    let mut wrong = Vec::new();
    let draft = Draft {
        name: sent.name.clone(),
        use_case: sent.use_case.clone(),
        prompts: sent.prompts.clone(),
        width: number("width", &sent.width, &mut wrong),
        height: number("height", &sent.height, &mut wrong),
        seed: number("seed", &sent.seed, &mut wrong),
    };
    let challenge = match wrong.is_empty() {
        true => arena.create(&draft, &caller).await,
        false => Err(Error::Wrong(wrong)),
    };
    match challenge {
        Ok(challenge) => {
            for (name, settings) in beginning(&sent.begin) {
                let gateway = (app.gateway(), &caller);
                let contender = Contender::check(name, HERE, settings, gateway).await?;
                arena.enter(&challenge, &contender).await?;
            }
            Ok(Redirect::to(&format!("/arena/{}", challenge.id)).into_response())
        }
        Err(Error::Wrong(wrong)) => {
            let form = shown(&visitor, &app, &sent, &wrong).await?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, form).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

fn number(field: &str, text: &str, wrong: &mut Vec<Wrong>) -> u32 {
    text.trim().parse().unwrap_or_else(|_| {
        wrong.push(Wrong::new(field, format!("`{text}` is no whole number from 0 on.")));
        0
    })
}

fn beginning(name: &str) -> Vec<(&'static str, Map<String, Value>)> {
    let one =
        |name, field: &str, value: Value| (name, Map::from_iter([(field.to_string(), value)]));
    match name {
        "bits" => vec![
            one("full precision", "acceleration", json!("none")),
            one("8 bits", "acceleration", json!("high")),
        ],
        "steps" => vec![
            one("8 steps", "num_inference_steps", json!(8)),
            one("4 steps", "num_inference_steps", json!(4)),
        ],
        _ => Vec::new(),
    }
}

async fn shown(
    visitor: &Visitor,
    app: &App,
    sent: &Sent,
    wrong: &[Wrong],
) -> Result<Markup, Fault> {
    let words = Words::of(visitor.look.language);
    let use_cases = app.queue().use_cases().await?;
    let text = |field: &str, title: &str, help: Option<&str>, value: &str, list: Option<&str>| {
        html! {
            div.field {
                label for=(field) { (title) }
                input id=(field) name=(field) value=(value) required list=[list] aria-invalid=[invalid(wrong, field)]
                    aria-describedby=[help.map(|_| format!("{field}-help"))];
                @if let Some(help) = help { p.help id=(format!("{field}-help")) { (help) } }
                (fault_of(wrong, field))
            }
        }
    };
    let number = |field: &str, title: &str, value: &str| {
        html! {
            div.field {
                label for=(field) { (title) }
                input id=(field) name=(field) type="number" inputmode="numeric" value=(value) required aria-invalid=[invalid(wrong, field)];
                (fault_of(wrong, field))
            }
        }
    };
    let body = html! {
        section.narrow {
            h1 { (words.new) }
            form.stack method="post" action="/arena/new" {
                (text("name", words.name, Some(words.name_help), &sent.name, None))
                (text("use_case", words.use_case, Some(words.use_case_help), &sent.use_case, Some("use-cases")))
                datalist #use-cases { @for (name, _) in &use_cases { option value=(name) {} } }
                div.field {
                    label for="prompts" { (words.prompts) }
                    textarea #prompts name="prompts" rows="8" required aria-invalid=[invalid(wrong, "prompts")] aria-describedby="prompts-help" { (sent.prompts) }
                    p.help #prompts-help { (words.prompts_help) }
                    (fault_of(wrong, "prompts"))
                }
                div.three {
                    (number("width", words.width, &sent.width))
                    (number("height", words.height, &sent.height))
                    (number("seed", words.seed, &sent.seed))
                }
                fieldset {
                    legend { (words.begin) }
                    @for (name, title, help) in [
                        (BEGINNINGS[0], words.begin_bits, Some(words.begin_bits_help)), (BEGINNINGS[1], words.begin_steps, None),
                        (BEGINNINGS[2], words.begin_none, None),
                    ] {
                        label.check {
                            input type="radio" name="begin" value=(name) checked[sent.begin == name];
                            span { (title) @if let Some(help) = help { span.help.block { (help) } } }
                        }
                    }
                }
                button.primary { (words.create) }
            }
        }
    };
    Ok(page(&visitor.look, Page { title: words.new, tab: Some(Tab::Arena), scripts: &[], body }))
}
