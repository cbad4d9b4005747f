//! The durable queue: requests, leases, logs, history, keys and webhook deliveries, in SQLite or PostgreSQL.
//!
//! What is answered is written: a submission is committed before its id is known to anybody. A worker holds a lease that it
//! prolongs; whoever loses it can no longer finish the request. The queue does not know what a job does.

mod answers;
mod arena;
mod budget;
mod calls;
mod checkpoint;
mod clock;
mod database;
mod deliveries;
mod error;
mod files;
mod health;
mod histogram;
mod history;
mod keys;
mod lease;
mod ledger;
mod line;
mod load;
mod news;
mod pace;
mod performance;
mod pictures;
mod previews;
mod queue;
mod request;
mod secrets;
mod sql;
mod submit;
mod training;
mod words;

pub use answers::{Claim, KeptAnswer};
pub use arena::{
    ArenaEntry, ArenaMade, ArenaPicture, ArenaProgress, ArenaState, ArenaVote, Challenge,
    ChallengePrompt, Of, Pair, Verdict,
};
pub use budget::{Balance, Held};
pub use calls::{Calls, LogPage, LogPlace, ModelCall, ModelRequest, ModelStatus, Whose};
pub use clock::{Clock, shared_clock};
pub use deliveries::RECEIVERS_BUSY_MAX;
pub use deliveries::{Delivery, Due};
pub use error::{Error, Result};
pub use files::FileRow;
pub use health::Health;
pub use histogram::Histogram;
pub use history::{Page, Sort, Status};
pub use keys::{Key, KeyLimits, Period, Scope};
pub use lease::{Attempt, Heartbeat, Lease, Swept};
pub use ledger::Ledger;
pub use load::{Load, WorkerRow};
pub use news::Watcher;
pub use pace::Pace;
pub use performance::{CallsAt, Finished};
pub use pictures::{NewPicture, Picture, Search};
pub use previews::Preview;
pub use queue::{Cancelled, Limits, Queue, Settings};
pub use request::{End, Ended, LogLine, Outcome, Priority, Request, Standing, State};
pub use submit::New;
pub use training::{TrainingPicture, TrainingRun, TrainingSet};
