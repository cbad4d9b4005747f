//! SQLite's log goes into its file beside the writers. Left to itself, every thousandth page's writer would do it, and those who
//! submit would wait ten milliseconds and more for that.

use std::time::Duration;

use sqlx::{AnyPool, Row};

use crate::Result;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);
/// Pages of the log after which writers wait until it begins anew: 64 MB. It begins anew by itself whenever nobody writes.
const PAGES_MAX: i64 = 16_000;

/// Works until `pool` is closed.
pub(crate) async fn keep_short(pool: AnyPool) {
    while !pool.is_closed() {
        match checkpoint(&pool, "PRAGMA wal_checkpoint(PASSIVE)").await {
            Ok(pages) if pages > PAGES_MAX => {
                let begun = checkpoint(&pool, "PRAGMA wal_checkpoint(RESTART)").await;
                tracing::debug!(pages, ok = begun.is_ok(), "the database's log begins anew");
            }
            Ok(_) => {}
            Err(_) if pool.is_closed() => return,
            Err(error) => tracing::debug!(%error, "the database's log could not be emptied"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The log's length in pages.
async fn checkpoint(pool: &AnyPool, statement: &'static str) -> Result<i64> {
    Ok(sqlx::query(statement).fetch_one(pool).await?.try_get(1)?)
}
