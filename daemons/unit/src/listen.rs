#![allow(
    unsafe_code,
    reason = "inherited descriptors are numbers without an owner, and clearing LISTEN_* needs remove_var; \
              both are done while the process has one thread, which is checked"
)]
//! Adopts the listening sockets that the service manager passes (`sd_listen_fds(3)`).
//!
//! Invariants:
//! - a socket is known by its name (`FileDescriptorName=`), never by its position: the order of
//!   several socket units is undefined;
//! - systemd keeps duplicates of these sockets, so a path is never unlinked and `shutdown(2)` is
//!   never called: dropping our copy leaves the queue of waiting connections intact;
//! - systemd hands over blocking sockets without close-on-exec: both are corrected here;
//! - after adoption the environment no longer names them, so that no child believes they are its own.

pub mod pass;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt,
};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

/// The first passed descriptor: after stdin, stdout and stderr (`SD_LISTEN_FDS_START`).
pub const FIRST_FD: RawFd = 3;

/// More sockets than any unit of ours has; protects the loop from a nonsensical `LISTEN_FDS`.
const MAX_SOCKETS: usize = 64;

const VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// Why the sockets of this process could not be adopted.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// `LISTEN_FDS` is not set.
    #[error("started without sockets; start it by systemd or `temps up`")]
    NoSockets,
    /// `LISTEN_PID` names another process: the variables were inherited by mistake.
    #[error(
        "LISTEN_PID is {found}, but this process is {own}: the sockets were meant for another process"
    )]
    OtherProcess {
        /// What the variable says.
        found: String,
        /// Our process id.
        own: u32,
    },
    /// The variables contradict themselves.
    #[error("{0}")]
    Malformed(String),
    /// Two sockets have one name.
    #[error("two sockets are named {0:?}; give each socket unit its own FileDescriptorName=")]
    Duplicate(String),
    /// A socket is not what its taker needs.
    #[error("the socket {name:?} {problem}")]
    WrongKind {
        /// Name of the socket.
        name: String,
        /// What is wrong with it, as the rest of a sentence.
        problem: String,
    },
    /// A socket of this name was not passed.
    #[error("no socket named {name:?} was passed; there are: {present}")]
    Missing {
        /// The name asked for.
        name: String,
        /// The names that were passed.
        present: String,
    },
    /// Sockets were passed that nobody took.
    #[error("sockets were passed that this program does not know: {0}")]
    Unknown(String),
    /// Called after a thread was started.
    #[error("sockets must be adopted before the first thread starts")]
    Threads,
}

/// The variables of the protocol, apart from the process environment.
#[derive(Debug, Clone, Default)]
struct Handover {
    pid: Option<String>,
    fds: Option<String>,
    names: Option<String>,
}

/// Sockets that were passed to this process and are not taken yet.
#[derive(Debug)]
pub struct Listeners {
    sockets: BTreeMap<String, OwnedFd>,
}

impl Listeners {
    /// Adopts every socket passed to this process and clears the variables.
    ///
    /// To be called once, at the start of `main`, before any thread exists.
    pub fn adopt() -> Result<Self, ListenError> {
        // Without /proc the check is left out rather than refusing to start.
        if let Ok(threads) = std::fs::read_dir("/proc/self/task")
            && threads.count() > 1
        {
            return Err(ListenError::Threads);
        }
        let [pid, fds, names] = VARIABLES.map(|name| std::env::var(name).ok());
        for name in VARIABLES {
            // SAFETY: no other thread exists (checked above), so nobody reads the environment now.
            unsafe { std::env::remove_var(name) };
        }
        let named = parse(&Handover { pid, fds, names }, std::process::id())?;
        // SAFETY: LISTEN_PID names us, so by the protocol these descriptors were opened for us;
        // the variables are gone, so no second call can own them again.
        unsafe { Self::from_descriptors(named) }
    }

    /// Checks and owns `named` descriptors.
    ///
    /// # Safety
    /// The descriptors must be open and owned by nobody else.
    unsafe fn from_descriptors(named: Vec<(String, RawFd)>) -> Result<Self, ListenError> {
        let mut sockets = BTreeMap::new();
        for (name, number) in named {
            // SAFETY: by the contract of this function.
            let fd = unsafe { OwnedFd::from_raw_fd(number) };
            let fd = check(&name, fd)?;
            if sockets.contains_key(&name) {
                return Err(ListenError::Duplicate(name));
            }
            sockets.insert(name, fd);
        }
        Ok(Self { sockets })
    }

    /// Sockets made by this process itself: for tests, which have no service manager.
    pub fn from_owned(
        sockets: impl IntoIterator<Item = (String, OwnedFd)>,
    ) -> Result<Self, ListenError> {
        let mut checked = BTreeMap::new();
        for (name, fd) in sockets {
            let fd = check(&name, fd)?;
            if checked.insert(name.clone(), fd).is_some() {
                return Err(ListenError::Duplicate(name));
            }
        }
        Ok(Self { sockets: checked })
    }

    /// The names not taken yet.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sockets.keys().map(String::as_str)
    }

    /// Takes the Unix stream socket called `name`. It does not block.
    pub fn take_unix(&mut self, name: &str) -> Result<UnixListener, ListenError> {
        self.take(name, "a Unix stream socket", |family| {
            family == AddressFamily::Unix
        })
        .map(UnixListener::from)
    }

    /// Takes the TCP socket called `name`. It does not block.
    pub fn take_tcp(&mut self, name: &str) -> Result<TcpListener, ListenError> {
        self.take(name, "a TCP socket", |family| {
            matches!(family, AddressFamily::Inet | AddressFamily::Inet6)
        })
        .map(TcpListener::from)
    }

    /// Takes the socket called `name`, of whatever family. It listens and does not block.
    pub fn take_raw(&mut self, name: &str) -> Result<OwnedFd, ListenError> {
        self.take(name, "a socket", |_| true)
    }

    /// Says that every socket this program knows has been taken.
    pub fn finish(self) -> Result<(), ListenError> {
        if self.sockets.is_empty() {
            return Ok(());
        }
        Err(ListenError::Unknown(list(&self.sockets)))
    }

    fn take(
        &mut self,
        name: &str,
        wanted: &str,
        fits: impl Fn(AddressFamily) -> bool,
    ) -> Result<OwnedFd, ListenError> {
        let Some(fd) = self.sockets.get(name) else {
            return Err(ListenError::Missing {
                name: name.to_owned(),
                present: list(&self.sockets),
            });
        };
        let family = family(fd).map_err(|error| wrong(name, format!("has no address: {error}")))?;
        if !fits(family) {
            return Err(wrong(name, format!("is {family:?}, not {wanted}")));
        }
        Ok(self.sockets.remove(name).expect("present: looked up above"))
    }
}

/// Names and numbers of the passed descriptors, from the variables alone.
fn parse(handover: &Handover, own_pid: u32) -> Result<Vec<(String, RawFd)>, ListenError> {
    let Some(count) = &handover.fds else {
        return Err(ListenError::NoSockets);
    };
    let pid = handover.pid.as_deref().unwrap_or_default();
    if pid.parse() != Ok(own_pid) {
        return Err(ListenError::OtherProcess {
            found: pid.to_owned(),
            own: own_pid,
        });
    }
    let count = match count.parse::<usize>() {
        Ok(0) => return Err(ListenError::NoSockets),
        Ok(count) if count <= MAX_SOCKETS => count,
        _ => {
            return Err(ListenError::Malformed(format!(
                "LISTEN_FDS is {count:?}, not a number from 1 to {MAX_SOCKETS}"
            )));
        }
    };
    let Some(names) = &handover.names else {
        return Err(ListenError::Malformed(
            "LISTEN_FDNAMES is not set: sockets are told apart by their names".to_owned(),
        ));
    };
    let names: Vec<&str> = names.split(':').collect();
    if names.len() != count || names.iter().any(|name| name.is_empty()) {
        return Err(ListenError::Malformed(format!(
            "LISTEN_FDNAMES has {} names ({}) for {count} sockets",
            names.len(),
            names.join(", ")
        )));
    }
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            return Err(ListenError::Duplicate((*name).to_owned()));
        }
    }
    Ok(names
        .into_iter()
        .map(str::to_owned)
        .zip(FIRST_FD..)
        .collect())
}

/// Makes sure `fd` is a listening stream socket, and that it neither blocks nor leaks to children.
fn check(name: &str, fd: OwnedFd) -> Result<OwnedFd, ListenError> {
    match getsockopt(&fd, sockopt::SockType) {
        Ok(SockType::Stream) => {}
        Ok(other) => return Err(wrong(name, format!("is of type {other:?}, not a stream"))),
        Err(error) => return Err(wrong(name, format!("is not a socket: {error}"))),
    }
    match getsockopt(&fd, sockopt::AcceptConn) {
        Ok(true) => {}
        Ok(false) => return Err(wrong(name, "does not listen".to_owned())),
        Err(error) => return Err(wrong(name, format!("cannot be examined: {error}"))),
    }
    set_flags(&fd).map_err(|error| wrong(name, format!("refuses its flags: {error}")))?;
    Ok(fd)
}

fn set_flags(fd: &OwnedFd) -> nix::Result<()> {
    let status = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(status | OFlag::O_NONBLOCK))?;
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}

fn family(fd: &OwnedFd) -> nix::Result<AddressFamily> {
    let address: SockaddrStorage = getsockname(fd.as_raw_fd())?;
    address.family().ok_or(nix::Error::EAFNOSUPPORT)
}

fn wrong(name: &str, problem: String) -> ListenError {
    ListenError::WrongKind {
        name: name.to_owned(),
        problem,
    }
}

fn list(sockets: &BTreeMap<String, OwnedFd>) -> String {
    let names: Vec<&str> = sockets.keys().map(String::as_str).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests;
