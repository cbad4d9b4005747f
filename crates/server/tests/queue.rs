//! fal's queue over HTTP: submitting, looking, cancelling, and what is answered when something is wrong.

#![allow(clippy::unwrap_used)]

mod room;

use room::{Room, Setup, TURBO, completed};
use serde_json::{Value, json};
use zoetrope_jobs::{Attempt, End, Outcome, Preview};

#[tokio::test]
async fn a_submission_is_answered_with_its_addresses() {
    let room = Room::new().await;
    let answer = room.post("/queue/fal-ai/z-image/turbo/lora", json!({"prompt": "a house"})).await;
    assert_eq!(answer.status, 200);
    let body = answer.json();
    let id = body["request_id"].as_str().unwrap();
    let base = format!("http://127.0.0.1:7860/queue/fal-ai/z-image/requests/{id}");
    assert_eq!(body["status"], "IN_QUEUE");
    assert_eq!(body["queue_position"], 0);
    assert_eq!(body["response_url"], base);
    assert_eq!(body["status_url"], format!("{base}/status"));
    assert_eq!(body["cancel_url"], format!("{base}/cancel"));
    assert_eq!(answer.header("x-fal-request-id"), id);
}

#[tokio::test]
async fn the_states_of_a_request_are_those_of_fal() {
    let room = Room::new().await;
    let (first, second) = (room.submit().await, room.submit().await);
    let status = |id: &str, rest: &str| format!("/queue/fal-ai/z-image/requests/{id}/status{rest}");
    let waiting = room.get(&status(&second, "")).await;
    assert_eq!(waiting.status, 202);
    assert_eq!(waiting.json()["queue_position"], 1);
    assert_eq!(waiting.json()["status"], "IN_QUEUE");

    let lease = room.claim().await;
    lease.log("INFO", "Step 1/8").await.unwrap();
    let running = room.get(&status(&first, "")).await;
    assert_eq!((running.status.as_u16(), &running.json()["status"]), (202, &json!("IN_PROGRESS")));
    assert!(running.json().as_object().unwrap().contains_key("logs"));
    assert_eq!(running.json()["logs"], Value::Null);
    for wanted in ["?logs=1", "?logs=true", "/?logs=True"] {
        let logs = room.get(&status(&first, wanted)).await.json()["logs"].clone();
        assert_eq!(logs[0]["message"], "Step 1/8", "{wanted}");
        assert_eq!(logs[0]["labels"]["level"], "INFO");
        assert!(logs[0]["timestamp"].as_str().unwrap().ends_with('Z'));
    }
    let early = room.get(&format!("/queue/fal-ai/z-image/requests/{first}")).await;
    assert_eq!(early.status, 400);
    assert_eq!(early.json()["detail"], "Request is still in progress");

    lease.finish(Attempt::End(completed())).await.unwrap();
    let done = room.get(&status(&first, "?logs=1")).await;
    assert_eq!(done.status, 200);
    assert_eq!(done.json()["metrics"]["inference_time"], 1.5);
    for path in [first.clone(), format!("{first}/response"), first.to_uppercase()] {
        let result = room.get(&format!("/queue/fal-ai/z-image/requests/{path}")).await;
        assert_eq!(result.status, 200, "{path}");
        assert_eq!(result.json()["seed"], 1);
        assert_eq!(result.header("x-fal-billable-units"), "0.786432");
    }
    // The whole id before /requests/ is not fal's form, but people write it.
    assert_eq!(room.get(&format!("/queue/{TURBO}/requests/{first}/status")).await.status, 200);
}

#[tokio::test]
async fn cancelling_is_answered_by_what_it_came_to() {
    let room = Room::new().await;
    let cancel = |id: &str| format!("/queue/fal-ai/z-image/requests/{id}/cancel");
    let waiting = room.submit().await;
    let answer = room.send("PUT", &cancel(&waiting), &[], "").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["status"]),
        (202, &json!("CANCELLATION_REQUESTED"))
    );
    let result = room.get(&format!("/queue/fal-ai/z-image/requests/{waiting}")).await;
    assert_eq!(
        (result.status.as_u16(), &result.json()["error_type"]),
        (499, &json!("client_cancelled"))
    );
    assert!(room.queue.claim().await.unwrap().is_none(), "a cancelled request is not run");

    let running = room.submit().await;
    let lease = room.claim().await;
    assert_eq!(room.send("PUT", &cancel(&running), &[], "").await.status, 202);
    assert!(lease.cancel_asked().await.unwrap());
    lease.finish(Attempt::End(completed())).await.unwrap();
    let late = room.send("PUT", &cancel(&running), &[], "").await;
    assert_eq!((late.status.as_u16(), &late.json()["status"]), (400, &json!("ALREADY_COMPLETED")));
    let unknown = room.send("PUT", &cancel("none"), &[], "").await;
    assert_eq!((unknown.status.as_u16(), &unknown.json()["status"]), (404, &json!("NOT_FOUND")));
}

#[tokio::test]
async fn what_is_wrong_is_said_in_fal_s_shapes() {
    let room = Room::new().await;
    let wrong = json!({"num_inference_steps": 31, "output_format": "jpg", "enable_prompt_expansion": "often"});
    for way in ["queue", "run"] {
        let answer = room.post(&format!("/{way}/{TURBO}"), wrong.clone()).await;
        assert_eq!(answer.status, 422);
        assert_ne!(answer.header("x-fal-request-id"), "");
        assert_eq!(answer.header("x-fal-billable-units"), "0");
        let body = answer.json();
        let found: Vec<(&Value, &Value)> =
            body["detail"].as_array().unwrap().iter().map(|p| (&p["loc"][1], &p["type"])).collect();
        let expected = [
            (json!("prompt"), json!("missing")),
            (json!("num_inference_steps"), json!("less_than_equal")),
            (json!("output_format"), json!("literal_error")),
            (json!("enable_prompt_expansion"), json!("bool_parsing")),
        ];
        assert_eq!(found, expected.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>());
        assert!(body["message"].as_str().unwrap().contains("num_inference_steps"));
    }
    let broken = room.send("POST", &format!("/queue/{TURBO}"), &[], "{").await;
    assert_eq!(
        (broken.status.as_u16(), &broken.json()["detail"][0]["type"]),
        (422, &json!("json_invalid"))
    );
    let query = format!("/queue/{TURBO}?fal_max_queue_length=many");
    assert_eq!(room.post(&query, json!({"prompt": "a"})).await.status, 400, "never left out");
    let unknown = room.post("/queue/fal-ai/flux/dev", json!({"prompt": "a"})).await;
    assert_eq!(unknown.status, 404);
    assert!(unknown.json()["detail"].as_str().unwrap().contains("fal-ai/flux/dev"));
    assert_eq!(room.get(&format!("/queue/{TURBO}")).await.status, 405);
    assert_eq!(room.get("/queue/fal-ai/z-image/requests/none/status").await.status, 404);
}

#[tokio::test]
async fn a_full_queue_is_busy_and_not_out_of_memory() {
    let room = Room::with(Setup { queued_max: 2, ..Setup::default() }).await;
    room.submit().await;
    room.submit().await;
    let answer = room.post(&format!("/queue/{TURBO}"), json!({"prompt": "a"})).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("x-fal-error-type"), "runner_scheduling_failure");
    assert_ne!(answer.header("retry-after"), "");
    let long =
        room.post(&format!("/queue/{TURBO}?fal_max_queue_length=1"), json!({"prompt": "a"})).await;
    assert_eq!(
        (long.status.as_u16(), long.header("x-fal-error-type")),
        (429, "fal_max_queue_length")
    );
}

#[tokio::test]
async fn a_request_that_starts_too_late_times_out_as_its_sender_asked() {
    let room = Room::new().await;
    let headers = [("x-fal-request-timeout", "10")];
    let submitted = room
        .send("POST", &format!("/queue/{TURBO}"), &headers, json!({"prompt": "a"}).to_string())
        .await;
    let id = submitted.json()["request_id"].as_str().unwrap().to_string();
    room.later(10_001);
    assert!(room.queue.claim().await.unwrap().is_none(), "too late to begin");
    assert_eq!(room.queue.sweep(i64::MAX / 2).await.unwrap().overdue, 1);
    let result = room.get(&format!("/queue/fal-ai/z-image/requests/{id}")).await;
    assert_eq!(
        (result.status.as_u16(), &result.json()["error_type"]),
        (504, &json!("request_timeout"))
    );
    assert_eq!(result.header("x-fal-request-timeout-type"), "user");
    let wrong = room
        .send(
            "POST",
            &format!("/queue/{TURBO}"),
            &[("x-fal-request-timeout", "soon")],
            r#"{"prompt":"a"}"#,
        )
        .await;
    assert_eq!(wrong.status, 400);
}

#[tokio::test]
async fn a_lost_worker_s_request_is_tried_again_unless_its_sender_said_no() {
    let room = Room::new().await;
    let again = room.submit().await;
    let answer = room
        .send("POST", &format!("/queue/{TURBO}"), &[("x-fal-no-retry", "1")], r#"{"prompt":"a"}"#)
        .await;
    let once = answer.json()["request_id"].as_str().unwrap().to_string();
    drop((room.claim().await, room.claim().await)); // both workers die
    room.later(31_000);
    assert_eq!(room.queue.sweep(i64::MAX / 2).await.unwrap().lost, 2);
    let status = room.get(&format!("/queue/fal-ai/z-image/requests/{again}/status")).await;
    assert_eq!(status.json()["status"], "IN_QUEUE");
    let result = room.get(&format!("/queue/fal-ai/z-image/requests/{once}")).await;
    assert_eq!(
        (result.status.as_u16(), result.header("x-fal-error-type")),
        (503, "runner_disconnected")
    );
    room.later(60_000);
    room.work().await;
    assert_eq!(room.get(&format!("/queue/fal-ai/z-image/requests/{again}")).await.status, 200);
}

#[tokio::test]
async fn low_requests_wait_for_normal_ones() {
    let room = Room::new().await;
    let low = room
        .send(
            "POST",
            &format!("/queue/{TURBO}"),
            &[("x-fal-queue-priority", "low")],
            r#"{"prompt":"a"}"#,
        )
        .await;
    let low = low.json()["request_id"].as_str().unwrap().to_string();
    let normal = room.submit().await;
    assert_eq!(room.claim().await.request.id, normal);
    assert_eq!(room.claim().await.request.id, low);
}

#[tokio::test]
async fn run_waits_for_the_result_and_repeats_its_error() {
    let room = Room::new().await;
    let run = async { room.post(&format!("/run/{TURBO}"), json!({"prompt": "a house"})).await };
    let work = async {
        let lease = loop {
            match room.queue.claim().await.unwrap() {
                Some(lease) => break lease,
                None => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        };
        lease
            .finish(Attempt::End(End::of_request(
                Outcome::Failed,
                503,
                "runner_connection_error",
                "gone",
            )))
            .await
            .unwrap();
    };
    let (answer, ()) = tokio::join!(run, work);
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-fal-error-type")),
        (503, "runner_connection_error")
    );
}

#[tokio::test]
async fn a_request_whose_caller_has_gone_is_cancelled() {
    let room = Room::new().await;
    let uri = format!("/run/{TURBO}");
    let call = room.post(&uri, json!({"prompt": "a house"}));
    let waited = tokio::time::timeout(std::time::Duration::from_millis(200), call).await;
    assert!(waited.is_err(), "nobody draws");
    for _ in 0..100 {
        if room.queue.queued().await.unwrap() == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("it still waits");
}

#[tokio::test]
async fn callers_in_line_are_told_when_there_are_too_many() {
    let room = Room::with(Setup { concurrency_max: 2, ..Setup::default() }).await;
    room.submit().await;
    room.submit().await;
    // What only waits in the queue keeps nobody out.
    let uri = format!("/run/{TURBO}");
    let call = async || room.post(&uri, json!({"prompt": "a"})).await;
    let soon = std::time::Duration::from_millis(200);
    let waits = async || tokio::time::timeout(soon, call()).await;
    assert!(waits().await.is_err(), "it waits for its turn");
    // Of calls at once, as many wait as may run.
    let (first, second, third) = tokio::join!(waits(), waits(), waits());
    let refused = [first, second, third].into_iter().flatten().map(|a| a.status.as_u16());
    assert_eq!(refused.collect::<Vec<_>>(), [429]);
    let (_first, _second) = (room.claim().await, room.claim().await);
    let answer = call().await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-fal-error-type")),
        (429, "concurrent_requests_limit")
    );
    assert_eq!(answer.header("x-fal-needs-retry"), "1");
    assert_ne!(answer.header("retry-after"), "");
    // The queue takes more, and runs as many as may run.
    room.submit().await;
    assert!(room.queue.claim().await.unwrap().is_none());
}

#[tokio::test]
async fn a_status_stream_tells_each_change_and_each_line_once() {
    let room = Room::new().await;
    let id = room.submit().await;
    let uri = format!("/queue/fal-ai/z-image/requests/{id}/status/stream?logs=1");
    let stream = async { room.get(&uri).await };
    let work = async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let lease = room.claim().await;
        for line in ["one", "two", "three"] {
            lease.log("INFO", line).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        }
        lease.finish(Attempt::End(completed())).await.unwrap();
    };
    let (answer, ()) = tokio::join!(stream, work);
    assert_eq!(answer.header("content-type"), "text/event-stream");
    let events = answer.events();
    assert_eq!(events.first().unwrap()["status"], "IN_QUEUE");
    assert_eq!(events.last().unwrap()["status"], "COMPLETED");
    let lines: Vec<String> = events
        .iter()
        .flat_map(|event| event["logs"].as_array().cloned().unwrap_or_default())
        .map(|line| line["message"].as_str().unwrap().into())
        .collect();
    assert_eq!(lines, ["one", "two", "three"]);
    assert!(!answer.text().contains("\nid:"), "Python's parser ends at an id");
}

#[tokio::test]
async fn a_stream_shows_each_step_and_ends_with_the_result() {
    let room = Room::new().await;
    let uri = format!("/run/{TURBO}/stream");
    let stream = async { room.post(&uri, json!({"prompt": "a house"})).await };
    let work = async {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let lease = room.claim().await;
        assert!(lease.request.task.contains("\"previews\":true"));
        for step in 1..=3 {
            let preview =
                Preview { step, of: 4, picture: format!("data:image/jpeg;base64,{step}") };
            lease.preview(&preview).await.unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        lease.finish(Attempt::End(completed())).await.unwrap();
    };
    let (answer, ()) = tokio::join!(stream, work);
    let events = answer.events();
    assert_eq!(events.len(), 4);
    assert_eq!(events[0]["images"][0]["url"], "data:image/jpeg;base64,1");
    assert_eq!(events[2]["progress"], 0.75);
    assert_eq!(events[3]["seed"], 1);
}

#[tokio::test]
async fn a_status_that_waits_answers_with_the_change() {
    let room = Room::new().await;
    let id = room.submit().await;
    let uri = format!("/queue/fal-ai/z-image/requests/{id}/status?wait=30");
    let begun = std::time::Instant::now();
    let (answer, ()) = tokio::join!(room.get(&uri), async {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        room.claim().await;
    });
    assert_eq!(answer.json()["status"], "IN_PROGRESS");
    assert!(begun.elapsed() < std::time::Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_stop_ends_streams_and_cancels_what_nobody_will_wait_for() {
    let room = Room::new().await;
    let id = room.submit().await;
    let uri = format!("/queue/fal-ai/z-image/requests/{id}/status/stream");
    let run = format!("/run/{TURBO}");
    let begun = std::time::Instant::now();
    let (stream, called, ()) =
        tokio::join!(room.get(&uri), room.post(&run, json!({"prompt": "a house"})), async {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            room.stop.send(true).unwrap();
        });
    assert!(begun.elapsed() < std::time::Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(stream.events().len(), 1);
    assert!(stream.cut_off, "an end in order would read as the request's end");
    assert_eq!(called.status, 503);
    room.app.settle().await;
    // What was submitted to the queue stays there; the direct call's request is cancelled.
    assert_eq!(room.queue.queued().await.unwrap(), 1);
    assert_eq!(room.claim().await.request.id, id);
}

#[tokio::test]
async fn a_body_of_countless_values_is_refused_before_it_fills_memory() {
    let room = Room::new().await;
    let many = format!(r#"{{"prompt": "a", "x": [{}0]}}"#, "0,".repeat(60_000));
    let answer = room.send("POST", &format!("/queue/{TURBO}"), &[], many).await;
    assert_eq!(answer.status, 413);
    let text = format!(r#"{{"prompt": "{}\" {{"}}"#, "a, [".repeat(20_000));
    let answer = room.send("POST", &format!("/queue/{TURBO}"), &[], text).await;
    assert_eq!(answer.status, 200, "commas in a text are no values: {answer:?}");
}

#[tokio::test]
async fn who_sends_slowly_keeps_nobody_out() {
    use axum::body::Body;
    use futures_util::{StreamExt, stream};
    let room = Room::new().await;
    let uri = format!("/queue/{TURBO}");
    let slow = |_| {
        let begin = stream::once(async { Ok::<_, std::io::Error>(r#"{"prompt": ""#) });
        let body = Body::from_stream(begin.chain(stream::pending()));
        room.send("POST", &uri, &[("content-length", "50000000")], body)
    };
    let all = futures_util::future::join_all((0..40).map(slow));
    tokio::select! {
        _ = all => panic!("they never end"),
        id = room.submit() => assert!(!id.is_empty()),
    }
}
