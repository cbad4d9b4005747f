//! One clock for all nodes: leases and deadlines are written by one machine and judged by another.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sqlx::{Connection, PgConnection, Row};

use crate::{Result, sql};

/// Milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Between two comparisons: clocks drift, and some are set while the server runs.
const PAUSE: Duration = Duration::from_secs(60);
/// A clock that is further off is worth a warning.
const OFF_MS: i64 = 1000;

/// `own` as the database at `url` would have it: corrected to PostgreSQL's clock, as long as somebody reads it. SQLite's is
/// this machine's own.
pub async fn shared_clock(url: &str, own: Clock) -> Result<Clock> {
    if !url.starts_with("postgres") {
        return Ok(own);
    }
    let off_ms = Arc::new(AtomicI64::new(off_ms(url, &own).await?));
    if off_ms.load(Ordering::Relaxed).abs() > OFF_MS {
        let seconds = off_ms.load(Ordering::Relaxed) as f64 / 1000.0;
        tracing::warn!(seconds, "this machine's clock is behind the database's; theirs is used");
    }
    let (read, compared) = (Arc::downgrade(&off_ms), own.clone());
    let url = url.to_string();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(PAUSE).await;
            let Some(kept) = read.upgrade() else { return };
            match self::off_ms(&url, &compared).await {
                Ok(found) => kept.store(found, Ordering::Relaxed),
                Err(error) => {
                    tracing::warn!(%error, "the clocks could not be compared; trying again")
                }
            }
        }
    });
    Ok(Arc::new(move || own() + off_ms.load(Ordering::Relaxed)))
}

/// How far the database's clock is ahead of `own`.
async fn off_ms(url: &str, own: &Clock) -> Result<i64> {
    let mut connection = PgConnection::connect(url).await?;
    let asked = own();
    let row = sqlx::query(sql::CLOCK).fetch_one(&mut connection).await?;
    let answered = own();
    connection.close().await?;
    Ok(row.try_get::<i64, _>(0)? - (asked + answered) / 2)
}
