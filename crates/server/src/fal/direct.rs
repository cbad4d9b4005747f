//! Direct calls that are under way: who would only wait in line is told to come back, and may use the queue instead.

use std::collections::HashMap;
use std::sync::Mutex;

use axum::http::StatusCode;

use crate::answer::Failure;
use crate::auth::Caller;
use crate::state::App;

/// How many direct calls of each owner this node answers at this moment.
#[derive(Default)]
pub(crate) struct Calls(Mutex<HashMap<String, i64>>);

/// A direct call, until it is dropped.
pub(crate) struct Call {
    app: App,
    owner: String,
}

/// Lets a call in unless its owner has as many under way, or running out of the queue, as may run at once. What waits in the
/// queue is in nobody's way.
pub(crate) async fn admit(app: &App, caller: &Caller) -> Result<Call, Failure> {
    let call = Call { app: app.clone(), owner: caller.owner.clone() };
    let calls = app.calls.change(&caller.owner, 1);
    let running = app.settings.queue.running(&caller.owner).await?;
    let most = caller.concurrency_max;
    if calls <= most && running < most {
        return Ok(call);
    }
    let detail = format!(
        "{} direct calls of this key wait and {running} of its requests run; at most {most} may at once. Try again, or submit to the queue",
        calls - 1
    );
    Err(Failure::later(StatusCode::TOO_MANY_REQUESTS, "concurrent_requests_limit", detail, 2))
}

impl Calls {
    /// Adds to the owner's calls; how many there are then.
    fn change(&self, owner: &str, by: i64) -> i64 {
        let mut calls = self.0.lock().expect("nothing panics while it is held");
        let count = calls.entry(owner.into()).or_default();
        *count += by;
        let now = *count;
        if now == 0 {
            calls.remove(owner);
        }
        now
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.app.calls.change(&self.owner, -1);
    }
}
