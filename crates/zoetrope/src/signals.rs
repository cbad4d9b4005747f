//! What long-running subcommands begin with: a runtime, TLS, metrics, and the signals that end them.

use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use zoetrope_engine::Interrupt;

/// A runtime of as many threads as the processor has.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_multi_thread().enable_all().build().context("the runtime cannot start")
}

/// Descriptors for everything but connections: the database, files, fetches.
#[cfg(unix)]
const OTHER_DESCRIPTORS: u64 = 256;

/// Connections that a listener may hold at once: two listeners, and what each connection may open besides, share what the
/// system gives. As much as it may give is asked for.
pub(crate) fn connections_max() -> usize {
    let most = zoetrope_server::listen::Options::default().connections_max;
    #[cfg(unix)]
    if let Ok(limit) = rlimit::increase_nofile_limit(u64::MAX) {
        let left = limit.saturating_sub(OTHER_DESCRIPTORS).max(limit / 2) / 2;
        return most.min(usize::try_from(left).unwrap_or(most));
    }
    most
}

/// Chooses how TLS is computed; the first choice counts.
pub(crate) fn prepare() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// From what a stored file takes to what a large picture takes on a slow processor.
const SECONDS: [f64; 14] =
    [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0];

/// What the gateway itself takes, besides waiting for providers.
const OWN_SECONDS: [f64; 10] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0];

/// Begins to count; the handle renders what was counted.
pub(crate) fn metrics() -> anyhow::Result<PrometheusHandle> {
    let own = Matcher::Full("zoetrope_gateway_overhead_seconds".into());
    let builder = PrometheusBuilder::new()
        .set_buckets(&SECONDS)
        .and_then(|builder| builder.set_buckets_for_metric(own, &OWN_SECONDS))
        .context("metrics cannot begin")?;
    let handle = builder.install_recorder().context("metrics cannot begin")?;
    zoetrope_server::metrics::describe();
    let upkeep = handle.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            upkeep.run_upkeep(); // histograms hold every value until then
        }
    });
    Ok(handle)
}

/// Holds true once somebody asked to stop: Ctrl-C or SIGTERM. The second time ends the process at once.
pub(crate) fn stop() -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        asked().await;
        tracing::info!("stopping; what runs may finish. Ask again to end at once");
        let _ = sender.send(true);
        asked().await;
        std::process::exit(130);
    });
    receiver
}

#[cfg(unix)]
async fn asked() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

#[cfg(not(unix))]
async fn asked() {
    let _ = tokio::signal::ctrl_c().await;
}

/// Ctrl-C stops the work at its next block; twice, at once.
pub(crate) fn on_ctrl_c(interrupt: &Interrupt) -> anyhow::Result<()> {
    let stop = interrupt.clone();
    let handler = move || {
        if stop.is_stopped() {
            std::process::exit(130); // asked twice
        }
        stop.stop();
    };
    ctrlc::set_handler(handler).context("Ctrl-C cannot be caught")
}
