//! The form of an endpoint: shown, filled in from a link, and sent.

use axum::Json;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde_json::{Value, json};
use zoetrope_api::fal::field::{Field, fields};
use zoetrope_api::fal::{ENDPOINTS, Endpoint, Makes, own_fields};
use zoetrope_jobs::{Page as History, Status};
use zoetrope_server::App;

use super::request;
use crate::fault::Fault;
use crate::form::controls::{Controls, by_control, is_common};
use crate::form::{CUSTOM, Filled, receive};
use crate::icons::{self, icon};
use crate::layout::{Page, Tab, page};
use crate::show::{dollars, own_path};
use crate::text::common::Common;
use crate::text::filled;
use crate::text::playground::Playground;
use crate::visitor::Visitor;

/// Trainings looked at for their adapters.
const TRAININGS_MAX: i64 = 8;

pub(super) async fn first(
    State(app): State<App>,
    visitor: Visitor,
    RawQuery(query): RawQuery,
) -> Markup {
    let filled = begun(&app, &ENDPOINTS[0], query.as_deref());
    View::new(&app, &visitor, &ENDPOINTS[0], &filled).await.page()
}

pub(super) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Markup, Fault> {
    let endpoint = endpoint(&id)?;
    let filled = begun(&app, endpoint, query.as_deref());
    Ok(View::new(&app, &visitor, endpoint, &filled).await.page())
}

/// What a link fills in; where it says no size, the one that the models here draw best at, unless an image decides.
fn begun(app: &App, endpoint: &Endpoint, query: Option<&str>) -> Filled {
    let mut filled = Filled::of_query(query.unwrap_or_default());
    let fields = fields(endpoint);
    let size = fields.iter().find(|field| field.name == "image_size");
    let decided = size.is_none_or(|field| field.default == Some(json!("auto")));
    if let (Some((width, height)), false, "") = (app.draws_at(), decided, filled.get("image_size"))
    {
        filled.set("image_size", CUSTOM);
        filled.set("image_size.width", width.to_string());
        filled.set("image_size.height", height.to_string());
    }
    filled
}

/// The endpoint called `id`.
pub(super) fn endpoint(id: &str) -> Result<&'static Endpoint, Fault> {
    let missing = || Fault::not_found(format!("There is no endpoint {id}."));
    Endpoint::find(id).ok_or_else(missing)
}

/// Checks what was sent and puts it into the queue. What is wrong is shown at its field.
pub(super) async fn submit(
    State(app): State<App>,
    visitor: Visitor,
    Path(id): Path<String>,
    sent: Request,
) -> Result<Response, Fault> {
    let endpoint = endpoint(&id)?;
    let filled = receive(sent).await?.keep(&app, &visitor).await?;
    let input = filled.input(endpoint, &visitor.origin.files);
    let problems = zoetrope_api::fal::parse(endpoint, &input).err().unwrap_or_default();
    let refused = match problems.is_empty() {
        true => match app.submit(&visitor.caller, endpoint, input, &visitor.origin).await {
            Ok(id) => return sent_on(&app, &visitor, &id).await,
            Err(failure) => Some(failure),
        },
        false => None,
    };
    let mut view = View::new(&app, &visitor, endpoint, &filled).await;
    view.controls.problems = by_control(visitor.look.language, &problems);
    let status =
        refused.as_ref().map_or(StatusCode::UNPROCESSABLE_ENTITY, |failure| failure.status());
    view.refused = refused.map(|failure| failure.message().to_string());
    if !visitor.look.partial {
        return Ok((status, view.page()).into_response());
    }
    let headers = [("hx-retarget", "#form"), ("hx-reswap", "outerMorph")];
    Ok((status, headers, view.form()).into_response())
}

async fn sent_on(app: &App, visitor: &Visitor, id: &str) -> Result<Response, Fault> {
    if !visitor.look.partial {
        return Ok(Redirect::to(&format!("/requests/{id}")).into_response());
    }
    Ok(request::part(app, visitor, id).await?.into_response())
}

/// A file that a script sends ahead of its form; its path.
pub(super) async fn upload(
    State(app): State<App>,
    visitor: Visitor,
    sent: Request,
) -> Result<Json<Value>, Fault> {
    let file = receive(sent).await?.files.pop();
    let file =
        file.ok_or_else(|| Fault::new(StatusCode::BAD_REQUEST, "There is no file in the form."))?;
    Ok(Json(json!({"path": file.keep(&app, &visitor).await?})))
}

/// All that is shown of a form.
struct View<'a> {
    app: &'a App,
    visitor: &'a Visitor,
    controls: Controls<'a>,
    loras: Vec<(String, String)>,
    /// What is wrong with the request as a whole.
    refused: Option<String>,
}

impl<'a> View<'a> {
    async fn new(
        app: &'a App,
        visitor: &'a Visitor,
        endpoint: &'static Endpoint,
        filled: &'a Filled,
    ) -> Self {
        let loras = match endpoint.takes_loras() {
            // A picker is a convenience: a database that does not answer now is told by what is sent.
            true => trained(app, visitor).await.unwrap_or_default(),
            false => Vec::new(),
        };
        let language = visitor.look.language;
        let controls =
            Controls { endpoint, language, filled, problems: Default::default(), loras: &[] };
        Self { app, visitor, controls, loras, refused: None }
    }

    fn page(&self) -> Markup {
        let endpoint = self.controls.endpoint;
        let words = Playground::of(self.controls.language);
        let body = html! {
            div.playground {
                div.ask {
                    (self.chooser())
                    (self.form())
                }
                div.got {
                    section #result aria-live="off" aria-label=(words.result) {
                        div.empty.frame { (icon(icons::PICTURE)) p { (words.empty) } }
                    }
                    section #recent hx-get="/playground/recent" hx-trigger="load, made from:body" hx-swap="innerHTML" aria-label=(words.recent) {}
                }
            }
            dialog #code aria-labelledby="code-title" { div #code-sheet {} }
        };
        let scripts = &["playground.js"];
        page(
            &self.visitor.look,
            Page { title: endpoint.title, tab: Some(Tab::Playground), scripts, body },
        )
    }

    /// All endpoints, as links: the form that is filled in goes along by `playground.js`.
    fn chooser(&self) -> Markup {
        let endpoint = self.controls.endpoint;
        let words = Playground::of(self.controls.language);
        let pictures = ENDPOINTS.iter().filter(|e| matches!(e.makes, Makes::Pictures { .. }));
        html! {
            details.chooser {
                summary {
                    span.label { (words.endpoint) }
                    h1 { (endpoint.title) }
                }
                ul {
                    @for other in pictures {
                        li {
                            a href={ "/playground/" (other.id) } aria-current=[(other.id == endpoint.id).then_some("page")] data-carry {
                                strong { (other.title) }
                                span.soft.small { (other.summary) }
                            }
                        }
                    }
                }
            }
        }
    }

    fn form(&self) -> Markup {
        let endpoint = self.controls.endpoint;
        let controls = Controls {
            endpoint,
            language: self.controls.language,
            filled: self.controls.filled,
            problems: self.controls.problems.clone(),
            loras: &self.loras,
        };
        let words = Playground::of(self.controls.language);
        let (common, more): (Vec<_>, Vec<_>) = fields(endpoint).into_iter().partition(is_common);
        let own = own_fields(endpoint);
        let folded = [(words.more, more), (words.own, own)];
        let wrong = |field: &Field| controls.problems.contains_key(field.name);
        let action = format!("/playground/{}", endpoint.id);
        html! {
            form #form method="post" action=(action) enctype="multipart/form-data" novalidate
                hx-post=(action) hx-encoding="multipart/form-data" hx-target="#result" hx-swap="innerHTML" hx-sync="this:replace" {
                @if endpoint.trains() { p.card { (words.trains) " " a href="/training" { (Common::of(self.controls.language).training) } } }
                @if let Some(refused) = &self.refused { p.card.fault role="alert" { (refused) } }
                @for field in &common { (controls.field(field)) }
                @for (title, fields) in folded.iter().filter(|(_, fields)| !fields.is_empty()) {
                    details.more open[fields.iter().any(wrong)] {
                        summary { (title) }
                        @for field in fields { (controls.field(field)) }
                    }
                }
                div.send {
                    button.primary type="submit" data-generate { (words.generate) }
                    p.help.numbers { (price(self.app, endpoint, words)) span.scripted { " · " (words.shortcut) } }
                }
                div.row.extras {
                    button.small type="submit" formaction={ "/playground/code/" (endpoint.id) } data-code { "</> " (words.code) }
                    button.small.scripted type="button" data-link { (icon(icons::LINK)) (words.link) }
                    a.button.small href=(action) { (words.reset) }
                }
            }
            form.reader method="post" action="/playground/read" enctype="multipart/form-data" data-reader {
                label.small { (words.read) " " input type="file" name="picture" accept="image/*"; }
                button.small.unscripted { (words.read) }
            }
        }
    }
}

fn price(app: &App, endpoint: &Endpoint, words: &Playground) -> String {
    let unit = match endpoint.makes {
        Makes::Pictures { .. } => words.megapixel,
        Makes::Adapter { .. } => words.thousand_steps,
    };
    filled(words.price, &[&dollars(app.price(endpoint.id).unwrap_or_default()), &unit])
}

/// The adapters that this visitor trained lately: name and address.
async fn trained(app: &App, visitor: &Visitor) -> zoetrope_jobs::Result<Vec<(String, String)>> {
    let mut out = Vec::new();
    for endpoint in ENDPOINTS.iter().filter(|endpoint| endpoint.trains()) {
        let search = History {
            owner: visitor.owner().into(),
            endpoint: endpoint.id.into(),
            status: Some(Status::Success),
            most: TRAININGS_MAX,
            ..History::default()
        };
        for standing in app.queue().history(&search).await?.0 {
            let Some(request) = app.queue().request(&standing.id).await? else { continue };
            let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
            let answer = request.end.as_ref().map(|end| read(&end.response)).unwrap_or_default();
            let Some(path) = answer["diffusers_lora_file"]["url"].as_str().and_then(own_path)
            else {
                continue;
            };
            let caption = read(&request.input)["default_caption"].as_str().map(String::from);
            // What it was called where it was begun, if that was on a page.
            let named = app.queue().training_run(&standing.id).await?.map(|run| run.name);
            let name = named.or(caption).filter(|name| !name.is_empty());
            let name = name.unwrap_or_else(|| standing.id[..8].to_string());
            out.push((name, path));
        }
    }
    Ok(out)
}

/// An answer that is a page and may be kept by nobody; for handlers that set headers of their own.
pub(super) fn to(path: &str, partial: bool) -> Response {
    match (partial, HeaderValue::from_str(path)) {
        (true, Ok(path)) => (StatusCode::NO_CONTENT, [("hx-redirect", path)]).into_response(),
        (false, Ok(path)) => (StatusCode::SEE_OTHER, [(header::LOCATION, path)]).into_response(),
        (_, Err(_)) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
