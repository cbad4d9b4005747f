//! A worker says that it is there, what it works on, and how much memory it has, so that somebody who looks can see it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use zoetrope_jobs::{Queue, WorkerRow};

use crate::attempt::Room;

/// Between two words; who says nothing for four of these is taken for gone.
const PAUSE: Duration = Duration::from_secs(10);
/// How long a change waits for others: requests may be shorter, and the database has other things to do.
const GATHER: Duration = Duration::from_millis(250);

/// A worker's presence. It says so until it is dropped.
pub(crate) struct Presence {
    said: Arc<Said>,
    speaking: JoinHandle<()>,
}

struct Said {
    queue: Queue,
    row: Mutex<WorkerRow>,
    changed: Notify,
}

impl Presence {
    /// From now on the worker of `room` is there.
    pub(crate) fn begin(room: &Room) -> Self {
        let row = WorkerRow {
            id: uuid::Uuid::now_v7().to_string(),
            host: System::host_name().unwrap_or_else(|_| "?".into()),
            since_ms: room.now_ms(),
            seen_ms: 0,
            request: None,
            memory_bytes: 0,
            memory_bytes_all: 0,
        };
        let (queue, changed) = (room.queue.clone(), Notify::new());
        let said = Arc::new(Said { queue, row: Mutex::new(row), changed });
        let speaker = said.clone();
        let speaking = tokio::spawn(async move {
            let mut system = System::new();
            loop {
                if let Ok(system) = &mut system {
                    speaker.measure(system);
                }
                speaker.say().await;
                let _ = timeout(PAUSE, speaker.changed.notified()).await; // either way it is time
                sleep(GATHER).await;
            }
        });
        Self { said, speaking }
    }

    /// It works on `request`, or on nothing.
    pub(crate) fn works_on(&self, request: Option<&str>) {
        self.said.lock().request = request.map(String::from);
        self.said.changed.notify_one();
    }

    /// It goes.
    pub(crate) async fn end(self) {
        self.speaking.abort();
        let id = self.said.lock().id.clone();
        if let Err(error) = self.said.queue.worker_gone(&id).await {
            tracing::debug!(%error, "a worker that goes is shown for a moment longer");
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.speaking.abort();
    }
}

impl Said {
    fn lock(&self) -> std::sync::MutexGuard<'_, WorkerRow> {
        self.row.lock().expect("nothing panics while it is held")
    }

    fn measure(&self, system: &mut System) {
        let own = Pid::from_u32(std::process::id());
        let memory = ProcessRefreshKind::nothing().with_memory();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[own]), false, memory);
        system.refresh_memory();
        let mut row = self.lock();
        row.memory_bytes = system.process(own).map_or(0, |process| process.memory() as i64);
        row.memory_bytes_all = system.total_memory() as i64;
    }

    async fn say(&self) {
        let row = self.lock().clone();
        if let Err(error) = self.queue.worker_seen(&row).await {
            tracing::debug!(%error, "a worker could not say that it is there");
        }
    }
}
