use super::*;
use crate::port::{Artifact, BuildJob, Builder, InstanceState, Material, ProxyPort, Runtime};
use std::path::Path;
use std::time::Duration;
use temps_ipc::types::{HealthCheck, ProbeFailure, Route, Target};

const SECOND: Duration = Duration::from_secs(1);

struct Bench {
    dir: tempfile::TempDir,
    world: World,
}

impl Bench {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            world: World::new(),
        }
    }

    async fn start(&self, source: &str) -> Target {
        let release = ReleaseId::fresh();
        let job = BuildJob {
            app: "shop".parse().unwrap(),
            release: release.clone(),
            material: Material::Image {
                reference: source.to_owned(),
            },
            runtime: None,
            env: Vec::new(),
            directory: self.dir.path().join("release"),
            log: self.dir.path().join("build.log"),
        };
        let built = self.world.builder().build(&job).await.unwrap();
        let runtime = self.world.runtime(built.runtime);
        let spec = InstanceSpec {
            id: InstanceId::fresh(),
            app: job.app,
            release,
            address: runtime.choose_address(&built.artifact, &[]).await.unwrap(),
            artifact: built.artifact,
            env: Vec::new(),
            url: String::new(),
            log: self.dir.path().join("run.log"),
            socket_activated: false,
        };
        runtime.start(&spec).await.unwrap();
        Target {
            id: spec.id,
            address: spec.address,
            check: HealthCheck::Any,
        }
    }

    async fn probe(&self, target: &Target) -> Option<ProbeFailure> {
        let found = self
            .world
            .proxy()
            .probe(vec![target.clone()], SECOND * 3)
            .await
            .unwrap();
        found[0].failure.clone()
    }

    async fn route(&self, generation: u64, target: &Target) {
        let routes = vec![Route {
            host: "shop.localhost".parse().unwrap(),
            path_prefix: "/".parse().unwrap(),
            app: "shop".parse().unwrap(),
            release: ReleaseId::fresh(),
            backend: Backend::Targets(vec![target.clone()]),
        }];
        self.world
            .proxy()
            .apply(Snapshot { generation, routes })
            .await
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn probes_find_what_the_script_says() {
    let bench = Bench::new();
    for (source, failure) in [
        ("healthy", None),
        ("slow-start:2000", None),
        ("slow-start:9000", Some(ProbeFailure::Refused)),
        ("silent", Some(ProbeFailure::Refused)),
        ("error", Some(ProbeFailure::Status(500))),
        ("crash", Some(ProbeFailure::Refused)),
    ] {
        let target = bench.start(source).await;
        assert_eq!(bench.probe(&target).await, failure, "{source}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_that_turns_bad_no_longer_serves() {
    let bench = Bench::new();
    let target = bench.start("bad-later:5000").await;
    assert_eq!(bench.probe(&target).await, None);
    bench.route(1, &target).await;
    assert_eq!(bench.world.serving(), Ok(vec![target.id.clone()]));
    tokio::time::sleep(SECOND * 6).await;
    assert!(bench.world.serving().is_err());
    assert_eq!(bench.world.violations(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn stopping_what_is_routed_or_not_drained_breaks_the_rules() {
    let bench = Bench::new();
    let runtime = bench.world.runtime(RuntimeKind::Docker);
    let (one, two) = (bench.start("healthy").await, bench.start("healthy").await);
    bench.route(1, &one).await;
    assert_eq!(bench.world.violations().len(), 1, "it was not probed");
    bench.probe(&two).await;
    bench.route(2, &two).await;
    runtime.stop(&one.id, SECOND, Path::new("/")).await.unwrap();
    assert_eq!(bench.world.violations().len(), 2, "it was not drained");
    runtime.stop(&two.id, SECOND, Path::new("/")).await.unwrap();
    assert_eq!(bench.world.violations().len(), 3, "it is routed");
}

#[tokio::test(start_paused = true)]
async fn a_busy_target_drains_only_when_its_requests_end() {
    let bench = Bench::new();
    let target = bench.start("healthy").await;
    bench.world.set_busy(&target.id, true);
    let proxy = bench.world.proxy();
    assert!(!proxy.drained(&target.id, SECOND).await.unwrap());
    bench.world.set_busy(&target.id, false);
    assert!(proxy.drained(&target.id, SECOND).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_instance_is_seen_by_who_waits_for_it() {
    let bench = Bench::new();
    let target = bench.start("dies:3000").await;
    let runtime = bench.world.runtime(RuntimeKind::Docker);
    assert_eq!(
        runtime.state(&target.id).await.unwrap(),
        InstanceState::Running
    );
    let state = runtime.ended(&target.id).await.unwrap();
    assert!(matches!(state, InstanceState::Exited { .. }), "{state:?}");
}

#[tokio::test]
async fn a_silenced_part_answers_again_afterwards() {
    let world = World::new();
    world.silence(Part::Runtime, 1);
    let runtime = world.runtime(RuntimeKind::Process);
    assert!(runtime.check().await.is_err());
    assert!(runtime.check().await.is_ok());
    let artifact = Artifact::Image {
        id: String::new(),
        port: 1,
    };
    assert!(runtime.choose_address(&artifact, &[]).await.is_ok());
}
