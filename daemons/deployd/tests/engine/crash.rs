//! The daemon dies after any effect of a deployment, and the next one brings it to its end.

use crate::support::{Host, paused};
use std::slice;
use std::time::Duration;
use temps_ipc::types::{DeploymentView, Phase};

/// Runs a scenario again and again, the engine dropped (as by a crash) after one effect more each
/// time, then started anew: it must always end as it should.
fn crash_everywhere(behaviour: &str, ends: impl Fn(&DeploymentView) -> bool) {
    let mut crashes = 0;
    for moment in 0.. {
        let host = Host::new();
        let crashed = paused();
        let good = crashed.block_on(async {
            let running = host.start();
            // Its watch window stays open: the clocks of two runtimes must not drift apart.
            let good = running.deploy("healthy").await;
            running.stop().await;
            good
        });
        let before = host.world.journal().len();
        let (queued, over) = crashed.block_on(async {
            let running = host.start();
            let queued = running.queue(behaviour).await;
            let mut view = queued.clone();
            loop {
                if host.world.journal().len() - before >= moment {
                    return (queued, false);
                }
                tokio::select! {
                    next = running.next(view.clone()) => view = next,
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
                if ends(&view) {
                    return (queued, true);
                }
            }
        });
        // Everything that was in memory is gone, in the middle of whatever it did.
        crashed.shutdown_background();
        if over {
            break;
        }
        crashes += 1;
        let case = format!("{behaviour}, crash after {moment} effects");
        paused().block_on(async {
            let running = host.start();
            running.engine.reconcile().await.unwrap();
            let mut view = running
                .engine
                .deployment(queued.id, 0, Duration::ZERO)
                .await
                .unwrap();
            while !ends(&view) {
                let before = view.revision;
                view = running.next(view).await;
                assert!(
                    view.revision > before
                        || !matches!(
                            view.phase,
                            Phase::Confirmed | Phase::Refused | Phase::RolledBack
                        ),
                    "{case}: ended as {:?}: {}",
                    view.phase,
                    view.reason
                );
            }
            let serves = if view.phase == Phase::Live {
                &view.release
            } else {
                &good.release
            };
            assert_eq!(host.runs(), slice::from_ref(serves), "{case}");
            assert_eq!(host.present(), 1, "{case}: left-overs");
            host.serves_one();
            host.well();
        });
    }
    println!("{behaviour}: {crashes} crashes, one after each effect");
    assert!(
        crashes >= 4,
        "{behaviour}: the crashes came too late to mean anything"
    );
}

#[test]
fn a_crash_after_any_effect_of_a_good_deployment_ends_live() {
    crash_everywhere("healthy", |view| view.phase == Phase::Live);
}

#[test]
fn a_crash_after_any_effect_of_a_refused_deployment_ends_refused() {
    crash_everywhere("error", |view| view.phase == Phase::Refused);
}

#[test]
fn a_crash_after_any_effect_of_a_rollback_ends_rolled_back() {
    crash_everywhere("dies:20000", |view| {
        matches!(view.phase, Phase::RolledBack | Phase::Refused)
    });
}
