//! Spans as a collector gets them: one trace from a request's sender through the server and the queue to a worker elsewhere.

#![allow(clippy::unwrap_used)]

mod served;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::json;
use served::Server;

/// Spans by their service's name.
type Spans = Arc<Mutex<Vec<(String, Span)>>>;

/// A collector on loopback: its address, and what it got.
fn collector() -> (String, Spans) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let spans = Spans::default();
    let all = spans.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            take(stream.unwrap(), &all);
        }
    });
    (address, spans)
}

fn take(mut stream: TcpStream, spans: &Spans) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.starts_with("POST /v1/traces "), "{line}");
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    for resource in ExportTraceServiceRequest::decode(&body[..]).unwrap().resource_spans {
        let attributes = resource.resource.unwrap().attributes;
        let service = attributes.iter().find(|a| a.key == "service.name").unwrap();
        let service = format!("{:?}", service.value);
        let found = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.lock().unwrap().extend(found.map(|span| (service.clone(), span)));
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
}

#[test]
fn a_request_is_one_trace_from_its_sender_to_its_worker() {
    let (endpoint, spans) = collector();
    let mut server = Server::start(&["--no-worker", "--otlp-endpoint", &endpoint]);
    let mut worker = server.worker(&["--otlp-endpoint", &endpoint]);
    let (trace, sender) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let body = json!({"prompt": "a house", "image_size": {"width": 64, "height": 64}, "num_inference_steps": 1});
    let mut answer = ureq::post(format!("{}/queue/fal-ai/z-image/turbo", server.address))
        .header("traceparent", format!("00-{trace}-{sender}-01"))
        .send(body.to_string())
        .unwrap();
    let submitted: serde_json::Value =
        serde_json::from_str(&answer.body_mut().read_to_string().unwrap()).unwrap();
    server.result(submitted["request_id"].as_str().unwrap());
    // What waits is sent at the end.
    worker.terminate();
    server.terminate();

    let spans = spans.lock().unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let ours: HashMap<&str, &(String, Span)> = spans
        .iter()
        .filter(|(_, span)| hex(&span.trace_id) == trace)
        .map(|both| (both.1.name.as_str(), both))
        .collect();
    let span = |name: &str| {
        *ours.get(name).unwrap_or_else(|| panic!("no span {name} in {:?}", ours.keys()))
    };
    let (service, submission) = span("POST /queue/fal-ai/z-image/turbo");
    assert_eq!(hex(&submission.parent_span_id), sender);
    assert!(service.contains("\"zoetrope\""), "{service}");
    let (service, attempt) = span("attempt fal-ai/z-image/turbo");
    assert_eq!(attempt.parent_span_id, submission.span_id);
    assert!(service.contains("\"zoetrope-worker\""), "{service}");
    for stage in ["fetch", "draw", "store"] {
        assert_eq!(span(stage).1.parent_span_id, attempt.span_id, "{stage}");
    }
    // Calls about other requests have the same name, so that a collector can count them together.
    let status = "GET /queue/fal-ai/z-image/requests/{id}/status";
    assert!(spans.iter().any(|(_, span)| span.name == status), "{spans:?}");
    // No prompt, and no file's name, leaves the house.
    assert!(!format!("{spans:?}").contains("a house"));
}

#[test]
fn a_collector_that_is_away_stops_nothing() {
    let mut server = Server::start(&["--otlp-endpoint", "http://127.0.0.1:9"]);
    let body = json!({"prompt": "a house", "image_size": {"width": 64, "height": 64}, "num_inference_steps": 1});
    let (status, result) = server.post("/run/fal-ai/z-image/turbo", &body);
    assert_eq!(status, 200, "{result}");
    server.terminate();
}
