//! `temps setup`.

use super::Format;
use clap::Args;
use std::path::PathBuf;
use temps_ipc::types::Host;

/// Set up an installed platform, or change how it is set up
///
/// Asks what was not given, looks for what is in the way (DNS, the ports 80 and 443, a container engine,
/// D-Bus and polkit, memory and disk), shows what it would change, and does it: it writes
/// /etc/temps/deployd.toml.d/10-setup.toml, lets users operate the platform, and enables and starts its
/// units. Safe to run again at any time. Needs root.
///
/// Certificates are issued by an authority of this machine: publicly trusted ones (ACME) are not built
/// yet.
#[derive(Debug, Args)]
pub struct SetupArgs {
    /// The domain under which apps get their hosts: APP.HOST
    #[arg(long, value_name = "HOST", value_hint = clap::ValueHint::Hostname)]
    pub base_domain: Option<Host>,

    /// A user who may operate the platform: deploy, see secrets of apps, stop everything. Repeatable
    #[arg(long, value_name = "USER", value_hint = clap::ValueHint::Username)]
    pub operator: Vec<String>,

    /// The address for the certificate authority; not built yet, and refused
    #[arg(long, value_name = "MAIL", hide = true)]
    pub acme_mail: Option<String>,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,

    /// Show what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Only say what is in the way; the exit status is 1 if the platform cannot serve
    #[arg(long, conflicts_with_all = ["base_domain", "operator", "dry_run"])]
    pub check: bool,

    /// Set up the system in this directory, which does not run
    #[arg(long, value_name = "DIR", hide = true)]
    pub root: Option<PathBuf>,

    #[command(flatten)]
    pub format: Format,
}
