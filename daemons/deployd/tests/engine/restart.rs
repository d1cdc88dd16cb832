//! The daemon stops and starts again; what it looks after may have changed meanwhile.

use crate::support::{Host, Running, started};
use std::time::Duration;
use temps_deployd::adapter::sim::{Behaviour, Effect, Part};
use temps_deployd::engine::reconcile::Reconciled;
use temps_ipc::id::ReleaseId;
use temps_ipc::types::{Phase, ReleaseStatus};
use tokio::time::sleep;

/// Between two looks at what the engine does, in simulated time.
const STEP: Duration = Duration::from_millis(10);

#[tokio::test(start_paused = true)]
async fn after_a_reboot_every_app_is_started_again() {
    let (host, running) = started();
    let view = running.deploy("healthy").await;
    running.stop().await;
    host.kill_instances();
    let running = host.start();
    let mended = running.engine.reconcile().await.unwrap().mended;
    assert!(
        mended.iter().any(|line| line.contains("shop")),
        "{mended:?}"
    );
    host.runs_only(&view.release);
    host.serves_one();
    assert_eq!(
        running.engine.reconcile().await.unwrap(),
        Reconciled::default(),
        "nothing is left to mend"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_is_not_told_as_mended() {
    let (host, running) = started();
    let view = running.deploy("healthy").await;
    running.stop().await;
    host.kill_instances();
    host.world.behave(&view.release, Behaviour::StartRefused);
    let running = host.start();
    let done = running.engine.reconcile().await.unwrap();
    assert_eq!(done.mended, Vec::<String>::new());
    let fault = done.answer().unwrap_err();
    assert!(
        fault.what.contains("shop: cannot be started again: "),
        "{fault}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_cannot_be_asked_is_told() {
    let (host, running) = started();
    running.deploy("healthy").await;
    host.world.silence(Part::Runtime, 100);
    let done = running.engine.reconcile().await.unwrap();
    let fault = done.answer().unwrap_err();
    assert!(fault.what.contains(" runtime: "), "{fault}");
}

#[tokio::test(start_paused = true)]
async fn a_release_that_was_stopped_with_the_platform_is_no_bad_release() {
    let (host, running) = started();
    running.deploy("healthy").await;
    let second = running.deploy("healthy").await;
    running.stop().await;
    // In its watch window, and everything is stopped.
    host.stop_instances().await;
    let running = host.start();
    running.engine.resume().await.unwrap();
    running.engine.reconcile().await.unwrap();
    host.runs_only(&second.release);
    assert_eq!(
        running.status_of(&second.release).await,
        ReleaseStatus::Live
    );
}

#[tokio::test(start_paused = true)]
async fn a_release_that_died_while_the_daemon_was_down_is_rolled_back() {
    let (host, running) = started();
    let good = running.deploy("healthy").await;
    let bad = running.deploy("healthy").await;
    running.stop().await;
    host.kill_instances();
    let running = host.start();
    running.engine.resume().await.unwrap();
    running.until(bad, Phase::RolledBack).await;
    host.runs_only(&good.release);
    host.well();
}

/// Everything stops, the proxy answers again, and `bad` crashes from now on; then the daemon starts.
async fn start_crashing(host: &Host, running: Running, bad: &ReleaseId) -> Running {
    running.stop().await;
    host.stop_instances().await;
    host.world.silence(Part::Proxy, 0);
    host.world.behave(bad, Behaviour::Crash);
    let running = host.start();
    running.engine.resume().await.unwrap();
    running
}

#[tokio::test(start_paused = true)]
async fn a_release_that_fails_after_a_stop_in_its_switch_gives_way_to_the_one_before() {
    let (host, running) = started();
    let good = running.deploy("healthy").await;
    let queued = running.queue("slow-start:5000").await;
    let bad = running.until(queued, Phase::Probing).await;
    // The probe is under way, and is the last thing that the proxy answers.
    let probes = |effect: &Effect| matches!(effect, Effect::Probe(_));
    while host.world.journal().into_iter().filter(probes).count() < 2 {
        sleep(STEP).await;
    }
    host.world.silence(Part::Proxy, u32::MAX);
    let bad = running.until(bad, Phase::Switching).await;
    while running.app().await.unwrap().release != Some(bad.release.clone()) {
        sleep(STEP).await;
    }
    let running = start_crashing(&host, running, &bad.release).await;
    let ended = running.until(bad.clone(), Phase::RolledBack).await;
    assert!(ended.reason.contains("status 3"), "{}", ended.reason);
    host.runs_only(&good.release);
    host.serves_one();
    let app = running.app().await.unwrap();
    assert_eq!(app.release, Some(good.release));
}

#[tokio::test(start_paused = true)]
async fn a_first_release_that_fails_after_a_stop_in_its_switch_leaves_nothing() {
    let (host, running) = started();
    let queued = running.queue("slow-start:5000").await;
    let bad = running.until(queued, Phase::Probing).await;
    while host.world.journal().len() < 3 {
        sleep(STEP).await;
    }
    host.world.silence(Part::Proxy, u32::MAX);
    while running.app().await.unwrap().release.is_none() {
        sleep(STEP).await;
    }
    let running = start_crashing(&host, running, &bad.release).await;
    running.until(bad.clone(), Phase::Refused).await;
    assert_eq!(host.present(), 0);
    assert!(host.world.snapshot().routes.is_empty());
    assert_eq!(
        running.status_of(&bad.release).await,
        ReleaseStatus::Refused
    );
    let app = running.app().await.unwrap();
    assert_eq!((app.release, app.state.as_str()), (None, "empty"));
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_knows_newer_routes_than_the_database_is_told_anew() {
    let (host, running) = started();
    for _ in 0..3 {
        running.deploy("healthy").await;
    }
    running.stop().await;
    // The database is lost; the proxy goes on with what it has.
    for file in ["deployd.db", "deployd.db-wal", "deployd.db-shm"] {
        let _ = std::fs::remove_file(host.directory.path().join(file));
    }
    let running = host.start();
    let applied = || {
        let applies = |effect: &Effect| matches!(effect, Effect::Apply(_));
        host.world.journal().into_iter().filter(applies).count()
    };
    let before = applied();
    let view = running.deploy("healthy").await;
    assert_eq!(view.phase, Phase::Live, "{}", view.reason);
    assert!(applied() > before);
}
