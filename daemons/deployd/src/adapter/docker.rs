//! The `docker` runtime: instances are containers on a Docker-compatible engine, API 1.41 and up.
//!
//! What holds for every container of ours:
//! - it carries the labels of [`engine::Engine::labels`]: several installations share an engine
//!   and never touch each other's containers, networks and images;
//! - it has a fixed address on the installation's own bridge network, on which containers cannot
//!   talk to each other, and publishes no port: only this machine reaches it;
//! - on an installed system it runs only while the rules are in force that keep that network from this
//!   machine's services and from the addresses at which clouds hand out credentials ([`ContainerRules`]);
//! - it has limits, no new privileges, and few capabilities ([`container`]);
//! - the engine never restarts it: deployd decides what runs.
//!
//! ```text
//! (none) --create, start--> running --ends--> exited --stop: log, remove--> (none)
//!            '--start fails: remove--> (none)
//! ```

mod build;
mod container;
mod context;
mod engine;
mod ignorefile;
mod images;
mod log;
mod network;

pub use engine::DockerSettings;
pub use images::Images;

use crate::adapter::procfs;
use crate::adapter::systemd::ContainerRules;
use crate::port::{Artifact, InstanceSpec, InstanceState, Runtime, RuntimeError};
use async_trait::async_trait;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    StopContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use engine::{CallError, Engine};
use futures::StreamExt;
use log::Collectors;
use network::Network;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use temps_ipc::Fault;
use temps_ipc::id::{InstanceId, ReleaseId};
use temps_ipc::types::{Address, RuntimeKind};

/// Runs instances as containers.
#[derive(Debug, Clone)]
pub struct DockerRuntime {
    engine: Arc<Engine>,
    images: Arc<Images>,
    collectors: Arc<Collectors>,
    rules: Option<Arc<ContainerRules>>,
}

impl DockerRuntime {
    /// For the installation whose state is in `state_dir`. The engine is not talked to before it
    /// is needed.
    pub fn new(settings: DockerSettings, state_dir: &Path) -> Self {
        let engine = Arc::new(Engine::new(settings, state_dir));
        let images = Arc::new(Images::new(Arc::clone(&engine)));
        Self {
            engine,
            images,
            collectors: Arc::default(),
            rules: None,
        }
    }

    /// Starts no container without these.
    #[must_use]
    pub fn with_rules(self, rules: ContainerRules) -> Self {
        Self {
            rules: Some(Arc::new(rules)),
            ..self
        }
    }

    /// What makes and keeps images on the same engine, for the builder.
    pub fn images(&self) -> Arc<Images> {
        Arc::clone(&self.images)
    }

    /// Twelve hexadecimal digits that name this installation in labels and names.
    pub fn installation(&self) -> &str {
        self.engine.installation()
    }

    /// Removes the installation's network, if no container is left on it; for tests and for
    /// removing an installation.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn remove_network(&self) -> Result<(), RuntimeError> {
        Network::remove(&self.engine)
            .await
            .map_err(RuntimeError::from)
    }

    /// The engine's id of the instance's container.
    async fn find(&self, id: &InstanceId) -> Result<Option<String>, CallError> {
        let label = format!("{}={id}", engine::LABEL_INSTANCE);
        let found = self.containers(vec![label]).await?;
        Ok(found.into_iter().find_map(|(container, _)| container))
    }

    /// Our containers with these labels: the engine's id and the instance's.
    async fn containers(
        &self,
        mut labels: Vec<String>,
    ) -> Result<Vec<(Option<String>, Option<InstanceId>)>, CallError> {
        labels.push(self.engine.label_filter());
        let filters = HashMap::from([("label", labels)]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        let docker = self.engine.docker().await?;
        let found = self
            .engine
            .call(docker.list_containers(Some(options)))
            .await?;
        let instance = |labels: Option<HashMap<String, String>>| {
            labels?.get(engine::LABEL_INSTANCE)?.parse().ok()
        };
        Ok(found
            .into_iter()
            .map(|container| (container.id, instance(container.labels)))
            .collect())
    }

    async fn create(&self, spec: &InstanceSpec) -> Result<String, CallError> {
        let network = Network::ensure(&self.engine).await?;
        // Once the bridge is there: while it is, whoever stops their unit does not remove them.
        if let Some(rules) = &self.rules {
            rules.need().await.map_err(CallError::Own)?;
        }
        let body = container::body(&self.engine, &network, spec)?;
        let name = format!("temps-{}-{}", spec.app, spec.id);
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        let docker = self.engine.docker().await?;
        let created = self
            .engine
            .call(docker.create_container(Some(options), body))
            .await?;
        Ok(created.id)
    }

    async fn remove(&self, container: &str) -> Result<(), CallError> {
        // With its anonymous volumes, which nothing else can name.
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        let docker = self.engine.docker().await?;
        self.engine
            .call(docker.remove_container(container, Some(options)))
            .await
            .or_else(CallError::gone_is_fine)
    }

    async fn start_new(&self, spec: &InstanceSpec) -> Result<(), CallError> {
        if let Some(old) = self.find(&spec.id).await? {
            if self.inspect(&old).await? == InstanceState::Running {
                return Ok(());
            }
            self.collectors
                .collect(&self.engine, &old, &spec.log)
                .await?;
            self.remove(&old).await?;
        }
        match self.create_and_start(spec).await {
            Err(error) if self.engine.can_raise_limits() && self.engine.learn_limits(&error) => {
                self.create_and_start(spec).await
            }
            result => result,
        }
    }

    async fn create_and_start(&self, spec: &InstanceSpec) -> Result<(), CallError> {
        let container = self.create(spec).await?;
        let docker = self.engine.docker().await?;
        let started = self
            .engine
            .call(docker.start_container(&container, None))
            .await;
        if started.is_err() {
            self.remove(&container).await?;
        }
        started
    }

    async fn inspect(&self, container: &str) -> Result<InstanceState, CallError> {
        let docker = self.engine.docker().await?;
        match self
            .engine
            .call(docker.inspect_container(container, None))
            .await
        {
            Ok(found) => Ok(container::state(
                &self.engine.settings,
                found.state.unwrap_or_default(),
            )),
            Err(CallError::NotFound(_)) => Ok(InstanceState::Absent),
            Err(error) => Err(error),
        }
    }

    async fn current(&self, id: &InstanceId) -> Result<InstanceState, CallError> {
        match self.find(id).await? {
            Some(container) => self.inspect(&container).await,
            None => Ok(InstanceState::Absent),
        }
    }

    async fn wait(&self, id: &InstanceId) -> Result<InstanceState, CallError> {
        loop {
            let Some(container) = self.find(id).await? else {
                return Ok(InstanceState::Absent);
            };
            let state = self.inspect(&container).await?;
            if state != InstanceState::Running {
                return Ok(state);
            }
            let options = WaitContainerOptionsBuilder::new()
                .condition("not-running")
                .build();
            let docker = self.engine.patient_docker().await?;
            // Its answer may be an error, which is how bollard says that the status is not 0; what
            // it means is looked up in the next round. An engine that went away fails there.
            let _ = docker
                .wait_container(&container, Some(options))
                .next()
                .await;
            tokio::time::sleep(WAIT_PAUSE).await;
        }
    }

    async fn stop_and_remove(
        &self,
        id: &InstanceId,
        grace: Duration,
        file: &Path,
    ) -> Result<(), CallError> {
        let Some(container) = self.find(id).await? else {
            return Ok(());
        };
        let seconds = i32::try_from(grace.as_millis().div_ceil(1_000)).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        let docker = self.engine.patient_docker().await?;
        let stop = docker.stop_container(&container, Some(options));
        self.engine
            .call_within(grace + self.engine.settings.call_limit, stop)
            .await
            .or_else(CallError::gone_is_fine)?;
        self.collectors
            .collect(&self.engine, &container, file)
            .await?;
        self.remove(&container).await
    }
}

/// Between two waits for the same container, should the engine end one at once.
const WAIT_PAUSE: Duration = Duration::from_millis(20);

#[async_trait]
impl Runtime for DockerRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Docker
    }

    async fn check(&self) -> Result<String, Fault> {
        self.engine.describe().await.map_err(CallError::into_fault)
    }

    async fn choose_address(
        &self,
        artifact: &Artifact,
        taken: &[Address],
    ) -> Result<Address, RuntimeError> {
        let Artifact::Image { port, .. } = artifact else {
            return Err(RuntimeError::Refused(Fault::invalid(
                "only images run on a container engine",
            )));
        };
        let network = Network::ensure(&self.engine).await?;
        network
            .free_address(*port, taken)
            .map(Address::Tcp)
            .ok_or_else(|| {
                RuntimeError::Unavailable(
                    Fault::unavailable("the network of the containers has no free address")
                        .hint("destroy apps that are not needed (`temps app destroy APP`)"),
                )
            })
    }

    async fn start(&self, spec: &InstanceSpec) -> Result<(), RuntimeError> {
        Ok(self.start_new(spec).await?)
    }

    async fn state(&self, id: &InstanceId) -> Result<InstanceState, RuntimeError> {
        Ok(self.current(id).await?)
    }

    async fn ended(&self, id: &InstanceId) -> Result<InstanceState, RuntimeError> {
        Ok(self.wait(id).await?)
    }

    async fn listening(&self, id: &InstanceId) -> Vec<String> {
        let pid = async {
            let container = self.find(id).await.ok()??;
            let docker = self.engine.docker().await.ok()?;
            let found = self
                .engine
                .call(docker.inspect_container(&container, None))
                .await
                .ok()?;
            let pid = found.state?.pid?;
            i32::try_from(pid).ok().filter(|&pid| pid > 0)
        };
        let Some(pid) = pid.await else {
            return Vec::new();
        };
        let find = move || procfs::listening_in_namespace(pid);
        let mut found = tokio::task::spawn_blocking(find).await.unwrap_or_default();
        // The engine's own resolver.
        found.retain(|address| !address.starts_with("127.0.0.11:"));
        found
    }

    async fn stop(&self, id: &InstanceId, grace: Duration, log: &Path) -> Result<(), RuntimeError> {
        Ok(self.stop_and_remove(id, grace, log).await?)
    }

    async fn collect_log(
        &self,
        id: &InstanceId,
        _: &ReleaseId,
        log: &Path,
    ) -> Result<(), RuntimeError> {
        if let Some(container) = self.find(id).await? {
            self.collectors
                .collect(&self.engine, &container, log)
                .await?;
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<InstanceId>, RuntimeError> {
        let found = self.containers(Vec::new()).await?;
        Ok(found
            .into_iter()
            .filter_map(|(_, instance)| instance)
            .collect())
    }

    async fn release_shared(&self) -> Result<(), RuntimeError> {
        // An engine that was never used has nothing of ours, and may not even be there.
        if self.list().await?.is_empty() {
            self.remove_network().await?;
            if let Some(rules) = &self.rules {
                rules.release().await.map_err(RuntimeError::Unavailable)?;
            }
        }
        Ok(())
    }

    async fn remove_artifact(&self, artifact: &Artifact) -> Result<(), RuntimeError> {
        match artifact {
            Artifact::Image { id, .. } => Ok(self.images.remove(id).await?),
            _ => Ok(()),
        }
    }
}
