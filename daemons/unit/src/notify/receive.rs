//! The manager's end of `sd_notify(3)`: a datagram socket that says which process sent what.
//!
//! The sender is taken from `SCM_CREDENTIALS`, which the kernel fills in, never from the message.
//! Messages of other users, truncated ones, ones with descriptors and unknown assignments are ignored;
//! descriptors are never received, since the control buffer has room for the credentials only.

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt,
};
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// Largest message accepted. systemd takes a page; a status line is far below it.
const MAX_MESSAGE: usize = 4096;

/// One assignment of a notification that `temps up` acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotifyMessage {
    /// The daemon serves.
    Ready,
    /// One line for people. Control characters are replaced.
    Status(String),
    /// The drain begins.
    Stopping,
    /// The configuration is being read again.
    Reloading,
    /// Every task of the daemon is alive.
    Watchdog,
    /// Start or stop may take this long from now on.
    ExtendTimeout(Duration),
}

/// What one process said in one datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Sender, as the kernel knows it.
    pub pid: u32,
    /// What it said, in its order. Never empty.
    pub messages: Vec<NotifyMessage>,
}

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
#[error("the notification socket {path} cannot be made")]
pub struct ReceiverError {
    path: String,
    #[source]
    source: io::Error,
}

/// The socket that children find in `NOTIFY_SOCKET`.
#[derive(Debug)]
pub struct Receiver {
    socket: UnixDatagram,
    path: PathBuf,
    uid: u32,
}

impl Receiver {
    /// Binds at `path`, in a directory that only this user can reach, inside a tokio runtime.
    ///
    /// A socket left there by a dead process is replaced.
    pub fn bind(path: impl Into<PathBuf>) -> Result<Self, ReceiverError> {
        let path = path.into();
        Self::try_bind(&path).map_err(|source| ReceiverError {
            path: path.display().to_string(),
            source,
        })
    }

    fn try_bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixDatagram::bind(path)?;
        setsockopt(&socket, sockopt::PassCred, &true)?;
        Ok(Self {
            socket,
            path: path.to_owned(),
            uid: nix::unistd::geteuid().as_raw(),
        })
    }

    /// What children get as `NOTIFY_SOCKET`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next notification with a meaning. Safe to cancel.
    pub async fn recv(&mut self) -> io::Result<Notification> {
        loop {
            let receive = || receive(&self.socket);
            let Some((sender, text)) = self.socket.async_io(Interest::READABLE, receive).await?
            else {
                tracing::debug!("a truncated or anonymous notification is ignored");
                continue;
            };
            let known = sender.uid() == self.uid || sender.uid() == 0;
            let messages = parse(&text);
            if let Ok(pid) = u32::try_from(sender.pid())
                && known
                && !messages.is_empty()
            {
                return Ok(Notification { pid, messages });
            }
            tracing::debug!(sender = sender.pid(), "a notification is ignored");
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // A leftover is replaced by the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// One datagram and who sent it; `None` if it was truncated or anonymous.
fn receive(socket: &UnixDatagram) -> io::Result<Option<(UnixCredentials, String)>> {
    let mut text = [0; MAX_MESSAGE];
    let mut control = cmsg_space!(UnixCredentials);
    let mut parts = [IoSliceMut::new(&mut text)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let length = message.bytes;
    if message.flags.contains(MsgFlags::MSG_TRUNC) {
        return Ok(None);
    }
    let sender = message.cmsgs().ok().and_then(|mut parts| {
        parts.find_map(|part| match part {
            ControlMessageOwned::ScmCredentials(sender) => Some(sender),
            _ => None,
        })
    });
    let text = String::from_utf8_lossy(&text[..length]).into_owned();
    Ok(sender.map(|sender| (sender, text)))
}

fn parse(text: &str) -> Vec<NotifyMessage> {
    let assignments = text.lines().filter_map(|line| line.split_once('='));
    assignments
        .filter_map(|(name, value)| match (name, value) {
            ("READY", "1") => Some(NotifyMessage::Ready),
            ("STOPPING", "1") => Some(NotifyMessage::Stopping),
            ("RELOADING", "1") => Some(NotifyMessage::Reloading),
            ("WATCHDOG", "1") => Some(NotifyMessage::Watchdog),
            ("STATUS", line) => Some(NotifyMessage::Status(printable(line))),
            ("EXTEND_TIMEOUT_USEC", micros) => micros
                .parse()
                .ok()
                .map(|micros| NotifyMessage::ExtendTimeout(Duration::from_micros(micros))),
            _ => None,
        })
        .collect()
}

/// A status line may be shown on a terminal, so it may not command one.
fn printable(line: &str) -> String {
    line.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    async fn next(receiver: &mut Receiver) -> Notification {
        tokio::time::timeout(Duration::from_secs(10), receiver.recv())
            .await
            .expect("a notification arrives")
            .unwrap()
    }

    #[tokio::test]
    async fn the_sender_is_the_one_the_kernel_names() {
        let dir = tempfile::tempdir().unwrap();
        let mut receiver = Receiver::bind(dir.path().join("notify")).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender
            .send_to(b"READY=1\nSTATUS=3 routes\nMAINPID=1\n", receiver.path())
            .unwrap();
        let got = next(&mut receiver).await;
        assert_eq!(got.pid, std::process::id());
        let status = NotifyMessage::Status("3 routes".into());
        assert_eq!(got.messages, [NotifyMessage::Ready, status]);
    }

    #[tokio::test]
    async fn oversize_and_meaningless_messages_are_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let mut receiver = Receiver::bind(dir.path().join("notify")).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        let oversize = format!("READY=1\nSTATUS={}", "x".repeat(MAX_MESSAGE));
        for message in [
            oversize.as_bytes(),
            b"",
            b"\xff\xfe",
            b"READY=0",
            b"BARRIER=1",
        ] {
            sender.send_to(message, receiver.path()).unwrap();
        }
        sender.send_to(b"STOPPING=1", receiver.path()).unwrap();
        assert_eq!(
            next(&mut receiver).await.messages,
            [NotifyMessage::Stopping]
        );
    }

    #[tokio::test]
    async fn a_message_with_descriptors_is_ignored_and_leaks_none() {
        use nix::sys::socket::{ControlMessage, UnixAddr, sendmsg};
        let dir = tempfile::tempdir().unwrap();
        let mut receiver = Receiver::bind(dir.path().join("notify")).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let fds = [reader.as_raw_fd()];
        sendmsg(
            sender.as_raw_fd(),
            &[io::IoSlice::new(b"READY=1")],
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::empty(),
            Some(&UnixAddr::new(receiver.path()).unwrap()),
        )
        .unwrap();
        drop(reader);
        sender.send_to(b"STOPPING=1", receiver.path()).unwrap();
        assert_eq!(
            next(&mut receiver).await.messages,
            [NotifyMessage::Stopping]
        );
        // If a copy of the reading end had arrived, writing would still succeed.
        let error = std::io::Write::write(&mut &writer, b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        drop(UnixDatagram::bind(&path).unwrap());
        let receiver = Receiver::bind(&path).unwrap();
        drop(receiver);
        assert!(!path.exists());
    }

    #[test]
    fn a_status_line_cannot_command_a_terminal() {
        let got = parse("STATUS=\u{1b}[2Jgone");
        assert_eq!(got, [NotifyMessage::Status("\u{fffd}[2Jgone".into())]);
    }
}
