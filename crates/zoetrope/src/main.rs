//! The command line: what was typed is parsed here, each subcommand has a file.

mod demo;
mod device;
mod environment;
mod generate;
mod info;
mod model;
mod models;
mod progress;
mod terminal;

use clap::{Parser, Subcommand};

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
    /// Fetch, list and remove models of the Hugging Face hub.
    Models(models::Models),
    /// Show the parameters that are stored in a picture.
    Info(info::Args),
}

fn main() -> std::process::ExitCode {
    let environment = environment::Environment::read();
    let result = match Cli::parse().command {
        Command::Generate(args) => generate::run(&args, &environment),
        Command::Models(args) => models::run(&args, &environment.hub),
        Command::Info(args) => info::run(&args),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) if error.downcast_ref::<zoetrope_engine::Error>().is_some_and(is_interrupt) => {
            eprintln!("interrupted; nothing was written");
            130.into()
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn is_interrupt(error: &zoetrope_engine::Error) -> bool {
    matches!(error, zoetrope_engine::Error::Interrupted)
}
