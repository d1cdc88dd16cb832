//! Starts the app itself.
#![allow(
    unsafe_code,
    reason = "what happens between fork and exec cannot be said in safe Rust"
)]

use crate::adapter::process::launch::LaunchSpec;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::{Pid, getpid, getppid};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Starts the app in a process group of its own, with nothing of ours but the two pipes.
///
/// Must be called by the thread that lives as long as the supervisor: the kernel kills the app when
/// the thread ends that started it.
pub(super) fn start(spec: &LaunchSpec) -> io::Result<Child> {
    let supervisor = getpid();
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &spec.command])
        .current_dir(&spec.root)
        .env_clear()
        .envs(&spec.env)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    // SAFETY: only system calls that may be made between fork and exec, and no allocation.
    unsafe {
        command.pre_exec(move || clean_slate(supervisor));
    }
    command.spawn()
}

/// What a program may expect of the process it starts in.
fn clean_slate(supervisor: Pid) -> io::Result<()> {
    for each in Signal::iterator() {
        if !matches!(each, Signal::SIGKILL | Signal::SIGSTOP) {
            // SAFETY: no handler of ours is installed, only the default one.
            unsafe { signal(each, SigHandler::SigDfl) }?;
        }
    }
    SigSet::empty().thread_set_mask()?;
    set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != supervisor {
        // It ended before the line above could have told us.
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    Ok(())
}
