//! Which files there are, whose, and until when. The bytes lie in a store that the queue does not know.

use sqlx::Row;

use crate::queue::Queue;
use crate::{Error, Result, sql};

/// A stored file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRow {
    /// Its name in the store.
    pub name: String,
    /// The key's id, or `local`.
    pub owner: String,
    /// The request that made it.
    pub request: Option<String>,
    /// Bytes; -1 while they are still to come.
    pub size: i64,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// When it is deleted; `None` for as long as its request, or for good.
    pub expires_ms: Option<i64>,
}

impl Queue {
    /// Remembers a file. One name is one file: a second time is an error of the database. A file of a request that was
    /// forgotten meanwhile is [`Error::LeaseLost`]: whoever made it works for nobody.
    pub async fn insert_file(&self, file: &FileRow) -> Result<()> {
        let query = sqlx::query(sql::INSERT_FILE)
            .bind(&file.name)
            .bind(&file.owner)
            .bind(file.request.clone())
            .bind(file.size)
            .bind(file.created_ms)
            .bind(file.expires_ms);
        if query.execute(&self.pool).await?.rows_affected() == 0 {
            return Err(Error::LeaseLost(file.request.clone().unwrap_or_default()));
        }
        Ok(())
    }

    /// Takes the name of a file whose bytes are still to come, until `until_ms`; whether it was free. So of two who send
    /// the same file at once only one does.
    pub async fn reserve_file(&self, file: &FileRow, until_ms: i64) -> Result<bool> {
        let query = sqlx::query(sql::RESERVE_FILE)
            .bind(&file.name)
            .bind(&file.owner)
            .bind(file.created_ms)
            .bind(until_ms);
        Ok(query.execute(&self.pool).await?.rows_affected() > 0)
    }

    /// The bytes of a reserved file are there; `false` if the time for them was over.
    pub async fn fill_file(&self, file: &FileRow) -> Result<bool> {
        let query =
            sqlx::query(sql::FILL_FILE).bind(file.size).bind(file.expires_ms).bind(&file.name);
        Ok(query.execute(&self.pool).await?.rows_affected() > 0)
    }

    /// The file called `name`.
    pub async fn file(&self, name: &str) -> Result<Option<FileRow>> {
        let Some(row) = sqlx::query(sql::FILE).bind(name).fetch_optional(&self.pool).await? else {
            return Ok(None);
        };
        Ok(Some(FileRow {
            name: row.try_get(0)?,
            owner: row.try_get(1)?,
            request: row.try_get(2)?,
            size: row.try_get(3)?,
            created_ms: row.try_get(4)?,
            expires_ms: row.try_get(5)?,
        }))
    }

    /// Files whose time is over, at most `most`. Those without a time of their own are due once their request is forgotten.
    pub async fn files_to_delete(&self, most: i64) -> Result<Vec<String>> {
        let query = sqlx::query(sql::FILES_TO_DELETE).bind(self.now_ms()).bind(most);
        let rows = query.fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Names of the files that `request` made.
    pub async fn files_of(&self, request: &str) -> Result<Vec<String>> {
        let rows = sqlx::query(sql::FILES_OF).bind(request).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Forgets a file, once its bytes are gone.
    pub async fn forget_file(&self, name: &str) -> Result<()> {
        sqlx::query(sql::DELETE_FILE).bind(name).execute(&self.pool).await?;
        sqlx::query(sql::pictures::DELETE_BY_FILE).bind(name).execute(&self.pool).await?;
        Ok(())
    }
}
