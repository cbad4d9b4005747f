//! What all nodes share and nobody else may know: made once, by whoever comes first.

use sqlx::Row;

use crate::queue::Queue;
use crate::{Result, sql};

impl Queue {
    /// The secret called `name`; the first to ask decides it with `make`.
    pub async fn secret(&self, name: &str, make: impl FnOnce() -> String) -> Result<String> {
        if let Some(row) = sqlx::query(sql::SECRET).bind(name).fetch_optional(&self.pool).await? {
            return Ok(row.try_get(0)?);
        }
        sqlx::query(sql::INSERT_SECRET).bind(name).bind(make()).execute(&self.pool).await?;
        Ok(sqlx::query(sql::SECRET).bind(name).fetch_one(&self.pool).await?.try_get(0)?)
    }
}
