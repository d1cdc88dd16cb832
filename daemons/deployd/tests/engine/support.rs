//! An installation over a simulated world, and an engine that runs on it until it is stopped.

use std::slice;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use temps_deployd::adapter::sim::World;
use temps_deployd::config::Settings;
use temps_deployd::engine::paths::Paths;
use temps_deployd::engine::{Engine, Parts};
use temps_deployd::port::{Runtime as _, Runtimes};
use temps_deployd::store::Store;
use temps_deployd::store::seal::Seal;
use temps_ipc::Fault;
use temps_ipc::id::{InstanceId, ReleaseId};
use temps_ipc::types::{
    Actor, AppName, AppView, DeployRequest, DeploymentView, Phase, ReleaseStatus, ReleaseView,
    RuntimeKind, Source,
};
use temps_unit::idle::Idle;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

/// The app of every case.
pub fn shop() -> AppName {
    "shop".parse().unwrap()
}

/// Who asks for everything.
pub fn actor() -> Actor {
    Actor::new("ada", "cli")
}

/// A new installation and its engine.
pub fn started() -> (Host, Running) {
    let host = Host::new();
    let running = host.start();
    (host, running)
}

/// A runtime whose clock jumps over waits, as `#[tokio::test(start_paused = true)]` has one; for
/// cases that drop theirs half-way.
pub fn paused() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
}

/// An installation that survives the engine.
pub struct Host {
    pub directory: TempDir,
    pub world: World,
}

impl Host {
    pub fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            world: World::new(),
        }
    }

    pub fn start(&self) -> Running {
        self.start_with(self.world.runtimes())
    }

    pub fn start_with(&self, runtimes: Runtimes) -> Running {
        let paths = Paths::new(self.directory.path());
        paths.create().unwrap();
        let stopping = CancellationToken::new();
        let engine = Engine::new(Parts {
            store: Store::open(&paths.database()).unwrap(),
            seal: Seal::new(&[1; 32]).unwrap(),
            runtimes,
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
    pub fn runs(&self) -> Vec<ReleaseId> {
        self.world
            .instances()
            .into_iter()
            .filter(|(_, _, runs)| *runs)
            .map(|(_, release, _)| release)
            .collect()
    }

    /// One instance of `release` runs, and nothing else.
    #[track_caller]
    pub fn runs_only(&self, release: &ReleaseId) {
        assert_eq!(self.runs(), slice::from_ref(release));
    }

    /// What is not removed, running or not.
    pub fn present(&self) -> usize {
        self.world.instances().len()
    }

    /// The proxy sends the app's requests to one instance.
    #[track_caller]
    pub fn serves_one(&self) {
        assert_eq!(self.world.serving().map(|serving| serving.len()), Ok(1));
    }

    /// Nothing was done that must not be.
    #[track_caller]
    pub fn well(&self) {
        assert_eq!(self.world.violations(), Vec::<String>::new());
    }

    pub fn instance_of(&self, release: &ReleaseId) -> InstanceId {
        let mut instances = self.world.instances().into_iter();
        instances.find(|(_, of, _)| of == release).unwrap().0
    }

    /// Everything that runs dies.
    pub fn kill_instances(&self) {
        for (id, _, _) in self.world.instances() {
            self.world.kill(&id);
        }
    }

    /// Everything that runs is stopped and removed, as with the platform.
    pub async fn stop_instances(&self) {
        for (id, _, _) in self.world.instances() {
            let log = self.directory.path().join("stop.log");
            let runtime = self.world.runtime(RuntimeKind::Docker);
            runtime.stop(&id, Duration::ZERO, &log).await.unwrap();
        }
    }
}

/// A running engine over a [`Host`].
pub struct Running {
    pub engine: Engine,
    stopping: CancellationToken,
}

impl Running {
    /// Asks for a release of the shop that behaves as `behaviour` says.
    pub fn request(&self, behaviour: &str) -> DeployRequest {
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
            socket_activated: None,
        }
    }

    /// Begins a deployment.
    pub async fn queue(&self, behaviour: &str) -> DeploymentView {
        let request = self.request(behaviour);
        self.engine.deploy(request, 0).await.unwrap()
    }

    /// A deployment up to its outcome.
    pub async fn deploy(&self, behaviour: &str) -> DeploymentView {
        let queued = self.queue(behaviour).await;
        self.outcome(queued).await
    }

    /// Waits until the deployment has an outcome.
    pub async fn outcome(&self, mut view: DeploymentView) -> DeploymentView {
        while view.phase.outcome().is_none() {
            view = self.next(view).await;
        }
        view
    }

    /// Waits until something about the deployment changes.
    pub async fn next(&self, view: DeploymentView) -> DeploymentView {
        self.engine
            .deployment(view.id, view.revision, Duration::from_secs(20))
            .await
            .unwrap()
    }

    pub async fn until(&self, mut view: DeploymentView, phase: Phase) -> DeploymentView {
        while view.phase != phase {
            view = self.next(view).await;
        }
        view
    }

    pub async fn roll_back(&self, to: Option<&ReleaseId>) -> Result<DeploymentView, Fault> {
        self.engine.rollback(shop(), to.cloned(), actor(), 0).await
    }

    pub async fn destroy(&self) {
        let destroyed = self.engine.app_destroy(shop(), actor(), 0).await;
        destroyed.unwrap();
    }

    pub async fn app(&self) -> Result<AppView, Fault> {
        self.engine.app_show(shop()).await
    }

    pub async fn release(&self, id: &ReleaseId) -> ReleaseView {
        let releases = self.engine.release_list(shop(), None).await.unwrap();
        releases.into_iter().find(|known| known.id == *id).unwrap()
    }

    pub async fn status_of(&self, release: &ReleaseId) -> ReleaseStatus {
        self.release(release).await.status
    }

    pub async fn stop(self) {
        self.stopping.cancel();
        self.engine.stopped().await;
    }
}
