//! For whom a picture is made.

use zoetrope_jobs::KeyLimits;

/// For whom a picture is made, as far as rows and limits go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The key's id, or `local`: to whom calls, files and costs are put down.
    pub owner: String,
    /// Requests of this owner that may run in the local engine at once.
    pub concurrency_max: i64,
    /// Where this caller reaches files of ours, without a slash at the end.
    pub base: String,
    /// Whose trace the work belongs to, as W3C's `traceparent`.
    pub trace: Option<String>,
    /// What the key may use; no limits without a key.
    pub limits: KeyLimits,
}
