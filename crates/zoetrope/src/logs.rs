//! What the server says about itself: lines for people or JSON for machines, on standard error; spans for a collector.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt};
use zoetrope_trace::Exporter;

use crate::signals;

/// What was typed about it.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "logs")]
pub(crate) struct Args {
    /// What is logged: error, warn, info, debug, trace, or by part as info,zoetrope_server=debug.
    #[arg(long, env = "ZOETROPE_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
    /// text, or json with one object a line.
    #[arg(long, env = "ZOETROPE_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    log_format: Format,
    /// An OpenTelemetry collector that takes spans as protobuf over HTTP, as http://127.0.0.1:4318 [default: none].
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Begins to log, and to send spans in the name of `service`; once a process, outside of a runtime. What is returned sends the
/// last spans when it is dropped.
pub(crate) fn start(args: &Args, service: &'static str) -> anyhow::Result<Option<Exporter>> {
    let filter = filter(args)?;
    signals::prepare();
    let exporter = args.otlp_endpoint.as_deref().filter(|url| !url.is_empty());
    let exporter = exporter.map(|url| Exporter::new(url, service)).transpose()?;
    // Of ours, and not of the libraries that send them.
    let ours = Targets::new().with_target("zoetrope", LevelFilter::INFO);
    let spans = exporter.as_ref().map(|exporter| exporter.layer().with_filter(ours));
    let lines = fmt::layer::<Registry>()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // A line says itself what it is about.
    let filter = filter.and(filter_fn(|metadata| metadata.is_event()));
    let lines = match args.log_format {
        Format::Text => lines.with_filter(filter).boxed(),
        Format::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    };
    let started = tracing_subscriber::registry().with(lines).with(spans).try_init();
    started.context("logging cannot begin")?;
    Ok(exporter)
}

/// Whether `args` can be used.
pub(crate) fn filter(args: &Args) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(&args.log).with_context(|| format!("--log {}", args.log))
}
