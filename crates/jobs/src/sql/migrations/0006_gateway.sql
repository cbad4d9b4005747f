-- What a key may use of models that cost something, and what it has spent; amounts are millionths of a dollar.
ALTER TABLE keys ADD COLUMN budget_micros BIGINT;
ALTER TABLE keys ADD COLUMN requests_per_minute BIGINT;
ALTER TABLE keys ADD COLUMN models TEXT NOT NULL DEFAULT '';   -- patterns, one a line; none: all
ALTER TABLE keys ADD COLUMN spent_micros BIGINT NOT NULL DEFAULT 0;

-- Parts of budgets that are kept for requests under way. What its server does not settle is free again in time.
CREATE TABLE holds (
    id TEXT PRIMARY KEY,              -- the request's, and the call's
    key TEXT NOT NULL,
    micros BIGINT NOT NULL,
    until_ms BIGINT NOT NULL
);
CREATE INDEX holds_by_key ON holds (key, until_ms, micros);
CREATE INDEX holds_by_time ON holds (until_ms);

-- The log of requests for models: no prompt and no picture.
CREATE TABLE model_requests (
    id TEXT PRIMARY KEY,              -- req_ and a UUID of version 7, so that order of ids is order of arrival
    owner TEXT NOT NULL,              -- the key's id, or `local`
    model TEXT NOT NULL,
    mode TEXT NOT NULL,
    status TEXT NOT NULL,             -- completed, upstream_failure, rejected, cancelled
    provider TEXT,                    -- who made the first picture
    deployment TEXT,
    upstream TEXT,                    -- the model's name there
    pictures BIGINT NOT NULL,
    cost_micros BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    duration_us BIGINT NOT NULL,
    upstream_us BIGINT NOT NULL,      -- of that, waiting for providers
    error_code TEXT,
    error TEXT,
    user_name TEXT,                   -- whom the caller acts for
    trace TEXT,
    attempts TEXT NOT NULL            -- JSON
);
CREATE INDEX model_requests_by_owner ON model_requests (owner, id);
CREATE INDEX model_requests_by_time ON model_requests (created_ms);

-- Calls of an hour, added up.
CREATE TABLE call_hours (
    hour_ms BIGINT NOT NULL,
    deployment TEXT NOT NULL,
    owner TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    calls BIGINT NOT NULL,
    completed BIGINT NOT NULL,
    faults BIGINT NOT NULL,           -- the provider's; the rest is the caller's, or load
    pictures BIGINT NOT NULL,
    cost_micros BIGINT NOT NULL,
    completed_us BIGINT NOT NULL,     -- duration of all that were completed
    PRIMARY KEY (hour_ms, deployment, owner)
);

-- How many calls of an hour took how long: buckets of a logarithmic scale, which are added up over any window.
CREATE TABLE call_times (
    hour_ms BIGINT NOT NULL,
    deployment TEXT NOT NULL,
    kind TEXT NOT NULL,               -- total, of those completed; first_byte, of all that were answered
    bucket BIGINT NOT NULL,
    calls BIGINT NOT NULL,
    PRIMARY KEY (hour_ms, deployment, kind, bucket)
);

-- Answers to requests that carry an idempotency key.
CREATE TABLE answers (
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    request TEXT NOT NULL,            -- digest of what was asked
    status BIGINT,                    -- none while it is worked on
    headers TEXT,                     -- JSON
    body TEXT,
    until_ms BIGINT NOT NULL,
    PRIMARY KEY (owner, key)
);
CREATE INDEX answers_by_time ON answers (until_ms);
