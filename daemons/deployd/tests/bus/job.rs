//! Jobs and the signals of what happened.

use crate::private::{NOBODY, is_root};
use crate::support::{App, NAME, on_the_bus, shop};
use std::collections::BTreeSet;

#[tokio::test]
async fn a_rollback_is_a_job_whose_end_is_told() {
    let case = on_the_bus().await;
    let first = case.deploy("healthy").await;
    let second = case.deploy("healthy").await;
    let mut signals = case.signals().await;
    let job = case.call("Rollback", &("shop", "")).await.unwrap();
    assert!(job.starts_with("/sh/temps/Deploy1/job/dep_"), "{job}");
    let removed = signals.until("JobRemoved").await;
    let (path, result, reason): (zbus::OwnedObjectPath, String, String) =
        removed.body().deserialize().unwrap();
    assert_eq!(
        (path.as_str(), result.as_str(), reason.as_str()),
        (job.as_str(), "live", "")
    );
    let served = signals.until("ReleaseServed").await;
    let told: (String, String) = served.body().deserialize().unwrap();
    assert_eq!(told, (shop(), first));
    assert_ne!(told.1, second);
    assert!(
        case.property::<String>(&job, "sh.temps.Deploy1.Job", "State")
            .await
            .is_err()
    );
    case.end().await;
}

#[tokio::test]
async fn a_deployment_begun_elsewhere_is_a_job_too() {
    let case = on_the_bus().await;
    let mut signals = case.signals().await;
    let job = case.queue("slow-build:400").await;
    let interface = "sh.temps.Deploy1.Job";
    assert_eq!(
        case.property::<String>(&job, interface, "App")
            .await
            .unwrap(),
        "shop"
    );
    let mut seen = BTreeSet::new();
    while let Ok(progress) = case.property::<String>(&job, interface, "Progress").await {
        seen.insert(progress);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(seen.contains("preparing"), "{seen:?}");
    signals.until("ReleaseServed").await;
    case.end().await;
}

#[tokio::test]
async fn a_deployment_that_does_not_serve_yet_can_be_cancelled() {
    let case = on_the_bus().await;
    let serving = case.deploy("healthy").await;
    let mut signals = case.signals().await;
    let job = case.queue("slow-build:600000").await;
    if is_root() {
        let cancel = ["sh.temps.Deploy1.Job.Cancel"];
        let refused = case.bus.call_as(NOBODY, NAME, &job, &cancel).await;
        let text = String::from_utf8(refused.stderr).unwrap();
        assert!(text.contains("sh.temps.Error.Denied"), "{text}");
    }
    case.cancel(&job).await.unwrap();
    let removed = signals.until("JobRemoved").await;
    let (path, result, reason): (zbus::OwnedObjectPath, String, String) =
        removed.body().deserialize().unwrap();
    assert_eq!((path.as_str(), result.as_str()), (job.as_str(), "refused"));
    assert!(reason.starts_with("cancelled by "), "{reason}");
    assert_eq!(case.app::<String>(App::RELEASE).await, serving);
    // Its object is gone with it.
    assert!(case.cancel(&job).await.is_err());
    case.end().await;
}

#[tokio::test]
async fn a_refused_release_is_told_with_its_reason() {
    let case = on_the_bus().await;
    let mut signals = case.signals().await;
    case.queue("crash").await;
    let refused = signals.until("ReleaseRefused").await;
    let (app, _, why): (String, String, String) = refused.body().deserialize().unwrap();
    assert_eq!(app, shop());
    assert!(!why.is_empty());
    case.end().await;
}

/// Every local user hears why.
#[tokio::test]
async fn what_a_build_printed_is_told_to_nobody() {
    let case = on_the_bus().await;
    let mut signals = case.signals().await;
    // So that it waits for a moment, and is a job.
    case.queue("slow-build:400").await;
    case.queue("build-fails").await;
    let mut told = BTreeSet::new();
    while told.len() < 2 {
        let message = signals.next().await;
        let (header, body) = (message.header(), message.body());
        let member = header.member().unwrap().to_string();
        let why = match member.as_str() {
            "ReleaseRefused" => body.deserialize::<(String, String, String)>().unwrap().2,
            "JobRemoved" => {
                let (_, result, why): (zbus::OwnedObjectPath, String, String) =
                    body.deserialize().unwrap();
                if result != "refused" {
                    continue;
                }
                why
            }
            _ => continue,
        };
        assert!(why.contains("could not be built"), "{why}");
        assert!(!why.contains("no such thing"), "{why}");
        told.insert(member);
    }
    case.end().await;
}

#[tokio::test]
async fn a_bad_release_is_told_to_have_been_rolled_back() {
    let case = on_the_bus().await;
    case.deploy("healthy").await;
    let mut signals = case.signals().await;
    let bad = case.deploy("healthy").await;
    signals.until("ReleaseServed").await;
    case.go_bad(&bad).await;
    let told = signals.until("ReleaseRolledBack").await;
    let (app, release, why): (String, String, String) = told.body().deserialize().unwrap();
    assert_eq!((app, release), (shop(), bad));
    assert!(!why.is_empty());
    case.end().await;
}

#[tokio::test]
async fn a_redeployment_makes_a_new_release_of_the_same_content() {
    let case = on_the_bus().await;
    let first = case.deploy("healthy").await;
    let mut signals = case.signals().await;
    case.call("Redeploy", &("shop", "")).await.unwrap();
    let served = signals.until("ReleaseServed").await;
    let (_, release): (String, String) = served.body().deserialize().unwrap();
    assert_ne!(release, first);
    case.end().await;
}

#[tokio::test]
async fn reconciling_and_removing_are_jobs() {
    let case = on_the_bus().await;
    case.deploy("healthy").await;
    let mut signals = case.signals().await;
    let job = case.call("Reconcile", &()).await.unwrap();
    assert_eq!(job, "/sh/temps/Deploy1/job/reconciliation_1");
    let (path, result, _): (zbus::OwnedObjectPath, String, String) = signals
        .until("JobRemoved")
        .await
        .body()
        .deserialize()
        .unwrap();
    assert_eq!((path.as_str(), result.as_str()), (job.as_str(), "done"));
    let job = case.call("DestroyApp", &"shop").await.unwrap();
    // In either order.
    let (mut removed, mut destroyed) = (false, false);
    while !(removed && destroyed) {
        let message = signals.next().await;
        let header = message.header();
        match header.member().map(|member| member.as_str()) {
            Some("AppDestroyed") => {
                assert_eq!(message.body().deserialize::<String>().unwrap(), "shop");
                destroyed = true;
            }
            Some("JobRemoved") => {
                let (path, result, _): (zbus::OwnedObjectPath, String, String) =
                    message.body().deserialize().unwrap();
                assert_eq!((path.as_str(), result.as_str()), (job.as_str(), "done"));
                removed = true;
            }
            _ => {}
        }
    }
    case.end().await;
}

/// The promise of `JobRemoved`, whichever comes first: the end or the object.
#[tokio::test]
async fn a_job_that_is_over_at_once_is_told_to_be() {
    let case = on_the_bus().await;
    let mut signals = case.signals().await;
    for release in 0..10 {
        case.deploy("healthy").await;
        if release == 0 {
            continue;
        }
        let job = case.call("Rollback", &("shop", "")).await.unwrap();
        let removed = loop {
            let removed = signals.until("JobRemoved").await;
            let (path, result, _): (zbus::OwnedObjectPath, String, String) =
                removed.body().deserialize().unwrap();
            if path.as_str() == job {
                break result;
            }
        };
        assert_eq!(removed, "live");
    }
    case.end().await;
}
