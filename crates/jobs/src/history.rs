//! What was done: listed page by page, and forgotten.

use crate::queue::Queue;
use crate::request::{Ended, Outcome, Standing, canonical};
use crate::{Error, Result, sql};

/// Requests on one page.
const PAGE_MAX: i64 = 100;

/// Which files go with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Files {
    /// Those that have no time of their own.
    WithoutTime,
    /// All that it made.
    All,
}

/// Which requests are listed.
#[derive(Clone, Debug)]
pub struct Page {
    /// Only this owner's; empty: everybody's.
    pub owner: String,
    /// Only those of this endpoint; empty: of all.
    pub endpoint: String,
    /// Only those that ended so.
    pub status: Option<Status>,
    /// Only those that arrived then or later, milliseconds since 1970.
    pub from_ms: i64,
    /// Only those that arrived before.
    pub until_ms: i64,
    /// What comes first.
    pub sort: Sort,
    /// The cursor of the page before; empty: from the beginning.
    pub after: String,
    /// At most so many; a hundred at most.
    pub most: i64,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            owner: String::new(),
            endpoint: String::new(),
            status: None,
            from_ms: 0,
            until_ms: i64::MAX,
            sort: Sort::Arrival,
            after: String::new(),
            most: 50,
        }
    }
}

/// How a request ended, as the history has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// With a result.
    Success,
    /// By its sender: wrong input, or cancelled.
    UserError,
    /// By this server.
    Error,
}

/// What comes first in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// What arrived last.
    Arrival,
    /// What ended last.
    End,
    /// What took longest.
    Duration,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 3] = [Self::Success, Self::UserError, Self::Error];

    /// `success`, `user_error` or `error`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::UserError => "user_error",
            Self::Error => "error",
        }
    }

    /// How a request with this end stands.
    pub fn of(end: &Ended) -> Self {
        match (end.outcome, end.status_code) {
            (Outcome::Completed, _) => Self::Success,
            (_, 400..=499) => Self::UserError,
            _ => Self::Error,
        }
    }
}

impl Sort {
    /// The cursor of the page that follows `last`.
    pub fn cursor(self, last: &Standing) -> String {
        let key = match self {
            Self::Arrival => return last.id.clone(),
            Self::End => last.finished_ms,
            Self::Duration => last.ended.as_ref().and_then(|end| end.inference_ms),
        };
        format!("{}.{}", key.unwrap_or(0), last.id)
    }
}

/// Where a page ended.
struct Place {
    key: i64,
    id: String,
}

impl Place {
    fn parse(cursor: &str) -> Option<Self> {
        let (key, id) = cursor.split_once('.').unwrap_or(("0", cursor));
        Some(Self { key: key.parse().ok()?, id: canonical(id)? })
    }
}

impl Queue {
    /// A page of the history, and the cursor of the next one if there may be more.
    pub async fn history(&self, page: &Page) -> Result<(Vec<Standing>, Option<String>)> {
        let after = match page.after.as_str() {
            "" => None,
            text => Some(Place::parse(text).ok_or_else(|| Error::Cursor(text.into()))?),
        };
        if [&page.owner, &page.endpoint].iter().any(|name| name.contains('\0')) {
            return Ok((Vec::new(), None)); // nothing has such a name, and PostgreSQL takes none
        }
        let text = match page.sort {
            Sort::Arrival => sql::HISTORY,
            Sort::End => sql::HISTORY_BY_END,
            Sort::Duration => sql::HISTORY_BY_DURATION,
        };
        let most = page.most.clamp(1, PAGE_MAX);
        let mut query = sqlx::query(text)
            .bind(&page.owner)
            .bind(&page.endpoint)
            .bind(page.from_ms)
            .bind(page.until_ms)
            .bind(page.status.map_or("", Status::name))
            .bind(after.as_ref().map_or(String::new(), |place| place.id.clone()))
            .bind(most);
        if page.sort != Sort::Arrival {
            query = query.bind(after.map_or(0, |place| place.key));
        }
        let found = query.fetch_all(&self.pool).await?;
        let found: Vec<Standing> = found.iter().map(Standing::of).collect::<Result<_>>()?;
        let more = found.len() as i64 == most;
        let next = found.last().filter(|_| more).map(|last| page.sort.cursor(last));
        Ok((found, next))
    }

    /// Forgets a request that has ended, with its logs, and lets all its files be deleted; whether there was one.
    pub async fn delete(&self, id: &str) -> Result<bool> {
        match canonical(id) {
            Some(id) => self.forget(&id, Files::All).await,
            None => Ok(false),
        }
    }

    pub(crate) async fn forget(&self, id: &str, files: Files) -> Result<bool> {
        let mut transaction = self.pool.begin().await?;
        let deleted = sqlx::query(sql::DELETE).bind(id).execute(&mut *transaction).await?;
        if deleted.rows_affected() == 0 {
            return Ok(false);
        }
        let due = sqlx::query(sql::FILES_ARE_DUE).bind(self.now_ms()).bind(id);
        due.bind(i64::from(files == Files::All)).execute(&mut *transaction).await?;
        sqlx::query(sql::pictures::DELETE_OF).bind(id).execute(&mut *transaction).await?;
        sqlx::query(sql::DELETE_LOGS).bind(id).execute(&mut *transaction).await?;
        sqlx::query(sql::DELETE_PREVIEWS).bind(id).execute(&mut *transaction).await?;
        sqlx::query(sql::DELETE_DELIVERY).bind(id).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(true)
    }
}
