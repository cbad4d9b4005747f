//! How long what was measured takes to be looked at, once a million requests are written down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use zoetrope_jobs::{
    Limits, LogPage, LogPlace, ModelCall, ModelRequest, ModelStatus, Queue, Settings, Whose,
};

use crate::load::Latencies;
use crate::process::fresh_database;
use crate::row;

const HOUR_MS: i64 = 3_600_000;
const WINDOW_MS: i64 = 30 * 24 * HOUR_MS;
const NOW_MS: i64 = 500_000 * HOUR_MS;
const PROVIDERS: [&str; 5] = ["local", "fal", "alibaba", "replicate", "another"];
const OWNERS: usize = 20;
/// Requests that are recorded before they are waited for: below what a ledger takes at once.
const AT_ONCE: usize = 20_000;
const LOOKS: usize = 50;

/// Writes `requests` down, spread over thirty days, and looks at them.
pub(crate) async fn measure(database: Option<&str>, requests: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let url = match database {
        Some(url) => fresh_database(url).await?,
        None => format!("sqlite://{}/log.db?mode=rwc", folder.path().display()),
    };
    let settings = Settings { url, limits: Limits::default(), now_ms: Arc::new(|| NOW_MS) };
    let queue = Queue::open(settings).await?;
    let (ledger, begun) = (queue.ledger(), Instant::now());
    for n in 0..requests {
        ledger.record(request(n, requests));
        if n % AT_ONCE == AT_ONCE - 1 {
            ledger.flush().await;
        }
    }
    ledger.flush().await;
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "| {requests} requests written down | {:.0} | | | | {requests} | |",
        requests as f64 / seconds
    );
    let page = || LogPage {
        owner: "key7".into(),
        status: None,
        from_ms: 0,
        until_ms: i64::MAX,
        place: LogPlace::Newest,
        most: 100,
    };
    let (mut sums, mut pages) = (Latencies::default(), Latencies::default());
    let (mut sums_took, mut pages_took) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..LOOKS {
        let begun = Instant::now();
        let found = queue.calls(NOW_MS - WINDOW_MS, NOW_MS, Whose::All).await?;
        anyhow::ensure!(found.iter().map(|one| one.calls).sum::<i64>() == requests as i64);
        sums.add(begun.elapsed());
        sums_took += begun.elapsed();
        let begun = Instant::now();
        anyhow::ensure!(queue.model_requests(&page()).await?.len() == 100);
        pages.add(begun.elapsed());
        pages_took += begun.elapsed();
    }
    let (sums_took, pages_took) = (sums_took.as_secs_f64(), pages_took.as_secs_f64());
    row(
        "the sums of 30 days over them, by provider, with quantiles",
        &sums.sorted(),
        sums_took,
        "",
    );
    row("a page of 100 of one key's", &pages.sorted(), pages_took, "");
    queue.close().await;
    Ok(())
}

/// The `n`th of `of`: every key, provider and hour has its share, and durations are spread over two decades.
fn request(n: usize, of: usize) -> ModelRequest {
    let provider = PROVIDERS[n % PROVIDERS.len()];
    let created_ms = NOW_MS - WINDOW_MS + (n as i64 * WINDOW_MS) / of as i64;
    let spread = (n.wrapping_mul(2_654_435_761) >> 7) % 1000;
    let duration_us = (300_000.0 * 100_f64.powf(spread as f64 / 1000.0)) as i64;
    ModelRequest {
        id: format!("req_{n:032x}"),
        owner: format!("key{}", n % OWNERS),
        model: "z-image-turbo".into(),
        mode: "text-to-image".into(),
        status: ModelStatus::Completed,
        provider: Some(provider.into()),
        deployment: Some(format!("{provider}/z-image-turbo")),
        upstream: Some("z-image-turbo".into()),
        pictures: 1,
        cost_micros: 5_000,
        created_ms,
        duration_us,
        upstream_us: duration_us,
        calls: vec![ModelCall {
            provider: provider.into(),
            deployment: format!("{provider}/z-image-turbo"),
            upstream: "z-image-turbo".into(),
            outcome: "completed".into(),
            fault: false,
            duration_us,
            first_byte_us: Some(duration_us / 2),
            pictures: 1,
            cost_micros: 5_000,
        }],
        ..ModelRequest::default()
    }
}
