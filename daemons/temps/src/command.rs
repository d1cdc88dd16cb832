//! From the command line to its behaviour, and from its end to an exit status.

mod app;
mod deploy;
mod doctor;
mod domain;
mod env;
mod logs;
mod reconcile;
mod release;
mod setup;
mod status;

use crate::cli::{self, Cli, Command};
use crate::instance::Instance;
use crate::output::{Done, Out, Stop};
use crate::up;
use clap::error::ErrorKind;
use clap::{ArgMatches, FromArgMatches};
use std::ffi::OsString;
use std::process::ExitCode;
use temps_ipc::{Code, Fault};

/// Reads the command line (without `argv[0]`) and carries it out.
pub fn run(args: Vec<OsString>) -> ExitCode {
    let wants_json = args.iter().any(|arg| arg == "--json");
    let line = std::iter::once(OsString::from("temps")).chain(args);
    let matches = match cli::definition().try_get_matches_from(line) {
        Ok(matches) => matches,
        Err(error) => return usage(&error, wants_json),
    };
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return usage(&error, wants_json),
    };
    let out = Out::new(json(&matches));
    match carry_out(cli, &out) {
        Ok(()) | Err(Stop::Pipe) => ExitCode::SUCCESS,
        Err(Stop::Status(status)) => ExitCode::from(status),
        Err(Stop::Fault(fault)) => {
            out.fault(&fault);
            ExitCode::from(fault.code.exit_status())
        }
    }
}

/// Prints what clap has to say: help and version are no errors.
fn usage(error: &clap::Error, json: bool) -> ExitCode {
    // Nobody reads it: nothing is left to be done.
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    if json && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let text = error.to_string();
        let what = text.lines().next().unwrap_or_default();
        let what = what.strip_prefix("error: ").unwrap_or(what);
        let error = serde_json::json!({ "error": {
            "code": Code::Invalid.name(), "what": what, "hint": "see `temps help`",
        }});
        let _ = Out::new(true).object(&error);
    }
    ExitCode::from(Code::Invalid.exit_status())
}

/// Whether the command that was chosen shall print JSON.
fn json(matches: &ArgMatches) -> bool {
    match matches.subcommand() {
        Some((_, matches)) => json(matches),
        None => matches!(matches.try_get_one::<bool>("json"), Ok(Some(true))),
    }
}

fn carry_out(cli: Cli, out: &Out) -> Done {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Fault::internal(format!("the runtime cannot be started: {error}")))?;
    let done = runtime.block_on(async {
        let flag = cli.runtime_dir.as_deref();
        let command = match cli.command {
            Command::Up(args) => return up::run(args, flag, out).await,
            Command::Setup(args) => return setup::run(args, out).await,
            command => command,
        };
        let instance = Instance::find(flag)?;
        let reports = matches!(command, Command::Status(_) | Command::Doctor(_));
        if let Some(fault) = instance.failed.clone().filter(|_| !reports) {
            return Err(fault.into());
        }
        match command {
            Command::Up(_) | Command::Setup(_) => unreachable!("handled above"),
            Command::Deploy(args) => deploy::deploy(&instance, args, out).await,
            Command::Redeploy(args) => deploy::redeploy(&instance, args, out).await,
            Command::Rollback(args) => deploy::rollback(&instance, args, out).await,
            Command::Logs(args) => logs::run(&instance, args, out).await,
            Command::Status(_) => status::run(&instance, out).await,
            Command::Doctor(_) => doctor::run(&instance, out).await,
            Command::Reconcile(_) => reconcile::run(&instance, out).await,
            Command::App(command) => app::run(&instance, command, out).await,
            Command::Release(command) => release::run(&instance, command, out).await,
            Command::Env(command) => env::run(&instance, command, out).await,
            Command::Domain(command) => domain::run(&instance, command, out).await,
        }
    });
    // A blocked read of the terminal must not hold the process.
    runtime.shutdown_background();
    done
}
