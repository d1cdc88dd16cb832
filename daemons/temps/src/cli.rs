//! The command line, defined once: the parser, `--help`, the man page and the completions all come
//! from here. What the commands do is in `command/`.

mod app;
mod deploy;
mod setup;
mod up;

pub use app::{
    AppCommand, CancelArgs, DomainCommand, EnvCommand, EnvListArgs, EnvSetArgs, LogsArgs,
    ReleaseCommand,
};
pub use deploy::{ContentArgs, DeployArgs, RedeployArgs, RollbackArgs};
pub use setup::SetupArgs;
pub use up::UpArgs;

use clap::{Args, CommandFactory, Parser, Subcommand};
use std::path::PathBuf;
use temps_ipc::types::AppName;

/// Exit statuses, at the end of every long help.
const EXIT_STATUS: &str = "\
Exit status:
  0    done; for deploy, redeploy and rollback: the
       release serves
  1    the release was refused or rolled back; or doctor or setup found
       a failure
  64   wrong arguments, or a feature that is not built yet
  66   no such app, release, variable or domain
  69   the platform, or a part of it, does not answer
  70   a defect
  73   it exists already
  74   no space left, or reading or writing failed
  75   something else is under way
  77   not allowed
  78   the configuration or the stored state cannot be read
  130  interrupted";

/// Deploy apps to this machine and see how they do.
#[derive(Debug, Parser)]
#[command(name = "temps", version, after_long_help = EXIT_STATUS, max_term_width = 100)]
pub struct Cli {
    /// The sockets of the instance to talk to, or to start
    ///
    /// Without it: $TEMPS_RUNTIME_DIR, else /run/temps if the platform runs there, else
    /// $XDG_RUNTIME_DIR/temps, else /tmp/temps-UID.
    #[arg(long, value_name = "DIR", global = true, value_hint = clap::ValueHint::DirPath)]
    pub runtime_dir: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do. A variant without a text here takes it from its arguments, where there is more to say.
#[derive(Debug, Subcommand)]
pub enum Command {
    Up(UpArgs),
    Setup(SetupArgs),
    Deploy(DeployArgs),
    Redeploy(RedeployArgs),
    Rollback(RollbackArgs),
    Logs(LogsArgs),
    /// Show how the platform and its apps are
    Status(Format),
    /// Look for what is wrong, and say what to do about it
    Doctor(Format),
    /// Bring what runs in line with what should run
    ///
    /// Starts instances that are not there, stops those that nobody asked for, and gives the proxy the
    /// routes it lacks. A timer does it at boot and every 15 minutes.
    Reconcile(Format),
    /// See and remove apps
    #[command(subcommand)]
    App(AppCommand),
    /// See the releases of an app
    #[command(subcommand)]
    Release(ReleaseCommand),
    /// Set the environment variables of an app
    #[command(subcommand)]
    Env(EnvCommand),
    /// Choose the hosts an app answers to
    #[command(subcommand)]
    Domain(DomainCommand),
}

/// How results are printed.
#[derive(Debug, Args)]
pub struct Format {
    /// Print results as JSON on stdout, errors too
    #[arg(long)]
    pub json: bool,
}

/// An app, and how results are printed.
#[derive(Debug, Args)]
pub struct AppArgs {
    /// The app's name
    #[arg(value_name = "APP")]
    pub app: AppName,

    #[command(flatten)]
    pub format: Format,
}

/// The definition, for the parser, the man page and the completions.
pub fn definition() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        definition().debug_assert();
    }

    /// Calls `visit` for every command, with its names from the root on.
    fn each(command: &clap::Command, path: &str, visit: &mut impl FnMut(&str, &clap::Command)) {
        visit(path, command);
        for child in command
            .get_subcommands()
            .filter(|child| child.get_name() != "help")
        {
            each(child, &format!("{path} {}", child.get_name()), visit);
        }
    }

    #[test]
    fn every_command_and_argument_has_help() {
        let mut command = definition();
        command.build();
        each(&command, "temps", &mut |path, command| {
            assert!(command.get_about().is_some(), "{path} has no help");
            for argument in command
                .get_arguments()
                .filter(|argument| !argument.is_hide_set())
            {
                assert!(
                    argument.get_help().is_some(),
                    "{path}: {} has no help",
                    argument.get_id()
                );
            }
        });
    }

    #[test]
    fn every_command_but_up_prints_json() {
        let mut command = definition();
        command.build();
        each(&command, "temps", &mut |path, command| {
            let leaf = command.get_subcommands().next().is_none();
            let json = command
                .get_arguments()
                .any(|argument| argument.get_id() == "json");
            assert_eq!(json, leaf && path != "temps up", "{path}");
        });
    }

    #[test]
    fn exactly_one_source_is_wanted() {
        let parse =
            |args: &[&str]| Cli::try_parse_from([&["temps", "deploy", "shop"], args].concat());
        assert!(parse(&["--source", "."]).is_ok());
        assert!(parse(&["--static", ".", "--spa"]).is_ok());
        for args in [
            &[][..],
            &["--source", ".", "--image", "x"],
            &["--git", "u", "--static", "."],
            &["--source", ".", "--spa"],
            &["--source", ".", "--runtime", "podman"],
            &["--source", ".", "--watch", "5"],
        ] {
            assert!(parse(args).is_err(), "{args:?}");
        }
    }
}
