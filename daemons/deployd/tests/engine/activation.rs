//! Apps that are started by requests: they rest undisturbed, and are judged by their unit.

use crate::support::{Host, Running, actor, shop};
use std::sync::Arc;
use std::time::Duration;
use temps_deployd::adapter::sim::{Behaviour, Effect};
use temps_deployd::checks;
use temps_deployd::port::Runtimes;
use temps_ipc::Code;
use temps_ipc::types::{
    Backend, CheckLevel, DeployRequest, DeploymentView, HealthCheck, Phase, RuntimeKind, Source,
    Target,
};
use tokio::time::sleep;

fn host() -> (Host, Running) {
    let host = Host::new();
    let running = start(&host);
    (host, running)
}

fn start(host: &Host) -> Running {
    host.start_with(Runtimes::new(vec![
        Arc::new(host.world.runtime(RuntimeKind::Systemd)),
        Arc::new(host.world.runtime(RuntimeKind::Docker)),
    ]))
}

fn request(running: &Running, behaviour: &str, socket_activated: Option<bool>) -> DeployRequest {
    DeployRequest {
        runtime: None,
        socket_activated,
        ..running.request(behaviour)
    }
}

async fn deploy(running: &Running, behaviour: &str) -> DeploymentView {
    let request = request(running, behaviour, Some(true));
    let queued = running.engine.deploy(request, 0).await.unwrap();
    running.outcome(queued).await
}

async fn confirmed(running: &Running) -> DeploymentView {
    let view = deploy(running, "healthy").await;
    let view = running.until(view, Phase::Confirmed).await;
    // The proxy is told right after.
    sleep(Duration::from_millis(10)).await;
    view
}

fn target(host: &Host) -> Target {
    let snapshot = host.world.snapshot();
    match &snapshot.routes[0].backend {
        Backend::Targets(targets) => targets[0].clone(),
        Backend::Static(_) => panic!("these are files"),
    }
}

fn starts_and_probes(host: &Host) -> usize {
    let journal = host.world.journal();
    let counted = |effect: &&Effect| matches!(effect, Effect::Start(_) | Effect::Probe(_));
    journal.iter().filter(counted).count()
}

#[tokio::test(start_paused = true)]
async fn it_is_checked_while_it_is_watched_and_left_alone_afterwards() {
    let (host, running) = host();
    let view = deploy(&running, "healthy").await;
    assert_eq!(target(&host).check, HealthCheck::Any);
    running.until(view, Phase::Confirmed).await;
    sleep(Duration::from_millis(10)).await;
    assert_eq!(target(&host).check, HealthCheck::Passive);
    host.well();
}

#[tokio::test(start_paused = true)]
async fn a_resting_app_is_neither_started_nor_replaced() {
    let (host, running) = host();
    confirmed(&running).await;
    assert_eq!(running.app().await.unwrap().state, "live");
    host.world.rest(&target(&host).id);
    let before = starts_and_probes(&host);
    running.engine.reconcile().await.unwrap();
    let app = running.app().await.unwrap();
    assert_eq!(
        (app.state.as_str(), app.socket_activated),
        ("resting", true)
    );
    let status = checks::status(&running.engine).await.unwrap();
    assert!(status.checks.iter().all(|check| check.name != "shop"));
    assert_eq!(starts_and_probes(&host), before);
    assert_eq!(app.restarts, 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_crashed_is_named_and_left_to_the_next_request() {
    let (host, running) = host();
    confirmed(&running).await;
    host.world.kill(&target(&host).id);
    running.engine.reconcile().await.unwrap();
    assert_eq!(running.app().await.unwrap().restarts, 0);
    let status = checks::status(&running.engine).await.unwrap();
    let told = status.checks.into_iter().find(|check| check.name == "shop");
    let told = told.unwrap();
    assert_eq!(told.level, CheckLevel::Warning);
    assert!(told.what.contains("signal 9"), "{}", told.what);
}

#[tokio::test(start_paused = true)]
async fn one_whose_socket_requests_do_not_reach_is_replaced() {
    let (host, running) = host();
    let release = confirmed(&running).await.release;
    let dead = target(&host).id;
    host.world.kill(&dead);
    let why = "nothing accepts connections there";
    running.engine.target_unhealthy(&dead, why).await.unwrap();
    while host.world.serving().unwrap_or_default() == [dead.clone()]
        || running.app().await.unwrap().deployment.is_some()
    {
        sleep(Duration::from_millis(10)).await;
    }
    sleep(Duration::from_millis(10)).await;
    host.runs_only(&release);
    assert_eq!(target(&host).check, HealthCheck::Passive);
}

#[tokio::test(start_paused = true)]
async fn a_crash_in_the_watch_window_rolls_back() {
    let (host, running) = host();
    let first = confirmed(&running).await.release;
    host.world.rest(&target(&host).id);
    let second = deploy(&running, "healthy").await;
    host.world.kill(&host.instance_of(&second.release));
    running.until(second, Phase::RolledBack).await;
    assert_eq!(running.app().await.unwrap().release, Some(first));
    assert_eq!(target(&host).check, HealthCheck::Passive);
    host.well();
}

#[tokio::test(start_paused = true)]
async fn one_that_ends_well_in_the_watch_window_is_confirmed() {
    let (host, running) = host();
    let view = deploy(&running, "healthy").await;
    host.world.rest(&target(&host).id);
    running.until(view, Phase::Confirmed).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_never_takes_its_socket_is_refused() {
    let (host, running) = host();
    let view = deploy(&running, "silent").await;
    assert_eq!(view.phase, Phase::Refused);
    assert_eq!(host.present(), 0);
}

#[tokio::test(start_paused = true)]
async fn it_stays_so_until_it_is_said_otherwise_and_goes_back_with_its_release() {
    let (_host, running) = host();
    let first = confirmed(&running).await.release;
    // The runtime is not said again either, though the builder would choose another.
    let again = running.engine.deploy(request(&running, "healthy", None), 0);
    let second = running.outcome(again.await.unwrap()).await;
    assert!(running.release(&second.release).await.socket_activated);
    let mut other = request(&running, "healthy", Some(false));
    other.runtime = Some(RuntimeKind::Systemd);
    let other = running.engine.deploy(other, 0);
    running.outcome(other.await.unwrap()).await;
    assert!(!running.app().await.unwrap().socket_activated);
    let back = running.engine.rollback(shop(), Some(first), actor(), 0);
    running.outcome(back.await.unwrap()).await;
    assert!(running.app().await.unwrap().socket_activated);
}

#[tokio::test(start_paused = true)]
async fn another_runtime_is_refused_before_anything_is_touched() {
    let (host, running) = host();
    let mut docker = request(&running, "healthy", Some(true));
    docker.runtime = Some(RuntimeKind::Docker);
    let mut image = request(&running, "healthy", Some(true));
    image.source = Source::Image {
        reference: "a".into(),
    };
    for request in [docker, image] {
        let fault = running.engine.deploy(request, 0).await.unwrap_err();
        assert_eq!(fault.code, Code::Invalid, "{fault}");
        assert!(fault.what.contains("systemd"), "{fault}");
    }
    assert_eq!(host.world.journal(), []);
    let elsewhere = Host::new();
    let running = elsewhere.start();
    let asked = request(&running, "healthy", Some(true));
    let fault = running.engine.deploy(asked, 0).await.unwrap_err();
    assert_eq!(fault.code, Code::Unsupported, "{fault}");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_was_not_told_is_told_by_the_next_reconciliation() {
    let (host, running) = host();
    let view = deploy(&running, "healthy").await;
    host.world.behave(&view.release, Behaviour::Healthy);
    host.world.apply_in(Duration::from_secs(3600));
    running.until(view, Phase::Confirmed).await;
    assert_eq!(target(&host).check, HealthCheck::Any);
    running.stop().await;
    host.world.apply_in(Duration::ZERO);
    let running = start(&host);
    running.engine.reconcile().await.unwrap();
    assert_eq!(target(&host).check, HealthCheck::Passive);
}
