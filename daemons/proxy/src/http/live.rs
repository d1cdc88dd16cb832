//! Who is connected, and when a drain is over.
//!
//! ```text
//! Serving --begin--> Draining --------------------------------------> over
//!                    fresh connections and idle ones may still send one request for the grace
//!                    time; then the idle are closed; requests end by themselves, the last at the
//!                    deadline; upgraded connections (WebSocket) do not hold up the end
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Counts connections and requests. Shared by everything.
#[derive(Debug)]
pub struct Live {
    connections: watch::Sender<usize>,
    upgraded: AtomicUsize,
    requests: AtomicU64,
    stage: watch::Sender<Stage>,
    /// True from the beginning of the drain, as the HTTP engine wants to be told.
    draining: watch::Sender<bool>,
}

/// How far the drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// No drain.
    Serving,
    /// Every answer says that the connection ends.
    Draining,
    /// Idle connections are closed.
    Closing,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            connections: watch::Sender::new(0),
            upgraded: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            stage: watch::Sender::new(Stage::Serving),
            draining: watch::Sender::new(false),
        }
    }
}

impl Live {
    /// Counts a connection while the guard exists.
    pub fn connect(self: &Arc<Self>) -> Connected {
        self.connections.send_modify(|count| *count += 1);
        Connected(Arc::clone(self))
    }

    /// Counts an upgraded connection while the guard exists.
    pub fn upgrade(self: &Arc<Self>) -> Upgraded {
        self.upgraded.fetch_add(1, Ordering::Relaxed);
        Upgraded(Arc::clone(self))
    }

    /// Counts an answered request.
    pub fn answered(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        *self.connections.borrow()
    }

    /// Requests answered since the start.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Whether a drain is under way.
    pub fn is_draining(&self) -> bool {
        *self.stage.borrow() > Stage::Serving
    }

    /// Becomes true when the drain begins.
    pub fn draining(&self) -> watch::Receiver<bool> {
        let mut receiver = self.draining.subscribe();
        if *receiver.borrow() {
            // A connection of the last moment is to hear of it as well.
            receiver.mark_changed();
        }
        receiver
    }

    /// Follows the stages.
    pub fn stages(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    /// Drains; returns how many connections are cut because `deadline` is over (upgraded ones
    /// included). To be called after accepting has stopped.
    pub async fn drain(&self, grace: Duration, deadline: Duration) -> usize {
        let start = Instant::now();
        let end = start + deadline.max(grace);
        self.stage.send_replace(Stage::Draining);
        self.draining.send_replace(true);
        let mut connections = self.connections.subscribe();
        // Nobody connected: nothing to wait for.
        let _ = timeout_at(start + grace, connections.wait_for(|count| *count == 0)).await;
        self.stage.send_replace(Stage::Closing);
        loop {
            let open = *connections.borrow_and_update();
            if open <= self.upgraded.load(Ordering::Relaxed) {
                return open;
            }
            tokio::select! {
                _ = connections.changed() => {}
                () = sleep_until(end) => return self.connections(),
            }
        }
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Connected(Arc<Live>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.send_modify(|count| *count -= 1);
    }
}

/// An upgraded connection.
#[derive(Debug)]
pub struct Upgraded(Arc<Live>);

impl Drop for Upgraded {
    fn drop(&mut self) {
        self.0.upgraded.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(3);
    const DEADLINE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_drain_with_nobody_connected_is_over_at_once() {
        let start = Instant::now();
        assert_eq!(Live::default().drain(GRACE, DEADLINE).await, 0);
        assert!(start.elapsed() < GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_a_request_but_not_beyond_the_deadline() {
        let live = Arc::new(Live::default());
        let connection = live.connect();
        let ends = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(10)).await;
            drop(connection);
        });
        assert_eq!(live.drain(GRACE, DEADLINE).await, 0);
        assert!(ends.is_finished());
        let _stuck = live.connect();
        let start = Instant::now();
        assert_eq!(live.drain(GRACE, DEADLINE).await, 1);
        assert_eq!(start.elapsed(), DEADLINE);
    }

    #[tokio::test(start_paused = true)]
    async fn upgraded_connections_do_not_hold_up_the_end() {
        let live = Arc::new(Live::default());
        let _connection = live.connect();
        let _upgraded = live.upgrade();
        let start = Instant::now();
        assert_eq!(live.drain(GRACE, DEADLINE).await, 1);
        assert_eq!(start.elapsed(), GRACE);
    }
}
