//! API keys, as hashes.

use sqlx::Row;
use sqlx::any::AnyRow;
use time::{Duration, OffsetDateTime, Time};

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
    /// What it may use.
    pub limits: KeyLimits,
    /// Millionths of a dollar that it has spent; requests under way are not in it.
    pub spent_micros: i64,
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Call models and see its own requests.
    Api,
    /// Everything.
    Admin,
}

/// What a key may use of models that cost something, and what it gets to see. The default is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyLimits {
    /// Millionths of a dollar that it may spend.
    pub budget_micros: Option<i64>,
    /// In which time.
    pub budget_period: Period,
    /// Requests a minute, to all servers together.
    pub requests_per_minute: Option<u32>,
    /// Models that it may ask for, by name or as patterns with `*`; empty: all.
    pub models: Vec<String>,
    /// What becomes of its pictures that were found unsafe, by the policy's name; absent, what the request's route does.
    pub on_flagged: Option<String>,
}

/// The time in which a budget may be spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Period {
    /// All of it.
    #[default]
    Ever,
    /// Each month of UTC.
    Month,
}

impl Period {
    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ever => "ever",
            Self::Month => "month",
        }
    }

    /// When the period that holds `now_ms` began, and when the next begins; none where there is but one.
    pub(crate) fn around(self, now_ms: i64) -> Option<(i64, i64)> {
        let now = OffsetDateTime::from_unix_timestamp(now_ms.div_euclid(1000)).ok()?;
        let first = now.replace_day(1).ok()?.replace_time(Time::MIDNIGHT);
        let ms = |time: OffsetDateTime| time.unix_timestamp() * 1000;
        // No month is longer, and none is so long that this is the one after the next.
        let next = (first + Duration::days(31)).replace_day(1).ok()?;
        (self == Self::Month).then(|| (ms(first), ms(next)))
    }

    pub(crate) fn of(monthly: i64) -> Self {
        if monthly == 1 { Self::Month } else { Self::Ever }
    }

    pub(crate) fn monthly(self) -> i64 {
        i64::from(self == Self::Month)
    }
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
            limits: KeyLimits::of(row)?,
            spent_micros: row.try_get("spent_micros")?,
            id,
        })
    }
}

impl KeyLimits {
    fn of(row: &AnyRow) -> Result<Self> {
        let models: String = row.try_get("models")?;
        let per_minute: Option<i64> = row.try_get("requests_per_minute")?;
        Ok(Self {
            budget_micros: row.try_get("budget_micros")?,
            budget_period: Period::of(row.try_get("budget_monthly")?),
            requests_per_minute: per_minute.and_then(|number| number.try_into().ok()),
            models: models.lines().map(String::from).collect(),
            on_flagged: row.try_get("on_flagged")?,
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
            .bind(key.created_ms)
            .bind(key.limits.budget_micros)
            .bind(key.limits.requests_per_minute.map(i64::from))
            .bind(key.limits.models.join("\n"))
            .bind(key.limits.budget_period.monthly())
            .bind(&key.limits.on_flagged);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_begin_and_end_where_calendars_say() {
        let day = 86_400_000;
        // 31 January 2027 at 23:59:59.999, and a millisecond later.
        let (january, february, march) = (20_819 * day, 20_850 * day, 20_878 * day);
        assert_eq!(Period::Month.around(february - 1), Some((january, february)));
        assert_eq!(Period::Month.around(february), Some((february, march)));
        assert_eq!(Period::Ever.around(february), None);
    }
}
