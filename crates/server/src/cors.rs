//! Which pages in a browser may call: any where keys are needed, those of this machine where they are not.

use axum::http::{HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

/// What scripts may read of an answer.
const EXPOSED: [&str; 6] = [
    "x-fal-request-id",
    "x-fal-billable-units",
    "x-fal-error-type",
    "x-fal-request-timeout-type",
    "etag",
    "retry-after",
];

pub(crate) fn layer(keys_required: bool) -> CorsLayer {
    let origin = match keys_required {
        true => AllowOrigin::any(),
        false => AllowOrigin::predicate(|origin, _| is_of_this_machine(origin)),
    };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::HEAD])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED.map(HeaderName::from_static))
}

fn is_of_this_machine(origin: &HeaderValue) -> bool {
    let host = origin.to_str().ok().and_then(|text| url::Url::parse(text).ok());
    host.as_ref().and_then(|url| url.host_str()).is_some_and(|host| {
        host == "localhost"
            || host.ends_with(".localhost")
            || host == "[::1]"
            || host.starts_with("127.")
    })
}
