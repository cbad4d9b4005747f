//! The SQL of workers and of how busy everything is.

pub(crate) const WORKER_SEEN: &str = "
    INSERT INTO workers (id, host, since_ms, seen_ms, request, memory_bytes, memory_bytes_all) VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (id) DO UPDATE SET seen_ms = excluded.seen_ms, request = excluded.request,
        memory_bytes = excluded.memory_bytes, memory_bytes_all = excluded.memory_bytes_all";
pub(crate) const WORKER_GONE: &str = "DELETE FROM workers WHERE id = $1";
pub(crate) const WORKERS: &str = "
    SELECT id, host, since_ms, seen_ms, request, memory_bytes, memory_bytes_all FROM workers WHERE seen_ms >= $1
    ORDER BY host, since_ms, id";
pub(crate) const SWEEP_WORKERS: &str = "DELETE FROM workers WHERE seen_ms < $1";

/// The first of several nodes says it.
pub(crate) const SAMPLE_LOAD: &str = "
    INSERT INTO loads (minute_ms, queued, running, workers, memory_bytes) VALUES ($1,
        (SELECT count(*) FROM requests WHERE state = 'queued'),
        (SELECT count(*) FROM requests WHERE state = 'running'),
        (SELECT count(*) FROM workers WHERE seen_ms >= $2),
        (SELECT CAST(coalesce(sum(memory_bytes), 0) AS BIGINT) FROM workers WHERE seen_ms >= $2))
    ON CONFLICT (minute_ms) DO NOTHING";
pub(crate) const LOADS: &str = "
    SELECT (minute_ms / $3) * $3 AS at_ms, max(queued) AS queued, max(running) AS running, max(workers) AS workers,
        max(memory_bytes) AS memory_bytes
    FROM loads WHERE minute_ms >= $1 AND minute_ms < $2 GROUP BY (minute_ms / $3) * $3 ORDER BY at_ms";
pub(crate) const SWEEP_LOADS: &str = "DELETE FROM loads WHERE minute_ms < $1";
