//! temps-deployd: the deployment engine.
//!
//! It owns apps, releases, variables, the queue of deployments and the logs of builds and
//! instances, and is the only source of truth for routes: the proxy serves what it is told. It is
//! called by operators (the `temps` command) and by the proxy (an unhealthy target), and runs while
//! a deployment, a build or a watch window is open; otherwise it ends, and the next call starts it.
//! Instances and routes do not notice.
//!
//! It never answers requests of the public, never probes an instance itself, and never stops an
//! instance that the proxy may still send requests to.

pub mod adapter;
pub mod archive;
pub mod bus;
pub mod checks;
pub mod config;
pub mod daemon;
pub mod engine;
pub mod event;
pub mod logfile;
pub mod port;
pub mod reserve;
pub mod room;
pub mod rpc;
pub mod standalone;
pub mod store;
pub mod upload;

pub use adapter::build::job::JOB_APPLET;
pub use adapter::process::shim::INSTANCE_APPLET;
pub use adapter::systemd::{EXEC_APPLET, NETNS_APPLET};

use std::ffi::OsString;
use std::process::ExitCode;
use temps_unit::Applet;

/// The daemon as an applet of the multicall binary.
pub const APPLET: Applet = Applet {
    name: "temps-deployd",
    about: "builds releases, runs instances, drives deployments",
    run,
};

fn run(_args: Vec<OsString>) -> ExitCode {
    daemon::main()
}
