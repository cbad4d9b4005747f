//! One pool for either database.

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

/// Opens the database at `url` and brings its tables up to date.
pub(crate) async fn open(url: &str) -> Result<(AnyPool, Dialect)> {
    sqlx::any::install_default_drivers();
    let dialect = match url.split(':').next() {
        Some("sqlite") => Dialect::Sqlite,
        Some("postgres" | "postgresql") => Dialect::Postgres,
        _ => return Err(Error::Address(url.into())),
    };
    let options = AnyPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(Duration::from_secs(30))
        .after_connect(move |connection, _| {
            Box::pin(async move {
                if dialect == Dialect::Sqlite {
                    for pragma in PRAGMAS {
                        sqlx::query(pragma).execute(&mut *connection).await?;
                    }
                }
                Ok(())
            })
        });
    let pool = options.connect(url).await?;
    sqlx::migrate!("src/sql/migrations").run(&pool).await?;
    Ok((pool, dialect))
}

/// Readers do not wait for the writer, and a commit is on the disk before it is answered.
const PRAGMAS: [&str; 4] = [
    "PRAGMA busy_timeout = 30000",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
];
