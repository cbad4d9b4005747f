//! Which pages in a browser may call: any where keys are needed, those of this machine where they are not.

use axum::http::{HeaderName, Method};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::local::is_own_page;
use crate::state::App;

/// What scripts may read of an answer.
const EXPOSED: [&str; 14] = [
    "x-fal-request-id",
    "x-fal-billable-units",
    "x-fal-error-type",
    "x-fal-request-timeout-type",
    "etag",
    "retry-after",
    "retry-after-ms",
    "server-timing",
    "x-gateway-cost",
    "x-lumenfall-model",
    "x-lumenfall-provider",
    "x-lumenfall-request-id",
    "x-request-id",
    "x-should-retry",
];

pub(crate) fn layer(app: &App) -> CorsLayer {
    let origin = match app.settings.keys_required {
        true => AllowOrigin::any(),
        false => {
            let app = app.clone();
            AllowOrigin::predicate(move |origin, _| {
                origin.to_str().is_ok_and(|origin| is_own_page(origin, &app.addresses()))
            })
        }
    };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::HEAD])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED.map(HeaderName::from_static))
}
