//! What was done: listed page by page, and forgotten.

use crate::queue::Queue;
use crate::request::Request;
use crate::{Result, sql};

/// Requests on one page.
const PAGE_MAX: i64 = 100;

impl Queue {
    /// The newest requests of `owner` and `endpoint` (empty: of all) that arrived before the request `before` (empty: now).
    pub async fn history(
        &self,
        owner: &str,
        endpoint: &str,
        before: &str,
        most: i64,
    ) -> Result<Vec<Request>> {
        let query = sqlx::query(sql::HISTORY)
            .bind(owner)
            .bind(endpoint)
            .bind(before)
            .bind(most.clamp(1, PAGE_MAX));
        query.fetch_all(&self.pool).await?.iter().map(Request::of).collect()
    }

    /// Forgets a request that has ended, with its logs; whether there was one.
    pub async fn delete(&self, id: &str) -> Result<bool> {
        let id = id.to_ascii_lowercase();
        let mut transaction = self.pool.begin().await?;
        let deleted = sqlx::query(sql::DELETE).bind(&id).execute(&mut *transaction).await?;
        if deleted.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query(sql::DELETE_LOGS).bind(&id).execute(&mut *transaction).await?;
        sqlx::query(sql::DELETE_PREVIEWS).bind(&id).execute(&mut *transaction).await?;
        sqlx::query(sql::DELETE_DELIVERY).bind(&id).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(true)
    }
}
