//! What the server says about itself: lines for people or JSON for machines, on standard error.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

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
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Begins to log; once a process.
pub(crate) fn start(args: &Args) -> anyhow::Result<()> {
    let filter = filter(args)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match args.log_format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).with_span_list(false).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("logging cannot begin: {error}"))
}

/// Whether `args` can be used.
pub(crate) fn filter(args: &Args) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(&args.log).with_context(|| format!("--log {}", args.log))
}
