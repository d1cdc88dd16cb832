//! What happens to targets, for who wants to tell others of it. Nothing depends on being heard.

use super::Engine;
use temps_ipc::id::InstanceId;
use tokio::sync::broadcast;

/// Pieces of news that wait for a slow listener: a server whose every app fails at once has that many.
pub(super) const KEPT: usize = 256;

/// Something that happened to a routed target.
#[derive(Debug, Clone)]
pub enum News {
    /// It failed its health check too often, or nobody is there.
    Failed {
        /// The target.
        target: InstanceId,
        /// How its last check failed.
        why: String,
    },
    /// It had failed, and answers its health check again.
    Recovered {
        /// The target.
        target: InstanceId,
    },
}

impl Engine {
    /// Everything that happens from now on.
    pub fn news(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    pub(super) fn tell(&self, news: News) {
        // Fails if nobody listens.
        let _ = self.news.send(news);
    }
}
