#![allow(
    unsafe_code,
    reason = "a descriptor that the manager passes is known by its number alone"
)]
//! A stream of its own for an instance's standard error, so that the journal tells it from standard
//! output; the manager makes one for both.
//!
//! The instance does not see the journal's sockets: who does can take all 4096 streams of the system,
//! and write lines in anybody's name. So a command before the program, outside of the sandbox, opens the
//! stream and leaves it with the manager, who passes it on:
//!
//! ```text
//! ExecStartPre=+temps-exec --errors APP UNIT --header--> journal
//!          '--descriptor--> the manager's store --LISTEN_FDS, after the app's sockets--> temps-exec --> 2
//! ```
//!
//! What holds: the stream says which unit it is, which the journal believes root alone, so also the
//! last line of a process that has ended is the unit's; without the stream, all output is standard
//! output; of the sockets that were passed to the app, none changes its number.

use super::journal::STDERR_PRIORITY;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg,
    setsockopt, socket,
};
use nix::sys::time::TimeVal;
use nix::unistd::{dup2_stderr, pipe};
use std::env;
use std::ffi::OsString;
use std::io::{self, IoSlice, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// Where the journal takes streams of lines (systemd-journald.service(8)).
const STREAMS: &str = "/run/systemd/journal/stdout";

/// The system's root, as the manager sees it: a command with `+` has all capabilities, but is not out of
/// `TemporaryFileSystem=/run`.
const MANAGERS_ROOT: &str = "/proc/1/root";

/// Before the command's arguments.
pub(super) const FLAG: &str = "--errors";

/// The stream's name in the manager's store.
const NAME: &str = "temps-stderr";

/// The first descriptor that is passed (sd_listen_fds(3)).
const FIRST: RawFd = 3;

/// How long the journal and the manager each may take; after it the app starts without the stream.
const PATIENCE_SECONDS: u16 = 5;

/// Opens the stream of the app and the unit that `arguments` name, and leaves it with the manager.
pub(super) fn store(arguments: &[OsString]) -> io::Result<()> {
    let [app, unit] = arguments else {
        return Err(io::Error::other("an app and a unit are needed"));
    };
    let stream = stream(&app.to_string_lossy(), &unit.to_string_lossy())?;
    let manager = env::var("NOTIFY_SOCKET").map_err(io::Error::other)?;
    let manager = to(SockType::Datagram, &manager)?;
    pass(&manager, &format!("FDSTORE=1\nFDNAME={NAME}"), &stream)?;
    // The manager knows who we are as long as we are there: until it has seen the message.
    let (seen, barrier) = pipe()?;
    pass(&manager, "BARRIER=1", &barrier)?;
    drop(barrier);
    let mut waiting = [PollFd::new(seen.as_fd(), PollFlags::empty())];
    match poll(&mut waiting, PollTimeout::from(PATIENCE_SECONDS * 1000))? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// A stream to the journal, under a priority that tells its lines from standard output.
fn stream(app: &str, unit: &str) -> io::Result<UnixStream> {
    let mut stream = UnixStream::from(to(SockType::Stream, STREAMS)?);
    // Identifier, unit, priority, whether `<N>` at the start of a line means a priority, and whether to
    // pass it on to syslog, the kernel's log and the console.
    write!(stream, "{app}\n{unit}\n{STDERR_PRIORITY}\n0\n0\n0\n0\n")?;
    stream.shutdown(Shutdown::Read)?;
    Ok(stream)
}

/// A socket connected to a path of the machine, within the time that there is.
fn to(kind: SockType, path: &str) -> io::Result<OwnedFd> {
    let address = UnixAddr::new(format!("{MANAGERS_ROOT}{path}").as_str())?;
    let socket = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(
        &socket,
        SendTimeout,
        &TimeVal::new(i64::from(PATIENCE_SECONDS), 0),
    )?;
    connect(socket.as_raw_fd(), &address)?;
    Ok(socket)
}

fn pass(manager: &OwnedFd, text: &str, what: &impl AsFd) -> io::Result<()> {
    let fds = [what.as_fd().as_raw_fd()];
    sendmsg::<()>(
        manager.as_raw_fd(),
        &[IoSlice::new(text.as_bytes())],
        &[ControlMessage::ScmRights(&fds)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Makes the stream standard error, if the manager has passed it. To be called once.
pub(super) fn take() -> Inherited {
    let variable = |name| env::var(name).unwrap_or_default();
    let found = find(&variable("LISTEN_FDS"), &variable("LISTEN_FDNAMES"));
    if let Some(found) = &found {
        // SAFETY: the manager has passed this descriptor to this process, and nobody else here has it.
        let stream = unsafe { OwnedFd::from_raw_fd(FIRST + RawFd::from(found.others)) };
        // Without it, all output is standard output.
        let _ = dup2_stderr(&stream);
    }
    Inherited(found)
}

/// The variables that the manager has set, as they are without the stream.
#[derive(Debug)]
pub(super) struct Inherited(Option<Found>);

impl Inherited {
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        match (&self.0, name) {
            (Some(found), "LISTEN_PID" | "LISTEN_FDS" | "LISTEN_FDNAMES") if found.others == 0 => {
                None
            }
            (Some(found), "LISTEN_FDS") => Some(found.others.to_string()),
            (Some(found), "LISTEN_FDNAMES") => Some(found.names.clone()),
            _ => env::var(name).ok(),
        }
    }
}

/// The stream among what was passed.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// How many others there are, all before it, and their names.
    others: u16,
    names: String,
}

/// Finds the stream, which is the last one: the manager passes sockets first, and the store has room
/// for one.
fn find(count: &str, names: &str) -> Option<Found> {
    let count: u16 = count.parse().ok()?;
    let others = count.checked_sub(1)?;
    let rest = match names.rsplit_once(':') {
        Some((rest, NAME)) => rest,
        None if names == NAME => "",
        _ => return None,
    };
    Some(Found {
        others,
        names: rest.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_found_and_the_apps_sockets_stay() {
        let found = |others, names: &str| {
            Some(Found {
                others,
                names: names.to_owned(),
            })
        };
        assert_eq!(find("1", "temps-stderr"), found(0, ""));
        assert_eq!(find("3", "web:api:temps-stderr"), found(2, "web:api"));
        for (count, names) in [
            ("", ""),
            ("x", "temps-stderr"),
            ("0", "temps-stderr"),
            ("2", "web:api"),
            // Named by the app's own socket unit.
            ("2", "temps-stderr:web"),
        ] {
            assert_eq!(find(count, names), None, "{count} {names}");
        }
    }

    #[test]
    fn the_app_is_told_about_its_own_sockets_alone() {
        let told = |count, names| {
            let inherited = Inherited(find(count, names));
            ["LISTEN_FDS", "LISTEN_FDNAMES"].map(|name| inherited.variable(name))
        };
        assert_eq!(told("1", "temps-stderr"), [None, None]);
        let own = ["2", "web:api"].map(|text| Some(text.to_owned()));
        assert_eq!(told("3", "web:api:temps-stderr"), own);
    }

    #[test]
    fn without_the_app_and_the_unit_there_is_no_stream() {
        assert!(store(&["shop".into()]).is_err());
    }
}
