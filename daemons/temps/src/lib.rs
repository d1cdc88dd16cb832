//! The one binary of Temps.
//!
//! Started by the name of a daemon it is that daemon ([`applet`]); by any other name it is the
//! operator's command line: [`cli`] defines it, `command/<noun>.rs` says what each command does.
//! `temps up` ([`mod@up`]) is the supervisor that stands in for systemd.
//!
//! It owns no state but `temps up`'s sockets and lock; everything else is asked of the daemons over
//! their sockets.

pub mod applet;
mod archive;
pub mod cli;
mod command;
mod dotenv;
pub mod event;
mod failed_unit;
mod follow;
mod instance;
mod output;
mod prompt;
mod table;
mod up;
mod upload;

pub use temps_deployd::store::schema::VERSION as SCHEMA;

use std::ffi::OsString;
use std::process::ExitCode;

/// What `main` does: becomes the daemon it was started as, else carries out the command line.
///
/// Called with one thread in the process.
pub fn run() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match applet::chosen(&args) {
        applet::Chosen::Daemon(applet) => (applet.run)(args),
        applet::Chosen::Exec => applet::exec(&args),
        applet::Chosen::Failed => failed_unit::run(&args[2]),
        applet::Chosen::Operator => command::run(args),
    }
}
