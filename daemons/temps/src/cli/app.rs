//! What is asked about an app: `temps app`, `release`, `env`, `domain` and `logs`.

use super::{AppArgs, Format};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use temps_ipc::id::ReleaseId;
use temps_ipc::types::{AppName, EnvName, Host};

/// `temps app`.
#[derive(Debug, Subcommand)]
pub enum AppCommand {
    /// List the apps
    List(Format),
    /// Show one app: its hosts, instances and deployment
    Show(AppArgs),
    /// Remove an app with its releases, variables and logs
    Destroy(DestroyArgs),
}

/// Remove an app with its releases, variables and logs
#[derive(Debug, Args)]
pub struct DestroyArgs {
    /// The app's name
    #[arg(value_name = "APP")]
    pub app: AppName,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,

    #[command(flatten)]
    pub format: Format,
}

/// `temps release`.
#[derive(Debug, Subcommand)]
pub enum ReleaseCommand {
    /// List the releases of an app, latest first
    List(AppArgs),
    Cancel(CancelArgs),
}

/// Cancel the deployment of a release that does not serve yet
///
/// One that waits is dropped at once; one that is being built or started is stopped and cleaned up. It ends
/// as refused, and what served before goes on. What serves already is undone by `temps rollback`.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The app's name
    #[arg(value_name = "APP")]
    pub app: AppName,

    /// Its release [default: the only one that waits or is under way]
    #[arg(value_name = "RELEASE")]
    pub release: Option<ReleaseId>,

    #[command(flatten)]
    pub format: Format,
}

/// Show what an app or its build printed
///
/// Without --follow everything that is kept, or the last LINES lines. With --follow the last lines,
/// then what comes, across releases, until it is interrupted.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The app's name
    #[arg(value_name = "APP")]
    pub app: AppName,

    /// Wait for more and show it as it comes
    #[arg(short, long)]
    pub follow: bool,

    /// What building the latest release printed, instead of what the app prints
    #[arg(long)]
    pub build: bool,

    /// Only this release
    #[arg(long, value_name = "REL")]
    pub release: Option<ReleaseId>,

    /// Begin with so many of the last lines [default: all, with --follow 100]
    #[arg(short = 'n', long, value_name = "LINES")]
    pub lines: Option<u32>,

    #[command(flatten)]
    pub format: Format,
}

/// `temps env`.
#[derive(Debug, Subcommand)]
pub enum EnvCommand {
    Set(EnvSetArgs),
    /// Unset variables
    Unset(EnvUnsetArgs),
    /// List the variables
    List(EnvListArgs),
}

/// Set variables, which the next release gets
///
/// Values in arguments are seen by everybody who can list processes. A NAME without `=` is asked for
/// without echo on a terminal, and read from stdin otherwise.
#[derive(Debug, Args)]
pub struct EnvSetArgs {
    /// The app's name
    #[arg(value_name = "APP")]
    pub app: AppName,

    /// A variable; without a value it is asked for, or read from stdin
    #[arg(value_name = "NAME[=VALUE]", required_unless_present = "file")]
    pub variables: Vec<String>,

    /// A file of NAME=VALUE lines; `-` is stdin
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub file: Option<PathBuf>,

    #[command(flatten)]
    pub format: Format,
}

/// Unset variables
#[derive(Debug, Args)]
pub struct EnvUnsetArgs {
    /// The app's name
    #[arg(value_name = "APP")]
    pub app: AppName,

    /// The variables
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<EnvName>,

    #[command(flatten)]
    pub format: Format,
}

/// List the variables
#[derive(Debug, Args)]
pub struct EnvListArgs {
    /// The app's name
    #[arg(value_name = "APP")]
    pub app: AppName,

    /// Show the values, which may be secrets
    #[arg(long)]
    pub reveal: bool,

    #[command(flatten)]
    pub format: Format,
}

/// `temps domain`.
#[derive(Debug, Subcommand)]
pub enum DomainCommand {
    /// Let an app answer to more hosts
    Add(DomainArgs),
    /// Take hosts away from an app
    Remove(DomainArgs),
    /// List the hosts of an app, its own first
    List(AppArgs),
}

/// An app and hosts.
#[derive(Debug, Args)]
pub struct DomainArgs {
    /// The app's name
    #[arg(value_name = "APP")]
    pub app: AppName,

    /// The hosts
    #[arg(value_name = "HOST", required = true, value_hint = clap::ValueHint::Hostname)]
    pub hosts: Vec<Host>,

    #[command(flatten)]
    pub format: Format,
}
