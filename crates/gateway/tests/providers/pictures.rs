//! Pictures as they come: whole ones of every format pass, everything else is a failure, and no address of the inside is fetched.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use zoetrope_api::Format as Wanted;
use zoetrope_api::images::Pixels;
use zoetrope_files::Format;
use zoetrope_files::fetch::Rules;
use zoetrope_gateway::catalogue::Protocol;
use zoetrope_gateway::failure::{Billed, Failure, FailureKind};
use zoetrope_gateway::provider::Content;
use zoetrope_gateway::providers;

use crate::loopback::{Request, Server, Step, answer, head};
use crate::room::{
    ALIBABA, ALL, At, FAL, LIKE_OPENAI, REPLICATE, Room, base64, entry, file, png, request,
};
use crate::upstream::{PICTURE, Script, alibaba, as_json, fal_result, prediction};

/// Those that answer with addresses.
const BY_ADDRESS: [At; 3] = [FAL, ALIBABA, REPLICATE];

#[tokio::test]
async fn whole_pictures_of_every_format_are_known_by_their_bytes() {
    let formats = [
        (Format::Png, Wanted::Png),
        (Format::Jpeg, Wanted::Jpeg),
        (Format::WebP, Wanted::Webp),
        (Format::Gif, Wanted::Gif),
        (Format::Avif, Wanted::Avif),
    ];
    let room = Room::new().await;
    for (format, want) in formats {
        let file = file(format, 96, 64);
        for at in ALL {
            let server = Script::of(file.clone()).start(at).await;
            let outcome = room.one(at, &server.url(""), json!({})).await.unwrap();
            let made = &outcome.pictures[0];
            assert_eq!((made.format, made.size), (want, Pixels::new(96, 64)), "{at:?}");
            assert!(outcome.first_byte > Duration::ZERO);
        }
    }
}

#[tokio::test]
async fn half_pictures_are_failures_that_were_paid_for() {
    let room = Room::new().await;
    for format in [Format::Png, Format::Jpeg, Format::WebP, Format::Gif, Format::Avif] {
        let whole = file(format, 96, 64);
        for length in [whole.len() - 40, whole.len() / 2, 20, 3, 0] {
            let half = Script::of(whole[..length].to_vec());
            // Some are asked again and again how far they are: all at once.
            join_all(ALL.map(|at| {
                let (room, half) = (&room, half.clone());
                async move {
                    let server = half.start(at).await;
                    let failure = room.one(at, &server.url(""), json!({})).await.unwrap_err();
                    let got = (failure.kind, failure.billed);
                    assert_eq!(
                        got,
                        (FailureKind::NoImage, Billed::Yes),
                        "{at:?} {format:?} {length}"
                    );
                }
            }))
            .await;
        }
    }
}

#[tokio::test]
async fn what_is_no_picture_at_all_is_a_failure() {
    for at in ALL {
        for body in [&b"<html>not found</html>"[..], b"<svg xmlns='http://www.w3.org/2000/svg'/>"] {
            let room = Room::new().await;
            let server = Script::of(body.to_vec()).start(at).await;
            let failure = room.one(at, &server.url(""), json!({})).await.unwrap_err();
            assert_eq!(failure.kind, FailureKind::NoImage, "{at:?}");
        }
    }
}

#[tokio::test]
async fn base64_that_nobody_has_to_change_stays_as_it_came() {
    let room = Room::new().await;
    let picture = png(300, 200);
    let server = Script::of(picture.clone()).start(LIKE_OPENAI).await;
    let outcome = room.one(LIKE_OPENAI, &server.url(""), json!({})).await.unwrap();
    let Content::Base64(text) = &outcome.pictures[0].content else { panic!("it was changed") };
    assert_eq!(*text, base64(&picture));
}

#[tokio::test]
async fn base64_of_any_kind_is_read() {
    let picture = png(64, 64);
    let standard = base64(&picture);
    let wrapped: Vec<&str> =
        standard.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let cases = [
        standard.trim_end_matches('=').to_string(),
        standard.replace('+', "-").replace('/', "_"),
        wrapped.join("\n"),
        format!("data:image/png;base64,{standard}"),
    ];
    for text in cases {
        let room = Room::new().await;
        let answer = json!({"data": [{"b64_json": text}]});
        let server = Server::start(move |_| as_json(200, &answer)).await;
        let outcome = room.one(LIKE_OPENAI, &server.url(""), json!({})).await.unwrap();
        assert_eq!(outcome.pictures[0].size, Pixels::new(64, 64));
    }
}

/// A provider of `at` whose pictures are at `url`.
async fn at_url(at: At, url: &str, rules: Rules, private: bool) -> Result<(), Failure> {
    let room = Room::with(rules).await;
    let (script, looks) = (Script { looks: 0, ..Script::default() }, AtomicUsize::new(0));
    let url = url.to_string();
    let server = Server::start(move |request: &Request| {
        let is_get = request.method == "GET" && !request.target.ends_with("/status");
        match at.protocol {
            Protocol::Fal if is_get => as_json(200, &fal_result(std::slice::from_ref(&url))),
            Protocol::Alibaba => as_json(200, &alibaba(&url)),
            Protocol::Replicate if is_get => as_json(200, &prediction("succeeded", json!(url))),
            _ => script.answer(at, request, &looks),
        }
    });
    let server = server.await;
    let provider = providers::open(&entry(at, &server.url(""), private), &room.house).unwrap();
    let mut done = room.make(&*provider, at, request(json!({})), Duration::from_secs(5)).await;
    done.remove(0).map(drop)
}

/// A host of pictures, by the name that [`by_name`] allows.
async fn host(steps: impl Fn(&Request) -> Vec<Step> + Send + Sync + 'static) -> (Server, String) {
    let server = Server::start(steps).await;
    let url = format!("http://localhost:{}{PICTURE}", server.port);
    (server, url)
}

/// Rules by which `localhost` may be fetched by its name, and nothing else of this machine.
fn by_name() -> Rules {
    Rules { hosts: vec!["localhost".into()], ..Rules::default() }
}

#[tokio::test]
async fn pictures_are_not_fetched_from_the_inside() {
    let (server, url) = host(|_| answer(200, &[], &png(64, 64))).await;
    let by_number = server.url(PICTURE);
    for at in BY_ADDRESS {
        for url in [url.as_str(), &by_number, "http://169.254.169.254/latest", "file:///etc/passwd"]
        {
            let failure = at_url(at, url, Rules::default(), false).await.unwrap_err();
            assert_eq!(
                (failure.kind, failure.billed),
                (FailureKind::NoImage, Billed::Yes),
                "{url}"
            );
            assert!(!failure.to_string().contains("127.0.0.1"), "{failure}");
        }
    }
    assert!(server.seen().is_empty());
    for at in BY_ADDRESS {
        at_url(at, &by_number, Rules::default(), true).await.unwrap();
        at_url(at, &url, by_name(), false).await.unwrap();
    }
    // They are not told our key.
    assert!(server.seen().iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test]
async fn a_redirect_does_not_lead_inside() {
    let secret = Server::start(|_| answer(200, &[], &png(64, 64))).await;
    for inside in [secret.url("/"), "http://169.254.169.254/".into(), "http://[::1]:80/".into()] {
        let (_server, url) = host(move |_| answer(302, &[("location", &inside)], b"")).await;
        for at in BY_ADDRESS {
            let failure = at_url(at, &url, by_name(), false).await.unwrap_err();
            assert_eq!(failure.kind, FailureKind::NoImage, "{at:?}");
        }
    }
    assert!(secret.seen().is_empty());
}

#[tokio::test]
async fn links_that_do_not_work_say_how() {
    let large = || vec![Step::Send(head(200, &[("content-length", "9999999999")]))];
    let (_gone, gone) = host(|_| answer(404, &[], b"")).await;
    let (_forbidden, forbidden) = host(|_| answer(403, &[], b"expired")).await;
    let (broken_server, broken) = host(|_| Vec::new()).await;
    let (_sick, sick) = host(|_| answer(503, &[], b"")).await;
    let (_large, too_large) = host(move |_| large()).await;
    let cases = [
        (&gone, FailureKind::NoImage),
        (&forbidden, FailureKind::NoImage),
        (&broken, FailureKind::Broken),
        (&sick, FailureKind::Broken),
        (&too_large, FailureKind::NoImage),
    ];
    for at in BY_ADDRESS {
        for (url, kind) in cases {
            let failure = at_url(at, url, by_name(), false).await.unwrap_err();
            assert_eq!((failure.kind, failure.billed), (kind, Billed::Yes), "{at:?} {url}");
        }
    }
    // It is paid for: a connection that broke is tried once more.
    assert_eq!(broken_server.seen().len(), 2 * BY_ADDRESS.len());
}

#[tokio::test]
async fn a_picture_that_drips_does_not_outlast_the_deadline() {
    let (_slow, url) = host(|_| {
        let mut steps = vec![Step::Send(head(200, &[("content-length", "1000")]))];
        for _ in 0..100 {
            steps.extend([Step::Wait(Duration::from_millis(100)), Step::Send(vec![0])]);
        }
        steps
    })
    .await;
    let room = Room::with(by_name()).await;
    let server = Server::start(move |_| as_json(200, &alibaba(&url))).await;
    let provider = room.provider(ALIBABA, &server.url(""));
    let begun = std::time::Instant::now();
    let timeout = Duration::from_millis(600);
    let mut done = room.make(&*provider, ALIBABA, request(json!({})), timeout).await;
    let failure = done.remove(0).unwrap_err();
    assert_eq!((failure.kind, failure.billed), (FailureKind::TimedOut, Billed::Yes));
    assert!(begun.elapsed() < Duration::from_secs(3));
}
