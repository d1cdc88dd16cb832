//! The supervisor of process instances as a program of its own, so that tests can start a real one.

use std::process::ExitCode;
use temps_deployd::adapter::process::shim::INSTANCE_APPLET;

fn main() -> ExitCode {
    (INSTANCE_APPLET.run)(std::env::args_os().skip(1).collect())
}
