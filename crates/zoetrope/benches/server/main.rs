//! What the server adds to the engine, which sleeps meanwhile: submissions, completions, waiting clients, memory.
//!
//!     cargo bench -p zoetrope --bench server -- [--database-url postgres://…] [--seconds 10]
//!
//! Prints the table that is kept in docs/load.md. Server and clients share the machine's processors, and its disk is the real
//! one: a submission is answered when it is written.

mod client;
mod load;
mod process;

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use http_body_util::BodyExt;
use hyper::Method;
use tokio::task::JoinSet;

use client::Client;
use load::{Latencies, closed, open};
use process::Server;

/// Measures `zoetrope serve` with an engine that sleeps.
#[derive(Parser)]
struct Args {
    /// A PostgreSQL whose user may make databases; SQLite in a fresh folder without.
    #[arg(long)]
    database_url: Option<String>,
    /// How long each load lasts.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

const SUBMIT: &str = "/queue/fal-ai/z-image/turbo";
const RUN: &str = "/run/fal-ai/z-image/turbo";
const BODY: &[u8] = br#"{"prompt":"a fox under a pine","image_size":{"width":64,"height":64},"num_inference_steps":1,"seed":7}"#;
/// Half of the 2,000 submissions a second that are asked for.
const HALF_RATE: f64 = 1000.0;
const CONNECTIONS: usize = 64;
const STREAMS: usize = 1000;
const QUEUED: usize = 10_000;
/// One step's sleep where the overhead of a single request is looked at.
const SLEEP_MS: u64 = 20;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    println!("| what | per second | p50 ms | p99 ms | count | memory MB (peak) |");
    println!("| --- | --- | --- | --- | --- | --- |");
    disk(&args)?;
    submissions(&args).await?;
    completions(&args).await?;
    overhead(&args).await?;
    streams(&args).await?;
    long_queue(&args).await
}

fn row(what: &str, took: &Latencies, seconds: f64, server: &Server) -> anyhow::Result<()> {
    let (now, peak) = server.memory_mb()?;
    let (rate, count) = (took.count() as f64 / seconds, took.count());
    let (p50, p99) = (took.quantile_ms(0.5), took.quantile_ms(0.99));
    println!("| {what} | {rate:.0} | {p50:.2} | {p99:.2} | {count} | {now} ({peak}) |");
    Ok(())
}

/// What the disk itself takes to keep something, which no submission can be faster than.
fn disk(args: &Args) -> anyhow::Result<()> {
    let (mut file, begun) = (tempfile::tempfile()?, Instant::now());
    let mut took = Latencies::default();
    while begun.elapsed().as_secs_f64() < args.seconds {
        let asked = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        took.add(asked.elapsed());
    }
    let took = took.sorted();
    let (rate, count) = (took.count() as f64 / args.seconds, took.count());
    let (p50, p99) = (took.quantile_ms(0.5), took.quantile_ms(0.99));
    println!(
        "| the disk: 4 KiB written and synced | {rate:.0} | {p50:.2} | {p99:.2} | {count} | |"
    );
    Ok(())
}

async fn submit(mut client: Client, _turn: usize) -> anyhow::Result<Client> {
    client.post(SUBMIT, BODY).await?;
    Ok(client)
}

async fn picture(mut client: Client, _turn: usize) -> anyhow::Result<Client> {
    client.post(RUN, BODY).await?;
    Ok(client)
}

/// Nobody works; submissions are taken as fast as they can be written, then at half the rate that is asked for.
async fn submissions(args: &Args) -> anyhow::Result<()> {
    let long = Duration::from_secs_f64(args.seconds);
    let server =
        Server::start(args.database_url.as_deref(), &["--no-worker", "--queue-max", "1000000"])
            .await?;
    let took = closed(server.address, CONNECTIONS, long, submit).await?;
    row(
        &format!("submissions, {CONNECTIONS} clients without a pause"),
        &took,
        args.seconds,
        &server,
    )?;
    let server =
        Server::start(args.database_url.as_deref(), &["--no-worker", "--queue-max", "1000000"])
            .await?;
    let took = open(server.address, CONNECTIONS, HALF_RATE, long, submit).await?;
    row(&format!("submissions, {HALF_RATE:.0} a second"), &took, args.seconds, &server)
}

/// A worker whose engine takes no time empties the queue, storing a picture each.
async fn completions(args: &Args) -> anyhow::Result<()> {
    let server = Server::start(
        args.database_url.as_deref(),
        &["--engine-sleep-ms", "0", "--concurrency-max", "1000"],
    )
    .await?;
    let long = Duration::from_secs_f64(args.seconds);
    let took = closed(server.address, CONNECTIONS, long, picture).await?;
    row(
        &format!("completions, {CONNECTIONS} clients waiting for pictures"),
        &took,
        args.seconds,
        &server,
    )
}

/// One client, whose requests sleep: what a request takes beyond that.
async fn overhead(args: &Args) -> anyhow::Result<()> {
    let sleep = SLEEP_MS.to_string();
    let server =
        Server::start(args.database_url.as_deref(), &["--engine-sleep-ms", &sleep]).await?;
    let mut client = Client::connect(server.address).await?;
    let (begun, mut took) = (Instant::now(), Latencies::default());
    while begun.elapsed().as_secs_f64() < args.seconds {
        let asked = Instant::now();
        client.post(RUN, BODY).await?;
        took.add(asked.elapsed().saturating_sub(Duration::from_millis(SLEEP_MS)));
    }
    let took = took.sorted();
    row(
        &format!("a request's time beyond the engine's {SLEEP_MS} ms"),
        &took,
        begun.elapsed().as_secs_f64(),
        &server,
    )
}

async fn submitted(server: &Server, count: usize) -> anyhow::Result<Vec<String>> {
    let ids = Arc::new(Mutex::new(Vec::with_capacity(count)));
    let mut tasks = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let (ids, address) = (ids.clone(), server.address);
        tasks.spawn(async move {
            let mut client = Client::connect(address).await?;
            for _ in (connection..count).step_by(CONNECTIONS) {
                let answer = client.post(SUBMIT, BODY).await?;
                let id = answer["request_id"].as_str().context("an answer without an id")?;
                ids.lock().expect("nothing panics while it is held").push(id.to_string());
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(std::mem::take(&mut *ids.lock().expect("nothing panics while it is held")))
}

fn address_of(id: &str) -> String {
    format!("/queue/fal-ai/z-image/requests/{id}")
}

/// A thousand clients follow a request each while others submit; then every request is cancelled, and each client hears of it.
async fn streams(args: &Args) -> anyhow::Result<()> {
    let server = Server::start(args.database_url.as_deref(), &["--no-worker"]).await?;
    let ids = submitted(&server, STREAMS).await?;
    let mut followers = JoinSet::new();
    let ready = Arc::new(tokio::sync::Semaphore::new(0));
    for id in &ids {
        followers.spawn(follow(
            server.address,
            format!("{}/status/stream", address_of(id)),
            id.clone(),
            ready.clone(),
        ));
    }
    let _ = ready.acquire_many(STREAMS as u32).await?;
    let long = Duration::from_secs_f64(args.seconds);
    let took = open(server.address, CONNECTIONS, HALF_RATE, long, submit).await?;
    row(&format!("the same with {STREAMS} open event streams"), &took, args.seconds, &server)?;

    let mut client = Client::connect(server.address).await?;
    let begun = Instant::now();
    let mut asked = std::collections::HashMap::new();
    for id in &ids {
        asked.insert(id.clone(), Instant::now());
        client.put(&format!("{}/cancel", address_of(id))).await?;
    }
    let mut heard = Latencies::default();
    while let Some(done) = followers.join_next().await {
        let (id, at) = done??;
        heard.add(at.saturating_duration_since(asked[&id]));
    }
    row(
        "from cancelling to the last event of its stream",
        &heard.sorted(),
        begun.elapsed().as_secs_f64(),
        &server,
    )
}

/// Follows a stream of events to its end; when that was.
async fn follow(
    address: std::net::SocketAddr,
    path: String,
    id: String,
    ready: Arc<tokio::sync::Semaphore>,
) -> anyhow::Result<(String, Instant)> {
    let mut client = Client::connect(address).await?;
    let mut body = client.open(Method::GET, &path, b"").await?.into_body();
    let (mut first, mut last) = (true, Vec::new());
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            last = data.to_vec();
        }
        if std::mem::take(&mut first) {
            ready.add_permits(1);
        }
    }
    let text = String::from_utf8_lossy(&last);
    ensure!(text.contains("COMPLETED"), "the stream of {id} ended with {text}");
    Ok((id, Instant::now()))
}

/// Ten thousand requests wait: a hundred clients look ten times a second after theirs, then others submit.
async fn long_queue(args: &Args) -> anyhow::Result<()> {
    let server =
        Server::start(args.database_url.as_deref(), &["--no-worker", "--queue-max", "1000000"])
            .await?;
    let ids: Arc<VecDeque<String>> = Arc::new(submitted(&server, QUEUED).await?.into());
    let long = Duration::from_secs_f64(args.seconds);
    let look = move |mut client: Client, turn: usize| {
        // Strides through the queue, so that early and late places are asked for alike.
        let path = format!("{}/status", address_of(&ids[turn * 7919 % ids.len()]));
        async move {
            client.get(&path).await?;
            Ok(client)
        }
    };
    let took = open(server.address, 100, HALF_RATE, long, look).await?;
    row(
        &format!("looks at a status, {QUEUED} queued, {HALF_RATE:.0} a second"),
        &took,
        args.seconds,
        &server,
    )?;
    let took = open(server.address, CONNECTIONS, HALF_RATE, long, submit).await?;
    row(
        &format!("submissions, {QUEUED} queued, {HALF_RATE:.0} a second"),
        &took,
        args.seconds,
        &server,
    )
}
