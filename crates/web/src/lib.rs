//! Pages for people: rendered here, embedded with all they need, and asking nobody else for anything.
//!
//! [`router`] is what the server shows at every path that is no program's. `guard` stands before all of them, `layout` is what they
//! share, `text/` their words in every language, `assets` the files beside them; `pages/` has a file or folder for each.

mod assets;
mod fault;
mod form;
mod guard;
mod icons;
mod layout;
mod pages;
mod plot;
mod show;
mod text;
mod visitor;

use axum::Router;
use axum::middleware;
use axum::routing::get;
use zoetrope_server::App;

/// All pages, on top of the server `app`.
pub fn router(app: App) -> Router {
    Router::new()
        .merge(pages::router())
        .route("/assets/{version}/{name}", get(assets::serve))
        .fallback(fault::nothing)
        .layer(middleware::from_fn_with_state(app.clone(), guard::stand))
        .with_state(app)
}
