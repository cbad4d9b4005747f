//! The one configuration file: its values become the defaults of the options they are named after, so that what is typed
//! and what the environment says go before it. `zoetrope config check` reads it and tells what is in force.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Command;
use toml::{Table, Value};

use crate::environment::Environment;
use crate::{gateway, serve};

/// What was typed.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Read file, environment and flags as `serve` would, and print what is in force; nothing is started.
    Check(Box<serve::Args>),
}

pub(crate) fn run(args: &Args, environment: &Environment) -> anyhow::Result<()> {
    let Action::Check(args) = &args.action;
    let checked = args.check(environment)?;
    match &args.place.config {
        Some(file) => println!("# {} is fine", file.display()),
        None => println!("# no configuration file"),
    }
    print!("{checked}");
    Ok(())
}

/// `command` with the file's values as defaults. The file is the one that `arguments` name, else `named` by the environment,
/// else `usual` if it is there.
pub(crate) fn with_file(
    command: Command,
    arguments: &[OsString],
    named: Option<PathBuf>,
    usual: &Path,
) -> anyhow::Result<Command> {
    let chosen = typed(arguments).or(named);
    let file = match chosen {
        Some(file) => file,
        None if usual.is_file() => usual.to_path_buf(),
        None => return Ok(command),
    };
    let shown = || format!("the configuration file {}", file.display());
    let text = std::fs::read_to_string(&file).with_context(shown)?;
    let table: Table = text.parse().with_context(shown)?;
    let mut values = Vec::new();
    // The gateway's part is no option, and is read by itself.
    for (name, value) in table.iter().filter(|(name, _)| *name != gateway::TABLE) {
        let texts = texts(value).with_context(|| format!("{}: `{name}`", shown()))?;
        values.push((name.replace('_', "-"), texts));
    }
    for (name, _) in &values {
        if !known(&command, name) {
            bail!(
                "{}: there is no option `{}`; `zoetrope serve --help` lists them all",
                shown(),
                name.replace('-', "_")
            );
        }
    }
    values.push(("config".into(), vec![file.display().to_string()]));
    Ok(apply(command, &values))
}

/// What follows `--config`, wherever it stands.
fn typed(arguments: &[OsString]) -> Option<PathBuf> {
    let mut rest = arguments.iter().take_while(|argument| *argument != "--");
    while let Some(argument) = rest.next() {
        if argument == "--config" {
            return rest.next().map(PathBuf::from);
        }
        if let Some(file) = argument.to_str().and_then(|text| text.strip_prefix("--config=")) {
            return Some(file.into());
        }
    }
    None
}

/// Values as they would be typed.
fn texts(value: &Value) -> anyhow::Result<Vec<String>> {
    Ok(match value {
        Value::String(text) => vec![text.clone()],
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => vec![value.to_string()],
        Value::Array(items) => {
            let each = items.iter().map(texts).collect::<anyhow::Result<Vec<_>>>()?;
            each.concat()
        }
        Value::Table(table) => {
            let mut out = Vec::new();
            for (name, value) in table {
                let texts = texts(value)?;
                let [text] = texts.as_slice() else { bail!("`{name}` must be one value") };
                out.push(format!("{name}={text}"));
            }
            out
        }
        Value::Datetime(_) => bail!("no option is a date"),
    })
}

fn known(command: &Command, name: &str) -> bool {
    command.get_arguments().any(|argument| argument.get_long() == Some(name))
        || command.get_subcommands().any(|inner| known(inner, name))
}

fn apply(command: Command, values: &[(String, Vec<String>)]) -> Command {
    let command = command.mut_args(|argument| {
        let value = values.iter().find(|(name, _)| argument.get_long() == Some(name));
        match value {
            Some((_, texts)) => argument.default_values(texts.clone()),
            None => argument,
        }
    });
    command.mut_subcommands(|inner| {
        // These share names with the server's options and mean something else.
        match inner.get_name() {
            "generate" | "models" | "info" => inner,
            _ => apply(inner, values),
        }
    })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::*;
    use crate::{Cli, Command as Chosen};

    fn serve(file: &str, arguments: &[&str]) -> anyhow::Result<serve::Args> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("config.toml");
        std::fs::write(&path, file)?;
        let arguments: Vec<OsString> =
            ["zoetrope", "serve"].iter().chain(arguments).map(OsString::from).collect();
        let command = with_file(Cli::command(), &arguments, Some(path), Path::new("/none"))?;
        let matches = command.try_get_matches_from(arguments)?;
        match Cli::from_arg_matches(&matches)?.command {
            Chosen::Serve(args) => Ok(*args),
            _ => unreachable!("`serve` was typed"),
        }
    }

    #[test]
    fn the_file_goes_behind_what_is_typed() {
        let file = "listen = \"127.0.0.1:1\"\nqueue_max = 7\nno_worker = true\n[prices]\n\"fal-ai/z-image/turbo\" = 0.25\n";
        let args = serve(file, &["--queue-max", "9"]).unwrap();
        assert_eq!(args.listen.to_string(), "127.0.0.1:1");
        assert_eq!(args.queue_max, 9);
        assert!(args.no_worker);
        assert_eq!(args.prices, [("fal-ai/z-image/turbo".to_string(), 0.25)]);
    }

    #[test]
    fn what_is_no_option_is_an_error_that_names_it() {
        let error = serve("lisen = \"127.0.0.1:1\"", &[]).err().unwrap().to_string();
        assert!(error.contains("no option `lisen`"), "{error}");
        let error = serve("listen = 3", &[]).err().unwrap().to_string();
        assert!(error.contains("--listen"), "{error}");
        let error = serve("listen = [", &[]).err().unwrap();
        assert!(format!("{error:#}").contains("config.toml"), "{error:#}");
    }
}
