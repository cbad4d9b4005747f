//! The guarded door: what it lets through, what it refuses, and what it says.

#![allow(clippy::unwrap_used)]

mod loopback;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use loopback::{Server, Step, answer, head};
use rustls::pki_types::PrivatePkcs8KeyDer;
use zoetrope_files::fetch::{FetchError, Fetcher, Limit, Rules};

const LIMIT: Limit = Limit { bytes_max: 1000, timeout_ms: 5000 };

fn fetcher(rules: Rules) -> Fetcher {
    let _ = rustls::crypto::ring::default_provider().install_default(); // another test was first
    Fetcher::new(rules).unwrap()
}

/// One that may fetch from the test's server, by its number only.
fn local() -> Fetcher {
    fetcher(Rules { hosts: vec!["127.0.0.1".into()], ..Rules::default() })
}

#[track_caller]
fn check<T: Debug>(got: Result<T, FetchError>, want: fn(&FetchError) -> bool, message: &str) {
    let error = got.unwrap_err();
    assert!(want(&error), "{error:?}");
    assert_eq!(error.to_string(), message);
}

fn is_forbidden(error: &FetchError) -> bool {
    matches!(error, FetchError::Forbidden { .. })
}

fn is_connection(error: &FetchError) -> bool {
    matches!(error, FetchError::Connection { .. })
}

fn is_too_large(error: &FetchError) -> bool {
    error.is_too_large()
}

#[tokio::test]
async fn an_answer_comes_with_its_type_and_nothing_about_us_is_sent() {
    let server = Server::start(|_| {
        answer(200, &[("content-type", "image/png"), ("set-cookie", "a=b")], b"picture")
    })
    .await;
    let fetcher = local();
    for _ in 0..2 {
        let fetched = fetcher.get(&server.url("/a?b=c"), LIMIT).await.unwrap();
        assert_eq!(&fetched.bytes[..], b"picture");
        assert_eq!(fetched.content_type.as_deref(), Some("image/png"));
    }
    for request in server.seen() {
        assert_eq!((request.method.as_str(), request.target.as_str()), ("GET", "/a?b=c"));
        for (name, _) in &request.headers {
            assert!(["accept", "host", "user-agent"].contains(&name.as_str()), "{name}");
        }
    }
}

#[tokio::test]
async fn this_machine_and_its_network_are_forbidden_in_every_spelling() {
    let server = Server::start(|_| answer(200, &[], b"secret")).await;
    let (fetcher, port) = (fetcher(Rules::default()), server.port);
    let hosts = [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "017700000001",
        "127.0.0.1.",
        "127.255.255.254",
        "%31%32%37.0.0.1",
        "１２７.0.0.1",
        "0.0.0.0",
        "0",
        "localhost",
        "LOCALHOST",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "10.0.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.1",
        "[2001:db8::1]",
        "[2001::1]",
    ];
    for host in hosts {
        let url = format!("http://{host}:{port}/");
        let got = fetcher.get(&url, LIMIT).await.unwrap_err();
        assert!(is_forbidden(&got), "{host}: {got:?}");
        assert!(is_forbidden(&fetcher.check(&url).await.unwrap_err()), "{host}");
        let posted = fetcher.post(&url, &[], Bytes::new(), 5000).await;
        assert!(is_forbidden(&posted.unwrap_err()), "{host}");
    }
    // Not every system knows this spelling.
    fetcher.get(&format!("http://localhost.:{port}/"), LIMIT).await.unwrap_err();
    assert!(server.seen().is_empty());
    // The name as it was sent, not what it means in here.
    check(
        fetcher.get(&format!("http://localhost:{port}/"), LIMIT).await,
        is_forbidden,
        "localhost is an address of a private network or of no network; this server fetches public ones only",
    );
}

#[tokio::test]
async fn hosts_of_the_configuration_may_be_anywhere() {
    let server = Server::start(|_| answer(200, &[], b"hub")).await;
    let url = format!("http://localhost:{}/", server.port);
    for rules in [
        Rules { hosts: vec!["LocalHost".into()], ..Rules::default() },
        Rules { private: true, ..Rules::default() },
    ] {
        let fetcher = fetcher(rules);
        assert_eq!(&fetcher.get(&url, LIMIT).await.unwrap().bytes[..], b"hub");
        fetcher.check(&url).await.unwrap();
    }
    check(
        local().get(&url, LIMIT).await,
        is_forbidden,
        "localhost is an address of a private network or of no network; this server fetches public ones only",
    );
}

#[tokio::test]
async fn what_is_no_address_is_refused_with_a_reason() {
    let long = format!("https://example.com/{}", "x".repeat(2048));
    let cases = [
        ("cat.png", "send https://…"),
        ("http://", "send https://…"),
        ("http://[::1", "send https://…"),
        ("http://256.256.256.256/", "send https://…"),
        ("ftp://example.com/cat.png", "only http and https are fetched"),
        ("file:///etc/passwd", "only http and https are fetched"),
        ("gopher://127.0.0.1:25/", "only http and https are fetched"),
        ("https://user:secret@example.com/", "it holds a user name; send one without"),
        ("https://user@example.com/", "it holds a user name; send one without"),
        (long.as_str(), "it is too long; send at most 2048 bytes, or upload the file"),
    ];
    for (url, want) in cases {
        for got in [local().get(url, LIMIT).await.map(drop), local().check(url).await] {
            let error = got.unwrap_err();
            assert!(
                matches!(error, FetchError::Address { problem, .. } if problem == want),
                "{url}: {error}"
            );
            assert!(error.to_string().len() < 250, "{error}");
        }
    }
}

#[tokio::test]
async fn every_redirect_is_looked_at_again() {
    let secret = Server::start(|_| answer(200, &[], b"secret")).await;
    let port = secret.port;
    let server = Server::start(move |request| {
        let target = request.target[1..].replace("PORT", &port.to_string());
        answer(302, &[("location", &target)], b"")
    })
    .await;
    for target in [
        "http://localhost:PORT/",
        "http://127.0.0.2:PORT/",
        "http://2130706434:PORT/",
        "//[::1]:PORT/",
    ] {
        let got = local().get(&server.url(&format!("/{target}")), LIMIT).await;
        assert!(is_forbidden(got.as_ref().unwrap_err()), "{target}: {got:?}");
    }
    for target in ["file:///etc/passwd", "http://user:secret@127.0.0.1:PORT/", "data:,x"] {
        let got = local().get(&server.url(&format!("/{target}")), LIMIT).await;
        assert!(matches!(got, Err(FetchError::Address { .. })), "{target}: {got:?}");
    }
    assert!(secret.seen().is_empty());
}

#[tokio::test]
async fn five_redirects_are_followed_and_a_circle_is_not() {
    let server = Server::start(|request| {
        let left: u32 = request.target.trim_start_matches('/').parse().unwrap();
        match left {
            0 => answer(200, &[], b"there"),
            99 => answer(301, &[("location", "/99")], b""),
            left => answer(307, &[("location", &format!("{}", left - 1))], b"ignored"),
        }
    })
    .await;
    let fetcher = local();
    assert_eq!(&fetcher.get(&server.url("/5"), LIMIT).await.unwrap().bytes[..], b"there");
    for path in ["/6", "/99"] {
        check(
            fetcher.get(&server.url(path), LIMIT).await,
            |error| matches!(error, FetchError::Redirects { .. }),
            "127.0.0.1 redirects more than 5 times; send the address where the file is",
        );
    }
    assert_eq!(server.seen().len(), 6 + 6 + 6);
}

#[tokio::test]
async fn an_answer_that_is_announced_too_large_is_not_read() {
    let server = Server::start(|_| {
        vec![
            Step::Send(head(200, &[("content-length", "1001")])),
            Step::Wait(Duration::from_secs(60)),
        ]
    })
    .await;
    let begun = Instant::now();
    let message = "the file is larger than 1000 bytes, the most that is taken";
    check(local().get(&server.url("/"), LIMIT).await, is_too_large, message);
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn an_answer_of_no_announced_length_is_cut_off_at_the_limit() {
    let server = Server::start(|request| {
        let count = if request.target == "/fits" { 10 } else { 1_000_000 };
        let chunked = head(200, &[("transfer-encoding", "chunked")]);
        let chunk = || Step::Send([b"64\r\n", &[b'x'; 100][..], b"\r\n"].concat());
        let chunks = std::iter::repeat_with(chunk).take(count);
        let end = Step::Send(b"0\r\n\r\n".to_vec());
        std::iter::once(Step::Send(chunked)).chain(chunks).chain([end]).collect()
    })
    .await;
    assert_eq!(local().get(&server.url("/fits"), LIMIT).await.unwrap().bytes.len(), 1000);
    let large = Limit { bytes_max: 3 << 20, ..LIMIT };
    let message = "the file is larger than 3 MiB, the most that is taken";
    check(local().get(&server.url("/"), large).await, is_too_large, message);
}

#[tokio::test]
async fn an_answer_that_drips_ends_with_the_time() {
    let server = Server::start(|request| {
        let drops = (0..1000)
            .flat_map(|_| [Step::Wait(Duration::from_millis(50)), Step::Send(b"x".to_vec())]);
        match request.target.as_str() {
            "/silent" => vec![Step::Wait(Duration::from_secs(60))],
            "/head" => std::iter::once(Step::Send(b"HTTP/1.1 200 OK\r\nx-name: ".to_vec()))
                .chain(drops)
                .collect(),
            _ => std::iter::once(Step::Send(head(200, &[("content-length", "1000")])))
                .chain(drops)
                .collect(),
        }
    })
    .await;
    let limit = Limit { timeout_ms: 700, ..LIMIT };
    for path in ["/silent", "/head", "/body"] {
        let begun = Instant::now();
        check(
            local().get(&server.url(path), limit).await,
            |error| matches!(error, FetchError::TimedOut { .. }),
            "127.0.0.1 did not answer in whole within 700 ms",
        );
        assert!(begun.elapsed() < Duration::from_secs(5), "{path}");
    }
}

#[tokio::test]
async fn a_status_that_is_no_answer_is_told() {
    let server =
        Server::start(|request| answer(request.target[1..].parse().unwrap(), &[], b"")).await;
    for status in [204, 302, 304, 403, 404, 410, 500, 503] {
        check(
            local().get(&server.url(&format!("/{status}")), LIMIT).await,
            |error| matches!(error, FetchError::Status { .. }),
            &format!("127.0.0.1 answered {status}"),
        );
    }
}

#[tokio::test]
async fn a_connection_that_breaks_or_never_was_is_told() {
    let server = Server::start(|_| {
        vec![Step::Send([head(200, &[("content-length", "100")]), b"half".to_vec()].concat())]
    })
    .await;
    let message = "127.0.0.1 could not be reached, or the connection broke";
    check(local().get(&server.url("/"), LIMIT).await, is_connection, message);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    check(local().get(&format!("http://{nobody}/"), LIMIT).await, is_connection, message);
    check(
        local().get("http://nothing.invalid/", LIMIT).await,
        is_connection,
        "nothing.invalid could not be reached, or the connection broke",
    );
}

#[tokio::test]
async fn a_download_is_there_in_whole_or_leaves_what_was_there() {
    let server = Server::start(|request| match request.target.as_str() {
        "/whole" => answer(200, &[], &[7; 1000]),
        "/half" => {
            vec![Step::Send([head(200, &[("content-length", "100")]), vec![7; 50]].concat())]
        }
        "/large" => vec![Step::Send([head(200, &[]), vec![7; 2000]].concat())],
        "/slow" => vec![
            Step::Send([head(200, &[("content-length", "100")]), vec![7; 50]].concat()),
            Step::Wait(Duration::from_secs(60)),
        ],
        _ => answer(404, &[], b""),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("style.safetensors");
    let failures = |old: Option<Vec<u8>>| {
        let (server, folder, file) = (&server, &folder, &file);
        async move {
            for path in ["/half", "/large", "/slow", "/none"] {
                let limit = Limit { timeout_ms: 500, ..LIMIT };
                local().download(&server.url(path), limit, file).await.unwrap_err();
                assert_eq!(std::fs::read(file).ok(), old, "{path}");
                let names = std::fs::read_dir(folder.path()).unwrap().count();
                assert_eq!(names, usize::from(old.is_some()), "{path}");
            }
        }
    };
    failures(None).await;
    assert_eq!(local().download(&server.url("/whole"), LIMIT, &file).await.unwrap(), 1000);
    assert_eq!(std::fs::read(&file).unwrap(), [7; 1000]);
    failures(Some(vec![7; 1000])).await;
    check(
        local().download(&server.url("/whole"), LIMIT, &folder.path().join("none/file")).await,
        |error| matches!(error, FetchError::Disk(_)),
        "the server could not keep the file",
    );
}

#[tokio::test]
async fn a_post_tells_the_status_and_follows_nothing() {
    let server = Server::start(|request| match request.target.as_str() {
        "/moved" => answer(307, &[("location", "/hook")], b""),
        "/gone" => answer(410, &[], b""),
        "/silent" => vec![Step::Wait(Duration::from_secs(60))],
        _ => answer(200, &[], b"ignored"),
    })
    .await;
    let headers = [("X-Fal-Webhook-Signature".to_string(), "ab12".to_string())];
    for (path, want) in [("/hook", 200), ("/moved", 307), ("/gone", 410)] {
        let body = Bytes::from_static(b"{\"status\":\"OK\"}");
        let status = local().post(&server.url(path), &headers, body, 5000).await.unwrap();
        assert_eq!(status, want);
    }
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    for request in seen {
        assert_eq!(request.method, "POST");
        assert_eq!(request.body, b"{\"status\":\"OK\"}");
        assert_eq!(request.header("x-fal-webhook-signature"), Some("ab12"));
    }
    check(
        local().post(&server.url("/silent"), &[], Bytes::new(), 1000).await,
        |error| matches!(error, FetchError::TimedOut { .. }),
        "127.0.0.1 did not answer in whole within 1 seconds",
    );
    let split = [("x-name".to_string(), "a\r\nhost: b".to_string())];
    let got = local().post(&server.url("/hook"), &split, Bytes::new(), 5000).await;
    assert!(matches!(got, Err(FetchError::Header(name)) if name == "x-name"));
}

#[tokio::test]
async fn https_needs_a_certificate_that_is_trusted() {
    let key = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
    let trusted = key.cert.der().to_vec();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let secret = PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()).into();
    let config = config.with_single_cert(vec![key.cert.der().clone()], secret).unwrap();
    let server = Server::listen(Some(Arc::new(config).into()), |_| answer(200, &[], b"safe")).await;
    let url = format!("https://localhost:{}/", server.port);
    let rules = Rules { hosts: vec!["localhost".into()], ..Rules::default() };
    let message = "localhost could not be reached, or the connection broke";
    check(fetcher(rules.clone()).get(&url, LIMIT).await, is_connection, message);
    let trusting = fetcher(Rules { roots: vec![trusted], ..rules });
    assert_eq!(&trusting.get(&url, LIMIT).await.unwrap().bytes[..], b"safe");
}
