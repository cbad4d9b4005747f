//! Signing in and out, and the switches for language and theme: plain forms that answer with a redirect.

use axum::Form;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use maud::{Markup, html};
use serde::Deserialize;
use zoetrope_server::App;
use zoetrope_server::pages::{Origin, SESSION_SECONDS};

use crate::fault::Fault;
use crate::layout::{Page, page};
use crate::show::back;
use crate::text::Language;
use crate::text::common::Common;
use crate::visitor::{LANGUAGE, Look, SESSION, THEME, Theme};

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/sign-in", get(ask).post(sign_in))
        .route("/sign-out", post(sign_out))
        .route("/settings", post(settings))
}

#[derive(Deserialize)]
struct Back {
    #[serde(default)]
    back: String,
}

async fn ask(look: Look, Query(asked): Query<Back>) -> Markup {
    form(&look, &asked.back, false)
}

fn form(look: &Look, back: &str, wrong: bool) -> Markup {
    let words = Common::of(look.language);
    let body = html! {
        section.narrow {
            h1 { (words.sign_in) }
            p { (words.sign_in_why) }
            form.stack method="post" action="/sign-in" {
                input type="hidden" name="back" value=(back);
                div.field {
                    label for="key" { (words.key) }
                    input #key name="key" type="password" autocomplete="current-password" required autofocus
                        aria-describedby="key-help" aria-invalid=[wrong.then_some("true")] aria-errormessage=[wrong.then_some("key-wrong")];
                    p.help #key-help { (words.key_help) }
                    @if wrong { p.fault #key-wrong role="alert" { (words.key_unknown) } }
                }
                button.primary { (words.sign_in) }
            }
        }
    };
    page(look, Page { title: words.sign_in, tab: None, scripts: &[], body })
}

#[derive(Deserialize)]
struct Key {
    key: String,
    #[serde(default)]
    back: String,
}

async fn sign_in(
    State(app): State<App>,
    look: Look,
    axum::Extension(origin): axum::Extension<Origin>,
    Form(sent): Form<Key>,
) -> Result<Response, Fault> {
    match app.sign_in(&sent.key).await? {
        Some(token) => {
            let cookie = session(&token, SESSION_SECONDS, &origin);
            Ok(set(Redirect::to(back(&sent.back)).into_response(), &[cookie]))
        }
        None => {
            Ok((StatusCode::UNPROCESSABLE_ENTITY, form(&look, &sent.back, true)).into_response())
        }
    }
}

async fn sign_out(axum::Extension(origin): axum::Extension<Origin>) -> Response {
    set(Redirect::to("/sign-in").into_response(), &[session("", 0, &origin)])
}

#[derive(Deserialize)]
struct Switch {
    theme: Option<String>,
    language: Option<String>,
    #[serde(default)]
    back: String,
}

async fn settings(Form(sent): Form<Switch>) -> Response {
    let theme = sent.theme.as_deref().and_then(Theme::named);
    let language = sent.language.as_deref().and_then(Language::named);
    let kept = |name: &str, value: &str| {
        format!("{name}={value}; Path=/; Max-Age=31536000; SameSite=Lax; HttpOnly")
    };
    let cookies: Vec<String> = theme
        .map(|theme| kept(THEME, theme.name()))
        .into_iter()
        .chain(language.map(|language| kept(LANGUAGE, language.name())))
        .collect();
    set(Redirect::to(back(&sent.back)).into_response(), &cookies)
}

/// Scripts cannot read it, other sites cannot send it along, and over TLS it goes by TLS alone.
fn session(token: &str, seconds: i64, origin: &Origin) -> String {
    let secure = if origin.run.starts_with("https://") { "; Secure" } else { "" };
    format!("{SESSION}={token}; Path=/; Max-Age={seconds}; SameSite=Lax; HttpOnly{secure}")
}

fn set(mut answer: Response, cookies: &[String]) -> Response {
    for cookie in cookies {
        if let Ok(value) = HeaderValue::from_str(cookie) {
            answer.headers_mut().append(header::SET_COOKIE, value);
        }
    }
    answer
}
