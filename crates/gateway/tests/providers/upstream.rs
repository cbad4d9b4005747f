//! Providers on a loopback port, behaving as their documentation says and as their answers were recorded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use zoetrope_gateway::catalogue::Protocol;

use crate::loopback::{Request, Server, Step, answer};
use crate::room::{At, base64, png};

/// What answers with JSON.
pub(crate) fn as_json(status: u16, body: &Value) -> Vec<Step> {
    answer(status, &[("content-type", "application/json")], body.to_string().as_bytes())
}

/// Where pictures lie on such a server.
pub(crate) const PICTURE: &str = "/pictures/a.png";
/// What requests are called there.
pub(crate) const ID: &str = "0198f1c2-4d5e-7000-8000-000000000001";

/// How a provider answers, and when.
#[derive(Clone)]
pub(crate) struct Script {
    /// The file of a picture.
    pub(crate) file: Arc<Vec<u8>>,
    /// Looks at how far it is that tell that it is not done.
    pub(crate) looks: usize,
}

impl Default for Script {
    fn default() -> Self {
        Self { file: Arc::new(png(64, 64)), looks: 1 }
    }
}

impl Script {
    pub(crate) fn of(file: Vec<u8>) -> Self {
        Self { file: Arc::new(file), ..Self::default() }
    }

    /// A server that behaves as a provider of `at`'s protocol.
    pub(crate) async fn start(self, at: At) -> Server {
        let looks = AtomicUsize::new(0);
        Server::start(move |request| self.answer(at, request, &looks)).await
    }

    pub(crate) fn answer(&self, at: At, request: &Request, looks: &AtomicUsize) -> Vec<Step> {
        let host = format!("http://{}", request.header("host").unwrap_or_default());
        if request.target.starts_with("/pictures/") {
            return answer(200, &[("content-type", "image/png")], &self.file);
        }
        match at.protocol {
            Protocol::Fal => self.fal(request, &host, looks),
            Protocol::Alibaba => as_json(200, &alibaba(&format!("{host}{PICTURE}"))),
            Protocol::Replicate => self.replicate(request, &host, looks),
            Protocol::OpenAi | Protocol::Zoetrope => as_json(200, &self.images(request)),
            Protocol::Local => answer(500, &[], b""),
        }
    }

    fn fal(&self, request: &Request, host: &str, looks: &AtomicUsize) -> Vec<Step> {
        let work = format!("/fal-ai/z-image/requests/{ID}");
        let urls = json!({
            "request_id": ID,
            "response_url": format!("{host}{work}"),
            "status_url": format!("{host}{work}/status"),
            "cancel_url": format!("{host}{work}/cancel"),
        });
        let with = |more: Value| {
            let mut all = urls.clone();
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all
        };
        match (request.method.as_str(), request.target.strip_prefix(&work)) {
            ("POST", None) => {
                as_json(200, &with(json!({"status": "IN_QUEUE", "queue_position": 0})))
            }
            ("GET", Some("/status")) if looks.fetch_add(1, Ordering::Relaxed) < self.looks => {
                as_json(202, &with(json!({"status": "IN_PROGRESS", "logs": null})))
            }
            ("GET", Some("/status")) => as_json(
                200,
                &with(
                    json!({"status": "COMPLETED", "logs": null, "metrics": {"inference_time": 1.2}}),
                ),
            ),
            ("GET", Some("")) => answer(
                200,
                &[("content-type", "application/json"), ("x-fal-billable-units", "2.5")],
                fal_result(&[format!("{host}{PICTURE}"), format!("{host}{PICTURE}")])
                    .to_string()
                    .as_bytes(),
            ),
            ("PUT", Some("/cancel")) => as_json(202, &json!({"status": "CANCELLATION_REQUESTED"})),
            _ => as_json(404, &json!({"detail": "Not Found"})),
        }
    }

    fn replicate(&self, request: &Request, host: &str, looks: &AtomicUsize) -> Vec<Step> {
        let (status, output) = match request.method.as_str() {
            "POST" if request.target.ends_with("/cancel") => ("canceled", Value::Null),
            "POST" => ("starting", Value::Null),
            _ if looks.fetch_add(1, Ordering::Relaxed) < self.looks => ("processing", Value::Null),
            _ => ("succeeded", json!(format!("{host}{PICTURE}"))),
        };
        let code = if request.method == "POST" { 201 } else { 200 };
        as_json(code, &prediction(status, output))
    }

    fn images(&self, request: &Request) -> Value {
        let n = String::from_utf8_lossy(&request.body).matches("\"n\":2").count() + 1;
        let item = json!({"b64_json": base64(&self.file), "revised_prompt": null});
        json!({
            "created": 1_763_700_000,
            "data": vec![item; n],
            "output_format": "png",
            "metadata": {"cost": 0.0123, "cost_currency": "USD", "seed": 7},
        })
    }
}

pub(crate) fn fal_result(urls: &[String]) -> Value {
    let image = |url: &String| json!({"url": url, "content_type": "image/png", "file_name": "a.png", "width": 64, "height": 64});
    json!({
        "images": urls.iter().map(image).collect::<Vec<_>>(),
        "timings": {"inference": 1.1},
        "seed": 42,
        "has_nsfw_concepts": [false],
        "prompt": crate::room::PROMPT,
    })
}

pub(crate) fn alibaba(url: &str) -> Value {
    json!({
        "request_id": ID,
        "output": {"choices": [{"finish_reason": "stop", "message": {
            "role": "assistant",
            "content": [{"image": url}, {"text": "a lighthouse, drawn anew"}],
            "reasoning_content": "…",
        }}]},
        "usage": {"width": 64, "height": 64, "image_count": 1},
    })
}

pub(crate) fn prediction(status: &str, output: Value) -> Value {
    json!({
        "id": ID,
        "model": "prunaai/z-image-turbo",
        "version": "e61b4c42",
        "status": status,
        "input": {},
        "output": output,
        "logs": "",
        "error": null,
        "metrics": {"predict_time": 1.5},
        "urls": {"get": "http://169.254.169.254/get", "cancel": "http://169.254.169.254/cancel"},
    })
}

/// Time enough for what goes on behind a test's back.
pub(crate) async fn eventually(holds: impl Fn() -> bool) {
    for _ in 0..200 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("it did not happen within five seconds");
}
