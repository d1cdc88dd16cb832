#![allow(
    unsafe_code,
    reason = "a received descriptor is a number that nobody owns until we do"
)]
//! The public sockets, passed from the main process to the helper with its first word
//! (`SCM_RIGHTS`, unix(7)).
//!
//! The service manager could pass them too, but then the helper's start would wait for their units:
//! one that was stopped by hand, or whose port is taken, is started again with the proxy, which is
//! waited for by its own stop, which waits for the helper. And what the helper serves on is what the
//! main process serves on, whatever became of the units meanwhile.

use super::line::MAX_LINE;
use super::{Answer, Word};
use crate::daemon::{HTTP, HTTPS};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::time::{Duration, Instant};
use temps_unit::authz::Peer;
use temps_unit::listen::{ListenError, Listeners};

/// How long the caller may take to pass them: it is written in one piece with the call that started
/// us. Shorter than the caller waits for a helper to serve.
const PASSED: Duration = Duration::from_secs(5);

/// How long the service manager may take to say which units listen.
const ASKED: Duration = Duration::from_secs(2);

/// The pause before it is asked again, and how often: who asks is signalled within a few milliseconds of
/// us, and where no service manager is, none will answer.
const AGAIN: Duration = Duration::from_millis(20);
const TRIES: u32 = 5;

/// Two families for each of two schemes.
const MOST: usize = HTTP.len() + HTTPS.len();

/// Why a helper has nothing to serve on.
#[derive(Debug, thiserror::Error)]
pub enum NotPassed {
    /// Whoever called is gone, or was no main process.
    #[error("no main process passed its sockets")]
    Nobody,
    /// What was passed is none of it.
    #[error(transparent)]
    Wrong(#[from] ListenError),
    /// The socket itself does not work.
    #[error("the helper cannot be called: {0}")]
    Io(#[from] io::Error),
}

/// The public sockets of a main process, by name. Duplicates: they listen as long as these are kept.
#[derive(Debug, Default)]
pub struct Sockets(Vec<(&'static str, OwnedFd)>);

impl Sockets {
    /// Those of these listeners; a second one of a kind is of a second family.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn of(http: &[TcpListener], https: &[TcpListener]) -> io::Result<Self> {
        let named = HTTP.into_iter().zip(http);
        let named = named.chain(HTTPS.into_iter().zip(https));
        named
            .map(|(name, listener)| Ok((name, listener.as_fd().try_clone_to_owned()?)))
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Leaves out those whose unit was stopped: as long as anybody keeps such a socket, the unit cannot
    /// listen again, as it is asked to with the next start of the proxy. Of what the service manager
    /// does not say, nothing is left out.
    pub async fn still_wanted(mut self) -> Self {
        let units: Vec<String> = self.0.iter().map(|(name, _)| unit_of(name)).collect();
        let Ok(Some(said)) = tokio::time::timeout(ASKED, properties(&units)).await else {
            tracing::warn!("the service manager does not say which public sockets are wanted");
            return self;
        };
        let mut stopped = said.split("\n\n").map(is_stopped);
        self.0.retain(|_| !stopped.next().unwrap_or(false));
        self
    }

    /// Says [`Word::Stay`] with the names, and passes the sockets along.
    pub(super) fn send(&self, stream: &impl AsRawFd) -> io::Result<()> {
        let names: Vec<&str> = self.0.iter().map(|(name, _)| *name).collect();
        let line = format!("{} {}\n", Word::Stay.text(), names.join(" "));
        let numbers: Vec<RawFd> = self.0.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let sent = sendmsg::<UnixAddr>(
            stream.as_raw_fd(),
            &[IoSlice::new(line.as_bytes())],
            &rights,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        // Far less than the smallest buffer of a socket.
        if sent < line.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    }
}

/// What the service manager says of the units, one paragraph each. It is asked again if it does not
/// answer: the signal that stops us goes to the whole control group, and ends who asks now and then.
async fn properties(units: &[String]) -> Option<String> {
    for _ in 0..TRIES {
        let asked = tokio::process::Command::new("systemctl")
            .args(["show", "--property=LoadState,ActiveState", "--"])
            .args(units)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .output();
        match asked.await {
            Ok(said) if said.status.success() => {
                return Some(String::from_utf8_lossy(&said.stdout).into_owned());
            }
            _ => tokio::time::sleep(AGAIN).await,
        }
    }
    None
}

/// The unit that has the socket.
fn unit_of(name: &str) -> String {
    // Of both families.
    format!("temps-proxy-{}.socket", name.trim_end_matches('6'))
}

/// Whether the unit with these properties is there and does not listen.
fn is_stopped(properties: &str) -> bool {
    let has = |wanted: &str| properties.lines().any(|line| line == wanted);
    let is_down = ["inactive", "deactivating", "failed"]
        .iter()
        .any(|state| has(&format!("ActiveState={state}")));
    has("LoadState=loaded") && is_down
}

/// The sockets that the main process passes that has called, and the connection to it, whose word
/// [`Word::Stay`] is still to be answered.
///
/// # Errors
/// When there are none to be had.
pub fn receive(listener: &UnixListener) -> Result<(Listeners, UnixStream), NotPassed> {
    let deadline = Instant::now() + PASSED;
    loop {
        wait(listener, deadline)?;
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        };
        // The socket's mode says the same; but who is in doubt asks the kernel.
        let own = nix::unistd::geteuid().as_raw();
        if !Peer::of(&stream).is_ok_and(|peer| peer.uid == own || peer.uid == 0) {
            continue;
        }
        // Another one may have come after one that is gone.
        if wait(&stream, deadline).is_err() {
            continue;
        }
        if let Some(sockets) = passed(&stream)? {
            stream.set_nonblocking(true)?;
            return Ok((Listeners::from_owned(sockets)?, stream));
        }
        // It asks again, or goes on without: better than to wait for what will not come.
        let _ = (&stream).write_all(format!("{}\n", Answer::Stopping.text()).as_bytes());
    }
}

/// Waits until something is to be read.
fn wait(socket: &impl AsFd, deadline: Instant) -> Result<(), NotPassed> {
    let left = deadline.saturating_duration_since(Instant::now());
    let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
    let mut wanted = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    match poll(&mut wanted, left) {
        Ok(0) => Err(NotPassed::Nobody),
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(io::Error::from(error).into()),
    }
}

/// The sockets that came with a first word; none if it is another, or nobody is there any more.
fn passed(stream: &UnixStream) -> io::Result<Option<Vec<(String, OwnedFd)>>> {
    let mut text = [0; MAX_LINE as usize];
    let mut space = nix::cmsg_space!([RawFd; MOST]);
    let (length, fds) = {
        let mut parts = [IoSliceMut::new(&mut text)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
        let message =
            match recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut parts, Some(&mut space), flags) {
                Ok(message) => message,
                Err(Errno::EAGAIN | Errno::ECONNRESET | Errno::EINTR) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
        let mut fds = Vec::new();
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = part {
                // SAFETY: the kernel has just made these descriptors for this process, and told
                // nobody else of them.
                let owned = |number| unsafe { OwnedFd::from_raw_fd(number) };
                fds.extend(numbers.into_iter().map(owned));
            }
        }
        (message.bytes, fds)
    };
    let names = text
        .get(..length)
        .and_then(|text| std::str::from_utf8(text).ok())
        .and_then(|text| text.strip_suffix('\n'))
        .and_then(|line| line.strip_prefix(Word::Stay.text().as_str()))
        .map(|names| names.split_ascii_whitespace().map(str::to_owned));
    let Some(names) = names else {
        return Ok(None);
    };
    let sockets: Vec<_> = names.zip(fds).collect();
    Ok((!sockets.is_empty()).then_some(sockets))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn bench() -> (tempfile::TempDir, UnixListener, UnixStream) {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("handover.sock")).unwrap();
        let caller = UnixStream::connect(dir.path().join("handover.sock")).unwrap();
        (dir, listener, caller)
    }

    #[test]
    fn what_is_passed_listens_after_the_one_who_passed_it() {
        let (_dir, listener, caller) = bench();
        let http = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = http.local_addr().unwrap();
        Sockets::of(&[http], &[]).unwrap().send(&caller).unwrap();
        let (mut sockets, _stream) = receive(&listener).unwrap();
        assert_eq!(sockets.names().collect::<Vec<_>>(), [HTTP[0]]);
        let passed = sockets.take_tcp(HTTP[0]).unwrap();
        passed.set_nonblocking(false).unwrap();
        let _client = TcpStream::connect(address).unwrap();
        passed.accept().unwrap();
    }

    #[test]
    fn who_passes_nothing_is_sent_away_and_the_next_one_is_heard() {
        let (dir, listener, mut caller) = bench();
        caller.write_all(b"stay\n").unwrap();
        let second = UnixStream::connect(dir.path().join("handover.sock")).unwrap();
        let https = TcpListener::bind("127.0.0.1:0").unwrap();
        Sockets::of(&[], &[https]).unwrap().send(&second).unwrap();
        let (sockets, _stream) = receive(&listener).unwrap();
        assert_eq!(sockets.names().collect::<Vec<_>>(), [HTTPS[0]]);
        let mut answer = [0; 9];
        io::Read::read_exact(&mut caller, &mut answer).unwrap();
        assert_eq!(&answer, b"stopping\n");
    }

    #[test]
    fn only_a_unit_that_is_there_and_does_not_listen_is_stopped() {
        assert!(is_stopped("LoadState=loaded\nActiveState=inactive"));
        assert!(is_stopped("ActiveState=failed\nLoadState=loaded\n"));
        for properties in [
            "LoadState=loaded\nActiveState=active",
            "LoadState=not-found\nActiveState=inactive",
            "",
        ] {
            assert!(!is_stopped(properties), "{properties}");
        }
        assert_eq!(unit_of(HTTPS[1]), "temps-proxy-https.socket");
    }

    #[test]
    fn what_does_not_listen_is_refused() {
        let (_dir, listener, caller) = bench();
        let (one, _other) = UnixStream::pair().unwrap();
        Sockets(vec![(HTTP[0], one.into())]).send(&caller).unwrap();
        assert!(matches!(receive(&listener), Err(NotPassed::Wrong(_))));
    }
}
