//! The SQL of models' requests: the log, the sums of calls, budgets and kept answers.

macro_rules! logged {
    () => {
        "id, owner, model, mode, status, provider, deployment, upstream, pictures, cost_micros, created_ms, duration_us, \
         upstream_us, error_code, error, user_name, trace, attempts, files"
    };
}

/// Columns of a logged request.
const LOGGED: usize = 19;

/// Writes `count` requests down. A statement costs as much as several rows do.
pub(crate) fn insert_model_requests(count: usize) -> String {
    let row = |row: usize| {
        let places: Vec<String> =
            (1..=LOGGED).map(|column| format!("${}", row * LOGGED + column)).collect();
        format!("({})", places.join(", "))
    };
    let rows: Vec<String> = (0..count).map(row).collect();
    format!(
        "INSERT INTO model_requests ({}) VALUES {} ON CONFLICT (id) DO NOTHING",
        logged!(),
        rows.join(", ")
    )
}

pub(crate) const MODEL_REQUEST: &str =
    concat!("SELECT ", logged!(), ", purged_ms FROM model_requests WHERE id = $1");
pub(crate) const PURGE_MODEL_REQUEST: &str =
    "UPDATE model_requests SET purged_ms = $1 WHERE id = $2 AND purged_ms IS NULL";
/// The answer to a request that is kept for whoever asks twice; it is told by the id in its headers.
pub(crate) const FORGET_ANSWER_OF: &str =
    "DELETE FROM answers WHERE owner = $1 AND headers LIKE '%' || $2 || '%'";

macro_rules! log_page {
    ($owner:literal, $place:literal, $order:literal) => {
        concat!(
            "SELECT ",
            logged!(),
            ", purged_ms FROM model_requests WHERE ",
            $owner,
            " AND ($2 = '' OR status = $2) AND created_ms >= $3 AND created_ms < $4 AND ",
            $place,
            " ORDER BY id ",
            $order,
            " LIMIT $6"
        )
    };
}

// A page of everybody's is not one of an owner who is called nothing: each is found by its own index.
pub(crate) const LOG_BEFORE: &str = log_page!("$1 = ''", "($5 = '' OR id < $5)", "DESC");
pub(crate) const LOG_AFTER: &str = log_page!("$1 = ''", "id > $5", "ASC");
pub(crate) const LOG_OF_BEFORE: &str = log_page!("owner = $1", "($5 = '' OR id < $5)", "DESC");
pub(crate) const LOG_OF_AFTER: &str = log_page!("owner = $1", "id > $5", "ASC");

pub(crate) const ADD_CALLS: &str = "
    INSERT INTO call_hours (hour_ms, deployment, owner, provider, model, calls, completed, faults, pictures, cost_micros, completed_us)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
    ON CONFLICT (hour_ms, deployment, owner) DO UPDATE SET calls = call_hours.calls + excluded.calls,
        completed = call_hours.completed + excluded.completed, faults = call_hours.faults + excluded.faults,
        pictures = call_hours.pictures + excluded.pictures, cost_micros = call_hours.cost_micros + excluded.cost_micros,
        completed_us = call_hours.completed_us + excluded.completed_us";

pub(crate) const ADD_TIMES: &str = "
    INSERT INTO call_times (hour_ms, deployment, kind, bucket, calls) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (hour_ms, deployment, kind, bucket) DO UPDATE SET calls = call_times.calls + excluded.calls";

/// Sums of a window, by deployment and, with $3 = 1, by owner.
pub(crate) const CALLS: &str = "
    SELECT deployment, provider, model, CASE WHEN $3 = 1 THEN owner ELSE '' END AS whose, CAST(sum(calls) AS BIGINT) AS calls,
        CAST(sum(completed) AS BIGINT) AS completed, CAST(sum(faults) AS BIGINT) AS faults,
        CAST(sum(pictures) AS BIGINT) AS pictures, CAST(sum(cost_micros) AS BIGINT) AS cost_micros,
        CAST(sum(completed_us) AS BIGINT) AS completed_us
    FROM call_hours WHERE hour_ms >= $1 AND hour_ms < $2 AND ($4 = '' OR owner = $4)
    GROUP BY deployment, provider, model, CASE WHEN $3 = 1 THEN owner ELSE '' END
    ORDER BY deployment, provider, model, whose";

pub(crate) const TIMES: &str = "
    SELECT deployment, kind, bucket, CAST(sum(calls) AS BIGINT) FROM call_times WHERE hour_ms >= $1 AND hour_ms < $2
    GROUP BY deployment, kind, bucket ORDER BY deployment, kind, bucket";

/// Takes the key's turn: until the transaction ends, nobody else reserves or settles. Changes nothing.
pub(crate) const LOCK_KEY: &str = "
    UPDATE keys SET spent_micros = spent_micros WHERE id = $1 RETURNING budget_micros, spent_micros, budget_monthly";
/// What a key has spent since $2.
pub(crate) const SPENT_SINCE: &str = "
    SELECT CAST(coalesce(sum(cost_micros), 0) AS BIGINT) FROM call_hours WHERE owner = $1 AND hour_ms >= $2";
/// What is kept for requests of a key, without that of $3.
pub(crate) const HELD: &str = "
    SELECT CAST(coalesce(sum(micros), 0) AS BIGINT) FROM holds WHERE key = $1 AND until_ms > $2 AND id <> $3";
pub(crate) const HOLD: &str = "
    INSERT INTO holds (id, key, micros, until_ms) VALUES ($1, $2, $3, $4)
    ON CONFLICT (id) DO UPDATE SET micros = excluded.micros, until_ms = excluded.until_ms";
pub(crate) const RELEASE: &str = "DELETE FROM holds WHERE id = $1";
pub(crate) const SPEND: &str = "UPDATE keys SET spent_micros = spent_micros + $1 WHERE id = $2";
pub(crate) const LIMIT_KEY: &str = "
    UPDATE keys SET budget_micros = $1, requests_per_minute = $2, models = $3, budget_monthly = $4, on_flagged = $5
    WHERE id = $6 AND revoked_ms IS NULL";

pub(crate) const CLAIM_ANSWER: &str = "
    INSERT INTO answers (owner, key, request, until_ms) VALUES ($1, $2, $3, $4) ON CONFLICT (owner, key) DO NOTHING";
pub(crate) const ANSWER: &str =
    "SELECT request, status, headers, body FROM answers WHERE owner = $1 AND key = $2";
pub(crate) const KEEP_ANSWER: &str = "
    UPDATE answers SET status = $1, headers = $2, body = $3, until_ms = $4 WHERE owner = $5 AND key = $6";
pub(crate) const FORGET_ANSWER: &str = "DELETE FROM answers WHERE owner = $1 AND key = $2";
pub(crate) const FORGET_LATE_ANSWER: &str =
    "DELETE FROM answers WHERE owner = $1 AND key = $2 AND until_ms <= $3";

pub(crate) const SWEEP_ANSWERS: &str = "DELETE FROM answers WHERE until_ms <= $1";
pub(crate) const SWEEP_HOLDS: &str = "DELETE FROM holds WHERE until_ms <= $1";
/// At most $2 at a time, so that nobody waits long for the writer.
pub(crate) const SWEEP_LOG: &str = "
    DELETE FROM model_requests WHERE id IN (SELECT id FROM model_requests WHERE created_ms < $1 ORDER BY created_ms LIMIT $2)";
pub(crate) const SWEEP_HOURS: &str = "DELETE FROM call_hours WHERE hour_ms < $1";
pub(crate) const SWEEP_TIMES: &str = "DELETE FROM call_times WHERE hour_ms < $1";
