//! The domain: which routes are served, who holds a lease on whom, and how snapshots replace each
//! other. No sockets of clients here.
//!
//! One table is served at any moment, behind one atomic pointer. [`Engine::apply`] is the only
//! writer: validate, persist, publish. Requests read with [`Engine::enter`], which never blocks and
//! takes the table and the lease as one step.

pub mod lease;
pub mod news;
pub mod probe;
pub mod snapshot;
mod suspicion;
pub mod table;
pub mod watch;

use crate::event;
use crate::store::{Loaded, Store, StoreError};
use arc_swap::ArcSwap;
use lease::{Lease, Target};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use table::{Route, RouteTable, UNHEALTHY_AFTER};
use temps_ipc::id::InstanceId;
use temps_ipc::rpc::Drain;
use temps_ipc::types::{Address, Snapshot};
use tokio::sync::{Notify, broadcast, watch as channel};

/// Most errors of one snapshot that are put into words; a fault has its limit.
const MAX_ERRORS: usize = 50;

/// Why a snapshot is not served.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It is wrong, in every way listed.
    #[error("{}", listed(.0))]
    Invalid(Vec<String>),
    /// It is not newer than what is served, and says something else.
    #[error("generation {offered} is not newer than {current}, which is served")]
    Stale {
        /// Its generation.
        offered: u64,
        /// The one that is served.
        current: u64,
    },
    /// Another process serves the stored routes, and must not be left with old ones.
    #[error("the helper of a restart still serves the routes before")]
    Helped,
    /// It could not be made durable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The task that writes it ended.
    #[error("the snapshot could not be written: {0}")]
    Writer(#[from] tokio::task::JoinError),
}

fn listed(errors: &[String]) -> String {
    let mut text = errors
        .iter()
        .take(MAX_ERRORS)
        .cloned()
        .collect::<Vec<_>>()
        .join("; ");
    if errors.len() > MAX_ERRORS {
        text.push_str(&format!("; and {} more", errors.len() - MAX_ERRORS));
    }
    text
}

/// What a request holds to its end.
#[derive(Debug)]
pub struct Entered {
    /// The route it follows.
    pub route: Arc<Route>,
    /// Its hold on the target.
    pub lease: Lease,
}

/// Where a request would go.
#[derive(Debug)]
pub enum Entry {
    /// It may go on.
    Open(Entered),
    /// The host is known, but no route takes the path, or it has no target.
    NoRoute,
    /// Nobody answers for the host.
    UnknownHost,
}

/// The routes and their targets. Shared by everything.
#[derive(Debug)]
pub struct Engine {
    store: Store,
    current: ArcSwap<RouteTable>,
    /// Epoch of `current`, stored after it; see [`lease`].
    epoch: AtomicU64,
    /// Every target that is routed or has leases, and some that are neither any more.
    targets: Mutex<HashMap<InstanceId, Vec<Weak<Target>>>>,
    /// Held by the one apply that is under way, over its disk writes.
    applying: tokio::sync::Mutex<()>,
    generation: channel::Sender<u64>,
    /// Wakes the watcher for a target that a request could not reach.
    suspected: Notify,
    /// What happens to targets, for who wants to hear of it.
    news: broadcast::Sender<news::News>,
}

impl Engine {
    /// An engine that serves nothing yet.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            current: ArcSwap::from_pointee(RouteTable::empty()),
            epoch: AtomicU64::new(0),
            targets: Mutex::default(),
            applying: tokio::sync::Mutex::new(()),
            generation: channel::Sender::new(0),
            suspected: Notify::new(),
            news: broadcast::Sender::new(news::KEPT),
        }
    }

    /// Serves the stored snapshot, if there is a whole one; to be called before the first request.
    /// Blocks on the disk.
    pub fn restore(&self) {
        self.restored(self.store.load());
    }

    /// As [`Engine::restore`], but leaves the files as they are: for the helper of a restart.
    pub fn borrow(&self) {
        self.restored(self.store.peek());
    }

    fn restored(&self, loaded: Loaded) {
        for file in &loaded.set_aside {
            temps_unit::event!(
                error,
                event::SNAPSHOT_CORRUPT,
                "a stored snapshot of routes cannot be used: {file}"
            );
        }
        let Some(snapshot) = loaded.snapshot else {
            return;
        };
        tracing::info!(
            generation = snapshot.generation,
            routes = snapshot.routes.len(),
            "the stored routes are served"
        );
        self.publish(Arc::new(snapshot));
    }

    /// Validates, persists and serves `snapshot`; when this returns, new requests follow it.
    ///
    /// # Errors
    /// See [`ApplyError`]; what was served before still is.
    pub async fn apply(&self, snapshot: Snapshot) -> Result<u64, ApplyError> {
        let _one_at_a_time = self.applying.lock().await;
        let current = self.table();
        if snapshot.generation <= current.generation() {
            // Asked again after a lost answer: it is served, so it is applied.
            return if snapshot.routes == current.snapshot().routes {
                Ok(current.generation())
            } else {
                Err(refused(ApplyError::Stale {
                    offered: snapshot.generation,
                    current: current.generation(),
                }))
            };
        }
        let store = self.store.clone();
        let snapshot = Arc::new(snapshot);
        let written = {
            let (snapshot, served) = (Arc::clone(&snapshot), Arc::clone(current.snapshot()));
            tokio::task::spawn_blocking(move || {
                let errors = snapshot::errors(&snapshot, &served);
                if !errors.is_empty() {
                    return Err(ApplyError::Invalid(errors));
                }
                let turn = store.try_turn()?.ok_or(ApplyError::Helped)?;
                store.save(&snapshot)?;
                Ok(turn)
            })
        };
        // Kept until the routes are served, so that a helper begins with the new ones or not at all.
        let _turn = written
            .await
            .map_err(ApplyError::from)
            .flatten()
            .map_err(refused)?;
        temps_unit::event!(
            info,
            event::SNAPSHOT_APPLIED,
            generation = snapshot.generation,
            routes = snapshot.routes.len(),
            "a snapshot of routes is served"
        );
        Ok(self.publish(snapshot))
    }

    /// Makes `snapshot` the served one.
    fn publish(&self, snapshot: Arc<Snapshot>) -> u64 {
        let generation = snapshot.generation;
        let epoch = self.epoch.load(Ordering::SeqCst) + 1;
        let table = {
            let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
            targets.retain(|_, copies| {
                copies.retain(|target| target.strong_count() > 0);
                !copies.is_empty()
            });
            let table =
                RouteTable::build(snapshot, epoch, |id, address| same(&targets, id, address));
            for (target, _) in table.targets() {
                let copies = targets.entry(target.id().clone()).or_default();
                if !copies
                    .iter()
                    .any(|copy| std::ptr::eq(copy.as_ptr(), Arc::as_ptr(target)))
                {
                    copies.push(Arc::downgrade(target));
                }
            }
            table
        };
        self.current.store(Arc::new(table));
        self.epoch.store(epoch, Ordering::SeqCst);
        self.generation.send_replace(generation);
        generation
    }

    /// The table that is served.
    pub fn table(&self) -> Arc<RouteTable> {
        self.current.load_full()
    }

    /// Follows the generations that are served.
    pub fn generations(&self) -> channel::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Finds who answers for `host` (lower case, no port) and `path` (no query), avoiding targets in
    /// `tried`, and takes the lease: together, so that no swap slips between.
    pub fn enter(&self, host: &str, path: &str, tried: &[InstanceId]) -> Entry {
        loop {
            let table = self.current.load();
            let Some(route) = table.find(host, path) else {
                return if table.knows(host) {
                    Entry::NoRoute
                } else {
                    Entry::UnknownHost
                };
            };
            let Some(target) = route.choose(tried) else {
                return Entry::NoRoute;
            };
            let lease = target.lease();
            if self.epoch.load(Ordering::SeqCst) <= table.epoch {
                return Entry::Open(Entered {
                    route: Arc::clone(route),
                    lease,
                });
            }
        }
    }

    /// Waits at most `patience` until no request is in flight to `target`.
    pub async fn drained(&self, target: &InstanceId, patience: Duration) -> Drain {
        let deadline = tokio::time::Instant::now() + patience;
        let copies: Vec<Arc<Target>> = {
            let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
            let copies = targets.get(target).map(Vec::as_slice).unwrap_or_default();
            copies.iter().filter_map(Weak::upgrade).collect()
        };
        let mut leases = 0;
        for copy in copies {
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            leases += copy.drained(left).await;
        }
        let table = self.table();
        let routed = table
            .targets()
            .iter()
            .any(|(routed, _)| routed.id() == target);
        Drain { leases, routed }
    }

    /// Whether another process serves the stored routes: the helper of a restart.
    pub async fn is_helped(&self) -> bool {
        // An apply of ours takes the same lock.
        let _nobody_applies = self.applying.lock().await;
        let store = self.store.clone();
        let turn = tokio::task::spawn_blocking(move || store.try_turn()).await;
        matches!(turn, Ok(Ok(None)))
    }

    /// Requests in flight to `target` now, in this process.
    pub fn leases(&self, target: &InstanceId) -> u64 {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let copies = targets.get(target).map(Vec::as_slice).unwrap_or_default();
        let copies = copies.iter().filter_map(Weak::upgrade);
        copies.map(|copy| copy.leases()).sum()
    }

    /// Routed targets that failed their last checks.
    pub fn unhealthy(&self) -> usize {
        let table = self.table();
        let bad = |target: &Arc<Target>| target.failures() >= UNHEALTHY_AFTER;
        table
            .targets()
            .iter()
            .filter(|(target, _)| bad(target))
            .count()
    }
}

/// The known target that is the same running copy.
fn same(
    targets: &HashMap<InstanceId, Vec<Weak<Target>>>,
    id: &InstanceId,
    address: Option<&Address>,
) -> Option<Arc<Target>> {
    let mut copies = targets.get(id)?.iter().filter_map(Weak::upgrade);
    copies.find(|target| target.address() == address)
}

fn refused(error: ApplyError) -> ApplyError {
    if matches!(error, ApplyError::Helped) {
        tracing::debug!(%error, "a snapshot of routes has to wait");
        return error;
    }
    temps_unit::event!(warn, event::SNAPSHOT_REFUSED,
        %error,
        "a snapshot of routes was refused; the one before is still served"
    );
    error
}

#[cfg(test)]
mod tests;
