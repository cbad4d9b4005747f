//! The command line: what was typed is parsed here, each subcommand has a file.

mod bench;
mod config;
mod controls;
mod demo;
mod depth;
mod device;
mod drawing;
mod environment;
mod expansion;
mod gateway;
mod generate;
mod guides;
mod info;
mod keys;
mod logs;
mod model;
mod models;
mod packed;
mod place;
mod progress;
mod prompts;
mod pulled;
mod requests;
mod safety;
mod serve;
mod signals;
mod terminal;
mod train;
mod variables;
mod worker;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::environment::Environment;

#[global_allocator]
static ALLOCATOR: zoetrope_engine::Recycling = zoetrope_engine::Recycling;

/// Z-Image on your own machine.
#[derive(Parser)]
#[command(name = "zoetrope", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make pictures from a prompt.
    Generate(Box<generate::Args>),
    /// Make an adapter (LoRA) from a folder of pictures.
    Train(Box<train::Args>),
    /// Answer programs written for fal, with a queue and the pictures of this machine.
    Serve(Box<serve::Args>),
    /// Draw what servers on the same database accept.
    Worker(Box<worker::Args>),
    /// Print the variables that lead an unmodified program for fal to this server.
    Env(variables::Args),
    /// Run a program for fal against this server: zoetrope run -- python app.py
    Run(variables::RunArgs),
    /// Make, list and revoke the keys of a server.
    Keys(keys::Args),
    /// List, show, cancel and delete requests.
    Requests(requests::Args),
    /// Check the server's configuration.
    Config(config::Args),
    /// Fetch, list and remove models of the Hugging Face hub, and weights that were packed.
    Models(models::Models),
    /// Show the parameters that are stored in a picture.
    Info(info::Args),
    /// Measure how fast each stage runs on this machine.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    environment::prepare();
    let environment = Environment::read();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let done = parse(arguments, &environment).and_then(|cli| run(cli.command, &environment));
    match done {
        Ok(code) => code,
        Err(error) if error.downcast_ref::<zoetrope_engine::Error>().is_some_and(is_interrupt) => {
            eprintln!("interrupted; nothing was written");
            130.into()
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What was typed, filled up with the environment and the configuration file. Wrong flags end the process here, as does --help.
fn parse(arguments: Vec<OsString>, environment: &Environment) -> anyhow::Result<Cli> {
    let (named, usual) = (environment.config_named.clone(), &environment.config_file);
    let command = config::with_file(Cli::command(), &arguments, named, usual)?;
    let matches = command.get_matches_from(arguments);
    Ok(Cli::from_arg_matches(&matches)?)
}

fn run(command: Command, environment: &Environment) -> anyhow::Result<ExitCode> {
    match command {
        Command::Generate(args) => generate::run(&args, environment)?,
        Command::Train(args) => return train::run(&args, environment),
        Command::Serve(args) => serve::run(&args, environment)?,
        Command::Worker(args) => worker::run(&args, environment)?,
        Command::Env(args) => variables::print(&args, environment)?,
        Command::Run(args) => return variables::run(&args, environment),
        Command::Keys(args) => keys::run(&args, environment)?,
        Command::Requests(args) => requests::run(&args, environment)?,
        Command::Config(args) => config::run(&args, environment)?,
        Command::Models(args) => models::run(&args, environment)?,
        Command::Info(args) => info::run(&args)?,
        Command::Bench(args) => bench::run(&args, environment)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn is_interrupt(error: &zoetrope_engine::Error) -> bool {
    matches!(error, zoetrope_engine::Error::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_command_do_not_take_each_other_s_names() {
        Cli::command().debug_assert();
    }
}
