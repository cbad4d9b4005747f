//! API keys, as hashes.

use sqlx::Row;
use sqlx::any::AnyRow;

use crate::queue::Queue;
use crate::{Error, Result, sql};

/// A key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The public half.
    pub id: String,
    /// What people call it.
    pub alias: String,
    /// Of the secret half; the secret itself is nowhere.
    pub hash: String,
    /// What it may do.
    pub scope: Scope,
    /// Its requests that may run at once.
    pub concurrency_max: i64,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// When it ended.
    pub revoked_ms: Option<i64>,
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Call models and see its own requests.
    Api,
    /// Everything.
    Admin,
}

impl Scope {
    fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Admin => "admin",
        }
    }
}

impl Key {
    fn of(row: &AnyRow) -> Result<Self> {
        let id: String = row.try_get("id")?;
        let scope = match row.try_get::<String, _>("scope")? {
            name if name == "api" => Scope::Api,
            name if name == "admin" => Scope::Admin,
            value => return Err(Error::Unknown { id, column: "scope", value }),
        };
        Ok(Self {
            alias: row.try_get("alias")?,
            hash: row.try_get("hash")?,
            scope,
            concurrency_max: row.try_get("concurrency_max")?,
            created_ms: row.try_get("created_ms")?,
            revoked_ms: row.try_get("revoked_ms")?,
            id,
        })
    }
}

impl Queue {
    /// Keeps a new key.
    pub async fn insert_key(&self, key: &Key) -> Result<()> {
        let query = sqlx::query(sql::INSERT_KEY)
            .bind(&key.id)
            .bind(&key.alias)
            .bind(&key.hash)
            .bind(key.scope.name())
            .bind(key.concurrency_max)
            .bind(key.created_ms);
        query.execute(&self.pool).await?;
        Ok(())
    }

    /// The key called `id`, revoked or not.
    pub async fn key(&self, id: &str) -> Result<Option<Key>> {
        if id.contains('\0') {
            return Ok(None); // no key has such an id, and PostgreSQL takes no such text
        }
        let row = sqlx::query(sql::KEY).bind(id).fetch_optional(&self.pool).await?;
        row.as_ref().map(Key::of).transpose()
    }

    /// All keys, oldest first.
    pub async fn keys(&self) -> Result<Vec<Key>> {
        sqlx::query(sql::KEYS).fetch_all(&self.pool).await?.iter().map(Key::of).collect()
    }

    /// Ends a key; whether it was in use.
    pub async fn revoke_key(&self, id: &str) -> Result<bool> {
        let query = sqlx::query(sql::REVOKE_KEY).bind(self.now_ms()).bind(id);
        Ok(query.execute(&self.pool).await?.rows_affected() > 0)
    }
}
