//! Pairs as they were shown, and votes as they were cast.

use super::Of;
use crate::queue::Queue;
use crate::sql::arena as sql;
use crate::{Error, Result};
use sqlx::Row;
use sqlx::any::AnyRow;
use uuid::Uuid;

/// Two contenders' pictures of one prompt as they were shown to somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Random.
    pub id: String,
    /// The challenge.
    pub challenge: String,
    /// The prompt's number.
    pub prompt: i64,
    /// Who was on the left.
    pub left: String,
    /// Who was on the right.
    pub right: String,
    /// The key's id, or `local`.
    pub voter: String,
    /// Milliseconds since 1970.
    pub shown_ms: i64,
}

/// What was said of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArenaVote {
    /// A UUID of version 7: order of ids is order of votes.
    pub id: String,
    /// Of what.
    pub pair: Pair,
    /// What.
    pub verdict: Verdict,
    /// Milliseconds since 1970.
    pub at_ms: i64,
}

/// What can be said of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The left one is better.
    Left,
    /// The right one is better.
    Right,
    /// Neither is better.
    Tie,
    /// Neither is any good.
    BothBad,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Left, Self::Right, Self::Tie, Self::BothBad];

    /// As rows, forms and exports have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Right => "right",
            Self::Tie => "tie",
            Self::BothBad => "both_bad",
        }
    }

    /// The verdict called `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.name() == name)
    }
}

impl Queue {
    /// Notes that a pair is shown.
    pub async fn insert_pair(&self, pair: &Pair) -> Result<()> {
        let query = sqlx::query(sql::INSERT_PAIR)
            .bind(&pair.id)
            .bind(&pair.challenge)
            .bind(pair.prompt)
            .bind(&pair.left)
            .bind(&pair.right)
            .bind(&pair.voter)
            .bind(pair.shown_ms);
        query.execute(&self.pool).await?;
        Ok(())
    }

    /// The pair called `id`.
    pub async fn pair(&self, id: &str) -> Result<Option<Pair>> {
        if id.contains('\0') {
            return Ok(None);
        }
        let row = sqlx::query(sql::PAIR).bind(id).fetch_optional(&self.pool).await?;
        row.as_ref().map(pair).transpose()
    }

    /// What `voter` was shown of a challenge at `from_ms` or later and has said nothing of.
    pub async fn open_pair(
        &self,
        voter: &str,
        challenge: &str,
        from_ms: i64,
    ) -> Result<Option<Pair>> {
        let query = sqlx::query(sql::OPEN_PAIR).bind(voter).bind(challenge).bind(from_ms);
        query.fetch_optional(&self.pool).await?.as_ref().map(pair).transpose()
    }

    /// Writes a vote down; `false` where its voter has voted on these two pictures before, whichever side was which.
    pub async fn insert_vote(&self, pair: &Pair, verdict: Verdict) -> Result<bool> {
        let (first, second) = match pair.left <= pair.right {
            true => (&pair.left, &pair.right),
            false => (&pair.right, &pair.left),
        };
        let query = sqlx::query(sql::INSERT_VOTE)
            .bind(Uuid::now_v7().to_string())
            .bind(&pair.id)
            .bind(&pair.challenge)
            .bind(pair.prompt)
            .bind(first)
            .bind(second)
            .bind(&pair.voter)
            .bind(verdict.name())
            .bind(self.now_ms());
        Ok(query.execute(&self.pool).await?.rows_affected() > 0)
    }

    /// What was said of the pair called `id`.
    pub async fn vote(&self, pair: &str) -> Result<Option<ArenaVote>> {
        if pair.contains('\0') {
            return Ok(None);
        }
        let row = sqlx::query(sql::VOTE).bind(pair).fetch_optional(&self.pool).await?;
        row.as_ref().map(vote).transpose()
    }

    /// All votes, in the order in which they were cast.
    pub async fn votes(&self, of: Of<'_>) -> Result<Vec<ArenaVote>> {
        let (statement, name) = match of {
            Of::Challenge(id) => (sql::VOTES, id),
            Of::UseCase(name) => (sql::VOTES_OF_USE_CASE, name),
        };
        if name.contains('\0') {
            return Ok(Vec::new());
        }
        let rows = sqlx::query(statement).bind(name).fetch_all(&self.pool).await?;
        rows.iter().map(vote).collect()
    }
}

fn pair(row: &AnyRow) -> Result<Pair> {
    Ok(Pair {
        id: row.try_get("id")?,
        challenge: row.try_get("challenge")?,
        prompt: row.try_get("prompt")?,
        left: row.try_get("left_contender")?,
        right: row.try_get("right_contender")?,
        voter: row.try_get("voter")?,
        shown_ms: row.try_get("shown_ms")?,
    })
}

fn vote(row: &AnyRow) -> Result<ArenaVote> {
    let (id, name): (String, String) = (row.try_get("vote")?, row.try_get("verdict")?);
    let verdict = Verdict::named(&name).ok_or_else(|| Error::Unknown {
        id: id.clone(),
        column: "verdict",
        value: name,
    })?;
    Ok(ArenaVote { id, pair: pair(row)?, verdict, at_ms: row.try_get("at_ms")? })
}
