//! Spans that follow a request from its sender through the queue to its worker, sent to an OpenTelemetry collector.
//!
//! Rooms make spans with `tracing` and know no more than [`adopt`] and [`parent`]: the first puts a span into somebody's trace, the
//! second says in W3C's words how another process does the same. Without an [`Exporter`] spans cost nothing.

use std::collections::HashMap;
use std::time::Duration;

use opentelemetry::Key;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
use tracing_subscriber::registry::LookupSpan;

/// The header, and the only key of what is passed on. <https://www.w3.org/TR/trace-context/>
pub const TRACEPARENT: &str = "traceparent";

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("spans cannot be sent to {endpoint}: {problem}")]
pub struct Error {
    endpoint: String,
    problem: String,
}

/// Sends spans; what waits is sent when it is dropped.
pub struct Exporter(SdkTracerProvider);

/// How long a collector may take.
const TIMEOUT: Duration = Duration::from_secs(10);

impl Exporter {
    /// Sends to the collector at `endpoint`, an address to which `/v1/traces` is added, as protobuf over HTTP. `service` is what the
    /// spans are called after, unless `OTEL_SERVICE_NAME` says otherwise; OpenTelemetry's other variables count too.
    ///
    /// Not inside of a runtime: the exporter waits for answers on a thread of its own.
    pub fn new(endpoint: &str, service: &'static str) -> Result<Self, Error> {
        let address = format!("{}/v1/traces", endpoint.trim_end_matches('/'));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&address)
            .with_timeout(TIMEOUT)
            .build();
        let exporter =
            exporter.map_err(|error| Error { endpoint: address, problem: error.to_string() })?;
        let mut resource = Resource::builder().build();
        let name = resource.get(&Key::from_static_str("service.name"));
        if name.is_none_or(|name| name.as_str().starts_with("unknown_service")) {
            resource = Resource::builder().with_service_name(service).build();
        }
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource);
        Ok(Self(provider.build()))
    }

    /// What turns spans of `tracing` into those that are sent.
    pub fn layer<S>(&self) -> OpenTelemetryLayer<S, opentelemetry_sdk::trace::SdkTracer>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        tracing_opentelemetry::layer().with_tracer(self.0.tracer("zoetrope"))
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// Puts `span`, which nobody entered yet, into the trace that `traceparent` names. What cannot be read is left out: a request is
/// worth more than its trace.
pub fn adopt(span: &Span, traceparent: Option<&str>) {
    let Some(traceparent) = traceparent else { return };
    let carrier = HashMap::from([(TRACEPARENT.to_string(), traceparent.to_string())]);
    let context = TraceContextPropagator::new().extract(&carrier);
    let _ = span.set_parent(context); // fails where nobody listens to spans
}

/// How another process puts a span below `span`; `None` where nobody listens to spans.
pub fn parent(span: &Span) -> Option<String> {
    let context = span.context();
    if !context.span().span_context().is_valid() {
        return None;
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    carrier.remove(TRACEPARENT)
}
