//! `zoetrope env` and `zoetrope run`: the variables that lead an unmodified program for fal to this server.
//!
//! The program keeps fal's addresses. `HTTPS_PROXY` sends it here, where tunnels to fal's names end, with a certificate that
//! it trusts because of `SSL_CERT_FILE` (Python) or `NODE_EXTRA_CA_CERTS` (Node).

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::Value;
use zoetrope_server::listen::Authority;

use crate::environment::Environment;
use crate::place::Place;

/// What was typed after `env`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// As a JSON object in place of lines for a shell.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

/// Which server.
#[derive(Debug, clap::Args)]
struct Server {
    /// Where the server listens [default: where the one on the data folder says, else http://127.0.0.1:7860].
    #[arg(long, env = "ZOETROPE_SERVER", value_name = "URL")]
    server: Option<String>,
    #[command(flatten)]
    place: Place,
}

/// What was typed after `run`.
#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    server: Server,
    /// The program and its arguments, after `--`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Prints the variables.
pub(crate) fn print(args: &Args, environment: &Environment) -> anyhow::Result<()> {
    let variables = args.server.variables(environment)?;
    if args.json {
        let map = variables.into_iter().map(|(name, value)| (name.to_string(), Value::from(value)));
        println!("{:#}", Value::Object(map.collect()));
        return Ok(());
    }
    for (name, value) in variables {
        println!("export {name}={}", quoted(&value));
    }
    Ok(())
}

/// Runs a program with the variables; its exit status is ours.
pub(crate) fn run(args: &RunArgs, environment: &Environment) -> anyhow::Result<ExitCode> {
    let variables = args.server.variables(environment)?;
    let Some((program, arguments)) = args.command.split_first() else { bail!("name a program") };
    let mut command = std::process::Command::new(program);
    command.args(arguments).envs(variables);
    // Ctrl-C is for the program: it is in the same group and hears it too.
    let _ = ctrlc::set_handler(|| {});
    let status = command
        .status()
        .with_context(|| format!("`{}` cannot be run", program.to_string_lossy()))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

impl Server {
    fn variables(&self, environment: &Environment) -> anyhow::Result<Vec<(&'static str, String)>> {
        let running = self.place.running(environment)?;
        let address = self.server.clone().or(running.as_ref().map(|r| r.address.clone()));
        let address = address.unwrap_or_else(|| "http://127.0.0.1:7860".into());
        let address = address.trim_end_matches('/').to_string();
        let folder = self.place.authority(environment)?;
        // The server makes it too; whoever comes first.
        let authority = match folder.join("ca.pem").is_file() {
            true => None,
            false => Some(Authority::open(&folder, &[])?),
        };
        drop(authority);
        let file = |name: &str| folder.join(name).display().to_string();
        let keys_required = running.is_some_and(|running| running.keys_required);
        let mut out = vec![
            ("HTTPS_PROXY", address.clone()),
            ("https_proxy", address), // where both are there, programs disagree about which counts
            ("SSL_CERT_FILE", file("bundle.pem")),
            ("REQUESTS_CA_BUNDLE", file("bundle.pem")),
            ("NODE_EXTRA_CA_CERTS", file("ca.pem")),
            ("NODE_USE_ENV_PROXY", "1".into()),
        ];
        if environment.fal_key.is_none() {
            match keys_required {
                true => eprintln!(
                    "note: this server needs a key; set FAL_KEY to what `zoetrope keys create` prints"
                ),
                // Clients insist on one.
                false => out.push(("FAL_KEY", "local:local".into())),
            }
        }
        Ok(out)
    }
}

/// As a POSIX shell takes it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if text.chars().all(plain) { text.into() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
