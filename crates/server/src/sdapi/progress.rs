//! `progress` and `interrupt`: what each owner's last request looks like by now, and its end before its time.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use zoetrope_api::images::PARTIALS_MAX;
use zoetrope_gateway::provider::Partial;

use super::{Desk, refusal};
use crate::answer::json_answer;
use crate::surface::Origin;

/// What is being drawn, by owner: these front-ends know one request at a time.
#[derive(Clone, Default)]
pub(super) struct Jobs(Arc<Mutex<HashMap<String, Standing>>>);

struct Standing {
    /// Tells one request of an owner from the next.
    number: u64,
    begun: Instant,
    steps: u32,
    /// Unfinished pictures of the first picture so far.
    seen: u32,
    /// The last of them.
    image: Option<String>,
    stop: Arc<Notify>,
}

/// A request under way, until it is dropped.
pub(super) struct Job {
    jobs: Jobs,
    owner: String,
    number: u64,
    stop: Arc<Notify>,
}

impl Jobs {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Standing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on `owner`'s progress is that of a new request of `steps`.
    pub(super) fn begin(&self, owner: &str, steps: u32) -> Job {
        let (begun, stop) = (Instant::now(), Arc::<Notify>::default());
        let mut jobs = self.lock();
        let number = jobs.get(owner).map_or(0, |last| last.number + 1);
        let standing = Standing { number, begun, steps, seen: 0, image: None, stop: stop.clone() };
        jobs.insert(owner.into(), standing);
        Job { jobs: self.clone(), owner: owner.into(), number, stop }
    }
}

impl Job {
    /// What `making` comes to; `None` once it was interrupted.
    pub(super) async fn until<T>(
        &mut self,
        making: impl Future<Output = T>,
        mut partials: mpsc::Receiver<Partial>,
    ) -> Option<T> {
        let mut making = pin!(making);
        let mut open = true;
        loop {
            tokio::select! {
                done = &mut making => return Some(done),
                () = self.stop.notified() => return None,
                partial = partials.recv(), if open => match partial {
                    Some(partial) => self.show(&partial),
                    None => open = false,
                },
            }
        }
    }

    fn show(&self, partial: &Partial) {
        if let Some(standing) = self.jobs.lock().get_mut(&self.owner)
            && standing.number == self.number
        {
            standing.seen += u32::from(partial.picture == 0);
            standing.image = Some(STANDARD.encode(&partial.bytes));
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let mut jobs = self.jobs.lock();
        if jobs.get(&self.owner).is_some_and(|standing| standing.number == self.number) {
            jobs.remove(&self.owner);
        }
    }
}

pub(super) async fn tell(
    State(desk): State<Desk>,
    Extension(origin): Extension<Origin>,
    headers: HeaderMap,
) -> Response {
    match desk.caller(&headers, &origin).await {
        Ok(caller) => {
            let jobs = desk.jobs.lock();
            json_answer(StatusCode::OK, &told(jobs.get(&caller.owner)))
        }
        Err(problem) => refusal(&problem),
    }
}

fn told(standing: Option<&Standing>) -> Value {
    let Some(standing) = standing else {
        let state = json!({"skipped": false, "interrupted": false, "job": "", "job_count": 0, "job_no": 0, "sampling_step": 0, "sampling_steps": 0});
        return json!({"progress": 0.0, "eta_relative": 0.0, "state": state, "current_image": null, "textinfo": null});
    };
    // Unfinished pictures divide the way evenly.
    let progress = f64::from(standing.seen) / f64::from(PARTIALS_MAX + 1);
    let passed = standing.begun.elapsed().as_secs_f64();
    let left = if progress > 0.0 { passed / progress - passed } else { 0.0 };
    let step = (progress * f64::from(standing.steps)) as u32;
    json!({
        "progress": progress,
        "eta_relative": left.max(0.0),
        "state": {
            "skipped": false,
            "interrupted": false,
            "job": "zoetrope",
            "job_count": 1,
            "job_no": 0,
            "sampling_step": step,
            "sampling_steps": standing.steps,
        },
        "current_image": standing.image,
        "textinfo": null,
    })
}

pub(super) async fn interrupt(
    State(desk): State<Desk>,
    Extension(origin): Extension<Origin>,
    headers: HeaderMap,
) -> Response {
    match desk.caller(&headers, &origin).await {
        Ok(caller) => {
            if let Some(standing) = desk.jobs.lock().get(&caller.owner) {
                standing.stop.notify_one();
            }
            json_answer(StatusCode::OK, &json!({}))
        }
        Err(problem) => refusal(&problem),
    }
}
