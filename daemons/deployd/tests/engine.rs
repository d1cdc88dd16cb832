//! The engine over a simulated world: every way a deployment can go, and a crash at every moment.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::cloned_ref_to_slice_refs,
    reason = "what runs is compared with a list of releases"
)]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use temps_deployd::adapter::sim::{Behaviour, Effect, Part, World};
use temps_deployd::config::Settings;
use temps_deployd::engine::paths::Paths;
use temps_deployd::engine::{Engine, Parts};
use temps_deployd::logfile::Writer;
use temps_deployd::port::Runtime as _;
use temps_deployd::store::Store;
use temps_deployd::store::seal::Seal;
use temps_ipc::Code;
use temps_ipc::id::ReleaseId;
use temps_ipc::types::{
    Actor, AppName, DeployRequest, DeploymentView, LogKind, LogQuery, LogStream, Phase,
    ReleaseStatus, ReleaseView, RuntimeKind, Source,
};
use temps_unit::idle::Idle;
use tokio_util::sync::CancellationToken;

/// An installation that survives the engine.
struct Host {
    directory: TempDir,
    world: World,
}

/// A running engine over it.
struct Running {
    engine: Engine,
    stopping: CancellationToken,
}

fn shop() -> AppName {
    "shop".parse().unwrap()
}

fn actor() -> Actor {
    Actor::new("ada", "cli")
}

impl Host {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            world: World::new(),
        }
    }

    fn start(&self) -> Running {
        let paths = Paths::new(self.directory.path());
        paths.create().unwrap();
        let stopping = CancellationToken::new();
        let engine = Engine::new(Parts {
            store: Store::open(&paths.database()).unwrap(),
            seal: Seal::new(&[1; 32]).unwrap(),
            runtimes: self.world.runtimes(),
            builder: Arc::new(self.world.builder()),
            proxy: Arc::new(self.world.proxy()),
            settings: Settings::default(),
            paths,
            idle: Idle::never(),
            stopping: stopping.clone(),
        });
        Running { engine, stopping }
    }

    /// The releases of what runs, as many times as they run.
    fn runs(&self) -> Vec<ReleaseId> {
        self.world
            .instances()
            .into_iter()
            .filter(|(_, _, runs)| *runs)
            .map(|(_, release, _)| release)
            .collect()
    }

    /// What is not removed, running or not.
    fn present(&self) -> usize {
        self.world.instances().len()
    }

    fn well(&self) {
        assert_eq!(self.world.violations(), Vec::<String>::new());
    }
}

impl Running {
    fn request(&self, behaviour: &str) -> DeployRequest {
        DeployRequest {
            app: shop(),
            source: Source::Git {
                url: "https://example.org/shop".into(),
                reference: Some(behaviour.into()),
            },
            runtime: Some(RuntimeKind::Docker),
            domain: None,
            health: None,
            health_timeout_ms: None,
            watch_ms: None,
            actor: actor(),
        }
    }

    async fn deploy(&self, behaviour: &str) -> DeploymentView {
        let queued = self
            .engine
            .deploy(self.request(behaviour), 0)
            .await
            .unwrap();
        self.outcome(queued).await
    }

    /// Waits until the deployment has an outcome.
    async fn outcome(&self, mut view: DeploymentView) -> DeploymentView {
        while view.phase.outcome().is_none() {
            view = self.next(view).await;
        }
        view
    }

    async fn next(&self, view: DeploymentView) -> DeploymentView {
        self.engine
            .deployment(view.id, view.revision, Duration::from_secs(20))
            .await
            .unwrap()
    }

    async fn until(&self, mut view: DeploymentView, phase: Phase) -> DeploymentView {
        while view.phase != phase {
            view = self.next(view).await;
        }
        view
    }

    async fn releases(&self) -> Vec<ReleaseView> {
        self.engine.release_list(shop(), None).await.unwrap()
    }

    async fn status_of(&self, release: &ReleaseId) -> (ReleaseStatus, String) {
        let releases = self.releases().await;
        let found = releases
            .into_iter()
            .find(|known| known.id == *release)
            .unwrap();
        (found.status, found.reason)
    }

    async fn stop(self) {
        self.stopping.cancel();
        self.engine.stopped().await;
    }
}

/// Makes a request wrong.
type Spoil = fn(&mut DeployRequest);

/// Runs `test` on a clock that jumps over waits.
fn on_paused_time<F: Future<Output = ()>>(test: F) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(test);
}

#[test]
fn a_release_goes_live_and_is_confirmed_after_its_watch_window() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        let view = running.deploy("healthy").await;
        assert_eq!((view.phase, view.reason.as_str()), (Phase::Live, ""));
        assert_eq!(host.runs(), [view.release.clone()]);
        assert_eq!(host.world.serving().map(|serving| serving.len()), Ok(1));
        let view = running.until(view, Phase::Confirmed).await;
        assert_eq!(
            running.status_of(&view.release).await.0,
            ReleaseStatus::Live
        );
        host.well();
    });
}

#[test]
fn a_second_release_replaces_the_first_and_nothing_of_it_runs_on() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        let first = running.deploy("healthy").await;
        let second = running.deploy("slow-start:5000").await;
        assert_eq!(second.phase, Phase::Live);
        assert_eq!(host.runs(), [second.release.clone()]);
        assert_eq!(host.present(), 1);
        assert_eq!(
            running.status_of(&first.release).await.0,
            ReleaseStatus::Superseded
        );
        assert_eq!(
            running.status_of(&second.release).await.0,
            ReleaseStatus::Live
        );
        host.well();
    });
}

#[test]
fn broken_releases_are_refused_by_name_while_the_good_one_serves() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
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
            let (status, reason) = running.status_of(&bad.release).await;
            assert_eq!(
                (status, reason),
                (ReleaseStatus::Refused, bad.reason.clone()),
                "{behaviour}"
            );
            assert_eq!(host.runs(), [good.release.clone()], "{behaviour}");
            assert_eq!(host.present(), 1, "{behaviour} left something behind");
            assert_eq!(host.world.serving().map(|serving| serving.len()), Ok(1));
        }
        host.well();
    });
}

#[test]
fn a_release_that_dies_in_its_watch_window_is_rolled_back() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        let good = running.deploy("healthy").await;
        let bad = running.deploy("dies:30000").await;
        assert_eq!(bad.phase, Phase::Live);
        let bad = running.until(bad, Phase::RolledBack).await;
        assert!(bad.reason.contains("status 3"), "{}", bad.reason);
        assert_eq!(
            running.status_of(&bad.release).await.0,
            ReleaseStatus::RolledBack
        );
        assert_eq!(
            running.status_of(&good.release).await.0,
            ReleaseStatus::Live
        );
        assert_eq!(host.runs(), [good.release]);
        assert_eq!(host.present(), 1);
        host.well();
    });
}

#[test]
fn two_bad_releases_in_a_row_lead_back_to_the_confirmed_one() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        let good = running.deploy("healthy").await;
        let good = running.until(good, Phase::Confirmed).await;
        running.deploy("dies:60000").await;
        let second = running.deploy("dies:20000").await;
        running.until(second, Phase::RolledBack).await;
        assert_eq!(host.runs(), [good.release]);
        host.well();
    });
}

#[test]
fn a_build_is_given_up_with_its_app() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        running.deploy("healthy").await;
        let hanging = running
            .engine
            .deploy(running.request("slow-build:100000000"), 0)
            .await
            .unwrap();
        running.until(hanging, Phase::Preparing).await;
        running
            .engine
            .app_destroy(shop(), actor(), 0)
            .await
            .unwrap();
        assert_eq!(host.present(), 0);
        assert_eq!(running.deploy("healthy").await.phase, Phase::Live);
    });
}

#[test]
fn a_refused_successor_leaves_the_watch_window_open() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        let good = running.deploy("healthy").await;
        let bad = running.deploy("dies:60000").await;
        assert_eq!(running.deploy("error").await.phase, Phase::Refused);
        let bad = running.until(bad, Phase::RolledBack).await;
        assert!(bad.reason.contains("status 3"), "{}", bad.reason);
        assert_eq!(host.runs(), [good.release]);
        assert_eq!(host.present(), 1);
        host.well();
    });
}

#[test]
fn a_release_that_dies_while_its_successor_is_built_is_rolled_back_at_once() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        let good = running.deploy("healthy").await;
        let bad = running.deploy("dies:5000").await;
        let next = running
            .engine
            .deploy(running.request("slow-build:30000"), 0)
            .await
            .unwrap();
        running.until(bad.clone(), Phase::RolledBack).await;
        assert_eq!(host.runs(), [good.release.clone()]);
        let next = running.outcome(next).await;
        assert_eq!(next.phase, Phase::Live, "{}", next.reason);
        assert_eq!(host.runs(), [next.release]);
        assert_eq!(host.present(), 1);
        for (release, status) in [
            (&good.release, ReleaseStatus::Superseded),
            (&bad.release, ReleaseStatus::RolledBack),
        ] {
            assert_eq!(running.status_of(release).await.0, status);
        }
        host.well();
    });
}

#[test]
fn a_target_that_the_proxy_reports_in_the_window_is_rolled_back_and_later_replaced() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        let good = running.deploy("healthy").await;
        let bad = running.deploy("bad-later:10000").await;
        tokio::time::sleep(Duration::from_secs(15)).await;
        let target = host
            .world
            .instances()
            .into_iter()
            .find(|(_, release, _)| *release == bad.release)
            .unwrap()
            .0;
        running
            .engine
            .target_unhealthy(&target, "it answers 500")
            .await
            .unwrap();
        let bad = running.until(bad, Phase::RolledBack).await;
        assert!(bad.reason.contains("500"), "{}", bad.reason);
        assert_eq!(host.runs(), [good.release.clone()]);

        // Outside any window the same report replaces the instance.
        let old = host.world.serving().unwrap().remove(0);
        running
            .engine
            .target_unhealthy(&old, "it answers 500")
            .await
            .unwrap();
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let serving = host.world.serving().unwrap();
            if serving != [old.clone()] && host.present() == 1 {
                break;
            }
        }
        assert_eq!(host.runs(), [good.release]);
        host.well();
    });
}

#[test]
fn a_first_release_that_dies_stays_and_is_started_afresh() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        let bad = running.deploy("dies:30000").await;
        let bad = running.until(bad, Phase::Confirmed).await;
        assert!(bad.reason.contains("no earlier release"), "{}", bad.reason);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(host.runs(), [bad.release]);
        host.well();
    });
}

#[test]
fn a_rollback_by_hand_goes_to_the_release_before_and_refuses_what_cannot_be() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        let missing = running
            .engine
            .rollback(shop(), None, actor(), 0)
            .await
            .unwrap_err();
        assert_eq!(missing.code, Code::NotFound);
        let first = running.deploy("healthy").await;
        let none = running
            .engine
            .rollback(shop(), None, actor(), 0)
            .await
            .unwrap_err();
        assert_eq!(none.code, Code::NotFound);
        let second = running.deploy("healthy").await;
        let refused = running.deploy("crash").await;
        let back = running
            .engine
            .rollback(shop(), None, actor(), 0)
            .await
            .unwrap();
        let back = running.outcome(back).await;
        assert_eq!((back.phase, &back.release), (Phase::Live, &first.release));
        assert_eq!(host.runs(), [first.release.clone()]);
        for wanted in [&first.release, &refused.release] {
            let fault = running
                .engine
                .rollback(shop(), Some(wanted.clone()), actor(), 0)
                .await
                .unwrap_err();
            assert_eq!(fault.code, Code::Invalid, "{fault}");
        }
        let forth = running
            .engine
            .rollback(shop(), Some(second.release.clone()), actor(), 0)
            .await
            .unwrap();
        assert_eq!(running.outcome(forth).await.release, second.release);
        host.well();
    });
}

#[test]
fn deployments_of_an_app_run_in_the_order_they_were_asked_for() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        let mut queued = Vec::new();
        for _ in 0..4 {
            queued.push(
                running
                    .engine
                    .deploy(running.request("slow-build:3000"), 0)
                    .await
                    .unwrap(),
            );
        }
        let last = queued.last().unwrap().release.clone();
        for view in queued {
            assert_eq!(
                running.outcome(view).await.phase.outcome().unwrap().name(),
                "live"
            );
        }
        assert_eq!(host.runs(), [last]);
        host.well();
    });
}

#[test]
fn parts_that_do_not_answer_for_a_while_only_delay() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        running.deploy("healthy").await;
        for part in [Part::Runtime, Part::Proxy] {
            host.world.silence(part, 3);
            let view = running.deploy("healthy").await;
            assert_eq!(view.phase, Phase::Live, "{part:?}: {}", view.reason);
            assert_eq!(host.present(), 1);
        }
        host.well();
    });
}

#[test]
fn a_request_that_never_ends_is_cut_after_the_drain_timeout() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        running.deploy("healthy").await;
        let old = host.world.serving().unwrap().remove(0);
        host.world.set_busy(&old, true);
        let second = running.deploy("healthy").await;
        assert_eq!(second.phase, Phase::Live);
        assert_eq!(host.runs(), [second.release]);
    });
}

#[test]
fn bad_requests_are_refused_before_anything_is_touched() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
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
        assert_eq!(
            running.engine.app_show(shop()).await.unwrap_err().code,
            Code::NotFound
        );
        assert_eq!(host.world.journal(), []);
    });
}

#[test]
fn an_app_is_destroyed_with_all_that_belongs_to_it() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        running.deploy("healthy").await;
        running.deploy("healthy").await;
        running
            .engine
            .env_set(shop(), vec![], actor(), 0)
            .await
            .unwrap();
        running
            .engine
            .app_destroy(shop(), actor(), 0)
            .await
            .unwrap();
        assert_eq!(host.present(), 0);
        assert_eq!(host.world.snapshot().routes, []);
        assert_eq!(
            running.engine.app_show(shop()).await.unwrap_err().code,
            Code::NotFound
        );
        for directory in ["releases", "logs", "material", "uploads"] {
            let left = std::fs::read_dir(host.directory.path().join(directory))
                .unwrap()
                .count();
            assert_eq!(left, 0, "{directory}");
        }
        // The name is free again.
        assert_eq!(running.deploy("healthy").await.phase, Phase::Live);
        host.well();
    });
}

#[test]
fn after_a_reboot_every_app_is_started_again() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        let view = running.deploy("healthy").await;
        running.stop().await;
        for (id, _, _) in host.world.instances() {
            host.world.kill(&id);
        }
        let running = host.start();
        let mended = running.engine.reconcile().await.unwrap();
        assert!(
            mended.iter().any(|line| line.contains("shop")),
            "{mended:?}"
        );
        assert_eq!(host.runs(), [view.release]);
        assert_eq!(host.world.serving().map(|serving| serving.len()), Ok(1));
        assert_eq!(
            running.engine.reconcile().await.unwrap(),
            Vec::<String>::new(),
            "nothing is left to mend"
        );
    });
}

#[test]
fn a_release_that_was_stopped_with_the_platform_is_no_bad_release() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        running.deploy("healthy").await;
        let second = running.deploy("healthy").await;
        running.stop().await;
        // In its watch window, and everything is stopped.
        for (id, _, _) in host.world.instances() {
            let log = host.directory.path().join("stop.log");
            let runtime = host.world.runtime(RuntimeKind::Docker);
            runtime.stop(&id, Duration::ZERO, &log).await.unwrap();
        }
        let running = host.start();
        running.engine.resume().await.unwrap();
        running.engine.reconcile().await.unwrap();
        assert_eq!(host.runs(), [second.release.clone()]);
        assert_eq!(
            running.status_of(&second.release).await.0,
            ReleaseStatus::Live
        );
    });
}

#[test]
fn a_release_that_died_while_the_daemon_was_down_is_rolled_back() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        let good = running.deploy("healthy").await;
        let bad = running.deploy("healthy").await;
        running.stop().await;
        for (id, _, _) in host.world.instances() {
            host.world.kill(&id);
        }
        let running = host.start();
        running.engine.resume().await.unwrap();
        running.until(bad, Phase::RolledBack).await;
        assert_eq!(host.runs(), [good.release]);
        host.well();
    });
}

#[test]
fn a_release_that_fails_after_a_stop_in_its_switch_gives_way_to_the_one_before() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        let good = running.deploy("healthy").await;
        let request = running.request("slow-start:5000");
        let queued = running.engine.deploy(request, 0).await.unwrap();
        let bad = running.until(queued, Phase::Probing).await;
        // The probe is under way, and is the last thing that the proxy answers.
        let probes = |effect: &Effect| matches!(effect, Effect::Probe(_));
        while host.world.journal().into_iter().filter(probes).count() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        host.world.silence(Part::Proxy, u32::MAX);
        let bad = running.until(bad, Phase::Switching).await;
        while running.engine.app_show(shop()).await.unwrap().release != Some(bad.release.clone()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        running.stop().await;
        for (id, _, _) in host.world.instances() {
            let log = host.directory.path().join("stop.log");
            let runtime = host.world.runtime(RuntimeKind::Docker);
            runtime.stop(&id, Duration::ZERO, &log).await.unwrap();
        }
        host.world.silence(Part::Proxy, 0);
        host.world.behave(&bad.release, Behaviour::Crash);

        let running = host.start();
        running.engine.resume().await.unwrap();
        let ended = running.until(bad.clone(), Phase::RolledBack).await;
        assert!(ended.reason.contains("status 3"), "{}", ended.reason);
        assert_eq!(host.runs(), [good.release.clone()]);
        assert_eq!(host.world.serving().map(|serving| serving.len()), Ok(1));
        let app = running.engine.app_show(shop()).await.unwrap();
        assert_eq!(app.release, Some(good.release));
    });
}

#[test]
fn a_first_release_that_fails_after_a_stop_in_its_switch_leaves_nothing() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        let request = running.request("slow-start:5000");
        let queued = running.engine.deploy(request, 0).await.unwrap();
        let bad = running.until(queued, Phase::Probing).await;
        while host.world.journal().len() < 3 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        host.world.silence(Part::Proxy, u32::MAX);
        while running
            .engine
            .app_show(shop())
            .await
            .unwrap()
            .release
            .is_none()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        running.stop().await;
        for (id, _, _) in host.world.instances() {
            let log = host.directory.path().join("stop.log");
            let runtime = host.world.runtime(RuntimeKind::Docker);
            runtime.stop(&id, Duration::ZERO, &log).await.unwrap();
        }
        host.world.silence(Part::Proxy, 0);
        host.world.behave(&bad.release, Behaviour::Crash);

        let running = host.start();
        running.engine.resume().await.unwrap();
        running.until(bad.clone(), Phase::Refused).await;
        assert_eq!(host.present(), 0);
        assert!(host.world.snapshot().routes.is_empty());
        assert_eq!(
            running.status_of(&bad.release).await.0,
            ReleaseStatus::Refused
        );
        let app = running.engine.app_show(shop()).await.unwrap();
        assert_eq!((app.release, app.state.as_str()), (None, "empty"));
    });
}

#[test]
fn an_instance_that_dies_for_ever_leaves_a_bounded_trace() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        let view = running.deploy("healthy").await;
        running.until(view.clone(), Phase::Confirmed).await;
        for _ in 0..30 {
            let (id, _, _) = host.world.instances().remove(0);
            host.world.kill(&id);
            running.engine.reconcile().await.unwrap();
            assert_eq!(host.runs(), [view.release.clone()]);
        }
        let logs = host
            .directory
            .path()
            .join("logs")
            .join(view.release.as_str());
        let logs = std::fs::read_dir(logs).unwrap().count();
        // Its build, the ten that are kept, the one that runs, and the last one that died.
        assert!((3..=13).contains(&logs), "{logs} logs of one release");
    });
}

#[test]
fn a_page_of_logs_fits_a_frame_and_skips_no_line() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        // Lines so long that no log's page is full by their number.
        let text = "x".repeat(10_000);
        for name in ["first", "second"] {
            let view = running.deploy("healthy").await;
            let (instance, _, _) = host.world.instances().remove(0);
            let log = Paths::new(host.directory.path()).instance_log(&view.release, &instance);
            let mut log = Writer::open(&log).unwrap();
            for number in 0..100 {
                log.line(LogStream::Stdout, &format!("{name} {number} {text}"));
            }
        }
        let mut query = LogQuery {
            app: shop(),
            release: None,
            kind: LogKind::Runtime,
            after: None,
            tail: None,
            limit: 1_000,
            wait_ms: 0,
        };
        let mut seen = Vec::new();
        loop {
            let page = running.engine.logs(query.clone()).await.unwrap();
            let bytes: usize = page.lines.iter().map(|line| line.text.len()).sum();
            assert!(bytes < 900 * 1024, "{bytes} bytes");
            assert!(!page.ended, "the app may be deployed again");
            if page.lines.is_empty() {
                break;
            }
            seen.extend(page.lines.into_iter().map(|line| line.text));
            query.after = Some(page.cursor);
        }
        for name in ["first", "second"] {
            for number in 0..100 {
                let start = format!("{name} {number} x");
                let found = seen.iter().filter(|line| line.starts_with(&start));
                assert_eq!(found.count(), 1, "{start}");
            }
        }
        query.after = None;
        query.tail = Some(200);
        let page = running.engine.logs(query).await.unwrap();
        let bytes: usize = page.lines.iter().map(|line| line.text.len()).sum();
        assert!(bytes < 900 * 1024, "{bytes} bytes");
    });
}

#[test]
fn a_follower_of_an_app_without_an_instance_waits_for_its_first() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        let request = running.request("slow-build:5000");
        let queued = running.engine.deploy(request, 0).await.unwrap();
        let mut query = LogQuery {
            app: shop(),
            release: None,
            kind: LogKind::Runtime,
            after: None,
            tail: Some(100),
            limit: 1_000,
            wait_ms: 0,
        };
        let page = running.engine.logs(query.clone()).await.unwrap();
        assert!(page.lines.is_empty() && !page.ended);
        query.after = Some(page.cursor);
        query.wait_ms = 20_000;
        let page = running.engine.logs(query).await.unwrap();
        assert_eq!(page.lines[0].release, queued.release);
    });
}

#[test]
fn hosts_belong_to_one_app() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        running.deploy("healthy").await;
        let own: temps_ipc::types::Host = "shop.example.org".parse().unwrap();
        running
            .engine
            .domain_add(shop(), own.clone(), actor(), 0)
            .await
            .unwrap();
        let hosts: Vec<String> = host
            .world
            .snapshot()
            .routes
            .iter()
            .map(|route| route.host.to_string())
            .collect();
        assert_eq!(hosts, ["shop.localhost", "shop.example.org"]);
        let other: AppName = "other".parse().unwrap();
        let mut request = running.request("healthy");
        request.app = other.clone();
        let view = running.engine.deploy(request, 0).await.unwrap();
        running.outcome(view).await;
        for taken in ["shop.example.org", "shop.localhost"] {
            let fault = running
                .engine
                .domain_add(other.clone(), taken.parse().unwrap(), actor(), 0)
                .await
                .unwrap_err();
            assert_eq!(fault.code, Code::Exists, "{taken}: {fault}");
        }
        running
            .engine
            .domain_remove(shop(), own.clone(), actor(), 0)
            .await
            .unwrap();
        let fault = running
            .engine
            .domain_remove(shop(), own, actor(), 0)
            .await
            .unwrap_err();
        assert_eq!(fault.code, Code::NotFound);
        let fault = running
            .engine
            .domain_remove(shop(), "shop.localhost".parse().unwrap(), actor(), 0)
            .await
            .unwrap_err();
        assert_eq!(fault.code, Code::Invalid);
    });
}

#[test]
fn variables_are_given_to_the_next_release_and_stay_with_it() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        let variable = |value: &str| temps_ipc::types::EnvVar {
            name: "TOKEN".parse().unwrap(),
            value: value.parse().unwrap(),
        };
        running
            .engine
            .env_set(shop(), vec![variable("one two\n$3")], actor(), 0)
            .await
            .unwrap();
        running.deploy("healthy").await;
        running
            .engine
            .env_set(shop(), vec![variable("changed")], actor(), 0)
            .await
            .unwrap();
        let env = running.engine.env_list(shop()).await.unwrap();
        assert_eq!(env[0].value.reveal(), "changed");
        let database = std::fs::read(host.directory.path().join("deployd.db")).unwrap();
        let log = std::fs::read(host.directory.path().join("deployd.db-wal")).unwrap_or_default();
        for file in [database, log] {
            assert!(
                !file.windows(7).any(|window| window == b"changed"),
                "a value is in the database as it is"
            );
        }
        let fault = running
            .engine
            .env_unset(
                shop(),
                vec!["TOKEN".parse().unwrap(), "OTHER".parse().unwrap()],
                actor(),
                0,
            )
            .await
            .unwrap_err();
        assert!(fault.what.contains("OTHER"), "{fault}");
        assert_eq!(
            running.engine.env_list(shop()).await.unwrap().len(),
            1,
            "nothing was changed"
        );
    });
}

#[test]
fn the_password_of_a_repository_is_not_in_the_database() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        let mut request = running.request("healthy");
        request.source = Source::Git {
            url: "https://ada:geheim@example.org/shop".into(),
            reference: Some("healthy".into()),
        };
        let queued = running.engine.deploy(request, 0).await.unwrap();
        let view = running.outcome(queued).await;
        assert_eq!(view.phase, Phase::Live, "{}", view.reason);
        for file in ["deployd.db", "deployd.db-wal"] {
            let bytes = std::fs::read(host.directory.path().join(file)).unwrap_or_default();
            let found = bytes.windows(6).any(|window| window == b"geheim");
            assert!(!found, "the password is in {file} as it is");
        }
    });
}

/// Runs a scenario again and again, the engine dropped (as by a crash) after one effect more each
/// time, then started anew: it must always end as it should.
fn crash_everywhere(behaviour: &str, ends: impl Fn(&DeploymentView) -> bool) {
    let mut crashes = 0;
    for moment in 0.. {
        let host = Host::new();
        let crashed = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
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
            let queued = running
                .engine
                .deploy(running.request(behaviour), 0)
                .await
                .unwrap();
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
        on_paused_time(async {
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
                    "{behaviour}, crash after {moment} effects: ended as {:?}: {}",
                    view.phase,
                    view.reason
                );
            }
            let serves = if view.phase == Phase::Live {
                &view.release
            } else {
                &good.release
            };
            assert_eq!(
                host.runs(),
                [serves.clone()],
                "{behaviour}, crash after {moment} effects"
            );
            assert_eq!(
                host.present(),
                1,
                "{behaviour}, crash after {moment} effects: left-overs"
            );
            assert_eq!(host.world.serving().map(|serving| serving.len()), Ok(1));
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

#[test]
fn a_proxy_that_knows_newer_routes_than_the_database_is_told_anew() {
    on_paused_time(async {
        let host = Host::new();
        let running = host.start();
        for _ in 0..3 {
            running.deploy("healthy").await;
        }
        running.stop().await;
        // The database is lost; the proxy goes on with what it has.
        for file in ["deployd.db", "deployd.db-wal", "deployd.db-shm"] {
            let _ = std::fs::remove_file(host.directory.path().join(file));
        }
        let running = host.start();
        let applied = |journal: Vec<Effect>| {
            journal
                .into_iter()
                .filter(|effect| matches!(effect, Effect::Apply(_)))
                .count()
        };
        let before = applied(host.world.journal());
        let view = running.deploy("healthy").await;
        assert_eq!(view.phase, Phase::Live, "{}", view.reason);
        assert!(applied(host.world.journal()) > before);
    });
}
