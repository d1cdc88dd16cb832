//! Instances of a deployment: recorded, started, stopped.

use super::Engine;
use super::step::{Step, explain};
use crate::port::{Artifact, InstanceSpec, RuntimeError};
use crate::store::app::App;
use crate::store::deployment::Deployment;
use crate::store::instance::{self, Instance, State};
use crate::store::release::Release;
use crate::store::{StoreError, seal};
use std::time::Duration;
use temps_ipc::Fault;
use temps_ipc::id::InstanceId;
use temps_ipc::types::{Phase, RuntimeKind, Timestamp};
use tracing::warn;

/// Tries to start or stop an instance while the engine does not answer (it restarts).
const TRIES: u32 = 5;

/// Pause between those tries.
const PAUSE: Duration = Duration::from_secs(2);

impl Engine {
    /// The app's instances that are meant to be in `state`.
    pub(super) async fn instances(
        &self,
        app: &App,
        state: State,
    ) -> Result<Vec<Instance>, StoreError> {
        let id = app.id.clone();
        let present = self
            .store
            .read(move |db| instance::present(db, &id))
            .await?;
        Ok(present
            .into_iter()
            .filter(|instance| instance.state == state)
            .collect())
    }

    /// The instance that this deployment made of its own release.
    pub(super) async fn own_instance(
        &self,
        app: &App,
        deployment: &Deployment,
    ) -> Result<Option<Instance>, StoreError> {
        let id = app.id.clone();
        let present = self
            .store
            .read(move |db| instance::present(db, &id))
            .await?;
        Ok(present.into_iter().find(|instance| {
            instance.deployment == deployment.id
                && instance.release == deployment.release
                && instance.state != State::Retiring
        }))
    }

    /// Starts the new instance, or takes note of a static site.
    pub(super) async fn start(
        &self,
        app: &App,
        deployment: &Deployment,
    ) -> Result<Step, StoreError> {
        let release = self.release(deployment).await?;
        let existing = self.own_instance(app, deployment).await?;
        let next = if Self::is_static(&release) {
            Phase::Switching
        } else {
            Phase::Probing
        };
        let started = tokio::select! {
            started = self.bring_up(app, &release, deployment, existing) => started?,
            () = self.stopping.cancelled() => return Ok(Step::Paused),
        };
        match started {
            Ok(_) => Ok(Step::Next(next)),
            Err(fault) => Ok(Step::Refuse(format!(
                "it could not be started: {}",
                explain(&fault)
            ))),
        }
    }

    /// Records an instance of `release` for `deployment` (unless it is recorded already) and starts
    /// it (unless it runs already).
    pub(super) async fn bring_up(
        &self,
        app: &App,
        release: &Release,
        deployment: &Deployment,
        existing: Option<Instance>,
    ) -> Result<Result<Instance, Fault>, StoreError> {
        let Some(artifact) = release.artifact.clone() else {
            return Ok(Err(Fault::not_found(format!(
                "the files of {} were removed",
                release.id
            ))));
        };
        let kind = release.runtime.unwrap_or(RuntimeKind::Static);
        if let Artifact::Files { root, .. } = &artifact {
            if !root.is_dir() {
                return Ok(Err(Fault::not_found(format!(
                    "{} is not there any more",
                    root.display()
                ))));
            }
            let instance = match existing {
                Some(instance) => instance,
                None => {
                    let _choosing = self.choosing.lock().await;
                    self.note(app, release, deployment, kind, None).await?
                }
            };
            return Ok(Ok(instance));
        }
        let Some(runtime) = self.runtimes.get(kind) else {
            return Ok(Err(Fault::unavailable(format!(
                "the {kind} runtime is not part of this installation"
            ))));
        };
        let instance = match existing {
            Some(instance) => instance,
            None => {
                let _choosing = self.choosing.lock().await;
                let taken = self.store.read(instance::all_present).await?;
                let taken: Vec<_> = taken
                    .into_iter()
                    .filter_map(|other| other.address)
                    .collect();
                match self
                    .retried(|| runtime.choose_address(&artifact, &taken))
                    .await
                {
                    Ok(address) => {
                        self.note(app, release, deployment, kind, Some(address))
                            .await?
                    }
                    Err(error) => return Ok(Err(error.fault().clone())),
                }
            }
        };
        super::failpoint::hit(deployment.phase.name(), "recorded").await;
        let Some(address) = instance.address.clone() else {
            return Ok(Err(Fault::internal(
                "an instance was recorded without an address",
            )));
        };
        let env = match self.seal.open_release(release.id.as_str(), &release.env) {
            Ok(env) => env,
            Err(error) => return Ok(Err(seal_fault(&error))),
        };
        let log = self.paths.instance_log(&release.id, &instance.id);
        if let Some(parent) = log.parent()
            && let Err(error) = tokio::fs::create_dir_all(parent).await
        {
            return Ok(Err(super::step::storage(
                "cannot make the log directory",
                &error,
            )));
        }
        let spec = InstanceSpec {
            id: instance.id.clone(),
            app: app.name.clone(),
            release: release.id.clone(),
            artifact,
            address,
            env,
            url: self.settings.url(&app.name),
            log,
            socket_activated: release.socket_activated,
        };
        match self.retried(|| runtime.start(&spec)).await {
            Ok(()) => Ok(Ok(instance)),
            Err(error) => Ok(Err(error.fault().clone())),
        }
    }

    /// Records an instance that is about to be started.
    async fn note(
        &self,
        app: &App,
        release: &Release,
        deployment: &Deployment,
        runtime: RuntimeKind,
        address: Option<temps_ipc::types::Address>,
    ) -> Result<Instance, StoreError> {
        let row = Instance {
            id: InstanceId::fresh(),
            app: app.id.clone(),
            release: release.id.clone(),
            deployment: deployment.id.clone(),
            runtime,
            address,
            state: State::Starting,
            created_at: Timestamp::now(),
        };
        let written = row.clone();
        self.store
            .write(move |tx| instance::insert(tx, &written))
            .await?;
        Ok(row)
    }

    /// Stops an instance and records that it is gone. One that cannot be stopped stays recorded:
    /// the next reconciliation tries again.
    pub(super) async fn stop_instance(&self, instance: &Instance) -> Result<(), StoreError> {
        if instance.address.is_some()
            && let Some(runtime) = self.runtimes.get(instance.runtime)
        {
            let log = self.paths.instance_log(&instance.release, &instance.id);
            let grace = self.settings.stop_grace;
            if let Err(error) = self
                .retried(|| runtime.stop(&instance.id, grace, &log))
                .await
            {
                warn!(instance = %instance.id, %error, "an instance cannot be stopped now");
                let id = instance.id.clone();
                return self
                    .store
                    .write(move |tx| instance::set_state(tx, &id, State::Retiring))
                    .await;
            }
        }
        self.forget_alarm(&instance.id);
        let id = instance.id.clone();
        self.store
            .write(move |tx| instance::set_state(tx, &id, State::Gone))
            .await
    }

    /// Calls a runtime again while its engine does not answer, a few times.
    pub(super) async fn retried<T, F, Fut>(&self, mut call: F) -> Result<T, RuntimeError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, RuntimeError>>,
    {
        let mut tries = 1;
        loop {
            match call().await {
                Err(RuntimeError::Unavailable(_)) if tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                other => return other,
            }
        }
    }
}

/// A variable that cannot be opened, for people.
pub(super) fn seal_fault(error: &seal::SealError) -> Fault {
    Fault::new(temps_ipc::Code::Config, error.to_string())
        .hint("put back the key that the variables were stored under, or set them again with `temps env set`")
}
