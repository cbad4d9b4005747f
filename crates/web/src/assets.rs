//! Files beside the pages: embedded, packed once, and served under a name that changes with what they hold.

use std::io::Write;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

/// One stylesheet in a file for each part of the pages, in this order.
const STYLE: &[&str] = &[
    include_str!("../assets/style/base.css"),
    include_str!("../assets/style/form.css"),
    include_str!("../assets/style/playground.css"),
    include_str!("../assets/style/gallery.css"),
    include_str!("../assets/style/models.css"),
    include_str!("../assets/style/arena.css"),
    include_str!("../assets/style/performance.css"),
    include_str!("../assets/style/training.css"),
];

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Everything else: its name and type. Modules import each other by these names.
const FILES: &[(&str, &str, &str)] = &[
    // https://htmx.org, Zero-Clause BSD.
    ("htmx.js", JAVASCRIPT, include_str!("../assets/htmx-4.0.1.min.js")),
    ("app.js", JAVASCRIPT, include_str!("../assets/js/app.js")),
    ("arena.js", JAVASCRIPT, include_str!("../assets/js/arena.js")),
    ("gallery.js", JAVASCRIPT, include_str!("../assets/js/gallery.js")),
    ("mask.js", JAVASCRIPT, include_str!("../assets/js/mask.js")),
    ("playground.js", JAVASCRIPT, include_str!("../assets/js/playground.js")),
    ("training.js", JAVASCRIPT, include_str!("../assets/js/training.js")),
    ("icon.svg", "image/svg+xml", include_str!("../assets/icon.svg")),
];

struct Asset {
    name: &'static str,
    kind: &'static str,
    plain: Vec<u8>,
    packed: Vec<u8>,
}

struct Assets {
    /// Of all files together, so that a module finds the others beside it.
    version: String,
    list: Vec<Asset>,
}

static ASSETS: LazyLock<Assets> = LazyLock::new(|| {
    let style = [("app.css", "text/css; charset=utf-8", STYLE.concat())];
    let files = FILES.iter().map(|(name, kind, text)| (*name, *kind, text.to_string()));
    let list: Vec<Asset> = style
        .into_iter()
        .chain(files)
        .map(|(name, kind, text)| {
            let plain = text.into_bytes();
            Asset { name, kind, packed: packed(&plain, Compression::best()), plain }
        })
        .collect();
    let mut digest = Sha256::new();
    for asset in &list {
        digest.update(asset.name);
        digest.update(&asset.plain);
    }
    let version = digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Assets { version, list }
});

/// Where a browser finds the file called `name`.
pub(crate) fn address(name: &str) -> String {
    debug_assert!(ASSETS.list.iter().any(|asset| asset.name == name), "there is no asset {name}");
    format!("/assets/{}/{name}", ASSETS.version)
}

/// `bytes` as gzip.
pub(crate) fn packed(bytes: &[u8], level: Compression) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.expect("memory takes everything")
}

/// Whether whoever sent `headers` reads gzip.
pub(crate) fn reads_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|accepted| accepted.contains("gzip"))
}

/// A year: under this name there is never anything else.
const FOR_GOOD: &str = "public, max-age=31536000, immutable";

/// A file by its name; one of another version is what it is now, to be asked for again.
pub(crate) async fn serve(
    Path((version, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let Some(asset) = ASSETS.list.iter().find(|asset| asset.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let cache = if version == ASSETS.version { FOR_GOOD } else { "no-cache" };
    let gzip = reads_gzip(&headers);
    let body = if gzip { &asset.packed } else { &asset.plain };
    let mut answer = (
        [
            (header::CONTENT_TYPE, asset.kind),
            (header::CACHE_CONTROL, cache),
            (header::VARY, "accept-encoding"),
        ],
        body.clone(),
    )
        .into_response();
    if gzip {
        let gzip = HeaderValue::from_static("gzip");
        answer.headers_mut().insert(header::CONTENT_ENCODING, gzip);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_page_loads_is_small() {
        let of = |name: &str| ASSETS.list.iter().find(|a| a.name == name).unwrap().packed.len();
        let bytes = of("htmx.js") + of("app.js") + of("app.css") + of("icon.svg");
        assert!(bytes < 60_000, "{bytes} bytes before the page itself");
    }

    #[test]
    fn nothing_is_asked_of_other_sites() {
        for asset in ASSETS.list.iter().filter(|asset| asset.name != "htmx.js") {
            let text = String::from_utf8(asset.plain.clone()).unwrap();
            let foreign = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!foreign.contains("//") || !foreign.contains("http"), "{}", asset.name);
            assert!(!text.contains("@import"), "{}", asset.name);
        }
    }
}
