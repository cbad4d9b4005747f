//! What was done: listed page by page, and forgotten.

use crate::queue::Queue;
use crate::request::{Standing, canonical};
use crate::{Error, Result, sql};

/// Requests on one page.
const PAGE_MAX: i64 = 100;

/// Which files go with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Files {
    /// Those that have no time of their own.
    WithoutTime,
    /// All that it made.
    All,
}

impl Queue {
    /// The newest requests of `owner` and `endpoint` (empty: of all) that arrived before the request `before` (empty: now).
    pub async fn history(
        &self,
        owner: &str,
        endpoint: &str,
        before: &str,
        most: i64,
    ) -> Result<Vec<Standing>> {
        let before = match before {
            "" => String::new(),
            id => canonical(id).ok_or_else(|| Error::Cursor(id.into()))?,
        };
        if [owner, endpoint].iter().any(|name| name.contains('\0')) {
            return Ok(Vec::new()); // nothing has such a name, and PostgreSQL takes none
        }
        let query = sqlx::query(sql::HISTORY)
            .bind(owner)
            .bind(endpoint)
            .bind(before)
            .bind(most.clamp(1, PAGE_MAX));
        query.fetch_all(&self.pool).await?.iter().map(Standing::of).collect()
    }

    /// Forgets a request that has ended, with its logs, and lets all its files be deleted; whether there was one.
    pub async fn delete(&self, id: &str) -> Result<bool> {
        match canonical(id) {
            Some(id) => self.forget(&id, Files::All).await,
            None => Ok(false),
        }
    }

    pub(crate) async fn forget(&self, id: &str, files: Files) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        let deleted = sqlx::query(sql::DELETE).bind(id).execute(&mut *transaction).await?;
        if deleted.rows_affected() == 0 {
            return Ok(false);
        }
        let due = sqlx::query(sql::FILES_ARE_DUE).bind(self.now_ms()).bind(id);
        due.bind(i64::from(files == Files::All)).execute(&mut *transaction).await?;
        sqlx::query(sql::DELETE_LOGS).bind(id).execute(&mut *transaction).await?;
        sqlx::query(sql::DELETE_PREVIEWS).bind(id).execute(&mut *transaction).await?;
        sqlx::query(sql::DELETE_DELIVERY).bind(id).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(true)
    }
}
