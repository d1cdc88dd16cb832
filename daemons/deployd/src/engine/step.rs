//! The steps of a deployment, one function per phase. A step may be entered again after a crash,
//! so it first looks at what is there.
//!
//! ```text
//! Queued -> Preparing -> Starting -> Probing -> Switching -> Draining -> Retiring -> Live -> Confirmed
//!              |            |           |           |            |           |        |
//!              +------------+-----------+-----------+            +-----------+--------+
//!                           v                                             v
//!                       Refusing -> Refused                        RollingBack -> RolledBack
//! ```
//! Static sites pass `Starting` without starting anything and skip `Probing`. With no old instance to
//! stop `Draining` and `Retiring` are skipped. What was cancelled ([`super::cancel`]) goes from `Queued`
//! to `Refused`, and from `Preparing`, `Starting` or `Probing` to `Refusing`. A restart of the
//! serving release ends `Confirmed` without a watch window. `Probing` and `Switching` go back to
//! `Starting` if the instance was stopped together with the platform; if the switch was recorded by
//! then and the release fails now, it goes to `RollingBack`.

use super::news::News;
use super::{Engine, failpoint};
use crate::event;
use crate::port::{Artifact, BuildJob, Material};
use crate::store::app::App;
use crate::store::deployment::{self, Deployment, Kind};
use crate::store::release::{self, Release};
use crate::store::{RowError, StoreError, instance};
use rusqlite::Transaction;
use temps_ipc::types::{Phase, ReleaseStatus, Timestamp};
use temps_ipc::{Code, Fault};

/// Most lines of output kept with a refused deployment; the whole log stays in `temps logs`.
const LAST_LINES: usize = 20;

/// Longest reason in bytes: a page of 200 releases with theirs fits a frame, and the log says more.
const MAX_REASON: usize = 2048;

/// How a step ended.
#[derive(Debug)]
pub(super) enum Step {
    /// The next phase.
    Next(Phase),
    /// The release is at fault, and never served: clean up and refuse it.
    Refuse(String),
    /// The release serves and turned bad: bring back the last good one.
    RollBack(String),
    /// The daemon stops; the deployment stays where it is.
    Paused,
}

/// Drives a deployment until it has ended, its window was closed by a successor, or the daemon
/// stops.
pub(super) async fn drive(
    engine: &Engine,
    app: &App,
    mut deployment: Deployment,
) -> Result<(), StoreError> {
    loop {
        let phase = deployment.phase;
        failpoint::hit(phase.name(), "before").await;
        let step = match phase {
            Phase::Queued => Step::Next(Phase::Preparing),
            Phase::Preparing => engine.prepare(app, &deployment).await?,
            Phase::Starting => engine.start(app, &deployment).await?,
            Phase::Probing => engine.probe(app, &deployment).await?,
            Phase::Switching => engine.switch(app, &mut deployment).await?,
            Phase::Draining => engine.drain(app, &deployment).await?,
            Phase::Retiring => engine.retire(app, &deployment).await?,
            Phase::Live => engine.watch(app, &deployment).await?,
            Phase::Refusing => engine.refuse(app, &mut deployment).await?,
            Phase::RollingBack => engine.roll_back(app, &mut deployment).await?,
            Phase::Confirmed | Phase::Refused | Phase::RolledBack => return Ok(()),
        };
        failpoint::hit(phase.name(), "after").await;
        let next = match step {
            Step::Next(next) => next,
            Step::Refuse(reason) => {
                deployment.reason = reason;
                match engine.take_back(app, &mut deployment).await? {
                    Some(next) => next,
                    None => return Ok(()),
                }
            }
            Step::RollBack(reason) => {
                deployment.reason = reason;
                Phase::RollingBack
            }
            Step::Paused => return Ok(()),
        };
        let is_ours = engine.advance(app, &mut deployment, next).await?;
        // The worker looks for a successor before it watches.
        if !is_ours || deployment.phase == Phase::Live {
            return Ok(());
        }
    }
}

/// Rolls back a watched release whose successor has not replaced it yet.
pub(super) async fn roll_back(
    engine: &Engine,
    app: &App,
    mut watched: Deployment,
    bad: String,
) -> Result<(), StoreError> {
    watched.reason = bad;
    let next = Phase::RollingBack;
    if engine.advance(app, &mut watched, next).await? {
        drive(engine, app, watched).await?;
    }
    Ok(())
}

impl Engine {
    /// Writes the next phase, and with it whatever must be true in it. False if somebody else has
    /// written another meanwhile (see [`super::cancel`]), which stands.
    async fn advance(
        &self,
        app: &App,
        deployment: &mut Deployment,
        next: Phase,
    ) -> Result<bool, StoreError> {
        deployment.phase = next;
        let now = Timestamp::now();
        match next {
            Phase::Draining => {
                let drain = self.settings.drain_timeout.as_millis() as i64;
                deployment.drain_until = Some(Timestamp(now.0 + drain));
                deployment.watch_until = Some(Timestamp(now.0 + deployment.watch_ms as i64));
            }
            Phase::Live if deployment.watch_until.is_none() => {
                deployment.watch_until = Some(Timestamp(now.0 + deployment.watch_ms as i64));
            }
            // The window has closed by itself, whatever the two clocks say; see `last_confirmed`.
            Phase::Confirmed => {
                deployment.watch_until = deployment.watch_until.map(|until| until.min(now));
            }
            _ => {}
        }
        match self
            .record(deployment, super::activation::rests_from_now_on)
            .await
        {
            Ok(()) => {}
            Err(StoreError::Busy(_)) => return Ok(false),
            Err(error) => return Err(error),
        }
        self.advanced(app, deployment).await;
        self.let_rest(app, deployment).await?;
        Ok(true)
    }

    /// Tells of the phase that was just written, and does what follows the last one.
    pub(super) async fn advanced(&self, app: &App, deployment: &Deployment) {
        event::phase(app, deployment);
        self.tell(|| News::Deployment(self.view_deployment(&app.name, deployment)));
        let phase = deployment.phase;
        if matches!(phase, Phase::Confirmed | Phase::Refused | Phase::RolledBack) {
            self.tidy(app).await;
        }
        match deployment.kind {
            Kind::Restart if phase == Phase::Refused => self.restart_again(app).await,
            Kind::Deploy | Kind::Rollback if phase == Phase::Refused => {
                self.look_after_refusal(app).await;
            }
            _ => {}
        }
    }

    /// Writes the deployment together with `more`, in one transaction.
    pub(super) async fn record<F>(
        &self,
        deployment: &mut Deployment,
        more: F,
    ) -> Result<(), StoreError>
    where
        F: FnOnce(&Transaction<'_>, &Deployment) -> Result<(), RowError> + Send + 'static,
    {
        let mut row = deployment.clone();
        row.reason = shortened(row.reason);
        *deployment = self
            .store
            .write(move |tx| {
                deployment::update(tx, &mut row)?;
                more(tx, &row)?;
                Ok(row)
            })
            .await?;
        self.changed();
        Ok(())
    }

    /// The release of a deployment.
    pub(super) async fn release(&self, deployment: &Deployment) -> Result<Release, StoreError> {
        let id = deployment.release.clone();
        self.store.read(move |db| release::get(db, &id)).await
    }

    /// Makes the release, unless it was made before.
    async fn prepare(&self, app: &App, deployment: &Deployment) -> Result<Step, StoreError> {
        let release = self.release(deployment).await?;
        if release.artifact.is_some() {
            return Ok(Step::Next(Phase::Starting));
        }
        let material = match self.opened(&release) {
            Ok(material) => material,
            Err(fault) => return Ok(Step::Refuse(explain(&fault))),
        };
        let env = match self.seal.open_release(release.id.as_str(), &release.env) {
            Ok(env) => env,
            Err(error) => return Ok(Step::Refuse(explain(&super::instance::seal_fault(&error)))),
        };
        let job = BuildJob {
            app: app.name.clone(),
            release: release.id.clone(),
            material,
            runtime: release.wanted_runtime,
            env,
            directory: self.paths.release(&release.id),
            log: self.paths.build_log(&release.id),
        };
        let built = tokio::select! {
            built = self.build(&job) => built,
            () = self.stopping.cancelled() => return Ok(Step::Paused),
            // Dropped, the build ends.
            () = self.being_destroyed(app) => return Ok(Step::Paused),
            () = self.cancelled(deployment) => return Ok(Step::Paused),
        };
        match built {
            Ok(built) => {
                let id = release.id.clone();
                self.store
                    .write(move |tx| release::set_built(tx, &id, &built))
                    .await?;
                let _ = tokio::fs::remove_file(self.paths.material(&release.id)).await;
                Ok(Step::Next(Phase::Starting))
            }
            Err(fault) => Ok(Step::Refuse(explain(&fault))),
        }
    }

    /// What the release is made from, as the builder needs it.
    fn opened(&self, release: &Release) -> Result<Material, Fault> {
        let mut material = release.material.clone();
        if let Material::Git { url, sealed, .. } = &mut material
            && let Some(sealed) = sealed.take()
        {
            *url = self
                .seal
                .open_url(release.id.as_str(), &sealed)
                .map_err(|error| super::instance::seal_fault(&error))?;
        }
        Ok(material)
    }

    async fn build(&self, job: &BuildJob) -> Result<crate::port::Built, Fault> {
        // Only what may run programs for long waits for its turn.
        let _permit = match job.material {
            Material::Archive { .. } | Material::Git { .. } => Some(
                self.builds
                    .acquire()
                    .await
                    .map_err(|_| Fault::internal("builds were closed"))?,
            ),
            Material::Static { .. } | Material::Image { .. } | Material::Artifact { .. } => None,
        };
        // Whatever an interrupted build left.
        match tokio::fs::remove_dir_all(&job.directory).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Fault::internal(format!(
                    "cannot remove {}: {error}",
                    job.directory.display()
                )));
            }
            _ => {}
        }
        if let Some(parent) = job.log.parent() {
            tokio::fs::create_dir_all(parent)
                .await
                .map_err(|error| storage(&format!("cannot make {}", parent.display()), &error))?;
        }
        self.builder.build(job).await
    }

    /// Removes what was started, and says why.
    async fn refuse(&self, app: &App, deployment: &mut Deployment) -> Result<Step, StoreError> {
        let mut log = self.paths.build_log(&deployment.release);
        for instance in self.instances(app, instance::State::Starting).await? {
            if instance.deployment == deployment.id {
                self.stop_instance(&instance).await?;
                log = self.paths.instance_log(&instance.release, &instance.id);
            }
        }
        deployment.last_lines = super::logs::last_lines(&log, LAST_LINES).await;
        let release = self.release(deployment).await?;
        let _ = tokio::fs::remove_file(self.paths.material(&release.id)).await;
        if release.served_at.is_none() || release.status == ReleaseStatus::Pending {
            self.remove_artifact(&release).await;
            let reason = deployment.reason.clone();
            self.record(deployment, move |tx, deployment| {
                release::set_status(tx, &deployment.release, ReleaseStatus::Refused, &reason)
            })
            .await?;
        }
        Ok(Step::Next(Phase::Refused))
    }

    /// The artifact's kind decides whether there is anything to start.
    pub(super) fn is_static(release: &Release) -> bool {
        matches!(release.artifact, Some(Artifact::Files { .. }))
    }
}

/// A reason that fits a list of releases, cut at a character.
pub(super) fn shortened(mut reason: String) -> String {
    if reason.len() > MAX_REASON {
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        reason.push('…');
    }
    reason
}

/// A fault in one line, its hint included.
pub(super) fn explain(fault: &Fault) -> String {
    if fault.hint.is_empty() {
        fault.what.clone()
    } else {
        format!("{} ({})", fault.what, fault.hint)
    }
}

/// A fault for a failed file operation.
pub(crate) fn storage(what: &str, error: &std::io::Error) -> Fault {
    if error.kind() == std::io::ErrorKind::StorageFull {
        Fault::new(Code::NoSpace, format!("{what}: the disk is full"))
            .hint("free some space, then try again")
    } else {
        Fault::internal(format!("{what}: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        assert_eq!(shortened("short".to_owned()), "short");
        let long = shortened("é".repeat(MAX_REASON));
        assert!(long.len() <= MAX_REASON + '…'.len_utf8());
        assert!(long.ends_with("é…"));
    }
}
