//! The SQL of performance over time.

/// Sums by a step of $3 and deployment.
pub(crate) const CALLS_OVER_TIME: &str = "
    SELECT (hour_ms / $3) * $3 AS at_ms, deployment, provider, model, '' AS whose, CAST(sum(calls) AS BIGINT) AS calls,
        CAST(sum(completed) AS BIGINT) AS completed, CAST(sum(faults) AS BIGINT) AS faults,
        CAST(sum(pictures) AS BIGINT) AS pictures, CAST(sum(cost_micros) AS BIGINT) AS cost_micros,
        CAST(sum(completed_us) AS BIGINT) AS completed_us
    FROM call_hours WHERE hour_ms >= $1 AND hour_ms < $2
    GROUP BY (hour_ms / $3) * $3, deployment, provider, model ORDER BY at_ms, deployment, provider, model";

pub(crate) const TIMES_OVER_TIME: &str = "
    SELECT (hour_ms / $3) * $3 AS at_ms, deployment, kind, bucket, CAST(sum(calls) AS BIGINT) FROM call_times
    WHERE hour_ms >= $1 AND hour_ms < $2
    GROUP BY (hour_ms / $3) * $3, deployment, kind, bucket ORDER BY at_ms, deployment, kind, bucket";

/// What ended last, of those that are kept or of those that are not: so an index finds them in order.
pub(crate) const FINISHED: &str = "
    SELECT id, endpoint, owner, outcome, status_code, created_ms, started_ms, finished_ms, inference_ms, billable_units, unit_price
    FROM requests WHERE state = 'done' AND keep_io = $1 AND finished_ms >= $2 AND finished_ms < $3
    ORDER BY finished_ms DESC LIMIT $4";
