//! `/training`.

use axum::Router;
use axum::routing::get;
use maud::{Markup, html};
use zoetrope_server::App;

use crate::layout::{Page, Tab, page};
use crate::text::common::Common;
use crate::visitor::Visitor;

pub(super) fn router() -> Router<App> {
    Router::new().route("/training", get(show))
}

async fn show(visitor: Visitor) -> Markup {
    let words = Common::of(visitor.look.language);
    let body = html! { h1 { (words.training) } p { (words.coming) } };
    page(
        &visitor.look,
        Page { title: words.training, tab: Some(Tab::Training), scripts: &[], body },
    )
}
