//! The arena's rows: challenges, who takes part, their pictures, the pairs that were shown, and the votes as they were cast.

use sqlx::Row;
use sqlx::any::AnyRow;
use uuid::Uuid;

use crate::database::Dialect;
use crate::queue::Queue;
use crate::request::storable;
use crate::sql::arena as sql;
use crate::{Error, Result};

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

/// Of which challenges something is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Of<'a> {
    /// This one, by its id.
    Challenge(&'a str),
    /// All of this use case.
    UseCase(&'a str),
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
