//! What is known of every deployment and every caller, whatever the configuration: it survives a new one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use zoetrope_api::images::Pixels;

use super::breaker::{Breaker, Shared, Standing};
use super::speed::Speed;
use crate::failure::{Failure, FailureKind, Health};

/// All of it.
#[derive(Default)]
pub(crate) struct Registry {
    /// By key.
    deployments: Mutex<HashMap<String, Arc<State>>>,
    /// By model: whose turn it is.
    turns: Mutex<HashMap<String, u64>>,
}

/// What is known of one deployment.
#[derive(Default)]
pub(crate) struct State(Mutex<Known>);

#[derive(Default)]
struct Known {
    breaker: Breaker,
    speed: Speed,
    /// What all servers of the database know of its health, and since when.
    shared: Shared,
    changed_ms: i64,
}

/// What ranking looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) standing: Standing,
    /// Seconds.
    pub(crate) expected: Option<f64>,
    pub(crate) success: f64,
    pub(crate) asked: f64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// The deployment called `key`.
    pub(crate) fn deployment(&self, key: &str) -> Arc<State> {
        let mut deployments = lock(&self.deployments);
        match deployments.get(key) {
            Some(state) => state.clone(),
            None => deployments.entry(key.into()).or_default().clone(),
        }
    }

    /// Begins anew with the deployment called `key`: it, its provider or its key has changed. The other servers are told.
    pub(crate) fn forget(&self, key: &str) {
        let mut deployments = lock(&self.deployments);
        if let Some(state) = deployments.get_mut(key) {
            let Known { shared, changed_ms, .. } = *lock(&state.0);
            // Calls under way keep the old one.
            *state = Arc::new(State(Mutex::new(Known { shared, changed_ms, ..Known::default() })));
        }
    }

    /// Everything that is known of, by key.
    pub(crate) fn deployments(&self) -> Vec<(String, Arc<State>)> {
        let deployments = lock(&self.deployments);
        deployments.iter().map(|(key, state)| (key.clone(), state.clone())).collect()
    }

    /// Counts the requests for `model`.
    pub(crate) fn turn(&self, model: &str) -> u64 {
        let mut turns = lock(&self.turns);
        let turn = turns.entry(model.into()).or_default();
        *turn = turn.wrapping_add(1);
        *turn
    }
}

impl State {
    pub(crate) fn seen(&self, size: Pixels, now: Instant) -> Seen {
        let known = lock(&self.0);
        Seen {
            standing: known.breaker.standing(now),
            expected: known.speed.expected(size),
            success: known.speed.success(now),
            asked: known.speed.times_asked(now),
        }
    }

    pub(crate) fn is_healthy(&self) -> bool {
        lock(&self.0).breaker.is_healthy()
    }

    /// What weeks of calls say.
    pub(crate) fn learn(&self, prior: Option<Duration>) {
        lock(&self.0).speed.learn(prior);
    }

    /// A call begins.
    pub(crate) fn begin(&self, now: Instant) {
        let mut known = lock(&self.0);
        known.breaker.begin(now);
        known.speed.asked(now);
    }

    /// It made pictures of `size` in `duration`.
    pub(crate) fn succeeded(&self, size: Pixels, duration: Duration, now: Instant) {
        let mut known = lock(&self.0);
        known.breaker.succeeded(now);
        known.speed.completed(now);
        known.speed.took(size, duration, now);
    }

    /// It failed after `duration`.
    pub(crate) fn failed(&self, failure: &Failure, size: Pixels, duration: Duration, now: Instant) {
        let mut known = lock(&self.0);
        match failure.kind {
            FailureKind::Throttled => known.breaker.throttled(failure.retry_after, now),
            kind => known.breaker.failed(kind.verdict().health, now),
        }
        if failure.kind.verdict().health != Health::Unchanged {
            known.speed.failed(now);
        }
        if failure.kind == FailureKind::TimedOut {
            known.speed.took(size, duration, now); // it takes that long at least
        }
    }

    /// What the others are to be told, if that is something new.
    pub(crate) fn news(&self) -> Option<Shared> {
        let known = lock(&self.0);
        let shared = known.breaker.shared();
        (shared != known.shared).then_some(shared)
    }

    /// They were told so at `now_ms`.
    pub(crate) fn told(&self, shared: Shared, now_ms: i64) {
        let mut known = lock(&self.0);
        (known.shared, known.changed_ms) = (shared, now_ms);
    }

    /// What another server has told at `changed_ms`. Nothing that is older than what is known here.
    pub(crate) fn hear(&self, shared: Shared, changed_ms: i64) {
        let mut known = lock(&self.0);
        if changed_ms > known.changed_ms && known.breaker.shared() == known.shared {
            known.breaker.adopt(shared);
            (known.shared, known.changed_ms) = (shared, changed_ms);
        }
    }

    /// Nobody waited for its end.
    pub(crate) fn abandoned(&self) {
        lock(&self.0).breaker.abandoned();
    }
}
