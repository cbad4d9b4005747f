//! What happened for one request: every call to a provider, as it ended.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use zoetrope_api::Micros;

use crate::answer::Attempt;

/// All calls of a request, in order of their ends.
#[derive(Debug, Default)]
pub(crate) struct Notes(Mutex<Vec<Noted>>);

/// A call that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Noted {
    pub(crate) attempt: Attempt,
    /// Pictures that it made.
    pub(crate) pictures: u32,
    pub(crate) begun: Instant,
}

impl Notes {
    pub(crate) fn push(&self, noted: Noted) {
        self.lock().push(noted);
    }

    pub(crate) fn all(&self) -> Vec<Noted> {
        self.lock().clone()
    }

    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.lock().iter().map(|noted| noted.attempt.clone()).collect()
    }

    /// What all calls cost together.
    pub(crate) fn cost(&self) -> Micros {
        self.lock().iter().map(|noted| noted.attempt.cost).sum()
    }

    /// How long somebody was waited for: calls beside each other count once.
    pub(crate) fn waited(&self) -> Duration {
        let mut spans: Vec<_> = self
            .lock()
            .iter()
            .map(|noted| (noted.begun, noted.begun + noted.attempt.duration))
            .collect();
        spans.sort_unstable();
        let (mut waited, mut until): (_, Option<Instant>) = (Duration::ZERO, None);
        for (begun, ended) in spans {
            let from = until.map_or(begun, |until| begun.max(until));
            waited += ended.saturating_duration_since(from);
            until = Some(until.map_or(ended, |until| until.max(ended)));
        }
        waited
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Noted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
