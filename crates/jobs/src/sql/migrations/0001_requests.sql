-- Times are milliseconds since 1970 in UTC; flags are 0 or 1. Both databases read every type here alike.
CREATE TABLE requests (
    id TEXT PRIMARY KEY,              -- a UUID of version 7, so that order of ids is order of arrival
    endpoint TEXT NOT NULL,
    owner TEXT NOT NULL,              -- the key's id, or `local`
    state TEXT NOT NULL,              -- queued, running, done
    outcome TEXT,                     -- completed, failed, cancelled; once done
    priority BIGINT NOT NULL,         -- 0 before 1
    keep_io BIGINT NOT NULL,          -- whether input and output stay in the history
    input TEXT NOT NULL,              -- as it was sent
    task TEXT NOT NULL,               -- as it is to be done
    concurrency_max BIGINT NOT NULL,  -- running requests of one owner
    attempts BIGINT NOT NULL DEFAULT 0,
    attempts_max BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    available_ms BIGINT NOT NULL,     -- not before; later after a failed attempt
    start_by_ms BIGINT,
    started_ms BIGINT,
    finished_ms BIGINT,
    lease TEXT,                       -- who works on it, new with each attempt
    lease_until_ms BIGINT,
    cancel BIGINT NOT NULL DEFAULT 0,
    status_code BIGINT,               -- of the answer
    response TEXT,
    error TEXT,
    error_type TEXT,
    inference_ms BIGINT,
    billable_units DOUBLE PRECISION,
    webhook TEXT
);
CREATE INDEX requests_by_state ON requests (state, priority, id);
CREATE INDEX requests_by_owner ON requests (owner, id);
CREATE INDEX requests_by_lease ON requests (state, lease_until_ms);
CREATE INDEX requests_by_end ON requests (state, finished_ms);

CREATE TABLE logs (
    request TEXT NOT NULL,
    number BIGINT NOT NULL,
    at_ms BIGINT NOT NULL,
    level TEXT NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (request, number)
);

CREATE TABLE deliveries (
    request TEXT PRIMARY KEY,
    url TEXT NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0,
    due_ms BIGINT,                    -- none once delivered or given up
    delivered_ms BIGINT,
    error TEXT
);
CREATE INDEX deliveries_by_time ON deliveries (due_ms);

CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    alias TEXT NOT NULL,
    hash TEXT NOT NULL,
    scope TEXT NOT NULL,
    concurrency_max BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    revoked_ms BIGINT
);
