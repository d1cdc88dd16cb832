#![allow(
    unsafe_code,
    reason = "registering a descriptor with the reactor is unsafe; ours is owned by its registration"
)]
//! Notices that somebody connects, without accepting: the connection is left for the daemon that is
//! started because of it.

use super::sockets::Named;
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Waits until a connection waits at one of the sockets. Watches them only as long as it is waited
/// for. Safe to cancel.
///
/// # Errors
/// When they cannot be watched.
pub async fn waiting(sockets: &[Named]) -> io::Result<()> {
    let watched: io::Result<Vec<AsyncFd<OwnedFd>>> = sockets.iter().map(watch).collect();
    let watched = watched?;
    let waits = watched.iter().map(|socket| Box::pin(socket.readable()));
    let (ready, _, _) = futures::future::select_all(waits).await;
    ready.map(drop)
}

fn watch((_, socket): &Named) -> io::Result<AsyncFd<OwnedFd>> {
    let copy = socket.try_clone()?;
    // SAFETY: the copy moves into the registration, which closes it only after giving it up, and
    // nobody else knows its number.
    let watched = unsafe { AsyncFd::register_with_interest(copy, Interest::READABLE) };
    watched.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::time::Duration;

    #[tokio::test]
    async fn a_waiting_connection_is_noticed_and_left_for_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let sockets = vec![("x", OwnedFd::from(listener.try_clone().unwrap()))];
        let early = tokio::time::timeout(Duration::from_millis(50), waiting(&sockets)).await;
        assert!(early.is_err(), "nobody has connected");
        let _client = UnixStream::connect(&path).unwrap();
        // Twice: it is still there for the next one who looks.
        for _ in 0..2 {
            let noticed = tokio::time::timeout(Duration::from_secs(10), waiting(&sockets)).await;
            noticed.expect("noticed").unwrap();
        }
        listener.accept().unwrap();
    }
}
