//! Signals: SIGTERM and SIGINT begin the drain, SIGHUP asks for a reload.
//!
//! A second SIGTERM changes nothing: how long a drain may take is the unit's `TimeoutStopSec=`, after
//! which the manager sends SIGKILL; `temps up` does the same.

use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the signals of this process mean to it.
#[derive(Debug, Clone)]
pub struct Signals {
    /// Cancelled when the daemon is to stop. An idle daemon cancels it itself.
    pub shutdown: CancellationToken,
    /// The requests to read the configuration again.
    pub reloads: Reloads,
}

impl Signals {
    /// Takes over the signals, for the rest of the process. Needs a tokio runtime.
    pub fn install() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let shutdown = CancellationToken::new();
        let (sender, reloads) = watch::channel(0_u64);
        let token = shutdown.clone();
        // Lives as long as the process and cannot fail, so nobody supervises it.
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    Some(()) = terminate.recv() => token.cancel(),
                    Some(()) = interrupt.recv() => token.cancel(),
                    Some(()) = hangup.recv() => sender.send_modify(|count| *count += 1),
                    else => std::future::pending().await,
                }
            }
        });
        Ok(Self {
            shutdown,
            reloads: Reloads(reloads),
        })
    }
}

/// Requests to read the configuration again; those that come while one is served become one.
#[derive(Debug, Clone)]
pub struct Reloads(watch::Receiver<u64>);

impl Reloads {
    /// Waits for the next request. Safe to cancel.
    pub async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // The runtime is going down: no reload will come.
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, raise};
    use std::time::Duration;

    // One test: signals belong to the whole process.
    #[tokio::test]
    async fn hangups_reload_and_terminations_stop_once() {
        let mut signals = Signals::install().unwrap();
        raise(Signal::SIGHUP).unwrap();
        signals.reloads.next().await;
        assert!(!signals.shutdown.is_cancelled());
        raise(Signal::SIGTERM).unwrap();
        signals.shutdown.cancelled().await;
        raise(Signal::SIGTERM).unwrap();
        raise(Signal::SIGINT).unwrap();
        raise(Signal::SIGHUP).unwrap();
        raise(Signal::SIGHUP).unwrap();
        signals.reloads.next().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
