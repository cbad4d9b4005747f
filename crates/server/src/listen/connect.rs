//! What a program asks that takes this server for its proxy, because `HTTPS_PROXY` names it. The proxy leads to fal's names
//! alone, and those are this server itself: nothing is ever forwarded.

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::FAL_NAMES;

/// What a request's target asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `GET /path`, or `GET http://this-server/path`.
    Own,
    /// `GET http://fal.run/path`: one of fal's names, in lower case.
    Fal(String),
    /// `CONNECT fal.run:443`: one of fal's names, in lower case.
    Tunnel(String),
    /// Anything that another host would have to answer.
    Elsewhere(String),
}

impl Target {
    /// Of a request that came in at `local`; `own` are further hosts, with a port if it is not 80, that are this server.
    pub(super) fn of(request: &Request, local: SocketAddr, own: &[String]) -> Self {
        let Some(authority) = request.uri().authority() else {
            return Self::Own;
        };
        let host = authority.host().to_ascii_lowercase();
        let fal = FAL_NAMES.contains(&host.as_str());
        if request.method() == Method::CONNECT {
            let tunnel = fal && authority.port_u16() == Some(443);
            return if tunnel {
                Self::Tunnel(host)
            } else {
                Self::Elsewhere(authority.to_string())
            };
        }
        if fal && matches!(authority.port_u16(), None | Some(80 | 443)) {
            return Self::Fal(host);
        }
        if is_own(authority, local, own) {
            Self::Own
        } else {
            Self::Elsewhere(authority.to_string())
        }
    }
}

/// A client may give its server the whole address as well (RFC 9112, 3.2.2).
fn is_own(authority: &Authority, local: SocketAddr, own: &[String]) -> bool {
    if own.iter().any(|own| own.eq_ignore_ascii_case(authority.as_str())) {
        return true;
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let address = host.parse::<IpAddr>().map(|address| address.to_canonical());
    let here = match address {
        Ok(address) => address.is_loopback() || address == local.ip().to_canonical(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    };
    here && authority.port_u16().unwrap_or(80) == local.port()
}

/// The request as its origin would get it: `GET /path`, with the host in its header.
pub(super) fn to_origin_form(request: &mut Request) {
    let Some(authority) = request.uri().authority().cloned() else { return };
    // What the target says goes before what the header says, which may be anything.
    let host =
        authority.as_str().rsplit('@').next().and_then(|host| HeaderValue::from_str(host).ok());
    if let Some(host) = host {
        request.headers_mut().insert(header::HOST, host);
    }
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = Uri::from(path);
    }
}

/// To whom asked for another host.
pub(super) fn refuse(target: &str) -> Response {
    let host = target.rsplit('@').next().unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let text = format!(
        "This proxy answers for fal's names only, with CONNECT at port 443, not for `{host}`: {}.\n\
         Let your program reach other hosts without it: NO_PROXY={name} (separate several with commas).\n",
        FAL_NAMES.join(", ")
    );
    (StatusCode::FORBIDDEN, text).into_response()
}

/// To whom asked for a tunnel where there is no certificate to end it with.
pub(super) fn refuse_tunnel(host: &str) -> Response {
    let text = format!(
        "This server was started without a certificate for `{host}`, so it ends no tunnels. \
         Start it with one, or leave HTTPS_PROXY out.\n"
    );
    (StatusCode::FORBIDDEN, text).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[track_caller]
    fn check(method: &str, target: &str, expected: Target) {
        let request = Request::builder().method(method).uri(target).body(Body::empty()).unwrap();
        let found = Target::of(
            &request,
            "10.0.0.5:7860".parse().unwrap(),
            &["zoetrope.example".into(), "box:8080".into()],
        );
        assert_eq!(found, expected, "{method} {target}");
    }

    fn elsewhere(authority: &str) -> Target {
        Target::Elsewhere(authority.into())
    }

    #[test]
    fn only_fals_names_at_port_443_are_tunnelled_to() {
        check("CONNECT", "queue.fal.run:443", Target::Tunnel("queue.fal.run".into()));
        check("CONNECT", "V3.Fal.MEDIA:443", Target::Tunnel("v3.fal.media".into()));
        check("CONNECT", "fal.run:80", elsewhere("fal.run:80"));
        check("CONNECT", "fal.run.evil.example:443", elsewhere("fal.run.evil.example:443"));
        check("CONNECT", "myfal.run:443", elsewhere("myfal.run:443"));
        check("CONNECT", "localhost:443", elsewhere("localhost:443"));
        check("CONNECT", "fal.run@evil.example:443", elsewhere("fal.run@evil.example:443"));
    }

    #[test]
    fn a_whole_address_is_answered_for_fals_names_and_this_server() {
        check("GET", "/path", Target::Own);
        check("OPTIONS", "*", Target::Own);
        check("GET", "http://Fal.Run/path", Target::Fal("fal.run".into()));
        check("GET", "https://rest.fal.ai:443/path", Target::Fal("rest.fal.ai".into()));
        check("GET", "http://fal.run:81/path", elsewhere("fal.run:81"));
        check("GET", "http://localhost:7860/path", Target::Own);
        check("GET", "http://[::1]:7860/path", Target::Own);
        check("GET", "http://10.0.0.5:7860/path", Target::Own);
        check("GET", "http://10.0.0.6:7860/path", elsewhere("10.0.0.6:7860"));
        check("GET", "http://localhost:3000/path", elsewhere("localhost:3000"));
        check("GET", "http://Zoetrope.example/path", Target::Own);
        check("GET", "http://box:8080/path", Target::Own);
        check("GET", "http://box/path", elsewhere("box"));
        check("GET", "http://169.254.169.254/latest", elsewhere("169.254.169.254"));
    }

    #[test]
    fn the_target_goes_before_the_host_header() {
        let request =
            Request::builder().uri("http://fal.run/a?b=c").header(header::HOST, "evil.example");
        let mut request = request.body(Body::empty()).unwrap();
        to_origin_form(&mut request);
        assert_eq!(request.uri(), "/a?b=c");
        assert_eq!(request.headers()[header::HOST], "fal.run");
    }
}
