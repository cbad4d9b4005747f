//! Two kinds of load: as much as the server takes, and as much as was decided, whether it keeps up or not.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{Instant as Moment, sleep_until};

use crate::client::Client;

/// How long requests took, in microseconds.
#[derive(Default)]
pub(crate) struct Latencies(Vec<u64>);

impl Latencies {
    pub(crate) fn add(&mut self, took: Duration) {
        self.0.push(took.as_micros() as u64);
    }

    fn join(parts: Vec<Self>) -> Self {
        let mut all: Vec<u64> = parts.into_iter().flat_map(|part| part.0).collect();
        all.sort_unstable();
        Self(all)
    }

    pub(crate) fn sorted(self) -> Self {
        Self::join(vec![self])
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Milliseconds that `share` of them did not exceed.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let at = (self.0.len() as f64 * share).ceil() as usize;
        self.0.get(at.saturating_sub(1)).map_or(f64::NAN, |us| *us as f64 / 1000.0)
    }
}

/// Asks without a pause on each of `connections`, for `long`.
pub(crate) async fn closed<F, Fut>(
    address: SocketAddr,
    connections: usize,
    long: Duration,
    ask: F,
) -> anyhow::Result<Latencies>
where
    F: Fn(Client, usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = anyhow::Result<Client>> + Send + 'static,
{
    let until = Instant::now() + long;
    gather(connections, move |_| {
        let ask = ask.clone();
        async move {
            let (mut client, mut took, mut turn) =
                (Client::connect(address).await?, Latencies::default(), 0);
            while Instant::now() < until {
                let begun = Instant::now();
                client = ask(client, turn).await?;
                took.add(begun.elapsed());
                turn += 1;
            }
            Ok(took)
        }
    })
    .await
}

/// Asks `rate` times a second on `connections` in turn, for `long`. What was due and had to wait counts from when it was due.
pub(crate) async fn open<F, Fut>(
    address: SocketAddr,
    connections: usize,
    rate: f64,
    long: Duration,
    ask: F,
) -> anyhow::Result<Latencies>
where
    F: Fn(Client, usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = anyhow::Result<Client>> + Send + 'static,
{
    let count = (rate * long.as_secs_f64()) as usize;
    let begin = Moment::now() + Duration::from_millis(200);
    gather(connections, move |connection| {
        let ask = ask.clone();
        async move {
            let (mut client, mut took) = (Client::connect(address).await?, Latencies::default());
            for turn in (connection..count).step_by(connections) {
                let due = begin + Duration::from_secs_f64(turn as f64 / rate);
                sleep_until(due).await;
                client = ask(client, turn).await?;
                took.add(due.elapsed());
            }
            Ok(took)
        }
    })
    .await
}

async fn gather<F, Fut>(connections: usize, work: F) -> anyhow::Result<Latencies>
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = anyhow::Result<Latencies>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for connection in 0..connections {
        tasks.spawn(work(connection));
    }
    let mut parts = Vec::new();
    while let Some(done) = tasks.join_next().await {
        parts.push(done??);
    }
    Ok(Latencies::join(parts))
}
