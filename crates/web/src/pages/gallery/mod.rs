//! `/gallery`: everything that was made and kept, page by page; searched, marked, compared, taken along, deleted.

mod act;
mod compare;
mod show;
mod small;
mod zip;

use axum::Router;
use axum::routing::{get, post};
use maud::{Markup, html};
use zoetrope_jobs::Picture;
use zoetrope_server::App;

use crate::icons::{self, icon};
use crate::text::Language;
use crate::text::gallery::Gallery;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/gallery", get(show::show).post(act::act))
        .route("/gallery/compare", get(compare::show))
        .route("/gallery/{number}/small.webp", get(small::show))
        .route("/gallery/{number}/favourite", post(act::favourite))
}

/// The button that marks `picture`; it answers with itself.
pub(crate) fn star(language: Language, picture: &Picture) -> Markup {
    let words = Gallery::of(language);
    let to = format!("/gallery/{}/favourite", picture.number);
    let said = if picture.favourite { words.unstar } else { words.star };
    html! {
        form.star method="post" action=(to) hx-post=(to) hx-swap="outerHTML" {
            button.square.quiet name="on" value=(if picture.favourite { "0" } else { "1" }) aria-pressed=(picture.favourite)
                aria-label=(said) title=(said) { (icon(icons::STAR)) }
        }
    }
}
