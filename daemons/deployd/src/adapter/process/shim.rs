//! The supervisor of one process instance: a tiny program without a runtime, one thread, which the
//! daemon starts and which outlives it.
//!
//! It holds the instance's lock from before the app starts until nothing of the app is left: it is
//! a subreaper, so that whatever the app starts and leaves becomes its child, and it ends only when
//! it has no child any more. If it is itself killed, the kernel kills the app's main process.
//!
//! ```text
//! spec on stdin -> start app -> answer on stderr -> copy output to the log
//!    app ends by itself        -> kill what it left            -> exit.json -> end
//!    SIGTERM (also SIGINT)     -> SIGTERM to the app's group, wait for the whole group
//!    SIGQUIT                   -> SIGKILL to everything
//! ```

mod app;
mod supervisor;

use super::directory::InstanceDirectory;
use super::launch::{LaunchSpec, Report};
use crate::logfile::Writer;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use temps_unit::Applet;

/// The applet that supervises one instance of the process runtime.
pub const INSTANCE_APPLET: Applet = Applet {
    name: "temps-instance",
    about: "supervises one app process (started by temps-deployd)",
    run,
};

/// Longest specification in bytes: some hundred variables of their longest size.
const MAX_SPEC: u64 = 32 * 1024 * 1024;

fn run(_: Vec<OsString>) -> ExitCode {
    match supervise() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where the answer is expected, or nowhere.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn supervise() -> io::Result<()> {
    close_inherited()?;
    let mut text = Vec::new();
    io::stdin().take(MAX_SPEC).read_to_end(&mut text)?;
    let spec: LaunchSpec = serde_json::from_slice(&text)?;
    drop(text);
    // The copies are closed on exec: the app never has the lock.
    let lock = io::stdout().as_fd().try_clone_to_owned()?;
    let mut answer = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    drop(null);

    // Away from the daemon's session and terminal; fails only if we lead a group already.
    let _ = setsid();
    let directory = InstanceDirectory::from_path(spec.instance.clone());
    let started = prepare(&directory, &spec).and_then(|(log, signals)| {
        let app = app::start(&spec)?;
        Ok(supervisor::Supervisor::new(app, log, signals))
    });
    let report = match &started {
        Ok(_) => Report::Started,
        Err(error) => report(error, &spec),
    };
    drop(spec);
    // Nobody listens if the daemon died meanwhile; then the next one finds us by the lock.
    let _ = answer.write_all(&serde_json::to_vec(&report)?);
    drop(answer);
    let record = started?.run();
    directory.write_exit_record(&record)?;
    drop(lock);
    Ok(())
}

fn prepare(
    directory: &InstanceDirectory,
    spec: &LaunchSpec,
) -> io::Result<(Writer, nix::sys::signalfd::SignalFd)> {
    directory.write_pid()?;
    nix::sys::prctl::set_child_subreaper(true)?;
    let signals = supervisor::signals()?;
    Ok((Writer::open(&spec.log)?, signals))
}

fn report(error: &io::Error, spec: &LaunchSpec) -> Report {
    let root = spec.root.display();
    match error.kind() {
        io::ErrorKind::ArgumentListTooLong => Report::Refused(
            "the app's variables are too large together for the system to start it".to_owned(),
        ),
        io::ErrorKind::NotFound
        | io::ErrorKind::PermissionDenied
        | io::ErrorKind::NotADirectory => {
            Report::Refused(format!("`/bin/sh` cannot be started in {root}: {error}"))
        }
        _ => Report::Failed(format!("the app's process cannot be started: {error}")),
    }
}

/// Closes every descriptor but the standard ones, which is what we were meant to have.
fn close_inherited() -> io::Result<()> {
    let open: Vec<i32> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&descriptor| descriptor > 2)
        .collect();
    for descriptor in open {
        // The descriptor of the listing itself is closed already.
        let _ = nix::unistd::close(descriptor);
    }
    Ok(())
}
