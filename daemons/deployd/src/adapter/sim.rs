//! A simulated world behind every port: instances that behave as scripted, a builder and a proxy.
//!
//! The world outlives whoever uses it: a crash of the daemon is dropping the engine and making a
//! new one over the same [`World`]. Time is tokio's, so tests may pause it.
//!
//! How a release behaves is read from what its source is called (an archive's label, an image's
//! reference, a git reference), see [`Behaviour`]; [`World::behave`] changes it later.
//!
//! The world keeps a journal of what was done to it, and watches the rules that must hold at every
//! moment ([`World::violations`]): no route to an instance that was never seen healthy, no stop of
//! one that is routed, none before it was drained.

mod behaviour;
mod builder;
mod proxy;
mod runtime;
#[cfg(test)]
mod tests;

pub use behaviour::Behaviour;
pub use builder::SimBuilder;
pub use proxy::SimProxy;
pub use runtime::SimRuntime;

use crate::port::{Artifact, InstanceSpec, Runtimes};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use temps_ipc::Fault;
use temps_ipc::id::{InstanceId, ReleaseId};
use temps_ipc::types::{AppName, Backend, RuntimeKind, Snapshot, Timestamp};
use tokio::time::Instant;

/// How an instance ends that was not needed.
const WELL: &str = "exited with status 0";

/// Something that was done to the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A build was begun.
    Build(ReleaseId),
    /// An instance was started (not: found running).
    Start(InstanceId),
    /// An instance was stopped and removed.
    Stop(InstanceId),
    /// Targets were probed.
    Probe(Vec<InstanceId>),
    /// A snapshot was taken over.
    Apply(u64),
    /// It was asked whether an instance is drained.
    Drained(InstanceId),
    /// An artifact was removed.
    RemoveArtifact(Artifact),
}

/// A part of the world that may not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The runtimes.
    Runtime,
    /// The builder.
    Builder,
    /// The proxy.
    Proxy,
}

/// An instance in the world.
#[derive(Debug, Clone)]
struct SimInstance {
    spec: InstanceSpec,
    kind: RuntimeKind,
    started: Instant,
    /// How and when it ended, once that was seen or done.
    ended: Option<(String, Timestamp)>,
    was_healthy: bool,
    was_routed: bool,
    is_drained: bool,
    /// Requests that never end are in flight to it.
    is_busy: bool,
}

#[derive(Debug, Default)]
struct Inner {
    instances: BTreeMap<InstanceId, SimInstance>,
    behaviours: HashMap<ReleaseId, Behaviour>,
    snapshot: Snapshot,
    journal: Vec<Effect>,
    violations: Vec<String>,
    silent: HashMap<Part, u32>,
    addresses: u32,
    /// The app of which no new target is routed.
    refused: Option<AppName>,
    /// How long the proxy takes over a snapshot.
    applies_in: Duration,
    /// The apps of which builds have kept something.
    kept: BTreeSet<AppName>,
}

impl Inner {
    fn behaviour(&self, release: &ReleaseId) -> Behaviour {
        self.behaviours.get(release).copied().unwrap_or_default()
    }

    /// Every instance that the routes name.
    fn routed(&self) -> HashSet<InstanceId> {
        let targets = self
            .snapshot
            .routes
            .iter()
            .flat_map(|route| match &route.backend {
                Backend::Targets(targets) => {
                    targets.iter().map(|target| target.id.clone()).collect()
                }
                Backend::Static(_) => Vec::new(),
            });
        targets.collect()
    }

    /// How the instance ended, if it has by now.
    fn ended(&mut self, id: &InstanceId) -> Option<(String, Timestamp)> {
        let instance = self.instances.get(id)?;
        if instance.ended.is_none() {
            let after = self.behaviour(&instance.spec.release).exits_after()?;
            if instance.started.elapsed() < after {
                return None;
            }
            let end = ("exited with status 3".to_owned(), Timestamp::now());
            self.instances.get_mut(id)?.ended = Some(end);
        }
        self.instances.get(id)?.ended.clone()
    }

    /// The fault of a part that shall not answer now.
    fn answer(&mut self, part: Part) -> Result<(), Fault> {
        match self.silent.get_mut(&part) {
            Some(left) if *left > 0 => {
                *left -= 1;
                Err(Fault::unavailable(format!(
                    "the simulated {part:?} does not answer"
                )))
            }
            _ => Ok(()),
        }
    }
}

/// The simulated world. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct World(Arc<Mutex<Inner>>);

impl World {
    /// A world in which nothing happened yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A runtime of this kind in the world.
    pub fn runtime(&self, kind: RuntimeKind) -> SimRuntime {
        SimRuntime::new(self.clone(), kind)
    }

    /// The `docker` and the `process` runtime.
    pub fn runtimes(&self) -> Runtimes {
        Runtimes::new(vec![
            Arc::new(self.runtime(RuntimeKind::Docker)),
            Arc::new(self.runtime(RuntimeKind::Process)),
        ])
    }

    /// The builder.
    pub fn builder(&self) -> SimBuilder {
        SimBuilder::new(self.clone())
    }

    /// The proxy.
    pub fn proxy(&self) -> SimProxy {
        SimProxy::new(self.clone())
    }

    /// From now on every instance of the release behaves so.
    pub fn behave(&self, release: &ReleaseId, behaviour: Behaviour) {
        self.inner().behaviours.insert(release.clone(), behaviour);
    }

    /// The next `times` calls to the part are answered by `Unavailable`.
    pub fn silence(&self, part: Part, times: u32) {
        self.inner().silent.insert(part, times);
    }

    /// From now on the proxy refuses every snapshot that routes to a new instance of the app, or to a
    /// new host of it; nothing refuses none.
    pub fn refuse(&self, app: Option<AppName>) {
        self.inner().refused = app;
    }

    /// From now on the proxy takes so long over a snapshot.
    pub fn apply_in(&self, time: Duration) {
        self.inner().applies_in = time;
    }

    /// The apps of which builds have kept something.
    pub fn kept(&self) -> Vec<AppName> {
        self.inner().kept.iter().cloned().collect()
    }

    /// Ends a running instance.
    pub fn kill(&self, id: &InstanceId) {
        if let Some(instance) = self.inner().instances.get_mut(id) {
            let how = "was killed by signal 9 (SIGKILL)".to_owned();
            instance.ended.get_or_insert((how, Timestamp::now()));
        }
    }

    /// Somebody else stops an instance, and nothing is left of it.
    pub fn stop_from_outside(&self, id: &InstanceId) {
        self.inner().instances.remove(id);
    }

    /// A running instance ends well, as one that requests start does when it is idle.
    pub fn rest(&self, id: &InstanceId) {
        if let Some(instance) = self.inner().instances.get_mut(id) {
            let how = WELL.to_owned();
            instance.ended.get_or_insert((how, Timestamp::now()));
        }
    }

    /// Whether requests that do not end are in flight to the instance.
    pub fn set_busy(&self, id: &InstanceId, busy: bool) {
        if let Some(instance) = self.inner().instances.get_mut(id) {
            instance.is_busy = busy;
        }
    }

    /// What was done, in order.
    pub fn journal(&self) -> Vec<Effect> {
        self.inner().journal.clone()
    }

    /// Which rules were broken, in words; empty if all is well.
    pub fn violations(&self) -> Vec<String> {
        self.inner().violations.clone()
    }

    /// Every instance that was not removed, with its release, and whether it runs.
    pub fn instances(&self) -> Vec<(InstanceId, ReleaseId, bool)> {
        let mut inner = self.inner();
        let all: Vec<(InstanceId, ReleaseId)> = inner
            .instances
            .iter()
            .map(|(id, instance)| (id.clone(), instance.spec.release.clone()))
            .collect();
        all.into_iter()
            .map(|(id, release)| {
                let runs = inner.ended(&id).is_none();
                (id, release, runs)
            })
            .collect()
    }

    /// What the proxy serves.
    pub fn snapshot(&self) -> Snapshot {
        self.inner().snapshot.clone()
    }

    /// Every instance that the proxy's routes name, which are all running and healthy now; or what
    /// is wrong with the first that is not.
    ///
    /// # Errors
    /// In words.
    pub fn serving(&self) -> Result<Vec<InstanceId>, String> {
        let mut inner = self.inner();
        let mut routed: Vec<InstanceId> = inner.routed().into_iter().collect();
        routed.sort();
        for id in &routed {
            if let Some(failure) = proxy::failure(&mut inner, id) {
                return Err(format!("{id} is routed, and {failure}"));
            }
        }
        Ok(routed)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // A test that panicked while it held the lock has failed already.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
