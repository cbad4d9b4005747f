//! Pictures of what is not finished, for those who watch; they go with the end of the request.

use sqlx::Row;

use crate::lease::Lease;
use crate::queue::Queue;
use crate::{Result, sql};

/// What a picture looks like after a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preview {
    /// Steps taken, from 1.
    pub step: i64,
    /// Steps in all.
    pub of: i64,
    /// A data URI.
    pub picture: String,
}

impl Lease {
    /// Shows what the picture looks like now.
    pub async fn preview(&self, preview: &Preview) -> Result<()> {
        let query = sqlx::query(sql::INSERT_PREVIEW)
            .bind(&self.request.id)
            .bind(preview.step)
            .bind(preview.of)
            .bind(&preview.picture);
        query.execute(&self.hold.queue.hasty).await?;
        self.hold.queue.news.of(&self.request.id);
        Ok(())
    }
}

impl Queue {
    /// Previews of `request` after step `after`.
    pub async fn previews(&self, request: &str, after: i64) -> Result<Vec<Preview>> {
        let query = sqlx::query(sql::PREVIEWS).bind(request).bind(after);
        let preview = |row: &sqlx::any::AnyRow| {
            Ok(Preview { step: row.try_get(0)?, of: row.try_get(1)?, picture: row.try_get(2)? })
        };
        query.fetch_all(&self.pool).await?.iter().map(preview).collect()
    }
}
