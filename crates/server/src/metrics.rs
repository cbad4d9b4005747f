//! What is measured, said once for `/metrics`.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;

/// Describes every metric; called once a recorder is there.
pub fn describe() {
    metrics::describe_counter!("zoetrope_submissions_total", "Requests accepted, by endpoint");
    metrics::describe_counter!(
        "zoetrope_ends_total",
        "Requests that ended, by outcome and type of error"
    );
    metrics::describe_counter!("zoetrope_images_total", "Pictures of completed requests");
    metrics::describe_counter!(
        "zoetrope_checked_images_total",
        "Pictures that a safety checker looked at"
    );
    metrics::describe_counter!(
        "zoetrope_flagged_images_total",
        "Pictures that it found unsafe, by what became of them"
    );
    metrics::describe_counter!("zoetrope_kilopixels_total", "Thousands of their pixels");
    metrics::describe_counter!("zoetrope_lost_total", "Requests whose worker has gone");
    metrics::describe_gauge!("zoetrope_queue_depth", "Requests that wait");
    metrics::describe_gauge!("zoetrope_running", "Requests that run");
    metrics::describe_histogram!(
        "zoetrope_wait_seconds",
        "From submission to the begin of an attempt"
    );
    metrics::describe_histogram!(
        "zoetrope_stage_seconds",
        "An attempt's stages: fetching inputs, drawing, looking whether pictures are safe, storing them"
    );
    metrics::describe_counter!(
        "zoetrope_gateway_requests_total",
        "Requests for models that were asked of providers, by model and status"
    );
    metrics::describe_counter!(
        "zoetrope_gateway_calls_total",
        "Calls to providers, by deployment and outcome"
    );
    metrics::describe_histogram!(
        "zoetrope_gateway_call_seconds",
        "From sending to the last byte of the picture, of completed calls, by deployment"
    );
    metrics::describe_histogram!(
        "zoetrope_gateway_first_byte_seconds",
        "From sending to the first byte of the answer, by deployment"
    );
    metrics::describe_histogram!(
        "zoetrope_gateway_overhead_seconds",
        "Time of a request that no provider was waited for"
    );
    metrics::describe_counter!(
        "zoetrope_gateway_cost_micros_total",
        "Millionths of a dollar that completed calls cost, by deployment"
    );
    metrics::describe_gauge!(
        "zoetrope_gateway_healthy",
        "Whether a deployment is asked like the others (1), or only where everybody else has failed (0)"
    );
    metrics::describe_counter!(
        "zoetrope_gateway_reloads_total",
        "How often the gateway's configuration was read again, by whether it was taken or has mistakes"
    );
    metrics::describe_counter!(
        "zoetrope_gateway_unrecorded_total",
        "Requests that could not be written down"
    );
}

/// `/healthz` and `/metrics` alone, for a worker that answers nothing else.
pub fn router(metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/metrics", get(async move || answer(&metrics)))
}

pub(crate) fn answer(metrics: &PrometheusHandle) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, metrics.render()).into_response()
}
