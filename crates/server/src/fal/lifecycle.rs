//! How long files live, as a request's headers say.

use axum::http::HeaderMap;
use serde_json::{Value, json};
use zoetrope_api::fal::Problem;

use crate::answer::Failure;
use crate::state::App;

/// The header's two names; the first is the newer one.
const NAMES: [&str; 2] = ["x-fal-object-lifecycle-preference", "x-fal-object-lifecycle"];
/// A hundred years, above which a number is a mistake.
const SECONDS_MAX: u64 = 3_155_760_000;

/// Seconds that files of this request live; `None` without a wish.
pub(crate) fn seconds(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    let Some(text) = NAMES.iter().find_map(|name| headers.get(*name)?.to_str().ok()) else {
        return Ok(None);
    };
    let wrong = |problem: String| {
        let loc = [json!("x-fal-object-lifecycle-preference")];
        let mut problem = Problem::new(&loc, "value_error", problem);
        problem.loc[0] = json!("header");
        Failure::problems(&[problem])
    };
    let value: Value =
        serde_json::from_str(text).map_err(|e| wrong(format!("is not JSON: {e}")))?;
    refuse_restriction(&value)?;
    match &value["expiration_duration_seconds"] {
        Value::Null => Ok(None),
        sent => match sent.as_u64().filter(|seconds| (1..=SECONDS_MAX).contains(seconds)) {
            Some(seconds) => Ok(Some(seconds)),
            None => Err(wrong(format!(
                "`expiration_duration_seconds` is {sent}; it must be a whole number from 1 to {SECONDS_MAX}"
            ))),
        },
    }
}

/// Whoever knows a file's name may have it: a wish for anything else is refused, and not left out.
fn refuse_restriction(value: &Value) -> Result<(), Failure> {
    let acl = &value["initial_acl"];
    let rules = acl["rules"].as_array().into_iter().flatten().map(|rule| &rule["decision"]);
    let mut decisions = std::iter::once(&acl["default"]).chain(rules);
    match decisions.find(|decision| !decision.is_null() && *decision != "allow") {
        None => Ok(()),
        Some(decision) => {
            let msg = format!(
                "`initial_acl` has {decision}; files here are open to whoever knows their names. Leave it out"
            );
            let loc = [json!("x-fal-object-lifecycle-preference")];
            let mut problem = Problem::new(&loc, "feature_not_supported", msg);
            problem.loc[0] = json!("header");
            Err(Failure::problems(&[problem]))
        }
    }
}

/// When an upload is deleted: as its sender says, else with what came at the same time.
pub(crate) fn of_upload(app: &App, headers: &HeaderMap) -> Result<i64, Failure> {
    let life_ms = seconds(headers)?.map_or(app.settings.keep_ms, |seconds| 1000 * seconds as i64);
    Ok(app.now_ms().saturating_add(life_ms))
}
