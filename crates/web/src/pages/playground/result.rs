//! What became of a request: its pictures with what can be done with them, or why there are none.

use maud::{Markup, html};
use serde_json::Value;
use zoetrope_api::fal::{Endpoint, Problem};
use zoetrope_jobs::{LogLine, Outcome, Picture, Request};

use super::request::log;
use crate::form::Filled;
use crate::icons::{self, icon};
use crate::pages::gallery::star;
use crate::show::{ago, dollars, own_path, seconds};
use crate::text::Language;
use crate::text::playground::Run;
use crate::visitor::Visitor;

/// How far a variation leaves its picture.
const VARY_STRENGTH: &str = "0.5";

/// The end of `request`, which has ended.
pub(super) fn show(
    visitor: &Visitor,
    request: &Request,
    logs: &[LogLine],
    pictures: &[Picture],
    now_ms: i64,
) -> Markup {
    let language = visitor.look.language;
    let words = Run::of(language);
    let Some(end) = &request.end else { return html! {} };
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (input, answer) = (read(&request.input), read(&end.response));
    let Some(endpoint) = Endpoint::find(&request.endpoint) else { return html! {} };
    let filled = Filled::of_input(endpoint, &input);
    let again = filled.link(&format!("/playground/{}", endpoint.id), endpoint);
    let made = Made { words, language, endpoint, filled: &filled, answer: &answer, pictures };
    html! {
        div.run data-done=(end.outcome == Outcome::Completed) {
            @match end.outcome {
                Outcome::Completed if endpoint.trains() => (made.adapter()),
                Outcome::Completed => (made.pictures()),
                Outcome::Cancelled => div.card role="status" { p { (words.cancelled) } },
                Outcome::Failed => div.card.fault role="alert" { (failed(words, language, &answer, end.error.as_deref())) },
            }
            (facts(words, request, &answer, ago(language, request.created_ms, now_ms)))
            @if request.keep_io && !filled.is_empty() {
                p.row { a.button.small href=(again) { (icon(icons::REUSE)) (words.again) } }
            } @else { p.help { (words.not_kept) } }
            (log(words, logs))
            details.logs { summary { (words.json) } pre { (pretty(answer.clone())) } }
        }
    }
}

/// Pictures that were made by a model's name.
pub(super) fn by_name(language: Language, pictures: &[Picture]) -> Markup {
    let words = Run::of(language);
    html! {
        div.run data-done="true" {
            div.made data-count=(pictures.len()) {
                @for picture in pictures {
                    @let path = format!("/files/{}", picture.file);
                    figure {
                        a.whole href=(path) {
                            img src=(path) alt=(picture.prompt) width=(picture.width) height=(picture.height);
                        }
                        figcaption.row {
                            a.button.small href={ (path) "?download" } download { (icon(icons::DOWNLOAD)) (words.download) }
                            (star(language, picture))
                            span.soft.small.numbers {
                                (picture.model) " · " (picture.width) " × " (picture.height)
                                @if let Some(seed) = &picture.seed { " · " (seed) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// JSON with the texts of pictures cut off: nobody reads a megabyte.
fn pretty(mut value: Value) -> String {
    fn cut(value: &mut Value) {
        match value {
            Value::String(text) if text.starts_with("data:") && text.len() > 80 => {
                *text = format!("{}…", text.chars().take(60).collect::<String>());
            }
            Value::Array(list) => list.iter_mut().for_each(cut),
            Value::Object(object) => object.values_mut().for_each(cut),
            _ => {}
        }
    }
    cut(&mut value);
    serde_json::to_string_pretty(&value).unwrap_or_default()
}

fn failed(words: &Run, language: Language, answer: &Value, error: Option<&str>) -> Markup {
    let texts: Vec<String> = match answer["detail"].as_array() {
        Some(list) => list.iter().map(|each| described(language, each)).collect(),
        None => error.or(answer["detail"].as_str()).map(String::from).into_iter().collect(),
    };
    html! {
        p { strong { (words.failed) } }
        @for text in texts { p { (text) } }
    }
}

/// A problem that a worker found, with the field that it is about.
fn described(language: Language, problem: &Value) -> String {
    let message = problem["msg"].as_str().unwrap_or_default();
    let field = problem["loc"].as_array().and_then(|loc| loc.get(1)).and_then(Value::as_str);
    let kind = ["feature_not_supported", "file_download_error", "image_too_large"];
    let kind = kind.into_iter().find(|kind| problem["type"] == *kind).unwrap_or("value_error");
    let text = crate::text::fields::problem(language, &Problem::new(&[], kind, message));
    field.map_or(text.clone(), |field| format!("{field}: {text}"))
}

/// What a request made.
struct Made<'a> {
    words: &'static Run,
    language: Language,
    endpoint: &'static Endpoint,
    filled: &'a Filled,
    answer: &'a Value,
    pictures: &'a [Picture],
}

impl Made<'_> {
    fn pictures(&self) -> Markup {
        let images = self.answer["images"].as_array().map_or(&[][..], Vec::as_slice);
        let prompt = self.answer["prompt"].as_str().unwrap_or_default();
        html! {
            div.made data-count=(images.len()) {
                @for (at, image) in images.iter().enumerate() { (self.picture(at, image, prompt)) }
            }
        }
    }

    fn picture(&self, at: usize, image: &Value, prompt: &str) -> Markup {
        let url = image["url"].as_str().unwrap_or_default();
        let own = own_path(url);
        // Pictures in the answer itself are data URIs.
        let source =
            own.clone().or_else(|| url.starts_with("data:image/").then(|| url.to_string()));
        let flagged = self.answer["has_nsfw_concepts"][at] == true;
        let row =
            self.pictures.iter().find(|p| own.as_deref() == Some(&format!("/files/{}", p.file)));
        html! {
            figure {
                @if let Some(source) = &source {
                    a.whole href=[own.as_ref()] {
                        img src=(source) alt=(prompt) width=[image["width"].as_u64()] height=[image["height"].as_u64()];
                    }
                }
                @if flagged { p.fault { (self.words.unsafe_content) } }
                @if let Some(path) = &own {
                    figcaption.row {
                        a.button.small href=(self.as_input(path).1) { (icon(icons::PICTURE)) (self.words.as_input) }
                        (self.vary(path))
                        a.button.small href={ (path) "?download" } download { (icon(icons::DOWNLOAD)) (self.words.download) }
                        @if let Some(row) = row { (star(self.language, row)) }
                    }
                }
            }
        }
    }

    /// The endpoint that starts from an image, with this one filled in, and a link to it.
    fn as_input(&self, path: &str) -> (Filled, String) {
        let endpoint = self.successor();
        let mut filled = Filled::of_input(endpoint, &self.filled.input(self.endpoint, ""));
        filled.set("image_url", path);
        filled.set("image_size", "auto");
        filled.set("seed", "");
        let link = filled.link(&format!("/playground/{}", endpoint.id), endpoint);
        (filled, link)
    }

    fn successor(&self) -> &'static Endpoint {
        let id = match self.endpoint.takes_loras() {
            true => "fal-ai/z-image/turbo/image-to-image/lora",
            false => "fal-ai/z-image/turbo/image-to-image",
        };
        Endpoint::find(id).expect("these endpoints are in the table")
    }

    /// A form that begins another request at once.
    fn vary(&self, path: &str) -> Markup {
        let (mut filled, _) = self.as_input(path);
        filled.set("strength", VARY_STRENGTH);
        let action = format!("/playground/{}", self.successor().id);
        html! {
            form method="post" action=(action) hx-post=(action) hx-target="#result" hx-swap="innerHTML" {
                @for (name, value) in filled.pairs() { input type="hidden" name=(name) value=(value); }
                button.small { (icon(icons::VARY)) (self.words.vary) }
            }
        }
    }

    fn adapter(&self) -> Markup {
        let path = |name: &str| self.answer[name]["url"].as_str().and_then(own_path);
        let lora = Endpoint::find(match self.endpoint.model {
            zoetrope_api::task::Model::Turbo => "fal-ai/z-image/turbo/lora",
            zoetrope_api::task::Model::Base | zoetrope_api::task::Model::Edit => {
                "fal-ai/z-image/base/lora"
            }
        });
        let mut filled = Filled::default();
        filled.set("loras.0.path", path("diffusers_lora_file").unwrap_or_default());
        html! {
            div.card.stack {
                p { strong { (self.words.trained) } }
                p.row {
                    @if let Some(lora) = lora {
                        a.button.primary href=(filled.link(&format!("/playground/{}", lora.id), lora)) { (lora.title) }
                    }
                    @for name in ["diffusers_lora_file", "config_file"] {
                        @if let Some(path) = path(name) {
                            a.button href={ (path) "?download" } download {
                                (icon(icons::DOWNLOAD)) (self.answer[name]["file_name"].as_str().unwrap_or(name))
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Times, seed, size and cost.
fn facts(words: &Run, request: &Request, answer: &Value, when: String) -> Markup {
    let end = request.ended.as_ref();
    let took = end.and_then(|end| end.inference_ms).map(|ms| format!("{} s", seconds(ms)));
    let waited =
        request.started_ms.map(|at| format!("{} s", seconds((at - request.created_ms).max(0))));
    let units = end.and_then(|end| end.billable_units);
    let cost = units.zip(request.unit_price).map(|(units, price)| dollars(units * price));
    let first = &answer["images"][0];
    let size = first["width"].as_u64().zip(first["height"].as_u64());
    let size = size.map(|(width, height)| format!("{width} × {height}"));
    let seed = answer["seed"].as_u64().map(|seed| seed.to_string());
    let rows = [
        (words.when, Some(when)),
        (words.time, took),
        (words.waited, waited),
        (words.size, size),
        (words.cost, cost),
    ];
    html! {
        dl.facts.numbers {
            @for (name, value) in rows {
                @if let Some(value) = value { div { dt { (name) } dd { (value) } } }
            }
            @if let Some(seed) = seed {
                div {
                    dt { (words.seed) }
                    dd { span data-seed-used { (seed) } " " button.small.quiet.scripted type="button" data-use-seed=(seed) { (words.same_seed) } }
                }
            }
            div { dt { (words.endpoint) } dd { (request.endpoint) } }
        }
    }
}
