//! What is measured, said once for `/metrics`.

/// Describes every metric; called once a recorder is there.
pub fn describe() {
    metrics::describe_counter!("zoetrope_submissions_total", "Requests accepted, by endpoint");
    metrics::describe_counter!("zoetrope_failures_total", "Attempts that did not succeed, by type");
    metrics::describe_counter!("zoetrope_images_total", "Pictures made");
    metrics::describe_counter!("zoetrope_kilopixels_total", "Thousands of pixels made");
    metrics::describe_counter!("zoetrope_lost_total", "Requests whose worker has gone");
    metrics::describe_gauge!("zoetrope_queue_depth", "Requests that wait");
    metrics::describe_gauge!("zoetrope_running", "Requests that run");
    metrics::describe_histogram!(
        "zoetrope_wait_seconds",
        "From submission to the begin of an attempt"
    );
    metrics::describe_histogram!(
        "zoetrope_inference_seconds",
        "From the begin of an attempt's drawing to its pixels"
    );
}
