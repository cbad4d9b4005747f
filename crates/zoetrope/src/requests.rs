//! `zoetrope requests`: what is and was done, seen and changed from this machine.

use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;
use anyhow::{Context, bail};
use serde_json::{Value, json};
use zoetrope_jobs::{Cancelled, Limits, Outcome, Page, Queue, Request, Standing, State};

use crate::environment::Environment;
use crate::place::Place;
use crate::signals;

/// List, show, cancel and delete requests.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the newest requests: what waits, what runs, and what the history keeps.
    List {
        /// Only those of this endpoint.
        #[arg(long, default_value = "")]
        endpoint: String,
        /// Only those of this key's id, or of `local`.
        #[arg(long, default_value = "")]
        owner: String,
        /// Only those before this request: the last of the page before.
        #[arg(long, default_value = "", value_name = "ID")]
        before: String,
        /// At most so many.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=100))]
        limit: i64,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show a request: input, output, times, what was charged, log.
    Show {
        /// The request's id.
        id: String,
    },
    /// Cancel a request that waits or runs.
    Cancel {
        /// The request's id.
        id: String,
    },
    /// Forget a request that has ended, and delete the files that it made.
    Delete {
        /// The request's id.
        id: String,
    },
}

/// Lines of a log that are shown.
const LOGS_MAX: i64 = 1000;

pub(crate) fn run(args: &Args, environment: &Environment) -> anyhow::Result<()> {
    signals::prepare();
    signals::runtime()?.block_on(async {
        let queue = args.place.queue(environment, Limits::default()).await?;
        let done = act(args, &queue, environment).await;
        queue.close().await;
        done
    })
}

async fn act(args: &Args, queue: &Queue, environment: &Environment) -> anyhow::Result<()> {
    match &args.action {
        Action::List { endpoint, owner, before, limit, json } => {
            let page = Page {
                owner: owner.clone(),
                endpoint: endpoint.clone(),
                after: before.clone(),
                most: *limit,
                ..Page::default()
            };
            let (found, _) = queue.history(&page).await?;
            match json {
                true => {
                    println!("{}", json!({"requests": found.iter().map(brief).collect::<Vec<_>>()}))
                }
                false => found.iter().for_each(print),
            }
        }
        Action::Show { id } => {
            let request = find(queue, id).await?;
            let mut shown = brief(&request);
            shown["input"] = serde_json::from_str(&request.input).unwrap_or_default();
            let end = request.end.as_ref().filter(|_| request.keep_io);
            shown["output"] =
                end.and_then(|end| serde_json::from_str(&end.response).ok()).unwrap_or_default();
            let lines = queue.logs(&request.id, 0, LOGS_MAX).await?;
            let line =
                |l: &zoetrope_jobs::LogLine| format!("{} {} {}", time(l.at_ms), l.level, l.message);
            shown["logs"] = lines.iter().map(line).collect();
            println!("{}", serde_json::to_string_pretty(&shown)?);
        }
        Action::Cancel { id } => match queue.cancel(id).await? {
            Cancelled::Removed => println!("{id} will not run"),
            Cancelled::Requested => println!("{id} is told to stop"),
            Cancelled::AlreadyDone => bail!("{id} has ended already"),
            Cancelled::NotFound => bail!("there is no request {id}"),
        },
        Action::Delete { id } => {
            let request = find(queue, id).await?;
            if request.state != State::Done {
                bail!("{id} has not ended; cancel it first");
            }
            let store = args.place.store(environment)?;
            let left = zoetrope_server::forget(queue, &store, &request).await?;
            for (name, problem) in left.iter().filter_map(|(name, p)| Some((name, p.as_ref()?))) {
                eprintln!(
                    "note: the file {name} could not be deleted now and will be later: {problem}"
                );
            }
            println!("{id} is forgotten, with {} files", left.len());
        }
    }
    Ok(())
}

async fn find(queue: &Queue, id: &str) -> anyhow::Result<Request> {
    queue.request(id).await?.with_context(|| format!("there is no request {id}"))
}

fn state(request: &Standing) -> &'static str {
    match (request.state, request.ended.as_ref().map(|end| end.outcome)) {
        (State::Queued, _) => "queued",
        (State::Running, _) => "running",
        (State::Done, Some(Outcome::Completed)) => "completed",
        (State::Done, Some(Outcome::Cancelled)) => "cancelled",
        (State::Done, _) => "failed",
    }
}

fn brief(request: &Standing) -> Value {
    let end = request.ended.as_ref();
    json!({
        "request_id": request.id,
        "endpoint_id": request.endpoint,
        "owner": request.owner,
        "state": state(request),
        "attempts": request.attempts,
        "sent_at": time(request.created_ms),
        "started_at": request.started_ms.map(time),
        "ended_at": request.finished_ms.map(time),
        "status_code": end.map(|end| end.status_code),
        "error": end.and_then(|end| end.error.clone()),
        "inference_seconds": end.and_then(|end| end.inference_ms).map(|ms| ms as f64 / 1000.0),
        "billable_units": end.and_then(|end| end.billable_units),
        "flagged_images": end.and_then(|end| end.flagged),
    })
}

fn print(request: &Standing) {
    let seconds = request.ended.as_ref().and_then(|end| end.inference_ms);
    let seconds = seconds.map_or(String::new(), |ms| format!("{:.1} s", ms as f64 / 1000.0));
    println!(
        "{}  {}  {:9}  {:>8}  {}",
        request.id,
        time(request.created_ms),
        state(request),
        seconds,
        request.endpoint
    );
}

/// ISO 8601 in UTC, to the second.
pub(crate) fn time(ms: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(ms.div_euclid(1000));
    at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
}
