//! Which of fal's hosts a request was meant for, by its name or by a prefix, and how this server is reached from there.

use std::net::SocketAddr;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument as _;
use url::Url;
use uuid::Uuid;
use zoetrope_trace::TRACEPARENT;

use crate::answer::{Failure, REQUEST_ID};
use crate::listen::{Local, Secure, Via};
use crate::local::{is_local, is_own_page};
use crate::state::App;
use crate::{cors, fal, files, openai, own, sdapi};

/// One of the faces that fal shows under names of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surface {
    /// `fal.run`
    Run,
    /// `queue.fal.run`
    Queue,
    /// `rest.fal.ai`
    Rest,
    /// `v3.fal.media`
    Cdn,
    /// `api.fal.ai`
    Platform,
    /// OpenAI's API, under `/v1` and `/openai/v1`.
    OpenAi,
    /// AUTOMATIC1111's, under `/sdapi/v1`.
    Automatic,
    /// This server's own documents, and its health.
    Own,
    /// Pages for people.
    Pages,
}

/// Where this server is reached by whoever sent a request; none ends in a slash.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    /// Endpoints, called and waited for.
    pub run: String,
    /// The same through the queue.
    pub queue: String,
    /// Where files are sent to.
    pub cdn: String,
    /// Where anybody reaches files, without a proxy or a changed host name.
    pub files: String,
}

/// Everything that answers, for programs alone.
pub fn app(state: App) -> Router {
    let nothing = Router::new().fallback(own::not_found);
    app_with(state, nothing)
}

/// The same with `pages` for people at every path that is no program's.
pub fn app_with(state: App, pages: Router) -> Router {
    let routers = Routers {
        run: fal::run::router(&state),
        queue: fal::queue::router(&state),
        rest: fal::rest(&state),
        cdn: files::router(&state),
        platform: fal::history::router(&state),
        openai: openai::router(&state),
        automatic: sdapi::router(&state),
        own: own::router(&state),
        pages,
        state: state.clone(),
    };
    Router::new()
        .fallback(dispatch)
        .layer(DefaultBodyLimit::disable()) // each route sets its own
        .with_state(routers)
        .layer(cors::layer(&state))
        .layer(CatchPanicLayer::custom(panicked))
}

#[derive(Clone)]
struct Routers {
    run: Router,
    queue: Router,
    rest: Router,
    cdn: Router,
    platform: Router,
    openai: Router,
    automatic: Router,
    own: Router,
    pages: Router,
    state: App,
}

async fn dispatch(State(routers): State<Routers>, request: Request) -> Response {
    let begun = Instant::now();
    let id = Uuid::now_v7().to_string();
    let (method, path) = (request.method().clone(), loggable(request.uri().path()));
    let span = tracing::info_span!(
        "http",
        otel.name = %format!("{method} {}", alike(&path)),
        otel.kind = "server",
        http.request.method = %method,
        url.path = path,
        http.response.status_code = tracing::field::Empty,
        request = id,
    );
    let sent = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
    zoetrope_trace::adopt(&span, sent);
    let openai = by_path(request.uri().path()).0 == Surface::OpenAi;
    let mut response = match routed(&routers, request).instrument(span.clone()).await {
        Ok(response) => response,
        Err(failure) if openai => openai::refusal(&openai::problem(failure)),
        Err(failure) => failure.into_response(),
    };
    // Its presence tells fal's clients that the answer is not that of a proxy in between.
    let id = HeaderValue::from_str(&id).expect("a UUID is plain text");
    let id = response.headers_mut().entry(REQUEST_ID).or_insert(id).clone();
    let (request, status) = (id.to_str().unwrap_or_default(), response.status().as_u16());
    span.record("http.response.status_code", status);
    let ms = begun.elapsed().as_millis() as u64;
    tracing::info!(%request, %method, path, status, ms, "answered");
    response
}

/// A path as it may stand in a log: whoever has a file's name or an upload's token has the file.
fn loggable(path: &str) -> String {
    for secret in ["/files/", "/uploads/"] {
        if let Some(at) = path.find(secret) {
            return format!("{}…", &path[..at + secret.len()]);
        }
    }
    match path.char_indices().nth(PATH_LOGGED_MAX) {
        Some((at, _)) => format!("{}…", &path[..at]),
        None => path.into(),
    }
}

/// A path without what differs from one request to the next: the name of spans that are counted together.
fn alike(path: &str) -> String {
    let part =
        |part: &str| if Uuid::try_parse(part).is_ok() { "{id}".into() } else { part.to_string() };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// Characters of a path that are logged; longer ones are nobody's honest request.
const PATH_LOGGED_MAX: usize = 160;

async fn routed(routers: &Routers, mut request: Request) -> Result<Response, Failure> {
    let app = &routers.state;
    let via = request.extensions().get::<Via>().cloned().unwrap_or(Via::Direct);
    let secure = request.extensions().get::<Secure>().is_some();
    let host = match &via {
        Via::Tunnel { host } => host.clone(),
        Via::Direct => host_of(&request),
    };
    check_name(app, &host)?;
    let local = request.extensions().get::<Local>().map(|local| local.0);
    let direct = Place::direct(app, &host, secure, local);
    let (surface, path, origin) = if request.uri().path().trim_end_matches('/') == "/api/fal/proxy"
    {
        let target = proxied(request.headers())?;
        let Some(surface) = named(target.host_str().unwrap_or_default()) else {
            return Err(Failure::new(
                StatusCode::FORBIDDEN,
                "This proxy answers for fal's hosts only, and forwards to none",
            ));
        };
        let query = target.query().map_or(String::new(), |query| format!("?{query}"));
        (surface, format!("{}{query}", target.path()), direct.behind_fal_names())
    } else {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_string();
        match named(&host) {
            Some(Surface::Own) => (own_or_pages(path_of(&path)), path, direct.behind_fal_names()),
            Some(surface) => (surface, path, direct.behind_fal_names()),
            None => {
                let (surface, rest) = by_path(&path);
                (surface, rest.to_string(), direct.origin())
            }
        }
    };
    check_page(app, &request, surface)?;
    *request.uri_mut() = relative(&path)?;
    request.extensions_mut().insert(origin);
    let router = match surface {
        Surface::Run => &routers.run,
        Surface::Queue => &routers.queue,
        Surface::Rest => &routers.rest,
        Surface::Cdn => &routers.cdn,
        Surface::Platform => &routers.platform,
        Surface::OpenAi => &routers.openai,
        Surface::Automatic => &routers.automatic,
        Surface::Own => &routers.own,
        Surface::Pages => &routers.pages,
    };
    Ok(router.clone().oneshot(request).await.unwrap_or_else(|never| match never {}))
}

/// The path alone, without a slash at its end: whether an address came with them makes no difference from here on.
fn relative(path: &str) -> Result<Uri, Failure> {
    let (path, query) = path.split_once('?').map_or((path, None), |(p, q)| (p, Some(q)));
    let path = format!("/{}", path.trim_matches('/'));
    let path = query.map_or(path.clone(), |query| format!("{path}?{query}"));
    path.parse().map_err(|_| Failure::new(StatusCode::BAD_REQUEST, "The path cannot be read"))
}

fn host_of(request: &Request) -> String {
    let sent = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    sent.or(request.uri().authority().map(|a| a.as_str())).unwrap_or_default().to_ascii_lowercase()
}

/// A host without its port.
fn bare(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => {
            name
        }
        _ => host,
    }
}

/// Which of fal's hosts this is.
fn named(host: &str) -> Option<Surface> {
    match bare(host) {
        "fal.run" | "falrun.com" | "ws.fal.run" => Some(Surface::Run),
        "queue.fal.run" | "queue.falrun.com" => Some(Surface::Queue),
        "rest.fal.ai" | "rest.alpha.fal.ai" => Some(Surface::Rest),
        "v3.fal.media" | "v3b.fal.media" | "fal.media" => Some(Surface::Cdn),
        "api.fal.ai" => Some(Surface::Platform),
        "fal.ai" => Some(Surface::Own),
        _ => None,
    }
}

/// Without keys only names of this machine are answered for: a page in somebody's browser could otherwise point a name of its
/// own here.
fn check_name(app: &App, host: &str) -> Result<(), Failure> {
    let name = bare(host);
    let ours = |url: &&str| Url::parse(url).is_ok_and(|url| url.host_str() == Some(name));
    let known = is_local(name) || named(host).is_some() || app.addresses().iter().any(ours);
    if app.settings.keys_required || known || name.is_empty() {
        return Ok(());
    }
    let detail = format!(
        "`{name}` is no name of this server; without keys it answers on localhost only. Set public_url, or create keys"
    );
    Err(Failure::new(StatusCode::FORBIDDEN, detail))
}

/// Without keys a page of somebody else, open in this machine's browser, could ask for anything, though it may not read the
/// answer: a request that comes from one is refused, whatever it is. Files are known by their names alone, and the server's own
/// pages change nothing. Programs outside browsers send neither header.
fn check_page(app: &App, request: &Request, surface: Surface) -> Result<(), Failure> {
    let harmless = matches!(surface, Surface::Cdn | Surface::Own | Surface::Pages)
        && matches!(*request.method(), Method::GET | Method::HEAD);
    if app.settings.keys_required || harmless {
        return Ok(());
    }
    let text = |name: &str| request.headers().get(name).map(|value| value.to_str());
    let foreign = match text("origin") {
        Some(Ok(origin)) => !is_own_page(origin, &app.addresses()),
        Some(Err(_)) => true,
        None => text("sec-fetch-site").is_some_and(|site| matches!(site, Ok("cross-site"))),
    };
    match foreign {
        true => Err(Failure::new(
            StatusCode::FORBIDDEN,
            "Pages of other sites may not call a server without keys; serve the page from localhost, or create keys",
        )),
        false => Ok(()),
    }
}

/// Where a call through the proxy route was meant to go.
fn proxied(headers: &HeaderMap) -> Result<Url, Failure> {
    let target = headers.get("x-fal-target-url").and_then(|value| value.to_str().ok());
    target.and_then(|text| Url::parse(text).ok()).ok_or_else(|| {
        Failure::new(
            StatusCode::BAD_REQUEST,
            "Invalid request: the header x-fal-target-url must hold fal's address",
        )
    })
}

/// The surface of a path, and the path within it.
fn by_path(path: &str) -> (Surface, &str) {
    let prefixes = [
        ("/run/", Surface::Run),
        ("/queue/", Surface::Queue),
        ("/rest/", Surface::Rest),
        ("/cdn/", Surface::Cdn),
        ("/platform/", Surface::Platform),
        ("/openai/", Surface::OpenAi),
    ];
    for (prefix, surface) in prefixes {
        if path.starts_with(prefix) {
            return (surface, &path[prefix.len() - 1..]);
        }
    }
    let starts = |list: &[&str]| list.iter().any(|start| path.starts_with(start));
    let surface = match () {
        () if starts(&["/storage/", "/tokens", "/.well-known/"]) => Surface::Rest,
        () if starts(&["/files/", "/uploads/"]) => Surface::Cdn,
        () if starts(&["/fal-ai/", "/workflows/", "/comfy/"]) => Surface::Run,
        () if starts(&["/v1/"]) => Surface::OpenAi,
        () if starts(&["/sdapi/", "/internal/ping"]) => Surface::Automatic,
        () => own_or_pages(path_of(path)),
    };
    (surface, path)
}

/// A path without its query.
fn path_of(path: &str) -> &str {
    path.split('?').next().unwrap_or_default()
}

/// Documents for programs stand among the pages for people.
fn own_or_pages(path: &str) -> Surface {
    let exact = ["", "/healthz", "/readyz", "/metrics"].contains(&path.trim_end_matches('/'));
    match exact || path.starts_with("/api/") || path.ends_with("/llms.txt") {
        true => Surface::Own,
        false => Surface::Pages,
    }
}

/// This server as one sender reaches it.
struct Place {
    base: String,
    files: String,
    fal_files: String,
}

impl Place {
    fn direct(app: &App, host: &str, secure: bool, local: Option<SocketAddr>) -> Self {
        let scheme = if secure { "https" } else { "http" };
        let public = app.settings.public_url.clone();
        let is_public =
            |url: &String| Url::parse(url).is_ok_and(|url| url.host_str() == Some(bare(host)));
        let base = match public.as_ref().filter(|url| is_public(url)) {
            // Whoever ends TLS in front of this server leaves no trace of it.
            Some(url) => url.clone(),
            None if host.is_empty() || named(host).is_some() => app.settings.address.clone(),
            None => format!("{scheme}://{host}"),
        };
        let files = public.clone().unwrap_or_else(|| base.clone());
        Self { base, files, fal_files: public.unwrap_or_else(|| plain(app, local)) }
    }

    /// For whoever wrote this server's address into the program.
    fn origin(self) -> Origin {
        let base = self.base;
        Origin { run: base.clone(), queue: format!("{base}/queue"), cdn: base, files: self.files }
    }

    /// For whoever believes to speak with fal: its own names lead here again.
    fn behind_fal_names(self) -> Origin {
        Origin {
            run: "https://fal.run".into(),
            queue: "https://queue.fal.run".into(),
            cdn: "https://v3.fal.media".into(),
            files: self.fal_files,
        }
    }
}

/// The plain listener, at the address that a connection came in by: a program on another machine cannot reach this one's
/// loopback.
fn plain(app: &App, local: Option<SocketAddr>) -> String {
    let address = &app.settings.address;
    match (local, Url::parse(address).ok().and_then(|url| url.port())) {
        (Some(local), Some(port)) if !local.ip().to_canonical().is_loopback() => {
            format!("http://{}", SocketAddr::new(local.ip().to_canonical(), port))
        }
        _ => address.clone(),
    }
}

fn panicked(cause: Box<dyn std::any::Any + Send>) -> Response<Body> {
    let text = cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or(cause.downcast_ref::<&str>().copied());
    Failure::internal(&text.unwrap_or("a handler panicked")).into_response()
}
