//! Checks every routed target for as long as it is routed, and raises the alarm when one is bad.
//!
//! ```text
//!            failed                failed x3: alarm, fewer requests
//! healthy ----------> suspicious ----------------------------------> unhealthy --+ every 30 s:
//!    ^  succeeded         |                                             |   ^     | alarm again
//!    +--------------------+---------------------- succeeded ------------+   +-----+
//! ```
//!
//! A target is checked by one task at a time and waits for no other target: a slow one delays only
//! its own next check. One that requests cannot reach is looked at between two rounds, too
//! ([`super::suspicion`]): if nobody is there, it is unhealthy at once. For one whose check is `Passive`
//! that is all there is: a connection would start it, and it shall rest as long as nobody asks for it.

use crate::engine::Engine;
use crate::engine::lease::Target;
use crate::engine::news::News;
use crate::engine::table::UNHEALTHY_AFTER;
use crate::engine::{probe, suspicion};
use crate::event;
use crate::port::Alarm;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use temps_ipc::id::InstanceId;
use temps_ipc::types::HealthCheck;
use temps_unit::watchdog::Ticker;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

/// Checks that may be under way at the same time: bounds sockets and memory with thousands of
/// targets.
const AT_ONCE: usize = 64;

/// How often, and how often again.
#[derive(Debug, Clone, Copy)]
pub struct Rhythm {
    /// Between two checks of a target.
    pub check: Duration,
    /// Between two alarms while a target stays bad.
    pub alarm: Duration,
}

/// When the last alarm for each bad target was raised.
type Alarms = HashMap<InstanceId, Instant>;

/// What a look at a target found.
struct Found {
    target: Arc<Target>,
    verdict: Verdict,
}

enum Verdict {
    /// It passed its check.
    Healthy,
    /// It failed its check, and why.
    Failed(String),
    /// Nobody is there, which counts as three failed checks; and why.
    Unreachable(String),
    /// Suspected wrongly, or nothing that could be told.
    Unknown,
}

/// Watches for ever; `alive` proves that the loop turns.
pub async fn run(engine: Arc<Engine>, alarm: Arc<dyn Alarm>, rhythm: Rhythm, mut alive: Ticker) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut rounds = interval(rhythm.check);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut checks: JoinSet<Found> = JoinSet::new();
    let mut messages: JoinSet<()> = JoinSet::new();
    let mut alarms = Alarms::new();
    loop {
        tokio::select! {
            () = alive.tick() => {}
            _ = rounds.tick() => {
                let table = engine.table();
                alarms.retain(|id, _| table.targets().iter().any(|(target, _)| target.id() == id));
                for (target, check) in table.targets() {
                    // Suspected while it was not routed.
                    if target.suspicion.take() {
                        look_into(&mut checks, &slots, Arc::clone(target));
                    }
                    if let Some(check) = check.as_ref().filter(|check| is_asked(target, check)) {
                        start(&mut checks, &slots, target, check);
                    }
                }
            }
            suspects = engine.suspects() => {
                for target in suspects {
                    look_into(&mut checks, &slots, target);
                }
            }
            Some(Ok(found)) = checks.join_next(), if !checks.is_empty() => {
                if let Some((target, why)) = judge(&engine, found, &mut alarms, rhythm.alarm) {
                    raise(&mut messages, &alarm, target, why);
                }
            }
            Some(_) = messages.join_next(), if !messages.is_empty() => {}
        }
    }
}

/// Whether the target is checked in a round. One that a connection would start is left alone, until
/// requests did not reach it: then whether somebody is there again is what is asked.
fn is_asked(target: &Target, check: &HealthCheck) -> bool {
    *check != HealthCheck::Passive || target.failures() >= UNHEALTHY_AFTER
}

fn start(
    checks: &mut JoinSet<Found>,
    slots: &Arc<Semaphore>,
    target: &Arc<Target>,
    check: &HealthCheck,
) {
    if target.checking.swap(true, Ordering::AcqRel) {
        return;
    }
    let (target, check, slots) = (Arc::clone(target), check.clone(), Arc::clone(slots));
    checks.spawn(async move {
        let _slot = slots.acquire().await;
        let failure = match target.address() {
            Some(address) => probe::once(address, &check).await,
            None => None,
        };
        target.checking.store(false, Ordering::Release);
        let verdict = failure.map_or(Verdict::Healthy, |failure| {
            Verdict::Failed(failure.to_string())
        });
        Found { target, verdict }
    });
}

/// Finds out whether anybody is there; at most one such task per target.
fn look_into(checks: &mut JoinSet<Found>, slots: &Arc<Semaphore>, target: Arc<Target>) {
    let slots = Arc::clone(slots);
    checks.spawn(async move {
        let verdict = loop {
            let absence = {
                let _slot = slots.acquire().await;
                match target.address() {
                    Some(address) => suspicion::inquire(address).await,
                    None => None,
                }
            };
            if let Some(why) = absence {
                target.suspicion.end();
                break Verdict::Unreachable(why);
            }
            sleep(suspicion::PAUSE).await;
            if target.suspicion.settle() {
                break Verdict::Unknown;
            }
        };
        Found { target, verdict }
    });
}

/// Counts what was found; says why, if an alarm is due.
fn judge(
    engine: &Engine,
    found: Found,
    alarms: &mut Alarms,
    again: Duration,
) -> Option<(Arc<Target>, String)> {
    let target = found.target;
    let (before, failures, why) = match found.verdict {
        Verdict::Unknown => return None,
        Verdict::Healthy => {
            if target.succeeded() >= UNHEALTHY_AFTER {
                alarms.remove(target.id());
                temps_unit::event!(info, event::TARGET_RECOVERED,
                    temps_target = %target.id(),
                    "a target answers its health check again"
                );
                engine.tell(News::Recovered {
                    target: target.id().clone(),
                });
            }
            return None;
        }
        Verdict::Failed(why) => {
            let failures = target.failed();
            (failures - 1, failures, why)
        }
        Verdict::Unreachable(why) => {
            let before = target.unreachable();
            (before, before.max(UNHEALTHY_AFTER), why)
        }
    };
    if failures < UNHEALTHY_AFTER {
        return None;
    }
    if before < UNHEALTHY_AFTER {
        temps_unit::event!(warn, event::TARGET_UNHEALTHY,
            temps_target = %target.id(),
            address = target.address().map(tracing::field::display),
            why = why.as_str(),
            "a routed target failed its health check {UNHEALTHY_AFTER} times in a row"
        );
        engine.tell(News::Failed {
            target: target.id().clone(),
            why: why.clone(),
        });
    }
    let now = Instant::now();
    if alarms
        .get(target.id())
        .is_some_and(|last| now.duration_since(*last) < again)
    {
        return None;
    }
    alarms.insert(target.id().clone(), now);
    Some((target, why))
}

fn raise(messages: &mut JoinSet<()>, alarm: &Arc<dyn Alarm>, target: Arc<Target>, why: String) {
    // At most one message per target under way, so a deployd that hangs costs one task each.
    if target.alarming.swap(true, Ordering::AcqRel) {
        return;
    }
    let alarm = Arc::clone(alarm);
    messages.spawn(async move {
        if let Err(fault) = alarm.target_unhealthy(target.id().clone(), why).await {
            tracing::debug!(temps_target = %target.id(), %fault, "the alarm was not taken; it is repeated");
        }
        target.alarming.store(false, Ordering::Release);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::snapshot::tests::{route, target};
    use crate::store::Store;
    use async_trait::async_trait;
    use std::sync::Mutex;
    use temps_ipc::Fault;
    use temps_ipc::types::{Address, Snapshot};
    use temps_unit::watchdog::Watchdog;
    use tokio::net::TcpListener;

    #[derive(Default)]
    struct Heard(Mutex<Vec<(InstanceId, String)>>);

    #[async_trait]
    impl Alarm for Heard {
        async fn target_unhealthy(&self, target: InstanceId, why: String) -> Result<(), Fault> {
            self.0.lock().unwrap().push((target, why));
            Ok(())
        }
    }

    async fn until(what: impl Fn() -> bool) {
        for _ in 0..2000 {
            if what() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it never happens");
    }

    #[tokio::test]
    async fn a_bad_target_is_reported_again_and_again_until_it_recovers() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Arc::new(Engine::new(Store::new(dir.path())));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let mut bad = target(1);
        bad.address = Address::Tcp(address);
        bad.check = HealthCheck::Tcp;
        // Never answers: it must not delay the other one.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut slow = target(1);
        slow.address = Address::Tcp(silent.local_addr().unwrap());
        let routes = vec![
            route("a.test", "/", "a", vec![bad.clone()]),
            route("b.test", "/", "b", vec![slow]),
        ];
        engine
            .apply(Snapshot {
                generation: 1,
                routes,
            })
            .await
            .unwrap();
        let heard = Arc::new(Heard::default());
        let rhythm = Rhythm {
            check: Duration::from_millis(10),
            alarm: Duration::from_millis(40),
        };
        let alive = Watchdog::new(None).register("watch").ticker();
        let task = tokio::spawn(run(Arc::clone(&engine), heard.clone(), rhythm, alive));
        until(|| heard.0.lock().unwrap().len() >= 3).await;
        for (id, why) in heard.0.lock().unwrap().iter() {
            assert_eq!(
                (id, why.as_str()),
                (&bad.id, "nothing accepts connections there")
            );
        }
        assert_eq!(engine.unhealthy(), 1);
        let _back = TcpListener::bind(address).await.unwrap();
        until(|| engine.unhealthy() == 0).await;
        heard.0.lock().unwrap().clear();
        tokio::time::sleep(Duration::from_millis(120)).await;
        assert!(heard.0.lock().unwrap().is_empty());
        task.abort();
    }

    #[tokio::test]
    async fn one_that_shall_rest_is_asked_only_after_requests_did_not_reach_it() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Arc::new(Engine::new(Store::new(dir.path())));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut resting = target(1);
        resting.address = Address::Tcp(address);
        resting.check = HealthCheck::Passive;
        let routes = vec![route("a.test", "/", "a", vec![resting])];
        let generation = 1;
        engine.apply(Snapshot { generation, routes }).await.unwrap();
        let heard = Arc::new(Heard::default());
        let rhythm = Rhythm {
            check: Duration::from_millis(10),
            alarm: Duration::from_millis(40),
        };
        let alive = Watchdog::new(None).register("watch").ticker();
        let task = tokio::spawn(run(Arc::clone(&engine), heard.clone(), rhythm, alive));
        let woken = tokio::time::timeout(Duration::from_millis(150), listener.accept()).await;
        assert!(woken.is_err(), "a connection would have started it");

        drop(listener);
        let known = Arc::clone(&engine.table().targets()[0].0);
        assert_eq!(engine.unhealthy(), 0, "nobody has looked");
        engine.suspect(&known);
        until(|| !heard.0.lock().unwrap().is_empty()).await;
        assert_eq!(engine.unhealthy(), 1);

        let back = TcpListener::bind(address).await.unwrap();
        until(|| engine.unhealthy() == 0).await;
        while tokio::time::timeout(Duration::from_millis(50), back.accept())
            .await
            .is_ok()
        {}
        let woken = tokio::time::timeout(Duration::from_millis(100), back.accept()).await;
        assert!(woken.is_err(), "it may rest again");
        task.abort();
    }
}
