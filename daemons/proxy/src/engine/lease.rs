//! Targets and the leases that requests hold on them.
//!
//! A lease is held from the moment a request chose its target until the request has ended. A target
//! without leases that is not in the served table is *drained*: no request can reach it any more.
//!
//! That needs one guarantee: a request may not choose a target from a table that was replaced
//! meanwhile, and count itself only after somebody looked. It is given by the order of four
//! sequentially consistent steps (see [`crate::engine::Engine::enter`]):
//!
//! ```text
//! request:  load table (epoch e) -> count the lease -> is the current epoch still e? else again
//! apply:    publish table e+1 -> current epoch = e+1        then drained: read the count
//! ```
//!
//! If the request still read epoch e, its count came before the new epoch, so `drained` sees it.

use crate::engine::suspicion::Suspicion;
use crate::engine::table::UNHEALTHY_AFTER;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use temps_ipc::id::InstanceId;
use temps_ipc::types::Address;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Somebody who answers requests: an instance, or a static site (whose address is absent).
///
/// One per running copy: the same id and address in two snapshots is the same `Target`.
#[derive(Debug)]
pub struct Target {
    id: InstanceId,
    address: Option<Address>,
    leases: AtomicU64,
    /// Wakes those who wait for the last lease.
    idle: Notify,
    /// Checks failed in a row; see [`crate::engine::watch`].
    failures: AtomicU32,
    /// What requests say of it.
    pub(super) suspicion: Suspicion,
    /// A check is under way.
    pub(super) checking: AtomicBool,
    /// An alarm is being sent.
    pub(super) alarming: AtomicBool,
}

impl Target {
    /// A target without leases, presumed healthy: it passed its probe before it was routed.
    pub fn new(id: InstanceId, address: Option<Address>) -> Arc<Self> {
        Arc::new(Self {
            id,
            address,
            leases: AtomicU64::new(0),
            idle: Notify::new(),
            failures: AtomicU32::new(0),
            suspicion: Suspicion::default(),
            checking: AtomicBool::new(false),
            alarming: AtomicBool::new(false),
        })
    }

    /// The instance, or the name of the static site's lease.
    pub fn id(&self) -> &InstanceId {
        &self.id
    }

    /// Where it listens; absent for a static site.
    pub fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }

    /// Requests in flight.
    pub fn leases(&self) -> u64 {
        self.leases.load(Ordering::SeqCst)
    }

    /// Checks failed in a row.
    pub fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Another failed check; returns how many in a row it makes.
    pub(super) fn failed(&self) -> u32 {
        self.failures
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1)
    }

    /// Nobody is there, which is as good as that many failed checks; returns how many had failed
    /// before.
    pub(super) fn unreachable(&self) -> u32 {
        self.failures.fetch_max(UNHEALTHY_AFTER, Ordering::Relaxed)
    }

    /// A check succeeded; returns how many had failed before it.
    pub(super) fn succeeded(&self) -> u32 {
        self.failures.swap(0, Ordering::Relaxed)
    }

    /// Takes a lease.
    pub(super) fn lease(self: &Arc<Self>) -> Lease {
        self.leases.fetch_add(1, Ordering::SeqCst);
        Lease(Arc::clone(self))
    }

    /// Waits until no lease is held, at most `patience`; returns how many are held then.
    pub async fn drained(&self, patience: Duration) -> u64 {
        let deadline = Instant::now() + patience;
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            // Registered before the count is read, so that no end of a lease is missed.
            idle.as_mut().enable();
            let leases = self.leases();
            if leases == 0 || tokio::time::timeout_at(deadline, idle).await.is_err() {
                return self.leases();
            }
        }
    }
}

/// A request's hold on its target; dropped when the request has ended.
#[derive(Debug)]
pub struct Lease(Arc<Target>);

impl Lease {
    /// The target.
    pub fn target(&self) -> &Arc<Target> {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.0.leases.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_lease_dropped_wakes_who_waits() {
        let target = Target::new(InstanceId::fresh(), None);
        let (first, second) = (target.lease(), target.lease());
        assert_eq!(target.drained(Duration::from_secs(1)).await, 2);
        let waiting = {
            let target = Arc::clone(&target);
            tokio::spawn(async move { target.drained(Duration::from_secs(60)).await })
        };
        tokio::task::yield_now().await;
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        assert_eq!(waiting.await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_target_without_leases_is_drained_at_once() {
        let target = Target::new(InstanceId::fresh(), None);
        assert_eq!(target.drained(Duration::ZERO).await, 0);
    }
}
