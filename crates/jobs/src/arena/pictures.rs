//! Contenders' pictures of a challenge's prompts: which are to be made, by whom they are being made, and what came of them.

use crate::database::Dialect;
use crate::queue::Queue;
use crate::request::storable;
use crate::sql::arena as sql;
use crate::{Error, Result};
use sqlx::Row;
use sqlx::any::AnyRow;

/// A contender's picture of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArenaPicture {
    /// The challenge.
    pub challenge: String,
    /// The prompt's number.
    pub prompt: i64,
    /// The contender.
    pub contender: String,
    /// How far it is.
    pub state: ArenaState,
    /// Attempts that failed.
    pub tries: i64,
    /// In the queue, where the contender is this server's engine.
    pub request: Option<String>,
    /// Its name in the store, once it is made.
    pub file: Option<String>,
    /// What making it took.
    pub took_ms: Option<i64>,
    /// What it cost, in millionths of a dollar.
    pub cost_micros: Option<i64>,
    /// Which deployment made it.
    pub made_by: Option<String>,
    /// What went wrong last.
    pub error: Option<String>,
}

/// How far a picture is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArenaState {
    /// To be made.
    Waiting,
    /// It is there.
    Made,
    /// Given up.
    Failed,
}

/// What came of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArenaMade {
    /// Its name in the store.
    pub file: String,
    /// What making it took.
    pub took_ms: i64,
    /// What it cost, in millionths of a dollar.
    pub cost_micros: i64,
    /// Which deployment made it.
    pub made_by: String,
}

/// How many pictures of a challenge are how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArenaProgress {
    /// To be made.
    pub waiting: i64,
    /// There.
    pub made: i64,
    /// Given up.
    pub failed: i64,
    /// Votes on them.
    pub votes: i64,
}

impl Queue {
    /// All pictures of a challenge, by prompt.
    pub async fn arena_pictures(&self, challenge: &str) -> Result<Vec<ArenaPicture>> {
        let query = sqlx::query(sql::PICTURES).bind(challenge);
        query.fetch_all(&self.pool).await?.iter().map(picture).collect()
    }

    /// How far every challenge is, by its id.
    pub async fn arena_progress(&self) -> Result<std::collections::HashMap<String, ArenaProgress>> {
        let mut all = std::collections::HashMap::<String, ArenaProgress>::new();
        for row in sqlx::query(sql::PICTURES_BY_STATE).fetch_all(&self.pool).await? {
            let (challenge, state): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let progress = all.entry(challenge.clone()).or_default();
            let count = row.try_get(2)?;
            match state_named(&challenge, state)? {
                ArenaState::Waiting => progress.waiting = count,
                ArenaState::Made => progress.made = count,
                ArenaState::Failed => progress.failed = count,
            }
        }
        for row in sqlx::query(sql::COUNT_VOTES).fetch_all(&self.pool).await? {
            all.entry(row.try_get(0)?).or_default().votes = row.try_get(1)?;
        }
        Ok(all)
    }

    /// A picture that is due, which nobody else is given for `lease_ms`.
    pub async fn claim_picture(&self, lease_ms: i64) -> Result<Option<ArenaPicture>> {
        let statement = match self.dialect {
            Dialect::Sqlite => sql::CLAIM_PICTURE_SQLITE,
            Dialect::Postgres => sql::CLAIM_PICTURE_POSTGRES,
        };
        let now = self.now_ms();
        let any = sqlx::query(sql::ANY_PICTURE_DUE).bind(now).fetch_optional(&self.pool).await?;
        if any.is_none() {
            return Ok(None);
        }
        let query = sqlx::query(statement).bind(now + lease_ms).bind(now);
        query.fetch_optional(&self.hasty).await?.as_ref().map(picture).transpose()
    }

    /// Looks at `picture` again in `pause_ms`, with its request, tries and error as they are now.
    pub async fn picture_waits(&self, picture: &ArenaPicture, pause_ms: i64) -> Result<()> {
        let query = sqlx::query(sql::PICTURE_WAITS)
            .bind(picture.request.clone())
            .bind(self.now_ms() + pause_ms)
            .bind(picture.tries)
            .bind(picture.error.as_deref().map(storable))
            .bind(&picture.challenge)
            .bind(picture.prompt)
            .bind(&picture.contender);
        query.execute(&self.pool).await?;
        Ok(())
    }

    /// `picture` is there; whether it was still waited for.
    pub async fn picture_made(&self, picture: &ArenaPicture, made: &ArenaMade) -> Result<bool> {
        let query = sqlx::query(sql::PICTURE_MADE)
            .bind(&made.file)
            .bind(made.took_ms)
            .bind(made.cost_micros)
            .bind(storable(&made.made_by))
            .bind(&picture.challenge)
            .bind(picture.prompt)
            .bind(&picture.contender);
        Ok(query.execute(&self.pool).await?.rows_affected() > 0)
    }

    /// `picture` is given up.
    pub async fn picture_failed(&self, picture: &ArenaPicture, error: &str) -> Result<()> {
        let query = sqlx::query(sql::PICTURE_FAILED)
            .bind(storable(error))
            .bind(&picture.challenge)
            .bind(picture.prompt)
            .bind(&picture.contender);
        query.execute(&self.pool).await?;
        Ok(())
    }

    /// What was given up is due again; how many pictures.
    pub async fn try_pictures_again(&self, challenge: &str) -> Result<u64> {
        let query = sqlx::query(sql::TRY_PICTURES_AGAIN).bind(self.now_ms()).bind(challenge);
        Ok(query.execute(&self.pool).await?.rows_affected())
    }
}

fn picture(row: &AnyRow) -> Result<ArenaPicture> {
    let challenge: String = row.try_get("challenge")?;
    Ok(ArenaPicture {
        state: state_named(&challenge, row.try_get("state")?)?,
        prompt: row.try_get("prompt")?,
        contender: row.try_get("contender")?,
        tries: row.try_get("tries")?,
        request: row.try_get("request")?,
        file: row.try_get("file")?,
        took_ms: row.try_get("took_ms")?,
        cost_micros: row.try_get("cost_micros")?,
        made_by: row.try_get("made_by")?,
        error: row.try_get("error")?,
        challenge,
    })
}

fn state_named(challenge: &str, name: String) -> Result<ArenaState> {
    match name.as_str() {
        "waiting" => Ok(ArenaState::Waiting),
        "made" => Ok(ArenaState::Made),
        "failed" => Ok(ArenaState::Failed),
        _ => Err(Error::Unknown { id: challenge.into(), column: "state", value: name }),
    }
}
