//! The simulated runtime.

use super::{Behaviour, Effect, Part, SimInstance, WELL, World};
use crate::logfile::Writer;
use crate::port::{Artifact, InstanceSpec, InstanceState, Runtime, RuntimeError};
use async_trait::async_trait;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use temps_ipc::Fault;
use temps_ipc::id::{InstanceId, ReleaseId};
use temps_ipc::types::{Address, LogStream, RuntimeKind};
use tokio::time::{Instant, sleep};

/// How often the end of an instance is looked for.
const POLL: Duration = Duration::from_millis(20);

/// Runs instances that exist only in the [`World`].
#[derive(Debug, Clone)]
pub struct SimRuntime {
    world: World,
    kind: RuntimeKind,
}

impl SimRuntime {
    pub(super) fn new(world: World, kind: RuntimeKind) -> Self {
        Self { world, kind }
    }
}

#[async_trait]
impl Runtime for SimRuntime {
    fn kind(&self) -> RuntimeKind {
        self.kind
    }

    async fn check(&self) -> Result<String, Fault> {
        self.world.inner().answer(Part::Runtime)?;
        Ok(format!("simulated {}", self.kind))
    }

    async fn choose_address(
        &self,
        _: &Artifact,
        taken: &[Address],
    ) -> Result<Address, RuntimeError> {
        let mut inner = self.world.inner();
        inner
            .answer(Part::Runtime)
            .map_err(RuntimeError::Unavailable)?;
        loop {
            inner.addresses += 1;
            let host = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 0)) + inner.addresses);
            let address = Address::Tcp(SocketAddr::from((host, 8080)));
            if !taken.contains(&address) {
                return Ok(address);
            }
        }
    }

    async fn start(&self, spec: &InstanceSpec) -> Result<(), RuntimeError> {
        let behaviour = {
            let mut inner = self.world.inner();
            inner
                .answer(Part::Runtime)
                .map_err(RuntimeError::Unavailable)?;
            if inner.instances.contains_key(&spec.id) && inner.ended(&spec.id).is_none() {
                return Ok(());
            }
            let behaviour = inner.behaviour(&spec.release);
            if behaviour == Behaviour::StartRefused {
                return Err(RuntimeError::Refused(Fault::invalid(
                    "the simulated runtime refuses to start it",
                )));
            }
            inner.journal.push(Effect::Start(spec.id.clone()));
            inner.instances.insert(
                spec.id.clone(),
                SimInstance {
                    spec: spec.clone(),
                    kind: self.kind,
                    started: Instant::now(),
                    ended: None,
                    was_healthy: false,
                    was_routed: false,
                    is_drained: false,
                    is_busy: false,
                },
            );
            behaviour
        };
        if let Ok(mut log) = Writer::open(&spec.log) {
            log.line(LogStream::Stdout, "simulated start");
            if behaviour == Behaviour::Crash {
                log.line(LogStream::Stderr, "simulated panic: out of luck");
            }
        }
        Ok(())
    }

    async fn state(&self, id: &InstanceId) -> Result<InstanceState, RuntimeError> {
        let mut inner = self.world.inner();
        inner
            .answer(Part::Runtime)
            .map_err(RuntimeError::Unavailable)?;
        Ok(match (inner.instances.contains_key(id), inner.ended(id)) {
            (false, _) => InstanceState::Absent,
            (true, None) => InstanceState::Running,
            (true, Some((how, _))) if inner.instances[id].spec.socket_activated => {
                InstanceState::Resting {
                    failed: (how != WELL).then_some(how),
                }
            }
            (true, Some((how, at))) => InstanceState::Exited { how, at: Some(at) },
        })
    }

    async fn ended(&self, id: &InstanceId) -> Result<InstanceState, RuntimeError> {
        loop {
            match self.state(id).await? {
                InstanceState::Running | InstanceState::Resting { failed: None } => {
                    sleep(POLL).await;
                }
                state => return Ok(state),
            }
        }
    }

    async fn listening(&self, id: &InstanceId) -> Vec<String> {
        let inner = self.world.inner();
        let Some(instance) = inner.instances.get(id) else {
            return Vec::new();
        };
        match inner.behaviour(&instance.spec.release) {
            Behaviour::WrongPort => vec!["127.0.0.1:9999".to_owned()],
            Behaviour::Silent => Vec::new(),
            _ => vec![instance.spec.address.to_string()],
        }
    }

    async fn stop(&self, id: &InstanceId, _: Duration, _: &Path) -> Result<(), RuntimeError> {
        let mut inner = self.world.inner();
        inner
            .answer(Part::Runtime)
            .map_err(RuntimeError::Unavailable)?;
        let is_alive = inner.ended(id).is_none();
        let is_routed = inner.routed().contains(id);
        let Some(instance) = inner.instances.remove(id) else {
            return Ok(());
        };
        inner.journal.push(Effect::Stop(id.clone()));
        if is_alive && is_routed {
            inner
                .violations
                .push(format!("{id} was stopped while requests are sent to it"));
        } else if is_alive && instance.was_routed && !instance.is_drained {
            inner
                .violations
                .push(format!("{id} was stopped before it was drained"));
        }
        Ok(())
    }

    async fn collect_log(
        &self,
        _: &InstanceId,
        _: &ReleaseId,
        _: &Path,
    ) -> Result<(), RuntimeError> {
        self.world
            .inner()
            .answer(Part::Runtime)
            .map_err(RuntimeError::Unavailable)
    }

    async fn list(&self) -> Result<Vec<InstanceId>, RuntimeError> {
        let mut inner = self.world.inner();
        inner
            .answer(Part::Runtime)
            .map_err(RuntimeError::Unavailable)?;
        let ours = inner
            .instances
            .iter()
            .filter(|(_, instance)| instance.kind == self.kind);
        Ok(ours.map(|(id, _)| id.clone()).collect())
    }

    async fn remove_artifact(&self, artifact: &Artifact) -> Result<(), RuntimeError> {
        let mut inner = self.world.inner();
        inner
            .answer(Part::Runtime)
            .map_err(RuntimeError::Unavailable)?;
        inner.journal.push(Effect::RemoveArtifact(artifact.clone()));
        Ok(())
    }
}
