//! What can go wrong with the queue.

/// Why the queue could not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database failed; nothing was changed.
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    /// The tables could not be brought up to date.
    #[error("the database's tables cannot be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The address is of no database that is supported.
    #[error("`{0}` is no database; use sqlite://FILE or postgres://USER@HOST/NAME")]
    Address(String),
    /// Too many requests wait already.
    #[error("{waiting} requests wait already; the most is {most}. Try again later.")]
    Full {
        /// Those that wait.
        waiting: i64,
        /// The limit.
        most: i64,
    },
    /// Too many requests of one owner wait already.
    #[error("{waiting} requests of this key wait already; the most is {most}. Try again later.")]
    OwnerFull {
        /// Those that wait.
        waiting: i64,
        /// The limit.
        most: i64,
    },
    /// Somebody else has the request by now, or it has ended.
    #[error("the lease on request {0} is lost")]
    LeaseLost(String),
    /// Nothing after which a page of the history could begin.
    #[error("`{0}` is no page's end; take the cursor that came with the page before")]
    Cursor(String),
    /// The queue is shutting down.
    #[error("the queue is shutting down")]
    Closed,
    /// A row that this version did not write.
    #[error("request {id}: `{column}` is `{value}`, which this version does not know")]
    Unknown {
        /// The request.
        id: String,
        /// The column.
        column: &'static str,
        /// What it holds.
        value: String,
    },
}

/// The crate's results.
pub type Result<T> = std::result::Result<T, Error>;
