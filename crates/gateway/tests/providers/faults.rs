//! Everything that can go wrong, at every provider: what the router is told of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use zoetrope_gateway::catalogue::Protocol;
use zoetrope_gateway::failure::{Billed, Failure, FailureKind};

use crate::loopback::{Request, Server, Step, answer, head};
use crate::room::{
    ALIBABA, ALL, At, FAL, KEY, LIKE_OPENAI, OPENAI, PROMPT, REPLICATE, Room, ZOETROPE, request,
};
use crate::upstream::{ID, PICTURE, Script, as_json, fal_result, prediction};

/// What comes of the first call, where the server answers it with `steps`.
async fn fault(at: At, steps: impl Fn() -> Vec<Step> + Send + Sync + 'static) -> Failure {
    fault_within(at, Duration::from_secs(5), steps).await
}

async fn fault_within(
    at: At,
    timeout: Duration,
    steps: impl Fn() -> Vec<Step> + Send + Sync + 'static,
) -> Failure {
    let room = Room::new().await;
    let server = Server::start(move |_| steps()).await;
    let provider = room.provider(at, &server.url(""));
    let done = room.make(&*provider, at, request(json!({})), timeout).await;
    let failure = done.into_iter().next().unwrap().unwrap_err();
    check_text(&failure);
    failure
}

/// What may be shown to callers.
#[track_caller]
fn check_text(failure: &Failure) {
    let text = failure.to_string();
    for secret in [KEY, PROMPT, "127.0.0.1", "http://"] {
        assert!(!text.contains(secret), "{text}");
    }
    assert!(!text.is_empty());
}

#[track_caller]
fn check(at: At, failure: &Failure, kind: FailureKind, billed: Billed) {
    assert_eq!((failure.kind, failure.billed), (kind, billed), "{at:?}: {failure:?}");
}

#[tokio::test]
async fn nobody_there() {
    for at in ALL {
        let room = Room::new().await;
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let failure = room.one(at, &format!("http://127.0.0.1:{free}"), json!({})).await;
        check(at, &failure.unwrap_err(), FailureKind::Unreachable, Billed::No);
    }
}

#[tokio::test]
async fn no_answer_in_time() {
    for at in ALL {
        let wait = || vec![Step::Wait(Duration::from_secs(30))];
        let failure = fault_within(at, Duration::from_millis(300), wait).await;
        check(at, &failure, FailureKind::TimedOut, Billed::Maybe);
        assert_eq!(failure.first_byte, None);
    }
}

#[tokio::test]
async fn a_connection_that_breaks_off() {
    for at in ALL {
        check(at, &fault(at, Vec::new).await, FailureKind::Broken, Billed::Maybe);
        let half = || {
            vec![Step::Send([&head(200, &[("content-length", "100")])[..], b"{\"id\""].concat())]
        };
        check(at, &fault(at, half).await, FailureKind::Broken, Billed::Maybe);
    }
}

#[tokio::test]
async fn a_body_that_drips() {
    for at in ALL {
        let drip = || {
            let mut steps = vec![Step::Send(head(200, &[("content-length", "1000")]))];
            for _ in 0..100 {
                steps.extend([Step::Wait(Duration::from_millis(100)), Step::Send(b" ".to_vec())]);
            }
            steps
        };
        let failure = fault_within(at, Duration::from_millis(400), drip).await;
        check(at, &failure, FailureKind::TimedOut, Billed::Maybe);
        assert!(failure.first_byte.is_some(), "{at:?}");
    }
}

#[tokio::test]
async fn too_many_calls() {
    for at in ALL {
        let later =
            || answer(429, &[("retry-after", "7")], b"{\"detail\": \"Request was throttled.\"}");
        let failure = fault(at, later).await;
        check(at, &failure, FailureKind::Throttled, Billed::No);
        assert_eq!(
            (failure.status, failure.retry_after),
            (Some(429), Some(Duration::from_secs(7)))
        );
        assert!(failure.to_string().contains("Request was throttled."), "{failure}");
        let sometime = fault(at, || answer(429, &[], b"")).await;
        assert_eq!((sometime.kind, sometime.retry_after), (FailureKind::Throttled, None));
    }
}

#[tokio::test]
async fn statuses_say_what_may_be_done() {
    let cases = [
        (400, FailureKind::Rejected, Billed::No),
        (401, FailureKind::Configuration, Billed::No),
        (402, FailureKind::Configuration, Billed::No),
        (403, FailureKind::Configuration, Billed::No),
        (404, FailureKind::Gone, Billed::No),
        (422, FailureKind::Rejected, Billed::No),
        (302, FailureKind::Broken, Billed::No),
        (500, FailureKind::Broken, Billed::No),
        (503, FailureKind::Broken, Billed::No),
        (529, FailureKind::Broken, Billed::No),
        // A proxy gave up: what is behind it may go on.
        (504, FailureKind::Broken, Billed::Maybe),
        (524, FailureKind::Broken, Billed::Maybe),
    ];
    for at in ALL {
        for (status, kind, billed) in cases {
            let body = format!("{{\"message\": \"no {KEY} for {PROMPT} at http://10.0.0.1/x\"}}");
            let steps =
                move || answer(status, &[("location", "http://169.254.169.254/")], body.as_bytes());
            let failure = fault(at, steps).await;
            check(at, &failure, kind, billed);
            assert_eq!(failure.status, Some(status));
        }
    }
}

#[tokio::test]
async fn a_success_that_nobody_can_read() {
    for at in ALL {
        for body in ["<html>busy</html>", "", "[", "nothing", "\u{feff}{}"] {
            let failure = fault(at, move || answer(200, &[], body.as_bytes())).await;
            check(at, &failure, FailureKind::Broken, Billed::Maybe);
        }
    }
}

#[tokio::test]
async fn an_answer_that_never_ends() {
    for at in ALL {
        let huge = || vec![Step::Send(head(200, &[("content-length", "10000000000")]))];
        check(at, &fault(at, huge).await, FailureKind::Broken, Billed::Maybe);
    }
    // And one that does not say how much it will be.
    let endless = || {
        let mut steps = vec![Step::Send(head(200, &[]))];
        steps.extend((0..64).map(|_| Step::Send(vec![b' '; 1 << 16])));
        steps
    };
    check(ALIBABA, &fault(ALIBABA, endless).await, FailureKind::Broken, Billed::Maybe);
}

/// A provider whose result, once it is done, is `body` with `status`.
async fn result(at: At, status: u16, body: Value) -> Failure {
    let room = Room::new().await;
    let script = Script { looks: 0, ..Script::default() };
    let looks = AtomicUsize::new(0);
    let server = Server::start(move |request: &Request| {
        let is_result = match at.protocol {
            Protocol::Fal => request.target.ends_with(ID) && request.method == "GET",
            _ => true,
        };
        match is_result {
            true => as_json(status, &body),
            false => script.answer(at, request, &looks),
        }
    });
    let server = server.await;
    let failure = room.one(at, &server.url(""), json!({})).await.unwrap_err();
    check_text(&failure);
    failure
}

#[tokio::test]
async fn a_success_without_a_picture_is_none_and_paid_for() {
    let cases = [
        (FAL, json!({})),
        (FAL, json!({"images": [], "has_nsfw_concepts": []})),
        (FAL, json!({"images": [{"url": null}]})),
        (ALIBABA, json!({})),
        (ALIBABA, json!({"output": {"choices": [{"message": {"content": [{"text": "x"}]}}]}})),
        (REPLICATE, prediction("succeeded", Value::Null)),
        (REPLICATE, prediction("succeeded", json!([]))),
        (LIKE_OPENAI, json!({})),
        (LIKE_OPENAI, json!({"created": 1, "data": []})),
        (LIKE_OPENAI, json!({"data": [{"revised_prompt": "x"}]})),
        (LIKE_OPENAI, json!({"data": [{"b64_json": ""}]})),
        (LIKE_OPENAI, json!({"data": [{"b64_json": "!!!!"}]})),
        (LIKE_OPENAI, json!({"data": [{"url": "file:///etc/passwd"}]})),
        (ZOETROPE, json!({"data": []})),
    ];
    for (at, body) in cases {
        check(at, &result(at, 200, body).await, FailureKind::NoImage, Billed::Yes);
    }
}

#[tokio::test]
async fn refusals_of_what_is_shown_are_told_apart() {
    let mut black = fal_result(&["data:image/png;base64,AAAA".into()]);
    black["has_nsfw_concepts"] = json!([true]);
    check(FAL, &result(FAL, 200, black).await, FailureKind::Policy, Billed::Yes);
    let detail = json!({"detail": [{
        "loc": ["body", "prompt"],
        "msg": "The content could not be processed because it contained material flagged by a content checker.",
        "type": "content_policy_violation",
        "input": PROMPT,
    }]});
    let failure = result(FAL, 422, detail).await;
    check(FAL, &failure, FailureKind::Policy, Billed::No);
    assert_eq!(failure.code.as_deref(), Some("content_policy_violation"));
    let cases = [
        (
            ALIBABA,
            400,
            json!({"code": "DataInspectionFailed", "message": "Input data may contain inappropriate content.", "request_id": ID}),
        ),
        (
            LIKE_OPENAI,
            400,
            json!({"error": {"code": "moderation_blocked", "message": "Your request was rejected.", "type": "image_generation_user_error", "param": null}}),
        ),
        (OPENAI, 400, json!({"error": {"code": "content_policy_violation", "message": "no"}})),
        (ZOETROPE, 400, json!({"error": {"code": "CONTENT_POLICY_VIOLATION", "message": "no"}})),
    ];
    for (at, status, body) in cases {
        check(at, &result(at, status, body).await, FailureKind::Policy, Billed::No);
    }
    let mut failed = prediction("failed", Value::Null);
    failed["error"] =
        json!("NSFW content detected. Try running it again, or try a different prompt.");
    check(REPLICATE, &result(REPLICATE, 201, failed).await, FailureKind::Policy, Billed::No);
}

#[tokio::test]
async fn codes_say_more_than_statuses() {
    let error = |code: &str| json!({"error": {"code": code, "message": "m", "param": null}});
    let dashscope = |code: &str| json!({"code": code, "message": "m", "request_id": ID});
    let cases = [
        (ALIBABA, 400, dashscope("Arrearage"), FailureKind::Configuration),
        (ALIBABA, 400, dashscope("InvalidParameter"), FailureKind::Rejected),
        (ALIBABA, 400, dashscope("BadRequest.EmptyInput"), FailureKind::Rejected),
        (ALIBABA, 401, dashscope("InvalidApiKey"), FailureKind::Configuration),
        (ALIBABA, 403, dashscope("AllocationQuota.FreeTierOnly"), FailureKind::Configuration),
        (ALIBABA, 429, dashscope("Throttling.RateQuota"), FailureKind::Throttled),
        (ALIBABA, 500, dashscope("InternalError"), FailureKind::Broken),
        (ALIBABA, 200, dashscope("InvalidParameter"), FailureKind::Rejected),
        (LIKE_OPENAI, 429, error("insufficient_quota"), FailureKind::Configuration),
        (LIKE_OPENAI, 400, error("billing_hard_limit_reached"), FailureKind::Configuration),
        (LIKE_OPENAI, 200, json!({"error": {"message": "busy"}}), FailureKind::Broken),
        (ZOETROPE, 503, error("UNAVAILABLE"), FailureKind::Busy),
        (ZOETROPE, 404, error("MODEL_DISABLED"), FailureKind::Gone),
        (ZOETROPE, 402, error("INSUFFICIENT_BALANCE"), FailureKind::Configuration),
    ];
    for (at, status, body, kind) in cases {
        let failure = result(at, status, body.clone()).await;
        assert_eq!(failure.kind, kind, "{at:?} {status} {body}");
    }
    let types = [
        ("request_timeout", 504, FailureKind::TimedOut),
        ("runner_scheduling_failure", 503, FailureKind::Broken),
        ("internal_error", 500, FailureKind::Broken),
        ("client_cancelled", 499, FailureKind::Cancelled),
    ];
    for (kind, status, want) in types {
        let failure = result(FAL, status, json!({"detail": "m", "error_type": kind})).await;
        assert_eq!(failure.kind, want, "{kind}");
    }
}

#[tokio::test]
async fn a_parameter_that_is_refused_is_told_by_our_name() {
    let fal = json!({"detail": [{
        "loc": ["body", "image_size", "width"],
        "msg": "Input should be less than or equal to 2048",
        "type": "less_than_equal",
        "ctx": {"le": 2048},
    }]});
    let replicate = json!({
        "title": "Input validation failed",
        "detail": "- input.guidance_scale: Must be less than or equal to 20\n",
        "status": 422,
        "invalid_fields": [{"type": "lte", "field": "input.guidance_scale", "description": "…"}],
    });
    let openai =
        json!({"error": {"message": "Invalid size", "code": "invalid_value", "param": "size"}});
    let cases =
        [(FAL, fal, "size"), (REPLICATE, replicate, "cfg_scale"), (LIKE_OPENAI, openai, "size")];
    for (at, body, name) in cases {
        let failure = result(at, 422, body).await;
        check(at, &failure, FailureKind::Rejected, Billed::No);
        assert_eq!(failure.parameter.as_deref(), Some(name), "{at:?}");
    }
}

#[tokio::test]
async fn predictions_that_end_badly() {
    let cases = [
        ("canceled", FailureKind::TimedOut, Billed::Yes),
        ("aborted", FailureKind::TimedOut, Billed::No),
        ("exploded", FailureKind::Broken, Billed::Maybe),
    ];
    for (status, kind, billed) in cases {
        let failure = result(REPLICATE, 201, prediction(status, Value::Null)).await;
        check(REPLICATE, &failure, kind, billed);
    }
    let mut failed = prediction("failed", Value::Null);
    failed["error"] = json!(format!("CUDA out of memory while drawing {PROMPT}"));
    check(REPLICATE, &result(REPLICATE, 201, failed).await, FailureKind::Broken, Billed::No);
    let mut elsewhere = prediction("starting", Value::Null);
    elsewhere["id"] = json!("../../../v1/account");
    check(REPLICATE, &result(REPLICATE, 201, elsewhere).await, FailureKind::Broken, Billed::Maybe);
}

#[tokio::test]
async fn what_fails_in_passing_while_it_is_waited_for_costs_nothing() {
    for (at, ending) in [(FAL, "/status"), (REPLICATE, ID)] {
        let room = Room::new().await;
        let (script, looks) = (Script::default(), AtomicUsize::new(0));
        let failures = Arc::new(AtomicUsize::new(0));
        let count = failures.clone();
        let server = Server::start(move |request: &Request| {
            let look = request.method == "GET" && request.target.ends_with(ending);
            match look && count.fetch_add(1, Ordering::Relaxed) < 3 {
                true => answer(502, &[], b"bad gateway"),
                false => script.answer(at, request, &looks),
            }
        });
        let server = server.await;
        room.one(at, &server.url(""), json!({})).await.unwrap();
        assert!(failures.load(Ordering::Relaxed) > 3, "{at:?}");
    }
}

#[tokio::test]
async fn a_result_at_fal_is_asked_for_twice() {
    let room = Room::new().await;
    let (script, looks, broken) = (Script::default(), AtomicUsize::new(0), AtomicBool::new(false));
    let server = Server::start(move |request: &Request| {
        let is_result = request.method == "GET" && request.target.ends_with(ID);
        match is_result && !broken.swap(true, Ordering::Relaxed) {
            true => Vec::new(),
            false => script.answer(FAL, request, &looks),
        }
    });
    let server = server.await;
    let outcome = room.one(FAL, &server.url(""), json!({})).await.unwrap();
    assert_eq!(outcome.pictures.len(), 1);
    let pictures = server.seen().iter().filter(|request| request.target == PICTURE).count();
    assert_eq!(pictures, 1);
}
