use super::snapshot::tests::{route, target};
use super::*;
use std::sync::atomic::AtomicBool;

fn engine() -> (tempfile::TempDir, Engine) {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::new(Store::new(dir.path()));
    (dir, engine)
}

fn snapshot(generation: u64, targets: Vec<temps_ipc::types::Target>) -> Snapshot {
    Snapshot {
        generation,
        routes: vec![route("a.test", "/", "a", targets)],
    }
}

fn enter(engine: &Engine) -> Entered {
    match engine.enter("a.test", "/", &[]) {
        Entry::Open(entered) => entered,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_a_newer_or_an_equal_snapshot_is_taken() {
    let (_dir, engine) = engine();
    assert!(matches!(
        engine.enter("a.test", "/", &[]),
        Entry::UnknownHost
    ));
    let two = snapshot(2, vec![target(1)]);
    assert_eq!(engine.apply(two.clone()).await.unwrap(), 2);
    assert_eq!(engine.apply(two.clone()).await.unwrap(), 2, "asked again");
    let mut older = two.clone();
    older.generation = 1;
    assert_eq!(engine.apply(older).await.unwrap(), 2, "it says the same");
    for generation in [1, 2] {
        let error = engine
            .apply(snapshot(generation, vec![target(2)]))
            .await
            .unwrap_err();
        assert!(
            matches!(error, ApplyError::Stale { current: 2, .. }),
            "{error}"
        );
    }
    let error = engine.apply(snapshot(3, vec![])).await.unwrap_err();
    assert!(matches!(error, ApplyError::Invalid(_)));
    assert_eq!(engine.table().generation(), 2);
}

#[tokio::test]
async fn what_was_applied_is_served_after_a_restart() {
    let (dir, engine) = engine();
    engine.apply(snapshot(7, vec![target(1)])).await.unwrap();
    let next = Engine::new(Store::new(dir.path()));
    next.restore();
    assert_eq!(next.table().generation(), 7);
    assert!(matches!(next.enter("a.test", "/x", &[]), Entry::Open(_)));
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_kept_is_not_served() {
    let (dir, engine) = engine();
    engine.apply(snapshot(1, vec![target(1)])).await.unwrap();
    drop(dir);
    let error = engine
        .apply(snapshot(2, vec![target(2)]))
        .await
        .unwrap_err();
    assert!(matches!(error, ApplyError::Store(_)), "{error}");
    assert_eq!(engine.table().generation(), 1);
}

#[tokio::test]
async fn a_replaced_target_is_drained_when_its_last_request_ends() {
    let (_dir, engine) = engine();
    let (old, new) = (target(1), target(2));
    engine.apply(snapshot(1, vec![old.clone()])).await.unwrap();
    let request = enter(&engine);
    engine.apply(snapshot(2, vec![new])).await.unwrap();
    let drain = engine.drained(&old.id, Duration::ZERO).await;
    assert_eq!(
        drain,
        Drain {
            leases: 1,
            routed: false
        }
    );
    drop(request);
    let drain = engine.drained(&old.id, Duration::ZERO).await;
    assert_eq!(
        drain,
        Drain {
            leases: 0,
            routed: false
        }
    );
}

#[tokio::test]
async fn an_unchanged_target_keeps_its_leases_and_health_over_a_swap() {
    let (_dir, engine) = engine();
    let kept = target(1);
    engine.apply(snapshot(1, vec![kept.clone()])).await.unwrap();
    let request = enter(&engine);
    request.lease.target().failed();
    engine
        .apply(snapshot(2, vec![kept.clone(), target(2)]))
        .await
        .unwrap();
    let drain = engine.drained(&kept.id, Duration::ZERO).await;
    assert_eq!(
        drain,
        Drain {
            leases: 1,
            routed: true
        }
    );
    let table = engine.table();
    let (same, _) = table
        .targets()
        .iter()
        .find(|(t, _)| *t.id() == kept.id)
        .unwrap();
    assert_eq!(same.failures(), 1);
}

#[tokio::test]
async fn a_target_that_moved_is_another_target() {
    let (_dir, engine) = engine();
    let mut moving = target(1);
    engine
        .apply(snapshot(1, vec![moving.clone()]))
        .await
        .unwrap();
    let request = enter(&engine);
    moving.address = target(2).address;
    engine
        .apply(snapshot(2, vec![moving.clone()]))
        .await
        .unwrap();
    assert_ne!(
        enter(&engine).lease.target().address(),
        request.lease.target().address()
    );
    let drain = engine.drained(&moving.id, Duration::ZERO).await;
    assert_eq!(
        drain,
        Drain {
            leases: 1,
            routed: true
        }
    );
}

#[tokio::test]
async fn an_unknown_target_is_drained() {
    let (_dir, engine) = engine();
    let drain = engine
        .drained(&InstanceId::fresh(), Duration::from_secs(60))
        .await;
    assert_eq!(
        drain,
        Drain {
            leases: 0,
            routed: false
        }
    );
}

/// The guarantee of the lease module, under real threads: once `drained` says zero for a target
/// that is not routed any more, no request holds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_enters_a_target_after_it_was_said_to_be_drained() {
    let (_dir, engine) = engine();
    let engine = Arc::new(engine);
    let dead = Arc::new(Mutex::new(std::collections::HashSet::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let mut current = target(1);
    engine.publish(Arc::new(snapshot(1, vec![current.clone()])));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (engine, dead, stop) = (Arc::clone(&engine), Arc::clone(&dead), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut entered = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let request = enter(&engine);
                    let dead = dead.lock().unwrap();
                    assert!(!dead.contains(request.lease.target().id()));
                    entered += 1;
                }
                entered
            })
        })
        .collect();
    for generation in 2..2000 {
        let next = target(1);
        engine.publish(Arc::new(snapshot(generation, vec![next.clone()])));
        let drain = engine.drained(&current.id, Duration::from_secs(20)).await;
        assert_eq!(
            drain,
            Drain {
                leases: 0,
                routed: false
            }
        );
        dead.lock().unwrap().insert(current.id.clone());
        current = next;
    }
    stop.store(true, Ordering::Relaxed);
    let entered: u64 = readers
        .into_iter()
        .map(|reader| reader.join().unwrap())
        .sum();
    assert!(entered > 0);
}
