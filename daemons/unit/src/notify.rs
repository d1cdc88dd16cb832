//! Readiness and status to the service manager (`sd_notify(3)`).
//!
//! Without `NOTIFY_SOCKET` every call does nothing. A failed notification is logged and otherwise
//! ignored: a daemon that serves is worth more than one that stopped because nobody listened.
//! [`Receiver`] is the other end, for `temps up`.

mod receive;

pub use receive::{Notification, NotifyMessage, Receiver, ReceiverError};

use sd_notify::NotifyState;
use std::time::Duration;

/// What the service manager tells this process and nobody it starts: to be removed from the
/// environment of every child that is not itself a daemon of ours. An app that kept `NOTIFY_SOCKET`
/// could declare the daemon ready, and one that kept `CREDENTIALS_DIRECTORY` would know where to look.
pub const MANAGER_VARIABLES: [&str; 13] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "CREDENTIALS_DIRECTORY",
    "STATE_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "CACHE_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
    "JOURNAL_STREAM",
    "INVOCATION_ID",
];

/// The first request can be answered (`READY=1`). Also ends a reload.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// One line of meaning for `systemctl status`: "12 routes, 3 certificates". A line feed ends it.
pub fn status(line: &str) {
    let line = line.lines().next().unwrap_or_default();
    send(&[NotifyState::Status(line)]);
}

/// The drain begins (`STOPPING=1`).
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// The configuration is being read again; to be followed by [`ready`], also if it failed.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        // One message: systemd pairs the two.
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the monotonic clock cannot be read"),
    }
}

/// Start or stop takes longer than usual: grants `time` from now on.
pub fn extend_timeout(time: Duration) {
    let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    send(&[NotifyState::ExtendTimeoutUsec(micros)]);
}

/// Proof of life; only [`crate::watchdog`] may give it.
pub(crate) fn watchdog() {
    send(&[NotifyState::Watchdog]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager could not be notified");
    }
}
