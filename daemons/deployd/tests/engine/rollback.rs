//! Back to the release before: by itself in the watch window, and by hand.

use crate::support::started;
use std::slice;
use std::time::Duration;
use temps_ipc::Code;
use temps_ipc::id::InstanceId;
use temps_ipc::types::{Phase, ReleaseStatus};
use tokio::time::sleep;

#[tokio::test(start_paused = true)]
async fn a_release_that_dies_in_its_watch_window_is_rolled_back() {
    let (host, running) = started();
    let good = running.deploy("healthy").await;
    let bad = running.deploy("dies:30000").await;
    assert_eq!(bad.phase, Phase::Live);
    let bad = running.until(bad, Phase::RolledBack).await;
    assert!(bad.reason.contains("status 3"), "{}", bad.reason);
    assert_eq!(
        running.status_of(&bad.release).await,
        ReleaseStatus::RolledBack
    );
    assert_eq!(running.status_of(&good.release).await, ReleaseStatus::Live);
    host.runs_only(&good.release);
    assert_eq!(host.present(), 1);
    host.well();
}

#[tokio::test(start_paused = true)]
async fn two_bad_releases_in_a_row_lead_back_to_the_confirmed_one() {
    let (host, running) = started();
    let good = running.deploy("healthy").await;
    let good = running.until(good, Phase::Confirmed).await;
    running.deploy("dies:60000").await;
    let second = running.deploy("dies:20000").await;
    running.until(second, Phase::RolledBack).await;
    host.runs_only(&good.release);
    host.well();
}

#[tokio::test(start_paused = true)]
async fn a_refused_successor_leaves_the_watch_window_open() {
    let (host, running) = started();
    let good = running.deploy("healthy").await;
    let bad = running.deploy("dies:60000").await;
    assert_eq!(running.deploy("error").await.phase, Phase::Refused);
    let bad = running.until(bad, Phase::RolledBack).await;
    assert!(bad.reason.contains("status 3"), "{}", bad.reason);
    host.runs_only(&good.release);
    assert_eq!(host.present(), 1);
    host.well();
}

#[tokio::test(start_paused = true)]
async fn a_release_that_dies_while_its_successor_is_built_is_rolled_back_at_once() {
    let (host, running) = started();
    let good = running.deploy("healthy").await;
    let bad = running.deploy("dies:5000").await;
    let next = running.queue("slow-build:30000").await;
    running.until(bad.clone(), Phase::RolledBack).await;
    host.runs_only(&good.release);
    let next = running.outcome(next).await;
    assert_eq!(next.phase, Phase::Live, "{}", next.reason);
    host.runs_only(&next.release);
    assert_eq!(host.present(), 1);
    for (release, status) in [
        (&good.release, ReleaseStatus::Superseded),
        (&bad.release, ReleaseStatus::RolledBack),
    ] {
        assert_eq!(running.status_of(release).await, status);
    }
    host.well();
}

#[tokio::test(start_paused = true)]
async fn a_target_that_the_proxy_reports_in_the_window_is_rolled_back_and_later_replaced() {
    let (host, running) = started();
    let good = running.deploy("healthy").await;
    let bad = running.deploy("bad-later:10000").await;
    sleep(Duration::from_secs(15)).await;
    let report = async |target: &InstanceId| {
        let engine = &running.engine;
        let reported = engine.target_unhealthy(target, "it answers 500").await;
        reported.unwrap();
    };
    report(&host.instance_of(&bad.release)).await;
    let bad = running.until(bad, Phase::RolledBack).await;
    assert!(bad.reason.contains("500"), "{}", bad.reason);
    host.runs_only(&good.release);

    // Outside any window the same report replaces the instance.
    let old = host.world.serving().unwrap().remove(0);
    report(&old).await;
    loop {
        sleep(Duration::from_secs(1)).await;
        let serving = host.world.serving().unwrap();
        if serving != slice::from_ref(&old) && host.present() == 1 {
            break;
        }
    }
    host.runs_only(&good.release);
    host.well();
}

#[tokio::test(start_paused = true)]
async fn a_first_release_that_dies_stays_and_is_started_afresh() {
    let (host, running) = started();
    let bad = running.deploy("dies:30000").await;
    let bad = running.until(bad, Phase::Confirmed).await;
    assert!(bad.reason.contains("no earlier release"), "{}", bad.reason);
    sleep(Duration::from_secs(5)).await;
    host.runs_only(&bad.release);
    host.well();
}

#[tokio::test(start_paused = true)]
async fn a_rollback_by_hand_goes_to_the_release_before_and_refuses_what_cannot_be() {
    let (host, running) = started();
    let missing = running.roll_back(None).await.unwrap_err();
    assert_eq!(missing.code, Code::NotFound);
    let first = running.deploy("healthy").await;
    let none = running.roll_back(None).await.unwrap_err();
    assert_eq!(none.code, Code::NotFound);
    let second = running.deploy("healthy").await;
    let refused = running.deploy("crash").await;
    let back = running.roll_back(None).await.unwrap();
    let back = running.outcome(back).await;
    assert_eq!((back.phase, &back.release), (Phase::Live, &first.release));
    host.runs_only(&first.release);
    for wanted in [&first.release, &refused.release] {
        let fault = running.roll_back(Some(wanted)).await.unwrap_err();
        assert_eq!(fault.code, Code::Invalid, "{fault}");
    }
    let forth = running.roll_back(Some(&second.release)).await.unwrap();
    assert_eq!(running.outcome(forth).await.release, second.release);
    host.well();
}
