//! The pages: a file or a folder for each, with its routes.

mod account;
mod arena;
mod gallery;
mod models;
mod performance;
mod playground;
mod training;

use axum::Router;
use zoetrope_server::App;

/// The routes of all pages.
pub(crate) fn router() -> Router<App> {
    Router::new()
        .merge(account::router())
        .merge(arena::router())
        .merge(gallery::router())
        .merge(models::router())
        .merge(performance::router())
        .merge(playground::router())
        .merge(training::router())
}
