//! Answers that are kept for those who may ask twice: the second time nothing is made, and nothing is paid.

use sqlx::Row;

use crate::Result;
use crate::queue::Queue;
use crate::sql::calls as sql;

/// An answer as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// HTTP's.
    pub status: u16,
    /// As JSON: pairs of names and values.
    pub headers: String,
    /// All of it.
    pub body: String,
}

/// What becomes of a request that carries an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the first: whoever claimed it works on it, and keeps or forgets its answer.
    First,
    /// Somebody works on it.
    Running,
    /// It was answered.
    Answered(KeptAnswer),
    /// The key was used for something else.
    Other,
}

impl Queue {
    /// Claims `key` of `owner` for a request with the digest `request`, until `until_ms` at most.
    pub async fn claim_answer(
        &self,
        (owner, key): (&str, &str),
        request: &str,
        until_ms: i64,
    ) -> Result<Claim> {
        let late = sqlx::query(sql::FORGET_LATE_ANSWER).bind(owner).bind(key);
        late.bind(self.now_ms()).execute(&self.pool).await?;
        let claim = sqlx::query(sql::CLAIM_ANSWER).bind(owner).bind(key).bind(request);
        if claim.bind(until_ms).execute(&self.pool).await?.rows_affected() > 0 {
            return Ok(Claim::First);
        }
        let query = sqlx::query(sql::ANSWER).bind(owner).bind(key);
        // What was forgotten in between may be claimed the next time.
        let Some(row) = query.fetch_optional(&self.pool).await? else { return Ok(Claim::Running) };
        if row.try_get::<String, _>(0)? != request {
            return Ok(Claim::Other);
        }
        let status: Option<i64> = row.try_get(1)?;
        let Some(status) = status.and_then(|status| u16::try_from(status).ok()) else {
            return Ok(Claim::Running);
        };
        let (headers, body): (Option<String>, Option<String>) = (row.try_get(2)?, row.try_get(3)?);
        let (headers, body) = (headers.unwrap_or_default(), body.unwrap_or_default());
        Ok(Claim::Answered(KeptAnswer { status, headers, body }))
    }

    /// Keeps the answer to what was claimed, until `until_ms`.
    pub async fn keep_answer(
        &self,
        (owner, key): (&str, &str),
        answer: &KeptAnswer,
        until_ms: i64,
    ) -> Result<()> {
        let query = sqlx::query(sql::KEEP_ANSWER)
            .bind(i64::from(answer.status))
            .bind(&answer.headers)
            .bind(&answer.body)
            .bind(until_ms)
            .bind(owner)
            .bind(key);
        query.execute(&self.pool).await?;
        Ok(())
    }

    /// Forgets a claim: the next one with this key is the first again.
    pub async fn forget_answer(&self, (owner, key): (&str, &str)) -> Result<()> {
        sqlx::query(sql::FORGET_ANSWER).bind(owner).bind(key).execute(&self.pool).await?;
        Ok(())
    }
}
