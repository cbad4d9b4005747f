//! What the gateway adds to a provider that answers at once: the time of a request, both sockets, JSON and the log included.
//!
//!     cargo bench -p zoetrope --bench gateway -- [--database-url postgres://…] [--seconds 10] [--litellm PATH] [--requests 1000000]
//!
//! Prints a table like those of docs/load.md. With `--litellm`, the command of LiteLLM's proxy (PyPI: `litellm[proxy]`), the same
//! requests go through it too, on the same machine and in the same run. Provider, gateway and clients share the processors. Last,
//! how long the log of a million requests takes to be looked at.

#[path = "../server/client.rs"]
#[expect(dead_code, reason = "the server's benchmark uses the rest")]
mod client;
#[path = "../server/load.rs"]
mod load;
mod log;
#[path = "../server/process.rs"]
mod process;
mod upstream;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use hyper::Method;
use zoetrope_files::{Format, Picture, encode};

use client::Client;
use load::{Latencies, closed, open};
use process::Server;

/// Measures the gateway in front of a provider that answers at once.
#[derive(Parser)]
struct Args {
    /// A PostgreSQL whose user may make databases; SQLite in a fresh folder without.
    #[arg(long)]
    database_url: Option<String>,
    /// How long each load lasts.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// The command of LiteLLM's proxy.
    #[arg(long)]
    litellm: Option<PathBuf>,
    /// Requests that are written down before the log is looked at; 0 leaves that out.
    #[arg(long, default_value_t = 1_000_000)]
    requests: usize,
    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

const PATH: &str = "/v1/images/generations";
const BODY: &[u8] =
    br#"{"model":"instant","prompt":"a fox under a pine","size":"1024x1024","response_format":"b64_json"}"#;
/// The rate at which the added time is looked at.
const RATE: f64 = 1000.0;
/// The rates that LiteLLM is asked at, until it does not keep up.
const LITELLM_RATES: [f64; 3] = [20.0, 50.0, 100.0];
const CONNECTIONS: usize = 64;
/// Importing its modules takes LiteLLM most of a minute on a small machine.
const LITELLM_START_MAX: Duration = Duration::from_secs(240);
const SIDE: u32 = 1024;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    println!("| what | per second | p50 ms | p95 ms | p99 ms | count | memory MB (peak) |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let mut notes = Vec::new();
    for (name, picture) in [("a picture of 4 KB", grey()?), ("a picture of 1.1 MB", noise()?)] {
        let provider = upstream::start(&picture).await?;
        let large = picture.len() > 1 << 20;
        // A gigabyte a second through two sockets and a client is no load of a gateway.
        let rate = if large { RATE / 20.0 } else { RATE };
        let alone = direct(&args, (name, rate), provider).await?;
        let (through, most) = gateway(&args, (name, rate), provider).await?;
        let added = [0.5, 0.95, 0.99]
            .map(|share| format!("{:.2}", through.quantile_ms(share) - alone.quantile_ms(share)));
        notes.push(format!(
            "{name}: at {rate:.0} a second the gateway adds {} ms (p50), {} ms (p95), {} ms (p99).",
            added[0], added[1], added[2]
        ));
        if let Some(command) = args.litellm.as_deref().filter(|_| !large) {
            let theirs = litellm(&args, command, provider).await?;
            notes.push(format!(
                "{CONNECTIONS} clients without a pause: {most:.0} a second, {:.0} times LiteLLM's {theirs:.0}.",
                most / theirs
            ));
        }
    }
    if args.requests > 0 {
        log::measure(args.database_url.as_deref(), args.requests).await?;
    }
    println!();
    notes.iter().for_each(|note| println!("{note}"));
    Ok(())
}

fn grey() -> anyhow::Result<Vec<u8>> {
    let rgb = vec![127; (3 * SIDE * SIDE) as usize];
    Ok(encode(&Picture { width: SIDE, height: SIDE, rgb }, Format::Png, None)?)
}

/// What no encoder makes small.
fn noise() -> anyhow::Result<Vec<u8>> {
    let mut state = 7_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 24) as u8
    };
    // As large as pictures are: an eighth of it noise, a square in the middle.
    let mut rgb = vec![127; (3 * SIDE * SIDE) as usize];
    let quarter = SIDE as usize / 8 * 3 * SIDE as usize;
    rgb[quarter..quarter + 1_100_000].iter_mut().for_each(|byte| *byte = next());
    Ok(encode(&Picture { width: SIDE, height: SIDE, rgb }, Format::Png, None)?)
}

async fn ask(mut client: Client, _turn: usize) -> anyhow::Result<Client> {
    let answer = client.post(PATH, BODY).await?;
    ensure!(answer["data"][0]["b64_json"].is_string(), "an answer without a picture: {answer}");
    Ok(client)
}

/// A line of the table.
fn row(what: &str, took: &Latencies, seconds: f64, memory: &str) {
    let (rate, count) = (took.count() as f64 / seconds, took.count());
    let ms = |share: f64| format!("{:.2}", took.quantile_ms(share));
    println!(
        "| {what} | {rate:.0} | {} | {} | {} | {count} | {memory} |",
        ms(0.5),
        ms(0.95),
        ms(0.99)
    );
}

async fn direct(
    args: &Args,
    (name, rate): (&str, f64),
    provider: SocketAddr,
) -> anyhow::Result<Latencies> {
    let long = Duration::from_secs_f64(args.seconds);
    let took = open(provider, CONNECTIONS, rate, long, ask).await?;
    row(&format!("{name}, the provider alone, {rate:.0} a second"), &took, args.seconds, "");
    Ok(took)
}

/// What requests took at the rate, and how many a second went through at most.
async fn gateway(
    args: &Args,
    (name, rate): (&str, f64),
    provider: SocketAddr,
) -> anyhow::Result<(Latencies, f64)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("config.toml");
    std::fs::write(&file, configuration(provider))?;
    let file = file.to_str().context("a path of plain text")?;
    let flags = ["--no-worker", "--config", file];
    let server = Server::start(args.database_url.as_deref(), &flags).await?;
    let long = Duration::from_secs_f64(args.seconds);
    // Connections to the provider are there before anything is measured.
    open(server.address, CONNECTIONS, rate / 4.0, Duration::from_secs(1), ask).await?;
    let at_rate = open(server.address, CONNECTIONS, rate, long, ask).await?;
    let memory = || -> anyhow::Result<String> {
        let (now, peak) = server.memory_mb()?;
        Ok(format!("{now} ({peak})"))
    };
    let what = format!("{name}, through the gateway, {rate:.0} a second");
    row(&what, &at_rate, args.seconds, &memory()?);
    let took = closed(server.address, CONNECTIONS, long, ask).await?;
    let what = format!("{name}, through the gateway, {CONNECTIONS} clients without a pause");
    row(&what, &took, args.seconds, &memory()?);
    Ok((at_rate, took.count() as f64 / args.seconds))
}

fn configuration(provider: SocketAddr) -> String {
    format!(
        r#"
[gateway.providers.loopback]
protocol = "openai"
url = "http://{provider}/v1"
key = "bench"
private = true

[gateway.models.instant]
deployments = [{{ provider = "loopback", modes = ["text-to-image"], price = {{ unit = "image", dollars = 0.01 }} }}]
"#
    )
}

/// LiteLLM's proxy, ended when this is dropped.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it may have ended on its own
        let _ = self.0.wait();
    }
}

/// The same through LiteLLM's proxy; how many a second went through at most.
async fn litellm(args: &Args, command: &Path, provider: SocketAddr) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("litellm.yaml");
    let text = format!(
        "model_list:\n  - model_name: instant\n    litellm_params:\n      model: openai/instant\n      \
         api_base: http://{provider}/v1\n      api_key: bench\n    model_info:\n      mode: image_generation\n\
         litellm_settings:\n  drop_params: true\n"
    );
    std::fs::write(&file, text)?;
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let port = address.port().to_string();
    let child = Command::new(command)
        .args([
            "--host",
            "127.0.0.1",
            "--port",
            &port,
            "--num_workers",
            "2",
            "--telemetry",
            "False",
            // While a process imports its modules it answers nobody, its supervisor neither.
            "--timeout_worker_healthcheck",
            "240",
        ])
        .arg("--config")
        .arg(&file)
        // It is alone on this machine, and asks nobody for a key, as the gateway does here.
        .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        .env("LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY", "true")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("--litellm")?;
    let mut proxy = Proxy(child);
    ready(&mut proxy, address).await?;
    let long = Duration::from_secs_f64(args.seconds);
    open(address, 4, 5.0, Duration::from_secs(2), ask).await?;
    for rate in LITELLM_RATES {
        let took = open(address, CONNECTIONS, rate, long, ask).await?;
        row(&format!("through LiteLLM's proxy, {rate:.0} a second"), &took, args.seconds, "");
    }
    let begun = Instant::now();
    let took = closed(address, CONNECTIONS, long, ask).await?;
    let what = format!("through LiteLLM's proxy, {CONNECTIONS} clients without a pause");
    let seconds = begun.elapsed().as_secs_f64();
    row(&what, &took, seconds, "");
    Ok(took.count() as f64 / seconds)
}

async fn ready(proxy: &mut Proxy, address: SocketAddr) -> anyhow::Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < LITELLM_START_MAX {
        if let Some(status) = proxy.0.try_wait()? {
            bail!("LiteLLM's proxy ended with {status}");
        }
        if let Ok(mut client) = Client::connect(address).await
            && client.open(Method::GET, "/health/liveliness", b"").await.is_ok()
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    bail!("LiteLLM's proxy was not ready within {LITELLM_START_MAX:?}")
}
