//! Connections as clients make them: plain, over TLS, and through the server as a proxy.

#![allow(clippy::unwrap_used)]

use std::future::IntoFuture;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{Extension, Request, WebSocketUpgrade};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zoetrope_server::listen::{Authority, Error, FAL_NAMES, Options, Peer, Secure, Via, serve};

/// More than anything here takes, so that what hangs fails.
const PATIENCE: Duration = Duration::from_secs(20);
/// More than all buffers between two ends hold.
const LARGE: usize = 64 << 20;
const DAY: Duration = Duration::from_secs(86_400);

struct Server {
    address: SocketAddr,
    folder: TempDir,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    /// Lets a request to `/slow` end.
    go: Arc<Notify>,
    /// Says that one has begun.
    begun: Arc<Notify>,
}

impl Server {
    async fn start(change: impl FnOnce(&mut Options, &Authority)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::open(folder.path(), &[]).unwrap();
        let mut options = Options { tunnel: Some(authority.server_config()), ..Options::default() };
        change(&mut options, &authority);
        let (go, begun) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(serve(listener, app(go.clone(), begun.clone()), options, stopped));
        Self { address, folder, stop, task, go, begun }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// TLS on `stream`, believed if the authority vouches for `name`.
    async fn tls<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        name: &str,
    ) -> std::io::Result<TlsStream<S>> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(self.folder.path().join("ca.pem")).unwrap())
            .unwrap();
        let config =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
        let name = ServerName::try_from(name.to_string()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Waits for the end of [`serve`].
    async fn ended(self) {
        within(self.task).await.unwrap();
    }
}

fn app(go: Arc<Notify>, begun: Arc<Notify>) -> Router {
    let slow = move || async move {
        begun.notify_one();
        go.notified().await;
        "at last"
    };
    Router::new()
        .route("/slow", get(slow))
        .route("/large", get(async || vec![b'a'; LARGE]))
        .route("/echo", any(echo))
        .fallback(told)
}

/// What the app is told about a request.
async fn told(
    Extension(Peer(peer)): Extension<Peer>,
    Extension(via): Extension<Via>,
    request: Request,
) -> String {
    let secure = if request.extensions().get::<Secure>().is_some() { "secure" } else { "plain" };
    let host = request.headers().get(header::HOST).map_or("", |host| host.to_str().unwrap());
    format!("{via:?} {secure} {} {} {host} {}", peer.ip(), request.method(), request.uri())
}

async fn echo(socket: WebSocketUpgrade) -> Response {
    let talk = |mut socket: axum::extract::ws::WebSocket| async move {
        while let Some(Ok(message)) = socket.recv().await {
            if socket.send(message).await.is_err() {
                break;
            }
        }
    };
    socket.on_upgrade(talk).into_response()
}

async fn within<F: IntoFuture>(what: F) -> F::Output {
    timeout(PATIENCE, what.into_future()).await.expect("this should have ended long ago")
}

/// Sends `request` and reads until the other end closes.
async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    rest(stream).await
}

async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    within(async {
        let mut some = [0; 4096];
        // An end without a farewell is an end.
        while let Ok(count @ 1..) = stream.read(&mut some).await {
            answer.extend_from_slice(&some[..count]);
        }
    })
    .await;
    String::from_utf8(answer).unwrap()
}

/// Sends `request` and reads the head of the answer.
async fn head(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn get_last(target: &str, host: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

#[track_caller]
fn check(answer: &str, status: &str, body: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    assert!(answer.contains(body), "`{body}` is not in: {answer}");
}

#[tokio::test]
async fn a_plain_request_reaches_the_app_with_its_peer() {
    let server = Server::start(|_, _| ()).await;
    let answer = exchange(&mut server.connect().await, &get_last("/path?a=b", "here")).await;
    check(&answer, "200", "Direct plain 127.0.0.1 GET here /path?a=b");
}

#[tokio::test]
async fn tls_is_believed_for_every_name_of_fals_and_of_this_machine() {
    let server =
        Server::start(|options, authority| options.tls = Some(authority.server_config())).await;
    for name in FAL_NAMES.iter().chain(&["localhost", "127.0.0.1", "::1"]) {
        let mut stream = server
            .tls(server.connect().await, name)
            .await
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        check(
            &exchange(&mut stream, &get_last("/", name)).await,
            "200",
            &format!("Direct secure 127.0.0.1 GET {name} /"),
        );
    }
    assert!(server.tls(server.connect().await, "example.com").await.is_err());
}

#[tokio::test]
async fn a_tunnel_to_a_name_of_fals_ends_here() {
    let server = Server::start(|_, _| ()).await;
    let mut stream = server.connect().await;
    check(
        &head(&mut stream, "CONNECT Queue.fal.run:443 HTTP/1.1\r\nHost: Queue.fal.run:443\r\n\r\n")
            .await,
        "200",
        "",
    );
    let mut stream = server.tls(stream, "queue.fal.run").await.unwrap();
    let answer = exchange(&mut stream, &get_last("/fal-ai/z-image/turbo", "queue.fal.run")).await;
    check(
        &answer,
        "200",
        r#"Tunnel { host: "queue.fal.run" } secure 127.0.0.1 GET queue.fal.run /fal-ai/z-image/turbo"#,
    );
}

/// Clients whose threads read and write at once lose their first request to them, now and then.
#[tokio::test]
async fn no_ticket_follows_a_handshake() {
    let server =
        Server::start(|options, authority| options.tls = Some(authority.server_config())).await;
    let mut stream = server.tls(server.connect().await, "localhost").await.unwrap();
    let answer = exchange(&mut stream, &get_last("/", "localhost")).await;
    check(&answer, "200", "Direct secure 127.0.0.1 GET localhost /");
    assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0);
}

#[tokio::test]
async fn a_websocket_opens_inside_a_tunnel() {
    let server = Server::start(|_, _| ()).await;
    let mut stream = server.connect().await;
    head(&mut stream, "CONNECT fal.run:443 HTTP/1.1\r\nHost: fal.run:443\r\n\r\n").await;
    let mut stream = server.tls(stream, "fal.run").await.unwrap();
    let upgrade = "GET /echo HTTP/1.1\r\nHost: fal.run\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    check(&head(&mut stream, upgrade).await, "101", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    // A text frame, masked with zeros, and the same without a mask back.
    stream.write_all(b"\x81\x82\0\0\0\0hi").await.unwrap();
    let mut frame = [0; 4];
    within(stream.read_exact(&mut frame)).await.unwrap();
    assert_eq!(&frame, b"\x81\x02hi");
}

#[tokio::test]
async fn a_proxy_to_anywhere_else_is_refused_and_says_so() {
    let server = Server::start(|_, _| ()).await;
    let refused = [
        ("CONNECT example.com:443", "NO_PROXY=example.com "),
        ("CONNECT fal.run:8443", "not for `fal.run:8443`"),
        ("CONNECT localhost:443", "NO_PROXY=localhost "),
        ("GET http://example.com/path", "queue.fal.run"),
        ("GET http://169.254.169.254/latest/meta-data", "NO_PROXY=169.254.169.254 "),
    ];
    for (line, text) in refused {
        let request = format!("{line} HTTP/1.1\r\nHost: fal.run\r\nConnection: close\r\n\r\n");
        check(&exchange(&mut server.connect().await, &request).await, "403", text);
    }
}

#[tokio::test]
async fn a_whole_address_is_answered_for_fals_names_and_this_server() {
    let server = Server::start(|_, _| ()).await;
    let answer =
        exchange(&mut server.connect().await, &get_last("http://FAL.run/path", "other")).await;
    check(&answer, "200", r#"Tunnel { host: "fal.run" } plain 127.0.0.1 GET FAL.run /path"#);
    let own = format!("localhost:{}", server.address.port());
    let answer =
        exchange(&mut server.connect().await, &get_last(&format!("http://{own}/path"), "other"))
            .await;
    check(&answer, "200", &format!("Direct plain 127.0.0.1 GET {own} /path"));
}

#[tokio::test]
async fn no_tunnel_is_opened_without_a_certificate_or_inside_another() {
    let server = Server::start(|options, _| options.tunnel = None).await;
    let connect = "CONNECT fal.run:443 HTTP/1.1\r\nHost: fal.run:443\r\nConnection: close\r\n\r\n";
    check(&exchange(&mut server.connect().await, connect).await, "403", "without a certificate");

    let server = Server::start(|_, _| ()).await;
    let mut stream = server.connect().await;
    head(&mut stream, &connect.replace("close", "keep-alive")).await;
    let mut stream = server.tls(stream, "fal.run").await.unwrap();
    check(&exchange(&mut stream, connect).await, "403", "");
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_head_or_handshake_is_dropped() {
    let short = Duration::from_millis(200);
    let server = Server::start(|options, _| {
        (options.header_timeout, options.handshake_timeout) = (short, short)
    })
    .await;
    let mut stream = server.connect().await;
    assert_eq!(exchange(&mut stream, "GET / HTTP/1.1\r\nHost: ").await, "");
    assert_eq!(rest(&mut server.connect().await).await, "");

    let mut stream = server.connect().await;
    head(&mut stream, "CONNECT fal.run:443 HTTP/1.1\r\nHost: fal.run:443\r\n\r\n").await;
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn an_idle_connection_outlives_the_first_heads_limit_but_not_its_own() {
    let change = |options: &mut Options, _: &Authority| {
        (options.header_timeout, options.idle_timeout) =
            (Duration::from_millis(300), Duration::from_millis(1500));
    };
    let server = Server::start(change).await;
    let mut stream = server.connect().await;
    for _ in 0..2 {
        let answer = head(&mut stream, "HEAD /path HTTP/1.1\r\nHost: here\r\n\r\n").await;
        check(&answer, "200", "");
        sleep(Duration::from_millis(600)).await;
    }
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn a_client_that_does_not_read_what_it_asked_for_loses_its_connection() {
    let change = |options: &mut Options, _: &Authority| {
        options.stall_timeout = Duration::from_millis(300);
    };
    let server = Server::start(change).await;
    let mut stream = server.connect().await;
    head(&mut stream, &get_last("/large", "here")).await;
    sleep(Duration::from_millis(1500)).await;
    assert!(rest(&mut stream).await.len() < LARGE, "it was given all");
    // Who reads, though with pauses, gets it.
    let mut stream = server.connect().await;
    head(&mut stream, &get_last("/large", "here")).await;
    let mut got = 0;
    let mut some = vec![0; 4 << 20];
    while let count @ 1.. = within(stream.read(&mut some)).await.unwrap() {
        got += count;
        if got < LARGE / 16 {
            sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(got, LARGE);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let server = Server::start(|options, _| options.connections_max = 1).await;
    let mut first = server.connect().await;
    head(&mut first, "HEAD / HTTP/1.1\r\nHost: here\r\n\r\n").await;
    let mut second = server.connect().await;
    let early =
        timeout(Duration::from_millis(300), head(&mut second, &get_last("/", "here"))).await;
    assert!(early.is_err(), "two at once: {early:?}");
    drop(first);
    check(&rest(&mut second).await, "200", "");
}

#[tokio::test]
async fn a_running_request_ends_before_the_server_does() {
    let server = Server::start(|_, _| ()).await;
    let mut running = server.connect().await;
    running.write_all(get_last("/slow", "here").as_bytes()).await.unwrap();
    within(server.begun.notified()).await;
    let mut idle = server.connect().await;
    head(&mut idle, "HEAD / HTTP/1.1\r\nHost: here\r\n\r\n").await;
    let mut silent = server.connect().await;

    server.stop.send_replace(true);
    assert_eq!(rest(&mut idle).await, "");
    assert_eq!(rest(&mut silent).await, "");
    assert!(!server.task.is_finished());
    server.go.notify_one();
    check(&rest(&mut running).await, "200", "at last");
    assert!(TcpStream::connect(server.address).await.is_err());
    server.ended().await;
}

#[tokio::test]
async fn a_request_inside_a_tunnel_ends_before_the_server_does() {
    let server = Server::start(|_, _| ()).await;
    let mut stream = server.connect().await;
    head(&mut stream, "CONNECT fal.run:443 HTTP/1.1\r\nHost: fal.run:443\r\n\r\n").await;
    let mut stream = server.tls(stream, "fal.run").await.unwrap();
    stream.write_all(get_last("/slow", "fal.run").as_bytes()).await.unwrap();
    within(server.begun.notified()).await;
    server.stop.send_replace(true);
    server.go.notify_one();
    check(&rest(&mut stream).await, "200", "at last");
    server.ended().await;
}

#[tokio::test]
async fn what_runs_past_the_deadline_is_cut_off() {
    let server = Server::start(|options, _| options.drain = Duration::from_millis(200)).await;
    let mut running = server.connect().await;
    running.write_all(get_last("/slow", "here").as_bytes()).await.unwrap();
    within(server.begun.notified()).await;
    server.stop.send_replace(true);
    assert_eq!(rest(&mut running).await, "");
    server.ended().await;
}

fn files(folder: &Path) -> (String, String) {
    let read = |name| std::fs::read_to_string(folder.join(name)).unwrap();
    (read("ca.pem"), read("server.pem"))
}

fn open(folder: &Path, names: &[&str], now: SystemTime) -> (String, String) {
    let names: Vec<_> = names.iter().map(|name| name.to_string()).collect();
    Authority::open_at(folder, &names, now).unwrap();
    files(folder)
}

#[test]
fn certificates_are_kept_while_they_are_good() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let (ca, server) = open(folder.path(), &["Zoetrope.example", "10.1.2.3", "fd00::1"], now);
    let same = open(
        folder.path(),
        &["zoetrope.example.", "10.1.2.3", "fd00:0::1", "FAL.run"],
        now + DAY * 300,
    );
    assert_eq!(same, (ca.clone(), server.clone()));

    let (kept, renewed) =
        open(folder.path(), &["zoetrope.example", "10.1.2.3", "fd00::1"], now + DAY * 380);
    assert_eq!(kept, ca, "only the server's certificate ages");
    assert_ne!(renewed, server);
}

#[test]
fn a_name_less_keeps_the_authority_and_a_new_name_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let (ca, server) = open(folder.path(), &["one.example", "two.example"], now);
    let (kept, fewer) = open(folder.path(), &["one.example"], now);
    assert_eq!(kept, ca);
    assert_ne!(fewer, server);
    let (other, _) = open(folder.path(), &["three.example"], now);
    assert_ne!(other, ca);
    let bundle = std::fs::read_to_string(folder.path().join("bundle.pem")).unwrap();
    assert!(bundle.starts_with(&other));
    assert!(bundle.matches("BEGIN CERTIFICATE").count() > 100);
}

#[test]
fn what_was_half_written_is_made_anew() {
    let now = SystemTime::now();
    for lost in ["ca.pem", "ca-key.pem", "server.pem", "server-key.pem", "bundle.pem"] {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path(), &[], now);
        std::fs::remove_file(folder.path().join(lost)).unwrap();
        let made = open(folder.path(), &[], now);
        assert!(folder.path().join(lost).exists(), "{lost}");
        assert_eq!(open(folder.path(), &[], now), made, "{lost}");
    }
    // The key of one, the certificate of another.
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    open(one.path(), &[], now);
    open(two.path(), &[], now);
    for name in ["server-key.pem", "ca-key.pem"] {
        std::fs::copy(two.path().join(name), one.path().join(name)).unwrap();
    }
    let made = open(one.path(), &[], now);
    assert_eq!(open(one.path(), &[], now), made);
}

#[test]
fn a_name_or_a_file_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["*.example.com", "http://example.com", "example.com:443", "bücher.example", ""] {
        let error = Authority::open(folder.path(), &[name.to_string()]).unwrap_err();
        assert!(matches!(&error, Error::Name { name: named } if named == name), "{error}");
    }
    Authority::open(folder.path(), &[]).unwrap();
    std::fs::write(folder.path().join("ca.pem"), "no certificate").unwrap();
    let error = Authority::open(folder.path(), &[]).unwrap_err();
    assert!(error.to_string().contains(&folder.path().display().to_string()), "{error}");
}

#[cfg(unix)]
#[test]
fn keys_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    Authority::open(folder.path(), &[]).unwrap();
    let mode =
        |name| std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
    for name in ["ca-key.pem", "server-key.pem"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    for name in ["ca.pem", "server.pem", "bundle.pem"] {
        assert_eq!(mode(name) & 0o400, 0o400, "{name}");
    }
}
