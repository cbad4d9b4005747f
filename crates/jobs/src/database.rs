//! Connections to either database: some whose commits are on the disk before they return, some that do not wait for it.

use std::time::Duration;

use sqlx::AnyPool;
use sqlx::any::AnyPoolOptions;

use crate::{Error, Result};

/// Which of the two it is, where their SQL differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

/// Connections to a database.
const CONNECTIONS: u32 = 8;
/// Those that do not wait for the disk.
const HASTY_CONNECTIONS: u32 = 4;

/// When a commit returns. Either way what was committed survives the end of every process, `kill -9` included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commit {
    /// Once it is on the disk: it survives a failure of power.
    OnDisk,
    /// At once. A failure of power may undo the last of them, never in another order than they came: for what is worth
    /// nothing without the promise that follows it.
    Hasty,
}

/// Opens the database at `url` and brings its tables up to date; the second pool does not wait for the disk.
pub(crate) async fn open(url: &str) -> Result<(AnyPool, AnyPool, Dialect)> {
    sqlx::any::install_default_drivers();
    let dialect = match url.split(':').next() {
        Some("sqlite") => Dialect::Sqlite,
        Some("postgres" | "postgresql") => Dialect::Postgres,
        _ => return Err(Error::Address(url.into())),
    };
    let pool = options(CONNECTIONS, dialect, Commit::OnDisk).connect(url).await?;
    sqlx::migrate!("src/sql/migrations").run(&pool).await?;
    crate::pictures::prepare(&pool, dialect).await?;
    let hasty = options(HASTY_CONNECTIONS, dialect, Commit::Hasty).connect(url).await?;
    Ok((pool, hasty, dialect))
}

fn options(connections: u32, dialect: Dialect, commit: Commit) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(30))
        .after_connect(move |connection, _| {
            Box::pin(async move {
                for statement in beginning(dialect, commit) {
                    sqlx::query(*statement).execute(&mut *connection).await?;
                }
                Ok(())
            })
        })
}

/// Pages of the log after which a writer empties it, should nobody else: see [`crate::checkpoint`].
const AUTOCHECKPOINT: &str = "PRAGMA wal_autocheckpoint = 64000";

/// What a connection is told first. In SQLite readers do not wait for the writer.
fn beginning(dialect: Dialect, commit: Commit) -> &'static [&'static str] {
    match (dialect, commit) {
        (Dialect::Sqlite, Commit::OnDisk) => &[
            "PRAGMA busy_timeout = 30000",
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = FULL",
            AUTOCHECKPOINT,
            "PRAGMA foreign_keys = ON",
        ],
        (Dialect::Sqlite, Commit::Hasty) => &[
            "PRAGMA busy_timeout = 30000",
            "PRAGMA journal_mode = WAL",
            "PRAGMA synchronous = NORMAL",
            AUTOCHECKPOINT,
            "PRAGMA foreign_keys = ON",
        ],
        (Dialect::Postgres, Commit::OnDisk) => &[],
        (Dialect::Postgres, Commit::Hasty) => &["SET synchronous_commit = off"],
    }
}

/// A number that may be missing as what SQL casts to one. sqlx 0.9 declares a missing `f64` to PostgreSQL as four bytes, so that the
/// statement, once prepared, refuses the next one that is there.
pub(crate) fn decimal(value: Option<f64>) -> Option<String> {
    value.map(|value| value.to_string())
}
