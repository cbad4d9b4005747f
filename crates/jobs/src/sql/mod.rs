//! The only SQL. One text for both databases wherever they agree, which is nearly everywhere.

pub(crate) mod arena;
pub(crate) mod calls;
pub(crate) mod load;
pub(crate) mod performance;
pub(crate) mod pictures;
mod plans;
pub(crate) mod shared;
pub(crate) mod training;

/// Where a request stands. What it was sent and what it answers may be a hundred megabytes, and is in no list.
macro_rules! standing {
    () => {
        "id, endpoint, owner, state, outcome, priority, keep_io, attempts, attempts_max, created_ms, started_ms, finished_ms, \
         cancel, status_code, error, error_type, inference_ms, billable_units, unit_price, webhook, base, trace, flagged"
    };
}

/// All of a request.
macro_rules! columns {
    () => {
        concat!(standing!(), ", input, task, response")
    };
}

pub(crate) const INSERT: &str = "
    INSERT INTO requests (id, endpoint, owner, state, priority, keep_io, input, task, concurrency_max, attempts_max, \
        created_ms, available_ms, start_by_ms, webhook, receiver, base, unit_price, trace)
    VALUES ($1, $2, $3, 'queued', $4, $5, $6, $7, $8, $9, $10, $10, $11, $12, $13, $14, CAST($15 AS DOUBLE PRECISION), $16)";

pub(crate) const COUNT_QUEUED: &str = "SELECT count(*) FROM requests WHERE state = 'queued'";

/// How many wait of each owner.
pub(crate) const QUEUED_BY_OWNER: &str =
    "SELECT owner, count(*) FROM requests WHERE state = 'queued' GROUP BY owner";

pub(crate) const BY_ID: &str = concat!("SELECT ", columns!(), " FROM requests WHERE id = $1");

pub(crate) const STANDING: &str = concat!("SELECT ", standing!(), " FROM requests WHERE id = $1");

/// Requests that will be taken before this one.
pub(crate) const POSITION: &str =
    "SELECT count(*) FROM requests WHERE state = 'queued' AND (priority, id) < ($1, $2)";

/// All that wait, in the order in which they are taken.
pub(crate) const LINE: &str =
    "SELECT priority, id FROM requests WHERE state = 'queued' ORDER BY priority, id";

macro_rules! claim {
    ($lock:literal) => {
        concat!(
            "UPDATE requests SET state = 'running', attempts = attempts + 1, lease = $1, lease_until_ms = $2, \
                started_ms = $3
             WHERE id = (
                SELECT id FROM requests
                WHERE state = 'queued' AND available_ms <= $3 AND (start_by_ms IS NULL OR start_by_ms > $3) AND cancel = 0
                    AND owner NOT IN (SELECT owner FROM requests WHERE state = 'running'
                                      GROUP BY owner HAVING count(*) >= max(concurrency_max))
                ORDER BY priority, id LIMIT 1 ",
            $lock,
            ") RETURNING ",
            columns!()
        )
    };
}

/// SQLite has one writer, so nobody else can take what was selected.
pub(crate) const CLAIM_SQLITE: &str = claim!("");
/// PostgreSQL's workers step over what another is taking.
pub(crate) const CLAIM_POSTGRES: &str = claim!("FOR UPDATE SKIP LOCKED");
/// Until the transaction ends, no other claims: two at once would each count what runs without the other's. PostgreSQL only.
pub(crate) const CLAIM_ALONE: &str = "SELECT 1 FROM pg_advisory_xact_lock(7860)";

/// Whether the holder of a lease is asked to stop.
pub(crate) const CANCEL_ASKED: &str = "SELECT cancel FROM requests WHERE id = $1 AND lease = $2";

/// Prolongs a lease; tells whether cancelling was asked for.
pub(crate) const HEARTBEAT: &str = "
    UPDATE requests SET lease_until_ms = $1 WHERE id = $2 AND lease = $3 AND state = 'running' RETURNING cancel";

/// The end of an attempt that still holds its lease: whoever lost it changes nothing.
pub(crate) const FINISH: &str = "
    UPDATE requests SET state = 'done', outcome = $1, finished_ms = $2, status_code = $3, response = $4, error = $5,
        error_type = $6, inference_ms = $7, billable_units = CAST($8 AS DOUBLE PRECISION), flagged = $9, lease = NULL,
        lease_until_ms = NULL, input = CASE WHEN keep_io = 1 THEN input ELSE '{}' END, task = '{}'
    WHERE id = $10 AND lease = $11 AND state = 'running'";

/// The attempt goes back into the queue, to be taken no earlier than `available_ms`; not if it is to be cancelled.
pub(crate) const HAND_BACK: &str = "
    UPDATE requests SET state = 'queued', available_ms = $1, lease = NULL, lease_until_ms = NULL, started_ms = NULL,
        attempts = attempts - $2
    WHERE id = $3 AND lease = $4 AND state = 'running' AND cancel = 0";

macro_rules! seize {
    ($lock:literal) => {
        concat!(
            "UPDATE requests SET lease = $1, lease_until_ms = $2 WHERE id = (
                SELECT id FROM requests WHERE state = 'running' AND lease_until_ms < $3 ORDER BY lease_until_ms LIMIT 1 ",
            $lock,
            ") RETURNING id, attempts, attempts_max"
        )
    };
}

/// Takes a running request from a worker that has gone; not from one that prolongs its lease at this moment.
pub(crate) const SEIZE_SQLITE: &str = seize!("");
/// The same.
pub(crate) const SEIZE_POSTGRES: &str = seize!("FOR UPDATE SKIP LOCKED");

/// Queued requests whose time to start has passed.
pub(crate) const OVERDUE: &str = "
    SELECT id FROM requests WHERE state = 'queued' AND start_by_ms <= $1 ORDER BY start_by_ms LIMIT 100";

/// Queued requests that somebody asked to cancel and then did not end.
pub(crate) const TO_CANCEL: &str =
    "SELECT id FROM requests WHERE state = 'queued' AND cancel = 1 ORDER BY id LIMIT 100";

/// The end of a request that nobody works on.
pub(crate) const END_QUEUED: &str = "
    UPDATE requests SET state = 'done', outcome = $1, finished_ms = $2, status_code = $3, response = $4, error = $5,
        error_type = $6, input = CASE WHEN keep_io = 1 THEN input ELSE '{}' END, task = '{}'
    WHERE id = $7 AND state = 'queued'";

/// From now on no attempt begins; whoever runs one hears of it.
pub(crate) const ASK_TO_CANCEL: &str =
    "UPDATE requests SET cancel = 1 WHERE id = $1 AND state <> 'done' RETURNING state";

pub(crate) const INSERT_LOG: &str = "
    INSERT INTO logs (request, number, at_ms, level, message)
    SELECT $1, (SELECT coalesce(max(number) + 1, 0) FROM logs WHERE request = $1), $2, $3, $4";

pub(crate) const LOGS: &str = "
    SELECT number, at_ms, level, message FROM logs WHERE request = $1 AND number >= $2 ORDER BY number LIMIT $3";

/// What is not to be kept is shown until it ends, so that it can be cancelled.
macro_rules! history {
    ($after:literal, $order:literal) => {
        concat!(
            "SELECT ",
            standing!(),
            " FROM requests WHERE (keep_io = 1 OR state <> 'done') AND ($1 = '' OR owner = $1) AND ($2 = '' OR endpoint = $2)
                AND created_ms >= $3 AND created_ms < $4
                AND ($5 = '' OR $5 = CASE WHEN state <> 'done' THEN '-' WHEN outcome = 'completed' THEN 'success'
                                          WHEN status_code BETWEEN 400 AND 499 THEN 'user_error' ELSE 'error' END)
                AND ($6 = '' OR ",
            $after,
            ") ORDER BY ",
            $order,
            " LIMIT $7"
        )
    };
}

pub(crate) const HISTORY: &str = history!("id < $6", "id DESC");
pub(crate) const HISTORY_BY_END: &str =
    history!("(coalesce(finished_ms, 0), id) < ($8, $6)", "coalesce(finished_ms, 0) DESC, id DESC");
pub(crate) const HISTORY_BY_DURATION: &str = history!(
    "(coalesce(inference_ms, 0), id) < ($8, $6)",
    "coalesce(inference_ms, 0) DESC, id DESC"
);

pub(crate) const DELETE: &str = "DELETE FROM requests WHERE id = $1 AND state = 'done'";
pub(crate) const DELETE_LOGS: &str = "DELETE FROM logs WHERE request = $1";
pub(crate) const DELETE_DELIVERY: &str = "DELETE FROM deliveries WHERE request = $1";
/// What ended before $2, and has told its webhook or given that up.
pub(crate) const EXPIRED: &str = "
    SELECT id FROM requests WHERE state = 'done' AND keep_io = $1 AND finished_ms < $2
        AND NOT EXISTS (SELECT 1 FROM deliveries WHERE deliveries.request = requests.id AND due_ms IS NOT NULL)
    ORDER BY finished_ms LIMIT $3";
pub(crate) const DELETE_PREVIEWS: &str = "DELETE FROM previews WHERE request = $1";

pub(crate) const COUNT_RUNNING: &str = "
    SELECT count(*) FROM requests WHERE state = 'running' AND ($1 = '' OR owner = $1)";

/// Not for a request that was forgotten meanwhile: nothing would find the file again.
pub(crate) const INSERT_FILE: &str = "
    INSERT INTO files (name, owner, request, size, created_ms, expires_ms)
    SELECT $1, $2, $3, $4, $5, $6 WHERE $3 IS NULL OR EXISTS (SELECT 1 FROM requests WHERE id = $3)";
/// The name is taken; its bytes come.
pub(crate) const RESERVE_FILE: &str = "
    INSERT INTO files (name, owner, size, created_ms, expires_ms) VALUES ($1, $2, -1, $3, $4) ON CONFLICT (name) DO NOTHING";
pub(crate) const FILL_FILE: &str =
    "UPDATE files SET size = $1, expires_ms = $2 WHERE name = $3 AND size < 0";
pub(crate) const FILE: &str = "
    SELECT name, owner, request, size, created_ms, expires_ms FROM files WHERE name = $1";
pub(crate) const FILES_OF: &str = "SELECT name FROM files WHERE request = $1";
pub(crate) const FILES_TO_DELETE: &str =
    "SELECT name FROM files WHERE expires_ms <= $1 ORDER BY expires_ms LIMIT $2";
/// With its request go the files that have no time of their own, or ($3 is 1) all of them.
pub(crate) const FILES_ARE_DUE: &str =
    "UPDATE files SET expires_ms = $1 WHERE request = $2 AND (expires_ms IS NULL OR $3 = 1)";
pub(crate) const DELETE_FILE: &str = "DELETE FROM files WHERE name = $1";

pub(crate) const INSERT_PREVIEW: &str = "
    INSERT INTO previews (request, number, steps, picture) VALUES ($1, $2, $3, $4) ON CONFLICT (request, number) DO NOTHING";
pub(crate) const PREVIEWS: &str = "
    SELECT number, steps, picture FROM previews WHERE request = $1 AND number > $2 ORDER BY number";

pub(crate) const SECRET: &str = "SELECT value FROM secrets WHERE name = $1";
pub(crate) const INSERT_SECRET: &str = "
    INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";

/// Milliseconds since 1970 by the clock that all nodes share. PostgreSQL only.
pub(crate) const CLOCK: &str =
    "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";

/// PostgreSQL only.
pub(crate) const NOTIFY: &str = "SELECT pg_notify($1, $2)";

pub(crate) const INSERT_DELIVERY: &str = "
    INSERT INTO deliveries (request, url, receiver, due_ms)
    SELECT id, webhook, coalesce(receiver, ''), $2 FROM requests WHERE id = $1 AND webhook IS NOT NULL ON CONFLICT (request) DO NOTHING";

macro_rules! due {
    ($lock:literal) => {
        concat!(
            "UPDATE deliveries SET due_ms = $1, attempts = attempts + 1 WHERE request = (
                SELECT request FROM deliveries WHERE due_ms <= $2 AND receiver NOT IN ($3, $4, $5, $6) ORDER BY due_ms LIMIT 1 ",
            $lock,
            ") RETURNING request, url, receiver, attempts"
        )
    };
}

/// Whether there may be one: looking takes no writer's turn.
pub(crate) const ANY_DUE: &str = "SELECT 1 FROM deliveries WHERE due_ms <= $1 LIMIT 1";
/// Takes a delivery to a receiver that has room and sets when it is tried again should its sender die.
pub(crate) const DUE_SQLITE: &str = due!("");
/// The same.
pub(crate) const DUE_POSTGRES: &str = due!("FOR UPDATE SKIP LOCKED");

pub(crate) const DELIVERED: &str =
    "UPDATE deliveries SET due_ms = NULL, delivered_ms = $1, error = NULL WHERE request = $2";
pub(crate) const UNDELIVERED: &str =
    "UPDATE deliveries SET due_ms = $1, error = $2 WHERE request = $3";
pub(crate) const DELIVERY: &str =
    "SELECT url, attempts, due_ms, delivered_ms, error FROM deliveries WHERE request = $1";

macro_rules! key {
    () => {
        "SELECT id, alias, hash, scope, concurrency_max, created_ms, revoked_ms, budget_micros, requests_per_minute, models, \
            spent_micros, budget_monthly, on_flagged FROM keys"
    };
}

pub(crate) const INSERT_KEY: &str = "
    INSERT INTO keys (id, alias, hash, scope, concurrency_max, created_ms, budget_micros, requests_per_minute, models, \
        budget_monthly, on_flagged)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
pub(crate) const KEY: &str = concat!(key!(), " WHERE id = $1");
pub(crate) const KEYS: &str = concat!(key!(), " ORDER BY created_ms, id");
pub(crate) const REVOKE_KEY: &str =
    "UPDATE keys SET revoked_ms = $1 WHERE id = $2 AND revoked_ms IS NULL";
