//! `zoetrope worker`: draws what servers on the same database accept.

use anyhow::bail;

use crate::environment::Environment;
use crate::place::Place;
use crate::{drawing, logs, signals};

/// What was typed.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
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
    logs::start(&args.logs)?;
    signals::runtime()?.block_on(work(args, environment))
}

async fn work(args: &Args, environment: &Environment) -> anyhow::Result<()> {
    signals::prepare();
    let limits = args.drawing.limits(zoetrope_jobs::Limits::default().queued_max);
    let queue = args.place.queue(environment, limits).await?;
    let store = args.place.store(environment)?;
    let worker = args.drawing.worker(&args.place, environment, (queue.clone(), store))?;
    println!(
        "zoetrope works on {}",
        if args.place.database_url.is_some() {
            "the given database"
        } else {
            "the data folder's database"
        }
    );
    worker.run(signals::stop()).await;
    queue.close().await;
    Ok(())
}
