//! The domain: what apps and releases are, and how a deployment moves. No sockets here; the world
//! is behind the ports of [`crate::port`].
//!
//! One worker per app with an open deployment drives it from phase to phase ([`worker`],
//! [`step`]), so deployments of one app run one after the other and those of different apps side
//! by side. Invariants:
//!
//! - a phase is written before what it stands for is done, and everything done in a phase may be
//!   done again: after a crash the worker starts at the written phase;
//! - only [`routes`] talks routes with the proxy, one snapshot at a time;
//! - an instance is recorded before it is started and until after it is stopped, so nothing runs
//!   that nobody knows of;
//! - the old instance is stopped only when the proxy says that no request can reach it any more.

pub mod activation;
pub mod cancel;
pub mod destroy;
pub mod domain;
pub mod dying;
pub mod env;
pub mod failpoint;
pub mod health;
pub mod instance;
pub mod logs;
pub mod news;
pub mod paths;
pub mod reconcile;
pub mod report;
pub mod request;
pub mod restart;
pub mod resume;
pub mod retention;
pub mod retire;
pub mod rollback;
pub mod routes;
pub mod source;
pub mod step;
pub mod switch;
pub mod task;
pub mod view;
pub mod watch;
pub mod worker;

use crate::config::Settings;
use crate::port::{Builder, ProxyPort, Runtimes};
use crate::reserve::Reserve;
use crate::store::seal::Seal;
use crate::store::{Store, StoreError};
use paths::Paths;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use temps_ipc::id::{AppId, InstanceId};
use temps_ipc::types::Timestamp;
use temps_unit::idle::Idle;
use tokio::sync::{Notify, Semaphore, broadcast, watch as channel};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

/// Between two copies of the database: one takes some milliseconds.
const GATHER: Duration = Duration::from_millis(500);

/// What the engine is made of.
pub struct Parts {
    /// The database.
    pub store: Store,
    /// Seals variables.
    pub seal: Seal,
    /// Where instances can run.
    pub runtimes: Runtimes,
    /// Makes releases.
    pub builder: Arc<dyn Builder>,
    /// The proxy.
    pub proxy: Arc<dyn ProxyPort>,
    /// What the administrator chose.
    pub settings: Settings,
    /// Where files are kept.
    pub paths: Paths,
    /// Kept busy while something is under way.
    pub idle: Idle,
    /// Cancelled when the daemon shall stop: workers leave their deployments where they are.
    pub stopping: CancellationToken,
}

/// The deployment engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// What all workers share.
pub struct Inner {
    store: Store,
    seal: Seal,
    runtimes: Runtimes,
    builder: Arc<dyn Builder>,
    proxy: Arc<dyn ProxyPort>,
    settings: Settings,
    paths: Paths,
    idle: Idle,
    stopping: CancellationToken,
    started_at: Timestamp,
    /// Raised at every change that a waiting caller may want to see.
    changes: channel::Sender<u64>,
    /// What happened, for who wants to hear of each.
    news: broadcast::Sender<news::News>,
    /// One snapshot at a time, so that generations reach the proxy in order.
    publishing: tokio::sync::Mutex<()>,
    /// One address choice at a time: chosen and recorded before the next one looks.
    choosing: tokio::sync::Mutex<()>,
    /// One reconciliation at a time.
    reconciling: tokio::sync::Mutex<()>,
    /// Builds side by side.
    builds: Semaphore,
    /// The running workers, and whether each was called again meanwhile.
    workers: Mutex<HashMap<AppId, worker::Call>>,
    /// Instances that the proxy reported as unhealthy, with the reason, until a worker took note.
    alarms: Mutex<HashMap<InstanceId, String>>,
    /// Rung with every alarm.
    alarm: Notify,
    /// Apps whose dead instance waits for its replacement, and until when.
    paused: Mutex<HashMap<AppId, restart::Pause>>,
    tasks: TaskTracker,
}

impl std::ops::Deref for Engine {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl Engine {
    /// An engine over these parts; nothing moves before `resume`.
    pub fn new(parts: Parts) -> Self {
        let builds = Semaphore::new(parts.settings.builds_at_once);
        Self {
            inner: Arc::new(Inner {
                store: parts.store,
                seal: parts.seal,
                runtimes: parts.runtimes,
                builder: parts.builder,
                proxy: parts.proxy,
                settings: parts.settings,
                paths: parts.paths,
                idle: parts.idle,
                stopping: parts.stopping,
                started_at: Timestamp::now(),
                changes: channel::Sender::new(0),
                news: broadcast::Sender::new(news::KEPT),
                publishing: tokio::sync::Mutex::new(()),
                choosing: tokio::sync::Mutex::new(()),
                reconciling: tokio::sync::Mutex::new(()),
                builds,
                workers: Mutex::default(),
                alarms: Mutex::default(),
                alarm: Notify::new(),
                paused: Mutex::default(),
                tasks: TaskTracker::new(),
            }),
        }
    }

    /// Waits until every worker has left its deployment; call it after `stopping` was cancelled.
    pub async fn stopped(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Waits until a call met damage in the database.
    pub async fn damaged(&self) {
        self.store.damaged().await;
    }

    /// Why the last good copy of the database is behind it, if it is.
    pub fn copy_problem(&self) -> Option<String> {
        self.store.copy_problem()
    }

    /// Keeps the database's last good copy up to date, for ever: soon after every change, and every
    /// `period`.
    pub async fn tend_store_always(&self, period: Duration) {
        let mut changes = self.changes.subscribe();
        let mut said = None;
        loop {
            // What cannot be copied now is told by `temps doctor`, too.
            let problem = self.tend_store().await.err().map(|error| error.to_string());
            if problem != said
                && let Some(problem) = &problem
            {
                warn!("the last good copy of the database cannot be made anew: {problem}");
            }
            said = problem;
            // Several changes come together, as the steps of a deployment do.
            tokio::time::sleep(GATHER).await;
            // Either way it is time.
            let _ = tokio::time::timeout(period, changes.changed()).await;
        }
    }

    /// Brings the database's last good copy up to date, and keeps room for a full disk.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub async fn tend_store(&self) -> Result<(), StoreError> {
        let reserves = [self.paths.removal_reserve(), self.paths.reserve()];
        // Blocking work is not cancelled, so this only fails if it panics.
        let _ = tokio::task::spawn_blocking(move || reserves.iter().for_each(Reserve::keep)).await;
        self.store.save_copy().await.map(drop)
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where files are kept.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Tells waiting callers that something changed.
    fn changed(&self) {
        self.changes.send_modify(|revision| *revision += 1);
    }
}
