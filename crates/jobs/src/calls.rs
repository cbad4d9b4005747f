//! Requests for models and the calls to providers that they took: the log, and sums by hour that stay fast however much was asked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Row};

use crate::histogram::Histogram;
use crate::queue::Queue;
use crate::request::storable;
use crate::sql::calls as sql;
use crate::{Error, Result};

/// A request for a model that has ended. No prompt and no picture is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelRequest {
    /// `req_` and a UUID of version 7: order of ids is order of arrival.
    pub id: String,
    /// The key's id, or `local`.
    pub owner: String,
    /// The model's id; what was asked for where there is none.
    pub model: String,
    /// `text-to-image` or `image-edit`.
    pub mode: String,
    /// How it ended.
    pub status: ModelStatus,
    /// Who made the first picture.
    pub provider: Option<String>,
    /// By which of its deployments.
    pub deployment: Option<String>,
    /// The model's name there.
    pub upstream: Option<String>,
    /// How many pictures there were.
    pub pictures: i64,
    /// What it cost, in millionths of a dollar.
    pub cost_micros: i64,
    /// When it came, in milliseconds since 1970.
    pub created_ms: i64,
    /// From there to its answer, in microseconds.
    pub duration_us: i64,
    /// Of that, waiting for providers.
    pub upstream_us: i64,
    /// For programs.
    pub error_code: Option<String>,
    /// For people.
    pub error: Option<String>,
    /// Whom the caller acts for.
    pub user: Option<String>,
    /// Whose trace it belongs to, as W3C's `traceparent`.
    pub trace: Option<String>,
    /// All calls that it took, in order of their ends.
    pub calls: Vec<ModelCall>,
    /// Names of the files that it has put at addresses of ours.
    pub files: Vec<String>,
    /// When those were deleted because somebody asked for it, in milliseconds since 1970.
    pub purged_ms: Option<i64>,
    /// Whether something of the key's budget was held for it.
    pub held: bool,
}

/// A call to a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelCall {
    /// Whom, as `fal`.
    pub provider: String,
    /// Which deployment, as `fal/z-image-turbo`.
    pub deployment: String,
    /// The model's name there.
    pub upstream: String,
    /// `completed`, or how it failed.
    pub outcome: String,
    /// Whether it failed by the provider's fault, and not by the caller's or by load.
    pub fault: bool,
    /// From sending to the last byte or the failure, in microseconds.
    pub duration_us: i64,
    /// From sending to the first byte of its answer.
    pub first_byte_us: Option<i64>,
    /// Pictures that it made.
    pub pictures: i64,
    /// What it cost, in millionths of a dollar.
    pub cost_micros: i64,
}

/// The outcome of a call that made its pictures.
const COMPLETED: &str = "completed";

/// How a request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModelStatus {
    /// With pictures.
    #[default]
    Completed,
    /// No provider made them.
    UpstreamFailure,
    /// Its sender was told what is wrong with it.
    Rejected,
    /// Its sender has gone.
    Cancelled,
}

impl ModelStatus {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Completed, Self::UpstreamFailure, Self::Rejected, Self::Cancelled];

    /// As the log has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => COMPLETED,
            Self::UpstreamFailure => "upstream_failure",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status called `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// Which requests are listed, newest first.
#[derive(Clone, Debug)]
pub struct LogPage {
    /// Only this owner's; empty: everybody's.
    pub owner: String,
    /// Only those that ended so.
    pub status: Option<ModelStatus>,
    /// Only those that came then or later, milliseconds since 1970.
    pub from_ms: i64,
    /// Only those that came before.
    pub until_ms: i64,
    /// Where the page begins or ends.
    pub place: LogPlace,
    /// At most so many; a hundred at most.
    pub most: i64,
}

/// Where a page of the log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPlace {
    /// The newest.
    Newest,
    /// What came before this request.
    Before(String),
    /// What came after it: those next to it.
    After(String),
}

/// Requests on one page.
const PAGE_MAX: i64 = 100;

/// What a deployment did in a window of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// As `fal/z-image-turbo`.
    pub deployment: String,
    /// As `fal`.
    pub provider: String,
    /// The model's id.
    pub model: String,
    /// Whose calls they were; empty where they are not told apart.
    pub owner: String,
    /// All calls.
    pub calls: i64,
    /// Those that made their pictures.
    pub completed: i64,
    /// Those that failed by the provider's fault.
    pub faults: i64,
    /// Pictures.
    pub pictures: i64,
    /// What they cost, in millionths of a dollar.
    pub cost_micros: i64,
    /// How long those that were completed took together, in microseconds.
    pub completed_us: i64,
    /// How long each of them took. Empty where owners are told apart, as is the next.
    pub total: Histogram,
    /// From sending to the first byte of the answer, of all that were answered.
    pub first_byte: Histogram,
}

impl Calls {
    /// Adds what another deployment, or the same in another window, did; whose it is stays.
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.completed += other.completed;
        self.faults += other.faults;
        self.pictures += other.pictures;
        self.cost_micros += other.cost_micros;
        self.completed_us += other.completed_us;
        self.total.merge(&other.total);
        self.first_byte.merge(&other.first_byte);
    }
}

/// Whose calls are added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose<'a> {
    /// Everybody's, together and with their times.
    All,
    /// Everybody's, by owner.
    Each,
    /// This owner's.
    Only(&'a str),
}

/// An hour.
const HOUR_MS: i64 = 3_600_000;

impl Queue {
    /// Sums of the calls from `from_ms` to `until_ms`, in whole hours, by deployment.
    pub async fn calls(&self, from_ms: i64, until_ms: i64, whose: Whose<'_>) -> Result<Vec<Calls>> {
        let from_ms = from_ms.div_euclid(HOUR_MS) * HOUR_MS;
        let (each, only) = match whose {
            Whose::All => (0_i64, ""),
            Whose::Each => (1, ""),
            Whose::Only(owner) => (1, owner),
        };
        let query = sqlx::query(sql::CALLS).bind(from_ms).bind(until_ms).bind(each).bind(only);
        let rows = query.fetch_all(&self.pool).await?;
        let mut sums = rows.iter().map(sum).collect::<Result<Vec<_>>>()?;
        if whose == Whose::All {
            let query = sqlx::query(sql::TIMES).bind(from_ms).bind(until_ms);
            for row in query.fetch_all(&self.pool).await? {
                let (deployment, kind): (String, String) = (row.try_get(0)?, row.try_get(1)?);
                let Some(sum) = sums.iter_mut().find(|sum| sum.deployment == deployment) else {
                    continue;
                };
                let histogram = match kind.as_str() {
                    TOTAL => &mut sum.total,
                    _ => &mut sum.first_byte,
                };
                histogram.add(row.try_get(2)?, row.try_get(3)?);
            }
        }
        Ok(sums)
    }

    /// A page of the log.
    pub async fn model_requests(&self, page: &LogPage) -> Result<Vec<ModelRequest>> {
        let (place, after) = match &page.place {
            LogPlace::Newest => ("", false),
            LogPlace::Before(id) => (id.as_str(), false),
            LogPlace::After(id) => (id.as_str(), true),
        };
        if place.contains('\0') || page.owner.contains('\0') {
            return Ok(Vec::new()); // nothing has such a name, and PostgreSQL takes none
        }
        let statement = match (page.owner.is_empty(), after) {
            (true, false) => sql::LOG_BEFORE,
            (true, true) => sql::LOG_AFTER,
            (false, false) => sql::LOG_OF_BEFORE,
            (false, true) => sql::LOG_OF_AFTER,
        };
        let query = sqlx::query(statement)
            .bind(&page.owner)
            .bind(page.status.map_or("", ModelStatus::name))
            .bind(page.from_ms)
            .bind(page.until_ms)
            .bind(place)
            .bind(page.most.clamp(1, PAGE_MAX));
        let rows = query.fetch_all(&self.pool).await?;
        let mut found = rows.iter().map(ModelRequest::of).collect::<Result<Vec<_>>>()?;
        if after {
            found.reverse();
        }
        Ok(found)
    }

    /// The request called `id`, once it has ended.
    pub async fn model_request(&self, id: &str) -> Result<Option<ModelRequest>> {
        if id.contains('\0') {
            return Ok(None);
        }
        let row = sqlx::query(sql::MODEL_REQUEST).bind(id).fetch_optional(&self.pool).await?;
        row.as_ref().map(ModelRequest::of).transpose()
    }

    /// What `request` has made is deleted: the log says so, and no answer of it is given again.
    pub async fn purge_model_request(&self, request: &ModelRequest) -> Result<()> {
        let query = sqlx::query(sql::PURGE_MODEL_REQUEST).bind(self.now_ms()).bind(&request.id);
        query.execute(&self.pool).await?;
        let query = sqlx::query(sql::FORGET_ANSWER_OF).bind(&request.owner).bind(&request.id);
        query.execute(&self.pool).await?;
        Ok(())
    }

    /// Forgets what is older than `keep_ms`, and what was held or kept for a time that is over.
    pub async fn sweep_calls(&self, keep_ms: i64) -> Result<()> {
        let now = self.now_ms();
        for statement in [sql::SWEEP_ANSWERS, sql::SWEEP_HOLDS] {
            sqlx::query(statement).bind(now).execute(&self.pool).await?;
        }
        self.sweep_paces().await?;
        let old = now.saturating_sub(keep_ms);
        sqlx::query(sql::SWEEP_LOG).bind(old).bind(SWEEP_MOST).execute(&self.pool).await?;
        let old = now.saturating_sub(SUMS_KEEP_MS.max(keep_ms));
        for statement in [sql::SWEEP_HOURS, sql::SWEEP_TIMES] {
            sqlx::query(statement).bind(old).execute(&self.pool).await?;
        }
        Ok(())
    }
}

/// Rows of the log that go at once.
const SWEEP_MOST: i64 = 5000;
/// Sums are small, and are compared with those of a year ago.
const SUMS_KEEP_MS: i64 = 400 * 86_400_000;

pub(crate) const TOTAL: &str = "total";
const FIRST_BYTE: &str = "first_byte";

/// One row of sums, without its times.
pub(crate) fn sum(row: &AnyRow) -> Result<Calls> {
    Ok(Calls {
        deployment: row.try_get("deployment")?,
        provider: row.try_get("provider")?,
        model: row.try_get("model")?,
        owner: row.try_get("whose")?,
        calls: row.try_get("calls")?,
        completed: row.try_get("completed")?,
        faults: row.try_get("faults")?,
        pictures: row.try_get("pictures")?,
        cost_micros: row.try_get("cost_micros")?,
        completed_us: row.try_get("completed_us")?,
        ..Calls::default()
    })
}

impl ModelRequest {
    fn of(row: &AnyRow) -> Result<Self> {
        let id: String = row.try_get("id")?;
        let unknown = |column: &'static str, value: &str| Error::Unknown {
            id: id.clone(),
            column,
            value: value.into(),
        };
        let (status, calls): (String, String) = (row.try_get("status")?, row.try_get("attempts")?);
        let files: String = row.try_get("files")?;
        Ok(Self {
            owner: row.try_get("owner")?,
            model: row.try_get("model")?,
            mode: row.try_get("mode")?,
            status: ModelStatus::named(&status).ok_or_else(|| unknown("status", &status))?,
            provider: row.try_get("provider")?,
            deployment: row.try_get("deployment")?,
            upstream: row.try_get("upstream")?,
            pictures: row.try_get("pictures")?,
            cost_micros: row.try_get("cost_micros")?,
            created_ms: row.try_get("created_ms")?,
            duration_us: row.try_get("duration_us")?,
            upstream_us: row.try_get("upstream_us")?,
            error_code: row.try_get("error_code")?,
            error: row.try_get("error")?,
            user: row.try_get("user_name")?,
            trace: row.try_get("trace")?,
            calls: serde_json::from_str(&calls).map_err(|_| unknown("attempts", &calls))?,
            files: serde_json::from_str(&files).map_err(|_| unknown("files", &files))?,
            purged_ms: row.try_get("purged_ms")?,
            held: false,
            id,
        })
    }

    /// Writes all of `requests` down, many in one statement.
    pub(crate) async fn insert_all(
        requests: &[Self],
        connection: &mut AnyConnection,
    ) -> Result<()> {
        // Of two sizes only, so that the database has both prepared.
        let (many, few) = requests.as_chunks::<ROWS_AT_ONCE>();
        for rows in many.iter().map(|rows| &rows[..]).chain(few.chunks(1)) {
            let statement = AssertSqlSafe(sql::insert_model_requests(rows.len()));
            let mut query = sqlx::query(statement);
            for row in rows {
                query = row.bound(query);
            }
            query.execute(&mut *connection).await?;
        }
        Ok(())
    }

    /// `query` with the values of a row.
    fn bound<'q>(&self, query: Query<'q, Any, AnyArguments>) -> Query<'q, Any, AnyArguments> {
        let none = |_| "[]".to_string();
        let calls = serde_json::to_string(&self.calls).unwrap_or_else(none);
        let files = serde_json::to_string(&self.files).unwrap_or_else(none);
        let text = |text: &Option<String>| text.as_deref().map(storable);
        query
            .bind(self.id.clone())
            .bind(self.owner.clone())
            .bind(storable(&self.model))
            .bind(self.mode.clone())
            .bind(self.status.name())
            .bind(self.provider.clone())
            .bind(self.deployment.clone())
            .bind(self.upstream.clone())
            .bind(self.pictures)
            .bind(self.cost_micros)
            .bind(self.created_ms)
            .bind(self.duration_us)
            .bind(self.upstream_us)
            .bind(self.error_code.clone())
            .bind(text(&self.error))
            .bind(text(&self.user))
            .bind(text(&self.trace))
            .bind(storable(&calls))
            .bind(files)
    }
}

/// Requests that are written by one statement.
const ROWS_AT_ONCE: usize = 32;

/// What many requests add to the sums: a row of the database for many of theirs.
#[derive(Default)]
pub(crate) struct Sums {
    /// In the order of their keys, so that two nodes take the rows' locks in one order.
    hours: BTreeMap<(i64, String, String), Calls>,
    times: BTreeMap<(i64, String, &'static str, i64), i64>,
    /// By key.
    spent: BTreeMap<String, i64>,
}

impl Sums {
    pub(crate) fn add(&mut self, request: &ModelRequest) {
        let hour = request.created_ms.div_euclid(HOUR_MS) * HOUR_MS;
        if request.cost_micros != 0 {
            *self.spent.entry(request.owner.clone()).or_default() += request.cost_micros;
        }
        for call in &request.calls {
            let completed = call.outcome == COMPLETED;
            let key = (hour, call.deployment.clone(), request.owner.clone());
            let sum = self.hours.entry(key).or_insert_with(|| Calls {
                provider: call.provider.clone(),
                model: request.model.clone(),
                ..Calls::default()
            });
            sum.calls += 1;
            sum.completed += i64::from(completed);
            sum.faults += i64::from(call.fault);
            sum.pictures += call.pictures;
            sum.cost_micros += call.cost_micros;
            let mut count = |kind, us| {
                let key = (hour, call.deployment.clone(), kind, Histogram::bucket(us));
                *self.times.entry(key).or_default() += 1;
            };
            if completed {
                sum.completed_us += call.duration_us;
                count(TOTAL, call.duration_us);
            }
            if let Some(first_byte) = call.first_byte_us {
                count(FIRST_BYTE, first_byte);
            }
        }
    }

    pub(crate) async fn write(&self, connection: &mut AnyConnection) -> Result<()> {
        for ((hour, deployment, owner), sum) in &self.hours {
            let query = sqlx::query(sql::ADD_CALLS)
                .bind(hour)
                .bind(deployment)
                .bind(owner)
                .bind(&sum.provider)
                .bind(storable(&sum.model))
                .bind(sum.calls)
                .bind(sum.completed)
                .bind(sum.faults)
                .bind(sum.pictures)
                .bind(sum.cost_micros)
                .bind(sum.completed_us);
            query.execute(&mut *connection).await?;
        }
        for ((hour, deployment, kind, bucket), calls) in &self.times {
            let query = sqlx::query(sql::ADD_TIMES).bind(hour).bind(deployment).bind(*kind);
            query.bind(bucket).bind(calls).execute(&mut *connection).await?;
        }
        for (key, micros) in &self.spent {
            sqlx::query(sql::SPEND).bind(micros).bind(key).execute(&mut *connection).await?;
        }
        Ok(())
    }
}
