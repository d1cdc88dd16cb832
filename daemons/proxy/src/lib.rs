//! temps-proxy: the TLS reverse proxy.
//!
//! It owns the public sockets, the routes it was told last, the certificates, the probes of targets
//! and the record of access. deployd tells it routes and asks whether a target is healthy or drained;
//! operators ask how it is. It serves its last routes for ever, whoever else is gone.
//!
//! It never starts or stops an app, never decides what is routed, and never lets a request wait for
//! anything but its target.

pub mod adapter;
pub mod bus;
pub mod config;
pub mod daemon;
pub mod engine;
pub mod event;
pub mod handover;
pub mod http;
pub mod port;
pub mod rpc;
pub mod spool;
pub mod static_site;
pub mod status;
pub mod store;
pub mod tls;

use daemon::Kind;
use std::ffi::OsString;
use std::process::ExitCode;
use temps_unit::Applet;
use temps_unit::exit::Exit;

/// The daemon as an applet of the multicall binary.
pub const APPLET: Applet = Applet {
    name: "temps-proxy",
    about: "serves HTTP and HTTPS, and routes requests to apps",
    run,
};

/// Makes it the helper of a restart; see [`handover`].
const HELPER: &str = "handover";

fn run(args: Vec<OsString>) -> ExitCode {
    match args.as_slice() {
        [] => daemon::main(Kind::Main),
        [word] if word == HELPER => daemon::main(Kind::Helper),
        _ => {
            eprintln!(
                "{}: the only argument there can be is `{HELPER}`",
                APPLET.name
            );
            Exit::Usage.into()
        }
    }
}
