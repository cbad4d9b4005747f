//! The SQL of what servers of one database count and know together.

/// Takes a part of the time to come ($3 microseconds, from $2 on), if no more than $4 of it is taken then.
pub(crate) const TAKE_TURN: &str = "
    INSERT INTO paces (name, taken_us) VALUES ($1, $2 + $3)
    ON CONFLICT (name) DO UPDATE SET taken_us = CASE WHEN paces.taken_us > $2 THEN paces.taken_us ELSE $2 END + $3
    WHERE CASE WHEN paces.taken_us > $2 THEN paces.taken_us ELSE $2 END + $3 - $2 <= $4";
pub(crate) const TAKEN: &str = "SELECT taken_us FROM paces WHERE name = $1";
pub(crate) const SWEEP_PACES: &str = "DELETE FROM paces WHERE taken_us < $1";

pub(crate) const TELL_HEALTH: &str = "
    INSERT INTO health (deployment, open_until_ms, pause_ms, cool_until_ms, changed_ms) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (deployment) DO UPDATE SET open_until_ms = excluded.open_until_ms, pause_ms = excluded.pause_ms,
        cool_until_ms = excluded.cool_until_ms, changed_ms = excluded.changed_ms
    WHERE excluded.changed_ms >= health.changed_ms";
pub(crate) const HEALTH: &str = "
    SELECT deployment, open_until_ms, pause_ms, cool_until_ms, changed_ms FROM health WHERE changed_ms >= $1 ORDER BY deployment";
