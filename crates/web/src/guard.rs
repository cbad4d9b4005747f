//! Stands before every page: who looks, whether a change was meant, and what a browser may do with the answer.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use zoetrope_server::App;
use zoetrope_server::pages::Origin;

use crate::assets::{packed, reads_gzip};
use crate::fault::{Fault, Shown};
use crate::layout;
use crate::visitor::{Account, Look, SESSION, Visitor, cookie};

/// Scripts, styles and pictures of this server alone, and nothing inline. Previews and drawn masks are `data:` and `blob:`.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; \
                      form-action 'self'; manifest-src 'self'; base-uri 'none'; frame-ancestors 'none'";

pub(crate) async fn stand(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let gzip = reads_gzip(request.headers());
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_string();
    let asset = path.starts_with("/assets/");
    let session = cookie(request.headers(), SESSION).filter(|_| !asset).map(String::from);
    let caller = match asset {
        true => Ok(None),
        false => app.visitor(session.as_deref()).await,
    };
    let account = match (app.keys_required(), &caller) {
        (false, _) => Account::None,
        (true, Ok(Some(_))) => Account::SignedIn,
        (true, _) => Account::SignedOut,
    };
    let look = Look::of(request.headers(), path, account);
    let answer = match caller {
        Err(failure) => Fault::from(failure).into_response(),
        Ok(_) if !meant(request.method(), request.headers(), request.uri()) => {
            Fault::new(StatusCode::FORBIDDEN, FOREIGN).into_response()
        }
        Ok(caller) => {
            let origin = request.extensions().get::<Origin>().cloned();
            if let (Some(caller), Some(origin)) = (caller, origin) {
                let look = look.clone();
                request.extensions_mut().insert(Visitor { caller, origin, look });
            }
            request.extensions_mut().insert(look.clone());
            next.run(request).await
        }
    };
    let answer = match answer.extensions().get::<Shown>() {
        Some(shown) => layout::fault(&look, shown.clone(), answer),
        None => answer,
    };
    sealed(answer, gzip).await
}

const FOREIGN: &str = "This was sent by a page of another site, or by no page at all; open the page here and try again.";

/// Whether a request that changes something was sent by one of these pages: browsers say where it comes from, and nobody else has
/// business here.
fn meant(method: &Method, headers: &HeaderMap, uri: &Uri) -> bool {
    if matches!(*method, Method::GET | Method::HEAD) {
        return true;
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return site == "same-origin";
    }
    let host = text("host").or(uri.authority().map(|authority| authority.as_str()));
    let from = text("origin").and_then(|origin| origin.split_once("://"));
    from.is_some_and(|(_, from)| Some(from) == host)
}

/// The answer with what a browser must know, as small as it reads it.
async fn sealed(answer: Response, gzip: bool) -> Response {
    let (mut parts, body) = answer.into_parts();
    let mut set = |name: HeaderName, value: &'static str| {
        parts.headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "same-origin");
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=()");
    set(header::CACHE_CONTROL, "no-store");
    let is = |known: &str| {
        let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        kind.is_some_and(|kind| kind.starts_with(known))
    };
    if !gzip || !is("text/html") || parts.headers.contains_key(header::CONTENT_ENCODING) {
        return Response::from_parts(parts, body);
    }
    // Pages are rendered whole, so that this waits for nobody.
    let Ok(bytes) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    parts.headers.insert(header::VARY, HeaderValue::from_static("accept-encoding, cookie"));
    Response::from_parts(parts, Body::from(packed(&bytes, Compression::fast())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_these_pages_change_anything() {
        type Headers<'a> = &'a [(&'static str, &'static str)];
        let cases: [(&Method, Headers, bool); 8] = [
            (&Method::GET, &[("sec-fetch-site", "cross-site")], true),
            (&Method::POST, &[("sec-fetch-site", "same-origin")], true),
            (&Method::POST, &[("sec-fetch-site", "same-site")], false),
            (&Method::POST, &[("sec-fetch-site", "cross-site")], false),
            (&Method::POST, &[("sec-fetch-site", "none")], false),
            (&Method::POST, &[("host", "a.example:1"), ("origin", "http://a.example:1")], true),
            (&Method::POST, &[("host", "a.example:1"), ("origin", "http://b.example:1")], false),
            (&Method::POST, &[("host", "a.example")], false),
        ];
        for (method, sent, expected) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in sent {
                headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            assert_eq!(meant(method, &headers, &Uri::from_static("/x")), expected, "{sent:?}");
        }
    }
}
