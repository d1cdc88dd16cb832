#![allow(
    unsafe_code,
    reason = "CommandExt::pre_exec is unsafe; what runs there is one fcntl per socket, which is async-signal-safe"
)]
//! Passes listening sockets to a daemon, where `temps up` stands in for systemd.
//!
//! Two processes work together, because `LISTEN_PID` is only known after fork, where the
//! environment can no longer be changed safely:
//!
//! ```text
//! temps up ── fork ──> clears close-on-exec on its copies only (fcntl) ── exec
//!      └─> `temps unit exec NAME=FD… -- ARGV0 PROGRAM ARG…`   one thread, nothing else open
//!             moves the sockets to 3, 4, …; sets LISTEN_PID to itself ── exec ──> the daemon
//! ```
//!
//! In the parent every descriptor keeps close-on-exec at all times, so a process spawned at the same
//! moment by another thread inherits nothing. The process id stays the same through both execs:
//! the `Child` of the parent is the daemon.

use super::FIRST_FD;
use crate::exit::Exit;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// The hidden command of the binary that calls [`exec`].
pub const APPLET: [&str; 2] = ["unit", "exec"];

/// Sockets are first moved to here and above, out of the way of their final numbers.
const ASIDE: RawFd = 128;

/// What is to be run with the sockets.
#[derive(Debug, Clone)]
pub struct Program {
    /// The binary.
    pub path: PathBuf,
    /// `argv[0]`: the name by which the multicall binary chooses an applet.
    pub name: OsString,
    /// The arguments after `argv[0]`.
    pub args: Vec<OsString>,
}

/// Why sockets could not be passed.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// A name that `LISTEN_FDNAMES` cannot carry.
    #[error("{0:?} cannot name a socket: use letters, digits, `-`, `_` and `.`")]
    Name(String),
    /// Two sockets have one name.
    #[error("two sockets are named {0:?}")]
    Duplicate(String),
    /// The arguments of the hidden command are wrong.
    #[error("usage: temps unit exec NAME=FD... -- ARGV0 PROGRAM [ARG...] ({0})")]
    Usage(String),
    /// A descriptor could not be moved.
    #[error("socket {name:?} cannot be passed")]
    Descriptor {
        /// Name of the socket.
        name: String,
        /// What the kernel said.
        #[source]
        source: nix::Error,
    },
    /// The program could not be started.
    #[error("{program} cannot be started")]
    Exec {
        /// Path of the program.
        program: String,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

/// A command that runs `program` with `sockets` by the protocol of `sd_listen_fds(3)`.
///
/// `launcher` is the `temps` binary (`/proc/self/exe`). The caller adds environment, standard
/// streams and the like as usual, and may convert it with `tokio::process::Command::from`. It may
/// be spawned repeatedly; it owns duplicates of the sockets until it is dropped.
pub fn command(
    launcher: impl AsRef<OsStr>,
    program: &Program,
    sockets: &[(String, BorrowedFd<'_>)],
) -> Result<Command, PassError> {
    let mut command = Command::new(launcher);
    command.arg0("temps").args(APPLET);
    let mut held = Vec::with_capacity(sockets.len());
    for (index, (name, fd)) in sockets.iter().enumerate() {
        check_name(name)?;
        if sockets[..index].iter().any(|(other, _)| other == name) {
            return Err(PassError::Duplicate(name.clone()));
        }
        let copy = aside(fd).map_err(|source| descriptor(name, source))?;
        command.arg(format!("{name}={}", copy.as_raw_fd()));
        held.push(copy);
    }
    command
        .arg("--")
        .arg(&program.name)
        .arg(&program.path)
        .args(&program.args);
    // SAFETY: the closure runs between fork and exec and calls nothing but fcntl(F_SETFD), which
    // is async-signal-safe; it allocates nothing and takes no lock. `held` moves in, so the
    // numbers in the arguments stay open as long as the command exists.
    unsafe {
        command.pre_exec(move || {
            for fd in &held {
                fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            Ok(())
        });
    }
    Ok(command)
}

/// The hidden command: arranges the sockets for this process and becomes the program.
///
/// `args` are those after `temps unit exec`. Returns only if it fails. To be called by a process
/// with one thread that opened nothing of its own above stderr.
pub fn exec(args: &[OsString]) -> ExitCode {
    let error = match run(args) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
    eprintln!("temps unit exec: {error}{}", cause.unwrap_or_default());
    match error {
        PassError::Exec { .. } | PassError::Descriptor { .. } => Exit::Unavailable.into(),
        _ => Exit::Usage.into(),
    }
}

fn run(args: &[OsString]) -> Result<std::convert::Infallible, PassError> {
    let (sockets, program) = parse(args)?;
    let mut names = Vec::with_capacity(sockets.len());
    let mut moved = Vec::with_capacity(sockets.len());
    for (name, number) in sockets {
        // SAFETY: the parent opened this descriptor for us, and `parse` refuses one given twice.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        moved.push(aside(&fd).map_err(|source| descriptor(&name, source))?);
        names.push(name);
    }
    for (fd, target) in moved.iter().zip(FIRST_FD..) {
        // SAFETY: `target` is ours to replace: this process is about to become another program and
        // uses no descriptor beside the moved ones, which are at ASIDE and above. The new
        // descriptor is meant to outlive us through exec, so nobody owns it.
        unsafe { nix::unistd::dup2_raw(fd, target) }
            .map(std::os::fd::IntoRawFd::into_raw_fd)
            .map_err(|source| descriptor(&names[(target - FIRST_FD) as usize], source))?;
    }
    let mut command = Command::new(&program.path);
    command
        .arg0(&program.name)
        .args(&program.args)
        .env("LISTEN_PID", std::process::id().to_string())
        .env("LISTEN_FDS", names.len().to_string())
        .env("LISTEN_FDNAMES", names.join(":"));
    Err(PassError::Exec {
        program: program.path.display().to_string(),
        source: command.exec(),
    })
}

fn parse(args: &[OsString]) -> Result<(Vec<(String, RawFd)>, Program), PassError> {
    let usage = |what: &str| PassError::Usage(what.to_owned());
    let split = args
        .iter()
        .position(|arg| arg == "--")
        .ok_or_else(|| usage("`--` is missing"))?;
    let mut sockets: Vec<(String, RawFd)> = Vec::with_capacity(split);
    for arg in &args[..split] {
        let (name, number) = arg
            .to_str()
            .and_then(|arg| arg.split_once('='))
            .ok_or_else(|| usage("a socket is written NAME=FD"))?;
        check_name(name)?;
        let number: RawFd = number
            .parse()
            .ok()
            .filter(|number| *number >= FIRST_FD)
            .ok_or_else(|| usage("FD is a number from 3 on"))?;
        if sockets.iter().any(|(other, _)| other == name) {
            return Err(PassError::Duplicate(name.to_owned()));
        }
        if sockets.iter().any(|(_, other)| *other == number) {
            return Err(usage("one FD is given twice"));
        }
        sockets.push((name.to_owned(), number));
    }
    let [name, path, args @ ..] = &args[split + 1..] else {
        return Err(usage("ARGV0 and PROGRAM are missing"));
    };
    let program = Program {
        path: path.into(),
        name: name.clone(),
        args: args.to_vec(),
    };
    Ok((sockets, program))
}

fn check_name(name: &str) -> Result<(), PassError> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(good) {
        return Err(PassError::Name(name.to_owned()));
    }
    Ok(())
}

/// A duplicate with close-on-exec at [`ASIDE`] or above.
fn aside(fd: &impl AsFd) -> nix::Result<OwnedFd> {
    let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(ASIDE))?;
    // SAFETY: fcntl has just made it, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn descriptor(name: &str, source: nix::Error) -> PassError {
    PassError::Descriptor {
        name: name.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(args: &[&str]) -> Vec<OsString> {
        args.iter().map(OsString::from).collect()
    }

    #[test]
    fn the_command_keeps_close_on_exec_in_the_parent() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let program = Program {
            path: "/bin/true".into(),
            name: "temps-proxy".into(),
            args: vec!["--x".into()],
        };
        let made = command("/bin/true", &program, &[("http".into(), listener.as_fd())]).unwrap();
        let args: Vec<&OsStr> = made.get_args().collect();
        let (sockets, parsed) = parse(
            &args[APPLET.len()..]
                .iter()
                .map(OsString::from)
                .collect::<Vec<_>>(),
        )
        .unwrap();
        assert_eq!(parsed.name, "temps-proxy");
        assert_eq!(parsed.args, ["--x"]);
        let (name, number) = &sockets[0];
        assert_eq!(name, "http");
        // SAFETY: `made` holds it open.
        let copy = unsafe { BorrowedFd::borrow_raw(*number) };
        let flags = fcntl(copy, FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags, FdFlag::FD_CLOEXEC.bits());
    }

    #[test]
    fn only_the_spawned_child_inherits_the_sockets() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let program = Program {
            path: "/bin/true".into(),
            name: "x".into(),
            args: Vec::new(),
        };
        // The launcher is a shell that sees the arguments `unit exec http=N -- …`.
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("launcher");
        std::fs::write(
            &script,
            "#!/bin/sh\nn=${3#http=}\n[ -e /proc/self/fd/$n ]\n",
        )
        .unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&script, mode).unwrap();
        let mut made = command(&script, &program, &[("http".into(), listener.as_fd())]).unwrap();
        assert!(made.status().unwrap().success());
        assert!(made.status().unwrap().success(), "it can be spawned again");
        let other = Command::new(&script)
            .args(made.get_args())
            .status()
            .unwrap();
        assert!(!other.success(), "another child inherits nothing");
    }

    #[test]
    fn bad_arguments_are_refused() {
        for (args, expected) in [
            (&["http=3"][..], "`--` is missing"),
            (&["http", "--", "a", "b"], "NAME=FD"),
            (&["http=x", "--", "a", "b"], "a number from 3 on"),
            (&["http=2", "--", "a", "b"], "a number from 3 on"),
            (&["http=200", "x=200", "--", "a", "b"], "given twice"),
            (&["a=200", "a=201", "--", "a", "b"], "two sockets are named"),
            (&["a:b=200", "--", "a", "b"], "cannot name a socket"),
            (&["http=200", "--", "a"], "PROGRAM are missing"),
        ] {
            let error = parse(&os(args)).unwrap_err().to_string();
            assert!(error.contains(expected), "{args:?} gave {error:?}");
        }
    }
}
