//! The work of builds as a program of its own, so that tests can start a real one.

use std::process::ExitCode;
use temps_deployd::adapter::build::job::JOB_APPLET;

fn main() -> ExitCode {
    (JOB_APPLET.run)(std::env::args_os().skip(1).collect())
}
