//! `zoetrope worker`: draws what servers on the same database accept.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use zoetrope_server::listen::{self, Options};

use crate::environment::Environment;
use crate::place::Place;
use crate::{drawing, logs, signals};

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Where /healthz and /metrics are answered, to anybody who reaches it [default: nowhere].
    #[arg(long, env = "ZOETROPE_METRICS_LISTEN", value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    drawing: drawing::Args,
    #[command(flatten)]
    logs: logs::Args,
}

pub(crate) fn run(args: &Args, environment: &Environment) -> anyhow::Result<()> {
    let shared = args.place.database_url.is_some() || args.place.data_dir.is_some();
    if !shared {
        bail!("name the database of the servers with --database-url, and their --storage");
    }
    let _exporter = logs::start(&args.logs, "zoetrope-worker")?;
    signals::runtime()?.block_on(work(args, environment))
}

async fn work(args: &Args, environment: &Environment) -> anyhow::Result<()> {
    signals::prepare();
    let queue = args.place.queue(environment, args.drawing.limits()).await?;
    let store = args.place.store(environment)?;
    args.place.probe(&store).await?;
    let workers = args.drawing.workers(&args.place, environment, (queue.clone(), store))?;
    let stop = signals::stop();
    let metrics = signals::metrics()?;
    if let Some(address) = args.metrics_listen {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("--metrics-listen {address}"))?;
        let router = zoetrope_server::metrics::router(metrics);
        tokio::spawn(listen::serve(listener, router, Options::default(), stop.clone()));
    }
    println!("zoetrope works");
    let mut house = JoinSet::new();
    for worker in workers {
        house.spawn(worker.run(stop.clone()));
    }
    while let Some(ended) = house.join_next().await {
        ended.context("a worker broke off")?;
    }
    queue.close().await;
    Ok(())
}
