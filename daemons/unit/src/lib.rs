//! What every daemon of Temps has in common: being a good systemd unit.
//!
//! | module | duty |
//! |---|---|
//! | [`listen`] | adopts the sockets systemd passes, and passes sockets where `temps up` stands in for systemd |
//! | [`notify`] | readiness and status to the service manager; the receiving end for `temps up` |
//! | [`watchdog`] | pings the manager only while every engine task proves that it is alive |
//! | [`idle`] | ends a daemon nobody needs; its socket starts it again |
//! | [`shutdown`] | SIGTERM becomes a drain, SIGHUP a reload |
//! | [`serve`] | the accept loop of the tarpc services: who may, how many, and the drain |
//! | [`authz`] | who is calling (`SO_PEERCRED`) and what they may do |
//! | [`bus`] | a name on the system bus, for as long as there is one: retried, left without losing a call |
//! | [`creds`] | credentials and key files, never in logs |
//! | [`dirs`] | the directories systemd gives a unit |
//! | [`config`] | TOML with drop-ins |
//! | [`duration`] | durations as people write them |
//! | [`journal`] | events to the journal, or readable lines on stderr |
//! | [`task`] | a task that ends unasked ends the daemon |
//! | [`exit`] | exit statuses |
//!
//! Order in `main`, which several of these rely on: [`listen::Listeners::adopt`] while there is one
//! thread, [`journal::init`], configuration, then the tokio runtime and in it
//! [`shutdown::Signals::install`]; [`notify::ready`] last, when the first request can be answered.

pub mod authz;
pub mod bus;
pub mod config;
pub mod creds;
pub mod dirs;
pub mod duration;
pub mod exit;
pub mod idle;
pub mod journal;
pub mod listen;
pub mod notify;
pub mod serve;
pub mod shutdown;
pub mod task;
pub mod watchdog;

use std::ffi::OsString;
use std::process::ExitCode;

/// One program inside the multicall binary, chosen by the name it was started by.
#[derive(Debug, Clone, Copy)]
pub struct Applet {
    /// File name of the link under `/usr/libexec/temps`, for example `temps-proxy`.
    pub name: &'static str,
    /// One line for lists and the man page: lower case, no trailing period.
    pub about: &'static str,
    /// Runs it. The arguments do not include `argv[0]`. Called with one thread in the process.
    pub run: fn(args: Vec<OsString>) -> ExitCode,
}
