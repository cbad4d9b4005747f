//! `/gallery/compare`: two pictures in one place, with a line between them that can be moved.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use maud::{Markup, html};
use zoetrope_jobs::Picture;
use zoetrope_server::App;

use super::show::title;
use crate::fault::Fault;
use crate::layout::{Page, Tab, page};
use crate::text::gallery::Gallery;
use crate::visitor::Visitor;

pub(super) async fn show(
    State(app): State<App>,
    visitor: Visitor,
    RawQuery(query): RawQuery,
) -> Result<Markup, Fault> {
    let words = Gallery::of(visitor.look.language);
    let query = query.unwrap_or_default();
    let numbers =
        url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "number");
    let numbers: Vec<i64> = numbers.filter_map(|(_, value)| value.parse().ok()).collect();
    let &[first, second] = numbers.as_slice() else {
        return Err(Fault::new(StatusCode::UNPROCESSABLE_ENTITY, words.compare_two));
    };
    let missing = || Fault::not_found("There is no such picture (any more).");
    let left = app.queue().picture(first, visitor.owner()).await?.ok_or_else(missing)?;
    let right = app.queue().picture(second, visitor.owner()).await?.ok_or_else(missing)?;
    let body = html! {
        h1 { (words.compare) }
        div.compare data-compare {
            div.pair {
                (picture(&left))
                (picture(&right))
            }
            input type="range" min="0" max="1000" value="500" aria-label=(words.compare_slider);
        }
        div.sides.about { (about(words, &left)) (about(words, &right)) }
    };
    let scripts = &["gallery.js"];
    Ok(page(&visitor.look, Page { title: words.compare, tab: Some(Tab::Gallery), scripts, body }))
}

fn picture(picture: &Picture) -> Markup {
    html! { img src={ "/files/" (picture.file) } alt=(picture.prompt) width=(picture.width) height=(picture.height); }
}

fn about(words: &Gallery, picture: &Picture) -> Markup {
    html! {
        div.card {
            p { (picture.prompt) }
            p.soft.small.numbers {
                (title(&picture.model)) " · " (picture.width) " × " (picture.height)
                @if let Some(seed) = &picture.seed { " · " (seed) }
            }
            p { a.button.small href={ "/requests/" (picture.request) } { (words.open) } }
        }
    }
}
