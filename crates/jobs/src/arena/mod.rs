//! The arena's rows: challenges with their prompts, and who takes part; `pictures.rs` and `votes.rs` have what comes of them.

mod pictures;
mod votes;

use sqlx::Row;
use sqlx::any::AnyRow;

use crate::Result;
use crate::queue::Queue;
use crate::request::storable;
use crate::sql::arena as sql;

pub use pictures::{ArenaMade, ArenaPicture, ArenaProgress, ArenaState};
pub use votes::{ArenaVote, Pair, Verdict};

/// Prompts that all contenders draw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// A UUID of version 7.
    pub id: String,
    /// The key's id, or `local`: who made it, and for whom its pictures are drawn.
    pub owner: String,
    /// Where its owner reaches this server, without a slash at the end.
    pub base: String,
    /// As people call it.
    pub name: String,
    /// Whose board its votes count for too.
    pub use_case: String,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Whether votes are taken no more.
    pub closed: bool,
    /// Milliseconds since 1970.
    pub created_ms: i64,
}

/// A prompt of a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChallengePrompt {
    /// Its place, from 0.
    pub number: i64,
    /// What is to be shown.
    pub prompt: String,
    /// What everybody draws it from.
    pub seed: i64,
}

/// A contender of a challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArenaEntry {
    /// The challenge.
    pub challenge: String,
    /// The contender: a digest of model and settings, the same in every challenge.
    pub contender: String,
    /// What it is called there.
    pub name: String,
    /// An endpoint of this server's, or a model of the gateway's.
    pub model: String,
    /// The catalogue's model that it is.
    pub family: String,
    /// JSON.
    pub settings: String,
}

/// Of which challenges something is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Of<'a> {
    /// This one, by its id.
    Challenge(&'a str),
    /// All of this use case.
    UseCase(&'a str),
}

impl Queue {
    /// Keeps a new challenge with its prompts, in their order.
    pub async fn insert_challenge(
        &self,
        challenge: &Challenge,
        prompts: &[ChallengePrompt],
    ) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        let query = sqlx::query(sql::INSERT_CHALLENGE)
            .bind(&challenge.id)
            .bind(&challenge.owner)
            .bind(&challenge.base)
            .bind(storable(&challenge.name))
            .bind(storable(&challenge.use_case))
            .bind(i64::from(challenge.width))
            .bind(i64::from(challenge.height))
            .bind(challenge.created_ms);
        query.execute(&mut *transaction).await?;
        for ChallengePrompt { number, prompt, seed } in prompts {
            let query = sqlx::query(sql::INSERT_PROMPT).bind(&challenge.id).bind(number);
            query.bind(storable(prompt)).bind(seed).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// The challenge called `id`.
    pub async fn challenge(&self, id: &str) -> Result<Option<Challenge>> {
        if id.contains('\0') {
            return Ok(None);
        }
        let row = sqlx::query(sql::CHALLENGE).bind(id).fetch_optional(&self.pool).await?;
        row.as_ref().map(challenge).transpose()
    }

    /// Challenges, newest first: of `use_case` or, if that is empty, of all; those after the one called `after`; `most` at most.
    pub async fn challenges(
        &self,
        use_case: &str,
        after: &str,
        most: i64,
    ) -> Result<Vec<Challenge>> {
        if use_case.contains('\0') || after.contains('\0') {
            return Ok(Vec::new());
        }
        let query = sqlx::query(sql::CHALLENGES).bind(use_case).bind(after).bind(most);
        query.fetch_all(&self.pool).await?.iter().map(challenge).collect()
    }

    /// Every use case, and how many challenges it has.
    pub async fn use_cases(&self) -> Result<Vec<(String, i64)>> {
        let rows = sqlx::query(sql::USE_CASES).fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// The prompts of a challenge, in their order.
    pub async fn challenge_prompts(&self, id: &str) -> Result<Vec<ChallengePrompt>> {
        let rows = sqlx::query(sql::PROMPTS).bind(id).fetch_all(&self.pool).await?;
        let prompt = |row: &AnyRow| {
            Ok(ChallengePrompt {
                number: row.try_get(0)?,
                prompt: row.try_get(1)?,
                seed: row.try_get(2)?,
            })
        };
        rows.iter().map(prompt).collect()
    }

    /// Whether votes on a challenge are taken from now on.
    pub async fn close_challenge(&self, id: &str, closed: bool) -> Result<()> {
        sqlx::query(sql::CLOSE_CHALLENGE)
            .bind(i64::from(closed))
            .bind(id)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Forgets a challenge with its votes, and lets its pictures be deleted.
    pub async fn delete_challenge(&self, id: &str) -> Result<()> {
        let mut transaction = self.pool.begin().await?;
        let due = sqlx::query(sql::CHALLENGE_FILES_ARE_DUE).bind(self.now_ms()).bind(id);
        due.execute(&mut *transaction).await?;
        for statement in sql::DELETE_CHALLENGE {
            sqlx::query(statement).bind(id).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Has `entry` take part: its pictures of all prompts are due. Whether it did not take part before.
    pub async fn insert_entry(&self, entry: &ArenaEntry) -> Result<bool> {
        let (mut transaction, now) = (self.pool.begin().await?, self.now_ms());
        let query = sqlx::query(sql::INSERT_CONTENDER)
            .bind(&entry.contender)
            .bind(storable(&entry.model))
            .bind(storable(&entry.family))
            .bind(storable(&entry.settings))
            .bind(now);
        query.execute(&mut *transaction).await?;
        let query = sqlx::query(sql::INSERT_ENTRY).bind(&entry.challenge).bind(&entry.contender);
        let new =
            query.bind(storable(&entry.name)).execute(&mut *transaction).await?.rows_affected() > 0;
        if new {
            let query = sqlx::query(sql::INSERT_PICTURES).bind(&entry.challenge);
            query.bind(&entry.contender).bind(now).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        Ok(new)
    }

    /// Who takes part, by challenge and name.
    pub async fn entries(&self, of: Of<'_>) -> Result<Vec<ArenaEntry>> {
        let (statement, name) = match of {
            Of::Challenge(id) => (sql::ENTRIES, id),
            Of::UseCase(name) => (sql::ENTRIES_OF_USE_CASE, name),
        };
        if name.contains('\0') {
            return Ok(Vec::new());
        }
        let rows = sqlx::query(statement).bind(name).fetch_all(&self.pool).await?;
        let entry = |row: &AnyRow| {
            Ok(ArenaEntry {
                challenge: row.try_get(0)?,
                contender: row.try_get(1)?,
                name: row.try_get(2)?,
                model: row.try_get(3)?,
                family: row.try_get(4)?,
                settings: row.try_get(5)?,
            })
        };
        rows.iter().map(entry).collect()
    }

    /// Ids of the challenges in which the catalogue's model `family` takes part.
    pub async fn challenges_of_family(&self, family: &str) -> Result<Vec<String>> {
        if family.contains('\0') {
            return Ok(Vec::new());
        }
        let query = sqlx::query(sql::CHALLENGES_OF_FAMILY).bind(family);
        query.fetch_all(&self.pool).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}

fn challenge(row: &AnyRow) -> Result<Challenge> {
    let side = |name: &str| -> Result<u32> {
        Ok(u32::try_from(row.try_get::<i64, _>(name)?).unwrap_or(u32::MAX)) // what was written was one
    };
    Ok(Challenge {
        id: row.try_get("id")?,
        owner: row.try_get("owner")?,
        base: row.try_get("base")?,
        name: row.try_get("name")?,
        use_case: row.try_get("use_case")?,
        width: side("width")?,
        height: side("height")?,
        closed: row.try_get::<i64, _>("closed")? != 0,
        created_ms: row.try_get("created_ms")?,
    })
}
