//! Health of deployments, as the servers of a database tell each other.

use sqlx::Row;
use sqlx::any::AnyRow;

use crate::Result;
use crate::queue::Queue;
use crate::sql::shared as sql;

/// What a server knows of a deployment that the others should know too. Times are milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// As `fal/z-image-turbo`.
    pub deployment: String,
    /// Until when it is left alone after faults; `None` where it is asked like the others.
    pub open_until_ms: Option<i64>,
    /// For how long in all, which the next fault doubles.
    pub pause_ms: i64,
    /// Until when it is asked last, as it said.
    pub cool_until_ms: Option<i64>,
    /// Since when that is so.
    pub changed_ms: i64,
}

impl Queue {
    /// Tells the others, unless one of them has told something later.
    pub async fn tell_health(&self, health: &Health) -> Result<()> {
        let query = sqlx::query(sql::TELL_HEALTH)
            .bind(&health.deployment)
            .bind(health.open_until_ms)
            .bind(health.pause_ms)
            .bind(health.cool_until_ms)
            .bind(health.changed_ms);
        query.execute(&self.hasty).await?;
        Ok(())
    }

    /// What was told from `from_ms` on.
    pub async fn health(&self, from_ms: i64) -> Result<Vec<Health>> {
        let rows = sqlx::query(sql::HEALTH).bind(from_ms).fetch_all(&self.pool).await?;
        let health = |row: &AnyRow| -> Result<Health> {
            Ok(Health {
                deployment: row.try_get(0)?,
                open_until_ms: row.try_get(1)?,
                pause_ms: row.try_get(2)?,
                cool_until_ms: row.try_get(3)?,
                changed_ms: row.try_get(4)?,
            })
        };
        rows.iter().map(health).collect()
    }
}
