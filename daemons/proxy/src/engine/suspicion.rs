//! Passive evidence: a request that could not reach its target makes the watcher look at once,
//! instead of at its next round.
//!
//! ```text
//!          a request failed           the watcher was woken
//! trusted -----------------> raised ------------------------> inquired
//!    ^                                                            | three connections, 300 ms apart
//!    +-- a pause later, unless all were refused: then unhealthy --+
//! ```
//!
//! Whoever sends requests decides how often a suspicion is raised, and nothing else: a target has
//! one inquiry at a time, of at most three connections, and then a pause. Thousands of requests that
//! fail together cost one atomic step each.
//!
//! An inquiry asks only whether anybody accepts connections. A target that is slow, or whose queue is
//! full, is not dead: the rounds judge its health.

use crate::engine::lease::Target;
use crate::engine::table::UNHEALTHY_AFTER;
use crate::engine::{Engine, probe};
use futures::future::try_join_all;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use temps_ipc::types::Address;
use tokio::time::sleep;

/// Between two connections of an inquiry. A listener that is closed and opened again is back before
/// the last of them, and people wait no second longer for a dead target than they have to.
const SPACING: Duration = Duration::from_millis(300);

/// Between the end of an inquiry that found nothing and the next.
pub(super) const PAUSE: Duration = Duration::from_millis(250);

const TRUSTED: u8 = 0;
const RAISED: u8 = 1;
const INQUIRED: u8 = 2;
/// Raised again since the inquiry began, which may have looked too early.
const AGAIN: u8 = 3;

/// Whether requests say that a target cannot be reached.
#[derive(Debug, Default)]
pub(super) struct Suspicion(AtomicU8);

impl Suspicion {
    /// Notes that a request failed; true if the watcher has to be woken for it.
    fn raise(&self) -> bool {
        match self.0.load(Ordering::Relaxed) {
            TRUSTED => self.step(TRUSTED, RAISED),
            INQUIRED => {
                self.step(INQUIRED, AGAIN);
                false
            }
            // Most calls end here, and without a write that the other cores would have to see.
            _ => false,
        }
    }

    /// Takes it up; true if there is an inquiry to begin.
    pub(super) fn take(&self) -> bool {
        self.step(RAISED, INQUIRED)
    }

    /// Ends an inquiry that found nothing; false if another one is due.
    pub(super) fn settle(&self) -> bool {
        let is_over = self.step(INQUIRED, TRUSTED);
        if !is_over {
            self.0.store(INQUIRED, Ordering::Release);
        }
        is_over
    }

    /// The inquiry is over.
    pub(super) fn end(&self) {
        self.0.store(TRUSTED, Ordering::Release);
    }

    fn step(&self, from: u8, to: u8) -> bool {
        self.0
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

impl Engine {
    /// A request could not reach `target`, or was left without an answer by it.
    pub fn suspect(&self, target: &Target) {
        // What is known to be bad was reported already.
        let is_news = target.address().is_some() && target.failures() < UNHEALTHY_AFTER;
        if is_news && target.suspicion.raise() {
            self.suspected.notify_one();
        }
    }

    /// Waits until a target is suspected; every routed one that is. May be dropped at any time.
    pub(super) async fn suspects(&self) -> Vec<Arc<Target>> {
        self.suspected.notified().await;
        let table = self.table();
        let targets = table.targets().iter().map(|(target, _)| target);
        targets
            .filter(|target| target.suspicion.take())
            .cloned()
            .collect()
    }
}

/// Why nobody can be at `address`, if each of three connections says so.
pub(super) async fn inquire(address: &Address) -> Option<String> {
    let attempts = (0..UNHEALTHY_AFTER).map(|n| async move {
        sleep(SPACING * n).await;
        probe::absence(address).await.ok_or(())
    });
    // The first that finds somebody ends it.
    let failures = try_join_all(attempts).await.ok()?;
    failures.last().map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use temps_ipc::id::InstanceId;
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    async fn refusing() -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Address::Tcp(listener.local_addr().unwrap())
    }

    #[test]
    fn a_suspicion_is_raised_once_until_it_was_looked_into() {
        let suspicion = Suspicion::default();
        assert!(!suspicion.take(), "nobody suspects it");
        assert!(suspicion.raise());
        assert!(!suspicion.raise(), "the watcher was woken already");
        assert!(suspicion.take());
        assert!(!suspicion.raise() && !suspicion.take(), "it is looked into");
        assert!(!suspicion.settle(), "it was raised after the look");
        assert!(suspicion.settle());
        assert!(suspicion.raise());
    }

    #[tokio::test]
    async fn a_target_is_dead_only_if_it_refuses_three_times() {
        let dead = refusing().await;
        let begun = Instant::now();
        let why = inquire(&dead).await;
        assert_eq!(why.as_deref(), Some("nothing accepts connections there"));
        assert!(begun.elapsed() >= SPACING * 2, "not three at the same time");

        let Address::Tcp(address) = refusing().await else {
            unreachable!()
        };
        let back = tokio::spawn(async move {
            sleep(SPACING / 2).await;
            let listener = TcpListener::bind(address).await.unwrap();
            listener.accept().await.unwrap();
        });
        assert_eq!(inquire(&Address::Tcp(address)).await, None);
        back.await.unwrap();
    }

    #[tokio::test]
    async fn neither_files_nor_what_is_known_to_be_bad_is_suspected() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::new(crate::store::Store::new(dir.path()));
        let files = Target::new(InstanceId::fresh(), None);
        let bad = Target::new(InstanceId::fresh(), Some(refusing().await));
        bad.unreachable();
        for target in [&files, &bad] {
            engine.suspect(target);
            assert!(!target.suspicion.take());
        }
    }
}
