//! What is done with pictures: marking one, and taking along or deleting several.

use axum::Form;
use axum::extract::{Path, RawForm, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use zoetrope_server::App;

use super::{star, zip};
use crate::fault::Fault;
use crate::text::filled;
use crate::text::gallery::Gallery;
use crate::visitor::Visitor;

/// Pictures of one act.
const AT_ONCE: usize = 500;

#[derive(Deserialize)]
pub(super) struct Mark {
    on: String,
}

/// Marks a picture, or takes its mark away; answers with the button as it is now.
pub(super) async fn favourite(
    State(app): State<App>,
    visitor: Visitor,
    Path(number): Path<i64>,
    Form(mark): Form<Mark>,
) -> Result<Response, Fault> {
    app.queue().mark_pictures(&[number], visitor.owner(), mark.on == "1").await?;
    let picture = app.queue().picture(number, visitor.owner()).await?;
    let picture =
        picture.ok_or_else(|| Fault::not_found("There is no such picture (any more)."))?;
    Ok(match visitor.look.partial {
        true => star(visitor.look.language, &picture).into_response(),
        false => Redirect::to("/gallery").into_response(),
    })
}

/// Does what the pressed button says with the selected pictures.
pub(super) async fn act(
    State(app): State<App>,
    visitor: Visitor,
    RawForm(form): RawForm,
) -> Result<Response, Fault> {
    let words = Gallery::of(visitor.look.language);
    let pairs: Vec<_> = url::form_urlencoded::parse(&form).collect();
    let numbers: Vec<i64> = pairs
        .iter()
        .filter(|(name, _)| name == "number")
        .filter_map(|(_, value)| value.parse().ok())
        .collect();
    let wrong = |message: String| Err(Fault::new(StatusCode::UNPROCESSABLE_ENTITY, message));
    if numbers.is_empty() {
        return wrong(words.none_selected.into());
    }
    if numbers.len() > AT_ONCE {
        return wrong(filled(words.too_many, &[&AT_ONCE]));
    }
    let act = pairs.iter().find(|(name, _)| name == "do").map(|(_, value)| value.as_ref());
    match act {
        Some("delete") => {
            app.queue().delete_pictures(&numbers, visitor.owner()).await?;
            Ok(Redirect::to("/gallery").into_response())
        }
        Some("zip") => zip::answer(&app, &visitor, &numbers).await,
        _ => wrong("`do` must be `delete` or `zip`.".into()),
    }
}
