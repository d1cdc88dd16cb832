//! Ends a daemon that nobody needs.
//!
//! Work holds a [`BusyGuard`]; an idle keep-alive connection holds none. When no guard has been held
//! for the whole timeout, [`Idle::expired`] resolves and the daemon drains and exits 0. Its socket
//! stays with the service manager, which starts it again for the next call; connections waiting in
//! the queue are never accepted "one last time".

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The shortest time a shipped configuration may set: socket activation is limited to 20 starts in
/// 2 s, and hitting the limit fails the socket until somebody restarts it.
pub const MIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Whether the daemon is needed. Clones are one thing.
#[derive(Debug, Clone)]
pub struct Idle {
    timeout: Option<Duration>,
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    guards: usize,
    /// When the last guard was dropped.
    since: Instant,
}

impl Idle {
    /// Expires after `timeout` without a guard, first counted from now. Configuration of a shipped
    /// unit keeps to [`MIN_TIMEOUT`]; tests may go below.
    pub fn new(timeout: Duration) -> Self {
        Self::with(Some(timeout))
    }

    /// Never expires: for daemons that always run.
    pub fn never() -> Self {
        Self::with(None)
    }

    fn with(timeout: Option<Duration>) -> Self {
        let state = State {
            guards: 0,
            since: Instant::now(),
        };
        Self {
            timeout,
            state: Arc::new(watch::Sender::new(state)),
        }
    }

    /// Keeps the daemon alive while the guard exists.
    pub fn busy(&self) -> BusyGuard {
        self.state.send_modify(|state| state.guards += 1);
        BusyGuard {
            state: Arc::clone(&self.state),
        }
    }

    /// Begins the timeout anew, as a short piece of work would.
    pub fn touch(&self) {
        drop(self.busy());
    }

    /// Whether any guard is held.
    pub fn is_busy(&self) -> bool {
        self.state.borrow().guards > 0
    }

    /// Resolves when no guard has been held for the timeout. Safe to cancel and to call again: the
    /// time is counted from the last guard, not from the call.
    pub async fn expired(&self) {
        let Some(timeout) = self.timeout else {
            return std::future::pending().await;
        };
        let mut changes = self.state.subscribe();
        loop {
            let state = *changes.borrow_and_update();
            if state.guards > 0 {
                // Cannot fail: `self` holds the sender.
                let _ = changes.changed().await;
                continue;
            }
            tokio::select! {
                biased;
                _ = changes.changed() => {}
                () = sleep_until(state.since + timeout) => return,
            }
        }
    }
}

/// Proof that work is under way.
#[derive(Debug)]
#[must_use = "the daemon is idle again when the guard is dropped"]
pub struct BusyGuard {
    state: Arc<watch::Sender<State>>,
}

impl Clone for BusyGuard {
    fn clone(&self) -> Self {
        self.state.send_modify(|state| state.guards += 1);
        Self {
            state: Arc::clone(&self.state),
        }
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.state.send_modify(|state| {
            state.guards -= 1;
            state.since = Instant::now();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{sleep, timeout};

    const TIMEOUT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn it_expires_after_the_timeout_from_the_start() {
        let idle = Idle::new(TIMEOUT);
        let begin = Instant::now();
        idle.expired().await;
        assert_eq!(begin.elapsed(), TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_guard_keeps_it_and_the_last_drop_starts_the_timeout() {
        let idle = Idle::new(TIMEOUT);
        let first = idle.busy();
        let second = first.clone();
        drop(first);
        assert!(timeout(TIMEOUT * 10, idle.expired()).await.is_err());
        drop(second);
        let begin = Instant::now();
        idle.expired().await;
        assert_eq!(begin.elapsed(), TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn short_work_during_the_wait_starts_it_anew() {
        let idle = Idle::new(TIMEOUT);
        let begin = Instant::now();
        let waiter = tokio::spawn({
            let idle = idle.clone();
            async move { idle.expired().await }
        });
        sleep(TIMEOUT / 2).await;
        idle.touch();
        waiter.await.unwrap();
        assert_eq!(begin.elapsed(), TIMEOUT / 2 + TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_in_pieces_expires_as_soon_as_waiting_at_once() {
        let idle = Idle::new(TIMEOUT);
        let begin = Instant::now();
        while timeout(TIMEOUT / 4, idle.expired()).await.is_err() {}
        assert_eq!(begin.elapsed(), TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn never_means_never() {
        let idle = Idle::never();
        assert!(
            timeout(Duration::from_secs(1 << 30), idle.expired())
                .await
                .is_err()
        );
    }
}
