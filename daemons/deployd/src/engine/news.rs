//! What happens, one by one, for who wants to tell others of it. Nothing depends on being heard: the
//! database says what is, and who was too slow learns from it what they missed.

use super::Engine;
use temps_ipc::id::InstanceId;
use temps_ipc::types::{AppName, DeploymentView};
use tokio::sync::{broadcast, watch};

/// Pieces of news that wait for a slow listener: more than the deployments of a busy hour.
pub(super) const KEPT: usize = 64;

/// Something that happened.
#[derive(Debug, Clone)]
pub enum News {
    /// A deployment came into another phase.
    Deployment(DeploymentView),
    /// An instance that died or hangs is being replaced.
    Replaced {
        /// Its app.
        app: AppName,
        /// The instance.
        instance: InstanceId,
        /// What was wrong with it.
        why: String,
    },
    /// An app was removed.
    Destroyed(AppName),
}

impl Engine {
    /// Everything that happens from now on.
    pub fn news(&self) -> broadcast::Receiver<News> {
        self.news.subscribe()
    }

    /// Raised by everything that may look different afterwards.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn tell(&self, news: impl FnOnce() -> News) {
        if self.news.receiver_count() > 0 {
            // Fails only if the last listener has just gone.
            let _ = self.news.send(news());
        }
    }
}
