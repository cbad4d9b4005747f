-- Whether a key's budget is that of each month (of UTC), or one in all.
ALTER TABLE keys ADD COLUMN budget_monthly BIGINT NOT NULL DEFAULT 0;
CREATE INDEX call_hours_by_owner ON call_hours (owner, hour_ms, cost_micros);

-- How much of the time to come is taken by requests of a key or by calls to a provider: what all servers count together.
CREATE TABLE paces (
    name TEXT PRIMARY KEY,
    taken_us BIGINT NOT NULL          -- microseconds since 1970
);

-- Health of deployments, as the servers of a database tell each other.
CREATE TABLE health (
    deployment TEXT PRIMARY KEY,
    open_until_ms BIGINT,             -- none: it is asked like the others
    pause_ms BIGINT NOT NULL,
    cool_until_ms BIGINT,
    changed_ms BIGINT NOT NULL
);

-- What a request has put at addresses of ours, as JSON, and when that was deleted because somebody asked for it.
ALTER TABLE model_requests ADD COLUMN files TEXT NOT NULL DEFAULT '[]';
ALTER TABLE model_requests ADD COLUMN purged_ms BIGINT;
