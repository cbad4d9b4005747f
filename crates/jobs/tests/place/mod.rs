//! A database of a test's own: a file or, where ZOETROPE_TEST_POSTGRES names a server, one on PostgreSQL. With
//! `python tests/services.py cargo test -p zoetrope-jobs` the same tests run there.

#![allow(dead_code)] // each test file uses what it needs

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tempfile::TempDir;
use zoetrope_jobs::{Attempt, End, Limits, New, Outcome, Priority, Queue, Settings};

/// What `services.py` sets.
const POSTGRES: &str = "ZOETROPE_TEST_POSTGRES";

/// Where a database is; a file is gone with it.
pub(crate) struct Place {
    pub(crate) url: String,
    _folder: TempDir,
}

impl Place {
    /// On PostgreSQL if a server was named, else in a file.
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = match server() {
            Some(server) => fresh(&server).await,
            None => format!("sqlite://{}/queue.db?mode=rwc", folder.path().display()),
        };
        Self { url, _folder: folder }
    }

    /// On PostgreSQL.
    pub(crate) async fn postgres() -> Self {
        let server = server()
            .unwrap_or_else(|| panic!("{POSTGRES} names no server; tests/services.py starts one"));
        Self { url: fresh(&server).await, _folder: tempfile::tempdir().unwrap() }
    }

    /// A queue on it whose clock is `clock`.
    pub(crate) async fn open(&self, clock: &Arc<AtomicI64>, limits: Limits) -> Queue {
        let clock = clock.clone();
        let now_ms = Arc::new(move || clock.load(Ordering::Relaxed));
        Queue::open(Settings { url: self.url.clone(), limits, now_ms }).await.unwrap()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "which server there is, only whoever starts the tests can say"
)]
fn server() -> Option<String> {
    std::env::var(POSTGRES).ok()
}

/// Another database beside the one at `server`.
async fn fresh(server: &str) -> String {
    let name = format!("test_{}", uuid::Uuid::now_v7().simple());
    let mut connection = PgConnection::connect(server).await.unwrap();
    let statement = AssertSqlSafe(format!("CREATE DATABASE {name}"));
    sqlx::query(statement).execute(&mut connection).await.unwrap();
    let (front, _) = server.rsplit_once('/').unwrap();
    format!("{front}/{name}")
}

/// A request like any other.
pub(crate) fn new() -> New {
    New {
        endpoint: "fal-ai/z-image/turbo".into(),
        owner: "local".into(),
        priority: Priority::Normal,
        keep_io: true,
        input: r#"{"prompt":"a fox"}"#.into(),
        task: "{}".into(),
        concurrency_max: 10,
        retry: true,
        start_within_ms: None,
        webhook: None,
        base: "http://127.0.0.1:7860".into(),
        unit_price: Some(0.5),
        trace: None,
    }
}

/// The end of a request that went well.
pub(crate) fn done() -> End {
    End {
        outcome: Outcome::Completed,
        status_code: 200,
        response: r#"{"images":[]}"#.into(),
        error: None,
        error_type: None,
        inference_ms: Some(1234),
        billable_units: Some(0.786432),
        flagged: None,
    }
}

/// Claims and completes until nothing is left; the ids in the order in which they came.
pub(crate) async fn work_through(queue: Queue) -> Vec<String> {
    let mut ids = Vec::new();
    while let Some(lease) = queue.claim().await.unwrap() {
        ids.push(lease.request.id.clone());
        lease.finish(Attempt::End(done())).await.unwrap();
    }
    ids
}
