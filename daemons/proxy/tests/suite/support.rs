//! A proxy in this process on ports of its own, its clients, and servers to stand behind it.

mod client;
mod load;
mod manager;
mod proxy;
mod upstream;

pub use client::{Answer, ask, read_answer, tls};
pub use load::load;
pub use proxy::{Proxy, route, site};
pub use upstream::{Handler, dead, says, says_after, target, upstream, writes};

use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("it happens");
}
