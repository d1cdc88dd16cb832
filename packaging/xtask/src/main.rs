//! Tasks of the project that are not a build: `cargo xtask TASK`. One file per task.

mod completions;
mod generated;
mod man;
mod prepush;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Tasks of the project that are not a build
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Write the generated part of the man page
    Man(Generate),
    /// Write the completions for bash, zsh and fish
    Completions(Generate),
    /// Check everything that CI checks before it runs the tests
    Prepush,
}

#[derive(Debug, clap::Args)]
struct Generate {
    /// Change nothing; fail if something would change
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Man(args) => man::run(args.check),
        Task::Completions(args) => completions::run(args.check),
        Task::Prepush => prepush::run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
