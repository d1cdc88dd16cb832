//! What a request may want to know about its connection, and the connection about its requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::sleep;

/// What a request may want to know about its connection.
#[derive(Debug)]
pub struct Origin {
    /// The client.
    pub client: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// Present with TLS: the name that the certificate was chosen by.
    pub tls: Option<String>,
    /// Requests on this connection.
    pub activity: Arc<Activity>,
}

/// Requests on a connection, which with HTTP/2 come side by side.
#[derive(Debug, Default)]
pub struct Activity {
    open: AtomicUsize,
    begun: AtomicU64,
}

impl Activity {
    /// Counts a request while the guard exists.
    pub fn begin(self: &Arc<Self>) -> Active {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        Active(Arc::clone(self))
    }

    /// Returns when no request was open for `idle`, give or take as much again.
    pub async fn idle(&self, idle: Duration) {
        let mut before = u64::MAX;
        loop {
            let begun = self.begun.load(Ordering::Relaxed);
            if begun == before && self.open.load(Ordering::Relaxed) == 0 {
                return;
            }
            // One that is open may end right after this look, so the time starts anew.
            before = if self.open.load(Ordering::Relaxed) == 0 {
                begun
            } else {
                u64::MAX
            };
            sleep(idle).await;
        }
    }
}

/// A request on its connection.
#[derive(Debug)]
pub struct Active(Arc<Activity>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
