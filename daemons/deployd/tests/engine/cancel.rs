//! A deployment that is cancelled before it serves, at each moment that it may be.

use crate::support::{Host, Running, actor, paused, shop, started};
use std::slice;
use std::time::Duration;
use temps_deployd::adapter::sim::Part;
use temps_deployd::engine::paths::Paths;
use temps_ipc::id::ReleaseId;
use temps_ipc::types::{DeployRequest, DeploymentView, Phase, ReleaseStatus, Source};
use temps_ipc::{Code, Fault};
use tokio::time::{Instant, sleep};

const REASON: &str = "cancelled by ada";

async fn cancel(running: &Running, release: Option<&ReleaseId>) -> Result<DeploymentView, Fault> {
    let release = release.cloned();
    running.engine.cancel(shop(), release, actor(), 0).await
}

/// It is refused, for this reason, and only the release before serves.
async fn cancelled(host: &Host, running: &Running, view: DeploymentView, before: &ReleaseId) {
    let ended = running.outcome(view).await;
    assert_eq!(
        (ended.phase, ended.reason.as_str()),
        (Phase::Refused, REASON)
    );
    let release = running.release(&ended.release).await;
    assert_eq!(
        (release.status, release.reason.as_str()),
        (ReleaseStatus::Refused, REASON)
    );
    host.runs_only(before);
    assert_eq!(host.present(), 1);
    host.serves_one();
    host.well();
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_is_refused_at_once_and_its_archive_is_removed() {
    let (host, running) = started();
    let first = running.queue("slow-build:60000").await;
    running.until(first.clone(), Phase::Preparing).await;
    let upload = running.engine.uploads().ticket().unwrap();
    let paths = Paths::new(host.directory.path());
    std::fs::write(paths.uploads().join(upload.as_str()), "").unwrap();
    let label = "healthy".to_owned();
    let request = DeployRequest {
        source: Source::Directory { upload, label },
        ..running.request("healthy")
    };
    let second = running.engine.deploy(request, 0).await.unwrap();
    let archive = paths.material(&second.release);
    assert!(archive.exists());
    let view = cancel(&running, Some(&second.release)).await.unwrap();
    assert_eq!((view.phase, view.reason.as_str()), (Phase::Refused, REASON));
    assert!(!archive.exists());
    let first = running.outcome(first).await;
    assert_eq!(first.phase, Phase::Live);
    cancelled(&host, &running, second, &first.release).await;
}

#[tokio::test(start_paused = true)]
async fn a_build_is_left_and_nothing_of_it_stays() {
    let (host, running) = started();
    let good = running.deploy("healthy").await;
    let queued = running.queue("slow-build:3600000").await;
    running.until(queued, Phase::Preparing).await;
    let begin = Instant::now();
    let view = cancel(&running, None).await.unwrap();
    assert_eq!(view.phase, Phase::Refusing);
    let made = Paths::new(host.directory.path()).release(&view.release);
    cancelled(&host, &running, view, &good.release).await;
    assert!(
        begin.elapsed() < Duration::from_secs(60),
        "{:?}",
        begin.elapsed()
    );
    assert!(!made.exists());
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_for_health_is_stopped() {
    let (host, running) = started();
    let good = running.deploy("healthy").await;
    let queued = running.queue("silent").await;
    let view = running.until(queued, Phase::Probing).await;
    let view = cancel(&running, Some(&view.release)).await.unwrap();
    // Once more changes nothing.
    let again = cancel(&running, Some(&view.release)).await.unwrap();
    assert_eq!(again.revision, view.revision);
    cancelled(&host, &running, view, &good.release).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_being_started_is_stopped_when_it_has_started() {
    let (host, running) = started();
    let good = running.deploy("healthy").await;
    let queued = running.queue("slow-build:1000").await;
    let view = running.until(queued, Phase::Preparing).await;
    host.world.silence(Part::Runtime, 3);
    let view = running.until(view, Phase::Starting).await;
    let view = cancel(&running, Some(&view.release)).await.unwrap();
    cancelled(&host, &running, view, &good.release).await;
}

#[tokio::test(start_paused = true)]
async fn a_rollback_by_hand_is_cancelled_and_its_release_keeps_what_is_said_of_it() {
    let (host, running) = started();
    let first = running.deploy("healthy").await;
    let second = running.deploy("healthy").await;
    let slow = temps_deployd::adapter::sim::Behaviour::Silent;
    host.world.behave(&first.release, slow);
    let back = running.roll_back(None).await.unwrap();
    let back = running.until(back, Phase::Probing).await;
    let view = cancel(&running, None).await.unwrap();
    assert_eq!(view.release, first.release);
    let ended = running.outcome(back).await;
    assert_eq!(
        (ended.phase, ended.reason.as_str()),
        (Phase::Refused, REASON)
    );
    let status = running.status_of(&first.release).await;
    assert_eq!(status, ReleaseStatus::Superseded);
    host.runs_only(&second.release);
    host.well();
}

#[tokio::test(start_paused = true)]
async fn what_serves_is_not_cancelled() {
    let (host, running) = started();
    let fault = cancel(&running, None).await.unwrap_err();
    assert_eq!(fault.code, Code::NotFound, "{fault:?}");
    let good = running.deploy("healthy").await;
    for wanted in [None, Some(&good.release)] {
        let fault = cancel(&running, wanted).await.unwrap_err();
        assert_eq!(fault.code, Code::Invalid, "{fault:?}");
        assert!(fault.hint.contains("temps rollback shop"), "{fault:?}");
    }
    // Its routes are with the proxy, which has not answered yet.
    host.world.apply_in(Duration::from_secs(5));
    let queued = running.queue("healthy").await;
    let next = running.until(queued, Phase::Switching).await;
    let fault = cancel(&running, Some(&next.release)).await.unwrap_err();
    assert_eq!(fault.code, Code::Invalid, "{fault:?}");
    assert_eq!(running.outcome(next).await.phase, Phase::Live);
    let refused = running.deploy("crash").await;
    let fault = cancel(&running, Some(&refused.release)).await.unwrap_err();
    assert!(fault.what.contains("has ended"), "{fault:?}");
    host.well();
}

#[tokio::test(start_paused = true)]
async fn of_several_that_wait_one_has_to_be_named() {
    let (_host, running) = started();
    let first = running.queue("slow-build:60000").await;
    let second = running.queue("healthy").await;
    let fault = cancel(&running, None).await.unwrap_err();
    assert_eq!(fault.code, Code::Invalid);
    for release in [&first.release, &second.release] {
        assert!(fault.what.contains(release.as_str()), "{fault:?}");
    }
    cancel(&running, Some(&first.release)).await.unwrap();
    assert_eq!(running.outcome(second).await.phase, Phase::Live);
    assert_eq!(running.outcome(first).await.phase, Phase::Refused);
}

/// The daemon dies as soon as the call has answered, whatever the deployment was at.
#[test]
fn a_crash_right_after_the_answer_takes_nothing_back() {
    for (behaviour, at) in [
        ("slow-build:3600000", Phase::Preparing),
        ("silent", Phase::Probing),
        ("healthy", Phase::Queued),
    ] {
        let host = Host::new();
        let crashed = paused();
        let (good, view) = crashed.block_on(async {
            let running = host.start();
            let good = running.deploy("healthy").await;
            if at == Phase::Queued {
                let other = running.queue("slow-build:3600000").await;
                let waits = running.queue(behaviour).await;
                let view = cancel(&running, Some(&waits.release)).await.unwrap();
                cancel(&running, Some(&other.release)).await.unwrap();
                return (good, view);
            }
            let queued = running.queue(behaviour).await;
            running.until(queued, at).await;
            (good, cancel(&running, None).await.unwrap())
        });
        crashed.shutdown_background();
        paused().block_on(async {
            let running = host.start();
            running.engine.reconcile().await.unwrap();
            let view = running
                .engine
                .deployment(view.id, 0, Duration::ZERO)
                .await
                .unwrap();
            cancelled(&host, &running, view, &good.release).await;
            while running.app().await.unwrap().deployment.is_some() {
                sleep(Duration::from_millis(100)).await;
            }
            assert_eq!(host.runs(), slice::from_ref(&good.release), "{at:?}");
        });
    }
}
