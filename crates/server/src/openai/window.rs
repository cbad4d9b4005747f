//! Windows of time, as queries name them.

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zoetrope_api::images::Problem;
use zoetrope_jobs::Calls;

/// What a window is where nobody says.
const WINDOW_DAYS: i64 = 30;
const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;

/// Which calls are added up.
#[derive(Deserialize, Default)]
pub(super) struct Window {
    /// As `30d` or `12h`.
    window: Option<String>,
    start: Option<String>,
    end: Option<String>,
    model: Option<String>,
    provider: Option<String>,
    pub(super) key_id: Option<String>,
}

/// The last 30 days before `now_ms`: from and until.
pub(super) fn usual(now_ms: i64) -> (i64, i64) {
    (now_ms + 1 - WINDOW_DAYS * DAY_MS, now_ms + 1)
}

impl Window {
    /// Milliseconds since 1970, from and until.
    pub(super) fn span(&self, now_ms: i64) -> Result<(i64, i64), Problem> {
        let until = moment("end", &self.end)?.unwrap_or(now_ms + 1);
        let from = match (moment("start", &self.start)?, self.window.as_deref()) {
            (Some(from), _) => from,
            (None, None | Some("")) => usual(until - 1).0,
            (None, Some(text)) => until - duration(text)?,
        };
        Ok((from, until))
    }

    /// Whether these calls are of the model and the provider that were asked for.
    pub(super) fn admits(&self, calls: &Calls) -> bool {
        let is = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted.is_empty() || wanted == found)
        };
        is(&self.model, &calls.model) && is(&self.provider, &calls.provider)
    }
}

/// Milliseconds of `30d` or `12h`.
fn duration(text: &str) -> Result<i64, Problem> {
    let read = text.split_at_checked(text.len().saturating_sub(1)).and_then(|(number, unit)| {
        let number: i64 = number.parse().ok().filter(|number| (1..=10_000).contains(number))?;
        match unit {
            "d" => Some(number * DAY_MS),
            "h" => Some(number * HOUR_MS),
            _ => None,
        }
    });
    read.ok_or_else(|| {
        Problem::invalid(
            "window",
            format!("`window` is `{}`; write days or hours, as 30d or 12h", short(text)),
        )
    })
}

/// Milliseconds since 1970 of the parameter called `name`, if it was sent.
pub(super) fn moment(name: &str, value: &Option<String>) -> Result<Option<i64>, Problem> {
    let Some(text) = value.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
    let whole = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        _ => text.replace(' ', "+"), // a plus sign that was not encoded
    };
    match OffsetDateTime::parse(&whole, &Rfc3339) {
        Ok(time) => Ok(Some((time.unix_timestamp_nanos() / 1_000_000) as i64)),
        Err(_) => {
            let text = format!(
                "`{name}` is `{}`; write a time, as 2026-01-31T12:00:00Z or 2026-01-31",
                short(text)
            );
            Err(Problem::invalid(name, text))
        }
    }
}

/// The beginning of what was sent, for a message about it.
pub(super) fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

/// A moment as answers have it.
pub(super) fn time(ms: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}
