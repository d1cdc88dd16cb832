//! The simulated proxy.

use super::{Behaviour, Effect, Inner, Part, World};
use crate::port::ProxyPort;
use async_trait::async_trait;
use std::time::Duration;
use temps_ipc::id::InstanceId;
use temps_ipc::types::{ProbeFailure, ProbeOutcome, Route, Snapshot, Target};
use temps_ipc::{Code, Fault};
use tokio::time::{Instant, sleep};

/// How often a target is probed, and whether one is drained is looked at.
const POLL: Duration = Duration::from_millis(250);

/// Serves what it is told, in the [`World`] only.
#[derive(Debug, Clone)]
pub struct SimProxy(World);

impl SimProxy {
    pub(super) fn new(world: World) -> Self {
        Self(world)
    }
}

/// What a request to the instance would find now; nothing if it is healthy.
pub(super) fn failure(inner: &mut Inner, id: &InstanceId) -> Option<ProbeFailure> {
    let ended = inner.ended(id).is_some();
    let Some(instance) = inner.instances.get(id) else {
        return Some(ProbeFailure::Refused);
    };
    let age = instance.started.elapsed();
    match inner.behaviour(&instance.spec.release) {
        // A request starts it.
        _ if ended && !instance.spec.socket_activated => Some(ProbeFailure::Refused),
        Behaviour::Silent | Behaviour::WrongPort => Some(ProbeFailure::Refused),
        Behaviour::SlowStart(time) if age < time => Some(ProbeFailure::Refused),
        Behaviour::Error => Some(ProbeFailure::Status(500)),
        Behaviour::BadLater(time) if age >= time => Some(ProbeFailure::Status(500)),
        _ => None,
    }
}

#[async_trait]
impl ProxyPort for SimProxy {
    async fn probe(
        &self,
        targets: Vec<Target>,
        timeout: Duration,
    ) -> Result<Vec<ProbeOutcome>, Fault> {
        let deadline = Instant::now() + timeout;
        let ids: Vec<InstanceId> = targets.into_iter().map(|target| target.id).collect();
        {
            let mut inner = self.0.inner();
            inner.answer(Part::Proxy)?;
            inner.journal.push(Effect::Probe(ids.clone()));
        }
        loop {
            let outcomes: Vec<ProbeOutcome> = {
                let mut inner = self.0.inner();
                let mut probe = |id: &InstanceId| {
                    let failure = failure(&mut inner, id);
                    if failure.is_none()
                        && let Some(instance) = inner.instances.get_mut(id)
                    {
                        instance.was_healthy = true;
                        if instance.spec.socket_activated {
                            instance.ended = None;
                        }
                    }
                    ProbeOutcome {
                        target: id.clone(),
                        failure,
                    }
                };
                ids.iter().map(&mut probe).collect()
            };
            let all_healthy = outcomes.iter().all(|outcome| outcome.failure.is_none());
            if all_healthy || Instant::now() >= deadline {
                return Ok(outcomes);
            }
            sleep(POLL).await;
        }
    }

    async fn apply(&self, snapshot: Snapshot) -> Result<(), Fault> {
        let applies_in = self.0.inner().applies_in;
        sleep(applies_in).await;
        let mut inner = self.0.inner();
        inner.answer(Part::Proxy)?;
        let served = &inner.snapshot.routes;
        let is_refused = |route: &&Route| {
            let is_known = served
                .iter()
                .any(|known| known.host == route.host && known.backend == route.backend);
            inner.refused.as_ref() == Some(&route.app) && !is_known
        };
        if let Some(route) = snapshot.routes.iter().find(is_refused) {
            let why = format!("{}: the simulated proxy does not like it", route.host);
            return Err(Fault::invalid(why));
        }
        let known = inner.snapshot.generation;
        if snapshot == inner.snapshot {
            return Ok(());
        }
        if snapshot.generation <= known {
            return Err(Fault::new(
                Code::Busy,
                format!(
                    "generation {} is not newer than {known}",
                    snapshot.generation
                ),
            ));
        }
        inner.journal.push(Effect::Apply(snapshot.generation));
        inner.snapshot = snapshot;
        for id in inner.routed() {
            let was_healthy = inner.instances.get_mut(&id).is_some_and(|instance| {
                instance.was_routed = true;
                instance.is_drained = false;
                instance.was_healthy
            });
            if !was_healthy {
                inner
                    .violations
                    .push(format!("{id} is routed, but was never seen healthy"));
            }
        }
        Ok(())
    }

    async fn generation(&self) -> Result<u64, Fault> {
        let mut inner = self.0.inner();
        inner.answer(Part::Proxy)?;
        Ok(inner.snapshot.generation)
    }

    async fn drained(&self, target: &InstanceId, wait: Duration) -> Result<bool, Fault> {
        let deadline = Instant::now() + wait;
        {
            let mut inner = self.0.inner();
            inner.answer(Part::Proxy)?;
            inner.journal.push(Effect::Drained(target.clone()));
        }
        loop {
            {
                let mut inner = self.0.inner();
                let is_routed = inner.routed().contains(target);
                let expired = Instant::now() >= deadline;
                let Some(instance) = inner.instances.get_mut(target) else {
                    return Ok(true);
                };
                if !is_routed && !instance.is_busy {
                    instance.is_drained = true;
                    return Ok(true);
                }
                if expired {
                    // Whoever waited its time out may stop it.
                    instance.is_drained = !is_routed;
                    return Ok(false);
                }
            }
            sleep(POLL).await;
        }
    }
}
