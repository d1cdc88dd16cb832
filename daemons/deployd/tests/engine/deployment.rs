//! A deployment from its request to its outcome.

use crate::support::started;
use std::slice;
use temps_deployd::adapter::sim::Part;
use temps_deployd::engine::news::News;
use temps_ipc::Code;
use temps_ipc::id::ReleaseId;
use temps_ipc::types::{DeployRequest, Phase, ReleaseStatus, RuntimeKind, Source};

#[tokio::test(start_paused = true)]
async fn a_release_goes_live_and_is_confirmed_after_its_watch_window() {
    let (host, running) = started();
    let view = running.deploy("healthy").await;
    assert_eq!((view.phase, view.reason.as_str()), (Phase::Live, ""));
    host.runs_only(&view.release);
    host.serves_one();
    let view = running.until(view, Phase::Confirmed).await;
    assert_eq!(running.status_of(&view.release).await, ReleaseStatus::Live);
    host.well();
}

#[tokio::test(start_paused = true)]
async fn a_second_release_replaces_the_first_and_nothing_of_it_runs_on() {
    let (host, running) = started();
    let first = running.deploy("healthy").await;
    let second = running.deploy("slow-start:5000").await;
    assert_eq!(second.phase, Phase::Live);
    host.runs_only(&second.release);
    assert_eq!(host.present(), 1);
    assert_eq!(
        running.status_of(&first.release).await,
        ReleaseStatus::Superseded
    );
    assert_eq!(
        running.status_of(&second.release).await,
        ReleaseStatus::Live
    );
    host.well();
}

#[tokio::test(start_paused = true)]
async fn no_old_instance_is_waited_for_where_there_is_none() {
    let (_host, running) = started();
    for replaces in [false, true] {
        let mut news = running.engine.news();
        let view = running.deploy("healthy").await;
        assert_eq!(view.phase, Phase::Live);
        assert!(view.watch_until.is_some(), "it is watched");
        let mut passed = Vec::new();
        while let Ok(News::Deployment(view)) = news.try_recv() {
            passed.push(view.phase);
        }
        assert!(passed.contains(&Phase::Switching), "{passed:?}");
        for phase in [Phase::Draining, Phase::Retiring] {
            assert_eq!(passed.contains(&phase), replaces, "{passed:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn broken_releases_are_refused_by_name_while_the_good_one_serves() {
    let (host, running) = started();
    let good = running.deploy("healthy").await;
    for (behaviour, cause) in [
        ("crash", "status 3"),
        ("error", "500"),
        ("wrong-port", "127.0.0.1:9999"),
        ("silent", "not listen"),
        ("start-refused", "could not be started"),
        ("build-fails", ""),
    ] {
        let bad = running.deploy(behaviour).await;
        assert_eq!(bad.phase, Phase::Refused, "{behaviour}");
        assert!(bad.reason.contains(cause), "{behaviour}: {}", bad.reason);
        let refused = running.release(&bad.release).await;
        assert_eq!(
            (refused.status, refused.reason),
            (ReleaseStatus::Refused, bad.reason),
            "{behaviour}"
        );
        assert_eq!(host.runs(), slice::from_ref(&good.release), "{behaviour}");
        assert_eq!(host.present(), 1, "{behaviour} left something behind");
        host.serves_one();
    }
    host.well();
}

#[tokio::test(start_paused = true)]
async fn deployments_of_an_app_run_in_the_order_they_were_asked_for() {
    let (host, running) = started();
    let mut queued = Vec::new();
    for _ in 0..4 {
        queued.push(running.queue("slow-build:3000").await);
    }
    let last = queued.last().unwrap().release.clone();
    for view in queued {
        let outcome = running.outcome(view).await.phase.outcome().unwrap();
        assert_eq!(outcome.name(), "live");
    }
    host.runs_only(&last);
    host.well();
}

#[tokio::test(start_paused = true)]
async fn parts_that_do_not_answer_for_a_while_only_delay() {
    let (host, running) = started();
    running.deploy("healthy").await;
    for part in [Part::Runtime, Part::Proxy] {
        host.world.silence(part, 3);
        let view = running.deploy("healthy").await;
        assert_eq!(view.phase, Phase::Live, "{part:?}: {}", view.reason);
        assert_eq!(host.present(), 1);
    }
    host.well();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_never_ends_is_cut_after_the_drain_timeout() {
    let (host, running) = started();
    running.deploy("healthy").await;
    let old = host.world.serving().unwrap().remove(0);
    host.world.set_busy(&old, true);
    let second = running.deploy("healthy").await;
    assert_eq!(second.phase, Phase::Live);
    host.runs_only(&second.release);
}

/// Makes a request wrong.
type Spoil = fn(&mut DeployRequest);

#[tokio::test(start_paused = true)]
async fn bad_requests_are_refused_before_anything_is_touched() {
    let (host, running) = started();
    let cases: [(&str, Spoil, Code); 5] = [
        (
            "systemd",
            |request| request.runtime = Some(RuntimeKind::Systemd),
            Code::Unsupported,
        ),
        (
            "health",
            |request| request.health = Some("health".into()),
            Code::Invalid,
        ),
        (
            "watch",
            |request| request.watch_ms = Some(u64::MAX),
            Code::Invalid,
        ),
        (
            "image",
            |request| {
                request.source = Source::Image {
                    reference: "a".into(),
                };
                request.runtime = Some(RuntimeKind::Process);
            },
            Code::Invalid,
        ),
        (
            "release",
            |request| {
                request.source = Source::Release {
                    release: ReleaseId::fresh(),
                }
            },
            Code::NotFound,
        ),
    ];
    for (name, spoil, code) in cases {
        let mut request = running.request("healthy");
        spoil(&mut request);
        let fault = running.engine.deploy(request, 0).await.unwrap_err();
        assert_eq!(fault.code, code, "{name}: {fault}");
    }
    assert_eq!(running.app().await.unwrap_err().code, Code::NotFound);
    assert_eq!(host.world.journal(), []);
}
