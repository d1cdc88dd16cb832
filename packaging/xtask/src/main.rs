//! Tasks of the project that are not a build: `cargo xtask TASK`. One file per task.

mod completions;
mod deb;
mod generated;
mod idle;
mod install;
// The reader of licence expressions is the one that the architecture tests have.
#[path = "../../../tests/architecture/licence.rs"]
mod licence;
mod linked;
mod man;
mod notices;
mod pack;
mod prepush;
mod rpm;
mod size;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
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
    /// Put everything that is installed into a directory
    Install(Install),
    /// Build the Debian package
    Deb(pack::Pack),
    /// Build the package for Fedora and its relatives
    Rpm(pack::Pack),
    /// Write the licences and notices of what is compiled into the binary
    Notices(notices::Notices),
    /// Print how large the binary and the Debian package are
    Size(pack::Pack),
    /// Print what the daemons take in memory while nothing happens
    Idle(idle::Idle),
}

#[derive(Debug, clap::Args)]
struct Install {
    /// The directory that stands for the root
    #[arg(long, value_name = "DIR")]
    destdir: PathBuf,

    /// The binary [default: that of `cargo build --profile dist`]
    #[arg(long, value_name = "PATH")]
    bin: Option<PathBuf>,

    /// Only what belongs into this package
    #[arg(long, value_name = "PACKAGE")]
    package: Option<install::Package>,
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
        Task::Install(args) => {
            let bin = args.bin.unwrap_or_else(install::usual_binary);
            install::run(&args.destdir, &bin, args.package)
        }
        Task::Deb(pack) => deb::run(&pack),
        Task::Rpm(pack) => rpm::run(&pack),
        Task::Notices(args) => notices::run(&args),
        Task::Size(pack) => size::run(&pack),
        Task::Idle(idle) => idle::run(&idle),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
