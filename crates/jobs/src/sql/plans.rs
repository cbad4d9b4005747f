//! What SQLite reads for the statements that run again and again: never a whole table, and nothing is sorted.

#![cfg(test)]
#![allow(clippy::unwrap_used)]

use sqlx::{Connection, Row, SqliteConnection};

use super::*;

async fn plan(statement: &'static str) -> Vec<String> {
    let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    sqlx::migrate!("src/sql/migrations").run(&mut connection).await.unwrap();
    let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
    let rows = sqlx::query(explain).fetch_all(&mut connection).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>("detail")).collect()
}

#[tokio::test]
async fn what_is_looked_for_again_and_again_is_found_by_an_index() {
    let cases = [
        (EXPIRED, "requests_by_end (keep_io=? AND finished_ms<?)"),
        (FILES_TO_DELETE, "files_by_end (expires_ms<?)"),
        (OVERDUE, "requests_to_start (state=? AND start_by_ms<?)"),
        (TO_CANCEL, "requests_to_cancel (state=? AND cancel=?)"),
        (SEIZE_SQLITE, "requests_by_lease (state=? AND lease_until_ms<?)"),
        (POSITION, "requests_waiting (state=? AND (priority,id)<(?,?))"),
        (LINE, "COVERING INDEX requests_waiting (state=?)"),
        (CLAIM_SQLITE, "COVERING INDEX requests_waiting (state=?)"),
        (QUEUED_BY_OWNER, "COVERING INDEX requests_waiting (state=?)"),
        (ANY_DUE, "deliveries_by_time (due_ms<?)"),
        (DUE_SQLITE, "deliveries_by_time (due_ms<?)"),
    ];
    for (statement, index) in cases {
        let plan = plan(statement).await;
        assert!(plan.iter().any(|line| line.contains(index)), "{statement}: {plan:#?}");
        let slow = |line: &String| line.starts_with("SCAN") || line.contains("FOR ORDER BY");
        assert!(!plan.iter().any(slow), "{statement}: {plan:#?}");
    }
}
