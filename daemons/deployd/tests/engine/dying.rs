//! An instance that dies outside its watch window, and one that does so again and again.

use crate::support::{Host, Running, started};
use std::time::Duration;
use temps_deployd::adapter::sim::{Behaviour, Effect};
use temps_deployd::checks;
use temps_ipc::id::{InstanceId, ReleaseId};
use temps_ipc::types::{Check, CheckLevel, Phase, Timestamp};
use tokio::time::{sleep, timeout};

/// Between two looks at what the engine does, in simulated time.
const STEP: Duration = Duration::from_millis(10);

/// Sooner than the proxy would report a dead instance again.
const SOON: Duration = Duration::from_secs(5);

/// A release whose watch window is over.
async fn confirmed(running: &Running) -> ReleaseId {
    let view = running.deploy("healthy").await;
    running.until(view, Phase::Confirmed).await.release
}

/// What the proxy would do about a dead instance.
async fn report(host: &Host, running: &Running, release: &ReleaseId) -> InstanceId {
    let dead = host.instance_of(release);
    host.world.kill(&dead);
    let why = "nothing accepts connections there";
    running.engine.target_unhealthy(&dead, why).await.unwrap();
    dead
}

/// Waits until another instance serves, and nothing is under way.
async fn replaced(host: &Host, running: &Running, release: &ReleaseId, dead: &InstanceId) {
    let is_replaced = || {
        let serving = host.world.serving().unwrap_or_default();
        serving.len() == 1 && serving[0] != *dead && host.runs() == [release.clone()]
    };
    while !is_replaced() || running.app().await.unwrap().deployment.is_some() {
        sleep(STEP).await;
    }
}

async fn told(running: &Running) -> Option<Check> {
    let status = checks::status(&running.engine).await.unwrap();
    status.checks.into_iter().find(|check| check.name == "shop")
}

#[tokio::test(start_paused = true)]
async fn the_first_death_is_answered_at_once_and_not_held_against_the_app() {
    let (host, running) = started();
    let release = confirmed(&running).await;
    let dead = report(&host, &running, &release).await;
    let app = running.app().await.unwrap();
    assert!(app.deployment.is_some(), "a restart is under way");
    replaced(&host, &running, &release, &dead).await;
    let app = running.app().await.unwrap();
    assert_eq!((app.restarts, app.restart_at), (1, None));
    assert_eq!(told(&running).await, None);
    host.well();
}

#[tokio::test(start_paused = true)]
async fn one_that_keeps_dying_is_started_again_after_a_pause_without_another_report() {
    let (host, running) = started();
    let release = confirmed(&running).await;
    for restarts in 1..=4 {
        let dead = report(&host, &running, &release).await;
        if restarts > 1 {
            let app = running.app().await.unwrap();
            assert_eq!((app.restarts, app.state.as_str()), (restarts - 1, "down"));
            let next = app.restart_at.expect("it waits for its pause");
            let check = told(&running).await.expect("the doctor knows");
            assert_eq!(check.level, CheckLevel::Failed);
            for part in [format!("minutes: {})", restarts - 1), next.rfc3339()] {
                assert!(check.what.contains(&part), "{check:?}");
            }
        }
        // Reported again meanwhile, as the proxy does; that starts nothing twice.
        let why = "nothing accepts connections there";
        running.engine.target_unhealthy(&dead, why).await.unwrap();
        replaced(&host, &running, &release, &dead).await;
    }
    let starts = |effect: &Effect| matches!(effect, Effect::Start(_));
    let started = host.world.journal().into_iter().filter(starts).count();
    assert_eq!(started, 5, "the deployment and four restarts");
    let app = running.app().await.unwrap();
    assert_eq!((app.restarts, app.restart_at), (4, None));
    let check = told(&running).await.expect("it died often, though it runs");
    assert_eq!(check.level, CheckLevel::Warning);
    host.well();
}

#[tokio::test(start_paused = true)]
async fn one_that_recovers_during_its_pause_is_left_alone() {
    let (host, running) = started();
    let release = confirmed(&running).await;
    let dead = report(&host, &running, &release).await;
    replaced(&host, &running, &release, &dead).await;
    // Reported, and well again by the time that its pause ends.
    let well = host.instance_of(&release);
    running
        .engine
        .target_unhealthy(&well, "it answers 500")
        .await
        .unwrap();
    assert!(running.app().await.unwrap().restart_at.is_some());
    while running.app().await.unwrap().restart_at.is_some() {
        sleep(STEP).await;
    }
    sleep(Duration::from_secs(60)).await;
    assert_eq!(host.instance_of(&release), well);
    host.runs_only(&release);
    assert_eq!(running.app().await.unwrap().restarts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_pause_does_not_keep_the_daemon_from_stopping() {
    let (host, running) = started();
    let release = confirmed(&running).await;
    let dead = report(&host, &running, &release).await;
    replaced(&host, &running, &release, &dead).await;
    report(&host, &running, &release).await;
    assert!(running.app().await.unwrap().restart_at.is_some());
    running.stop().await;
    assert_eq!(host.runs(), []);
}

/// It dies, is reported and replaced, so many times.
async fn dies(host: &Host, running: &Running, release: &ReleaseId, times: u32) {
    for _ in 0..times {
        let dead = report(host, running, release).await;
        replaced(host, running, release, &dead).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_told_of_one_that_keeps_dying_is_what_is_true_now() {
    let (host, running) = started();
    let release = confirmed(&running).await;
    dies(&host, &running, &release, 3).await;
    let expect = async |level, part: &str| {
        let check = told(&running).await.expect("it died often");
        assert_eq!(check.level, level, "{check:?}");
        assert!(check.what.contains(part), "{check:?}");
    };
    expect(CheckLevel::Warning, "it answers now").await;
    // Nobody has reported any of this yet.
    host.world.behave(&release, Behaviour::Error);
    expect(
        CheckLevel::Failed,
        "it is down: its health check fails: it answers 500",
    )
    .await;
    host.world.behave(&release, Behaviour::Healthy);
    host.world.kill(&host.instance_of(&release));
    expect(CheckLevel::Failed, "it is down: it was killed by signal 9").await;
}

#[tokio::test(start_paused = true)]
async fn a_new_release_begins_with_a_clean_record() {
    let (host, running) = started();
    let release = confirmed(&running).await;
    dies(&host, &running, &release, 3).await;
    report(&host, &running, &release).await;
    assert!(running.app().await.unwrap().restart_at.is_some());
    let view = running.deploy("healthy").await;
    let app = running.app().await.unwrap();
    assert_eq!((app.restarts, app.restart_at), (0, None));
    assert_eq!(told(&running).await, None, "a good release is live");
    let second = running.until(view, Phase::Confirmed).await.release;
    let dead = report(&host, &running, &second).await;
    let app = running.app().await.unwrap();
    assert!(
        app.deployment.is_some(),
        "its first death is answered at once"
    );
    replaced(&host, &running, &second, &dead).await;
    assert_eq!(running.app().await.unwrap().restarts, 1);
    host.well();
}

#[tokio::test(start_paused = true)]
async fn the_second_death_of_a_new_release_waits_for_its_own_pause() {
    let (host, running) = started();
    let release = confirmed(&running).await;
    dies(&host, &running, &release, 6).await;
    report(&host, &running, &release).await;
    let first = running.app().await.unwrap().restart_at.expect("a long one");
    let view = running.deploy("healthy").await;
    let second = running.until(view, Phase::Confirmed).await.release;
    dies(&host, &running, &second, 1).await;
    let dead = report(&host, &running, &second).await;
    let own = running.app().await.unwrap().restart_at.expect("its own");
    assert!(own < first, "{} {}", own.rfc3339(), first.rfc3339());
    replaced(&host, &running, &second, &dead).await;
    host.well();
}

#[tokio::test(start_paused = true)]
async fn one_whose_restarts_are_refused_is_named_and_tried_again_without_another_report() {
    let (host, running) = started();
    let release = confirmed(&running).await;
    host.world.behave(&release, Behaviour::Crash);
    let dead = report(&host, &running, &release).await;
    for (restarts, pause) in [(1, 5), (2, 10), (3, 20)] {
        let mut app = running.app().await.unwrap();
        while (app.restarts, app.deployment.is_some()) != (restarts, false)
            || app.restart_at.is_none()
        {
            sleep(STEP).await;
            app = running.app().await.unwrap();
        }
        let next = app.restart_at.expect("it is tried again");
        // The clock of the host stands still but for what the test itself takes.
        let left = next.0 - Timestamp::now().0;
        assert!(
            ((pause - 3) * 1000..=pause * 1000).contains(&left),
            "{left}"
        );
        let check = told(&running).await.expect("named from the first on");
        assert_eq!(check.level, CheckLevel::Failed);
        for part in [
            "cannot be replaced: it exited with status 3 before it was healthy",
            &format!("minutes: {restarts})"),
            &next.rfc3339(),
            "it is down: it exited with status 3",
        ] {
            assert!(check.what.contains(part), "{part}: {check:?}");
        }
    }
    host.world.behave(&release, Behaviour::Healthy);
    replaced(&host, &running, &release, &dead).await;
    let app = running.app().await.unwrap();
    assert_eq!((app.restarts, app.restart_at), (4, None));
    let check = told(&running).await.expect("it died often");
    assert_eq!(check.level, CheckLevel::Warning, "{check:?}");
    host.well();
}

#[tokio::test(start_paused = true)]
async fn what_died_while_a_deployment_was_under_way_is_replaced_when_that_is_refused() {
    for is_reported in [false, true] {
        let (host, running) = started();
        let release = confirmed(&running).await;
        let queued = running.queue("silent").await;
        let bad = running.until(queued, Phase::Probing).await;
        let dead = host.instance_of(&release);
        if is_reported {
            report(&host, &running, &release).await;
        } else {
            host.world.kill(&dead);
        }
        assert_eq!(running.outcome(bad).await.phase, Phase::Refused);
        // Nobody reports it again.
        timeout(SOON, replaced(&host, &running, &release, &dead))
            .await
            .unwrap();
        host.well();
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_answers_again_is_not_replaced_after_a_refused_deployment() {
    let (host, running) = started();
    let release = confirmed(&running).await;
    let well = host.instance_of(&release);
    let queued = running.queue("silent").await;
    let bad = running.until(queued, Phase::Probing).await;
    running
        .engine
        .target_unhealthy(&well, "it answers 500")
        .await
        .unwrap();
    assert_eq!(running.outcome(bad).await.phase, Phase::Refused);
    sleep(SOON).await;
    assert_eq!(host.instance_of(&release), well);
    assert_eq!(running.app().await.unwrap().restarts, 0);
}

/// As by `systemctl stop` of its unit, with a reconciliation or the proxy's alarm as the next.
#[tokio::test(start_paused = true)]
async fn what_is_stopped_from_outside_is_not_held_against_the_app() {
    let (host, running) = started();
    let release = confirmed(&running).await;
    for is_reported in [true, false, true, false, true] {
        let stopped = host.instance_of(&release);
        host.world.stop_from_outside(&stopped);
        if is_reported {
            let why = "nothing accepts connections there";
            let alarm = running.engine.target_unhealthy(&stopped, why);
            alarm.await.unwrap();
        } else {
            running.engine.reconcile().await.unwrap();
        }
        let app = running.app().await.unwrap();
        assert_eq!((app.restarts, app.restart_at), (0, None), "no pause");
        replaced(&host, &running, &release, &stopped).await;
    }
    assert_eq!(running.app().await.unwrap().restarts, 0);
    assert_eq!(told(&running).await, None);
    // What dies by itself still counts.
    dies(&host, &running, &release, 1).await;
    assert_eq!(running.app().await.unwrap().restarts, 1);
    host.well();
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_is_refused_counts_whatever_made_it_necessary() {
    let (host, running) = started();
    let release = confirmed(&running).await;
    host.world.behave(&release, Behaviour::Crash);
    let stopped = host.instance_of(&release);
    host.world.stop_from_outside(&stopped);
    let why = "nothing accepts connections there";
    running
        .engine
        .target_unhealthy(&stopped, why)
        .await
        .unwrap();
    while running.app().await.unwrap().restart_at.is_none() {
        sleep(STEP).await;
    }
    assert_eq!(running.app().await.unwrap().restarts, 1);
    let check = told(&running).await.expect("it cannot be replaced");
    assert!(check.hint.contains("temps reconcile"), "{check:?}");
}
