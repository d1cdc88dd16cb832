//! Bringing back the last good release after the present one turned bad.
//!
//! ```text
//! choose (durable) -> instance of it: the old one if it still runs, else a new one -> healthy?
//!   -> flip the database -> publish -> drain and stop the bad one -> RolledBack
//! nothing to go back to, it does not start, or the proxy refuses it -> Confirmed with the reason; the instance is
//! replaced by a fresh one of the same release if it is down
//! ```

use super::Engine;
use super::step::{Step, explain, shortened};
use crate::port::InstanceState;
use crate::store::app::App;
use crate::store::deployment::Deployment;
use crate::store::instance::{self, Instance, State};
use crate::store::release::{self, Release};
use crate::store::{StoreError, deployment};
use temps_ipc::id::ReleaseId;
use temps_ipc::types::{Phase, ReleaseStatus, Timestamp};
use tracing::warn;

/// How long requests to a bad instance may take to end, in milliseconds: it is bad, so not long.
const DRAIN_MS: i64 = 5_000;

/// Lines of output kept with the reason.
const LAST_LINES: usize = 20;

impl Engine {
    /// Brings back the last good release.
    pub(super) async fn roll_back(
        &self,
        app: &App,
        deployment: &mut Deployment,
    ) -> Result<Step, StoreError> {
        let Some(fallback) = self.fallback(app, deployment).await? else {
            return self
                .stay(
                    app,
                    deployment,
                    "there is no earlier release to go back to, so it is started afresh",
                )
                .await;
        };
        let present = self.present_of(app, &fallback.id).await?;
        let brought = tokio::select! {
            brought = self.bring_up(app, &fallback, deployment, present) => brought?,
            () = self.stopping.cancelled() => return Ok(Step::Paused),
        };
        let instance = match brought {
            Ok(instance) => instance,
            Err(fault) => {
                let why = format!("going back to {} failed: {}", fallback.id, explain(&fault));
                return self.stay(app, deployment, &why).await;
            }
        };
        let healthy = tokio::select! {
            healthy = self.becomes_healthy(&fallback, &instance) => healthy,
            () = self.stopping.cancelled() => return Ok(Step::Paused),
        };
        if let Err(why) = healthy {
            if instance.state == State::Starting {
                self.stop_instance(&instance).await?;
            }
            let why = format!("going back to {} failed: {why}", fallback.id);
            return self.stay(app, deployment, &why).await;
        }
        // Held until what the proxy refuses is taken back, so that nobody else is refused for it.
        let turn = self.publishing().await;
        self.flip_back(app, deployment, &fallback, &instance)
            .await?;
        super::failpoint::hit(Phase::RollingBack.name(), "flipped").await;
        match turn.apply().await? {
            Ok(true) => drop(turn),
            Ok(false) => return Ok(Step::Paused),
            Err(fault) => {
                warn!(app = %app.name, %fault, "the proxy refused the routes of a rollback");
                self.flip_again(app, deployment, &instance).await?;
                turn.put_back().await?;
                drop(turn);
                let until = Timestamp(Timestamp::now().0 + DRAIN_MS);
                self.drained(&instance.id, until).await;
                let why = format!(
                    "going back to {} failed: the proxy refused its routes: {}",
                    fallback.id,
                    explain(&fault)
                );
                return self.stay(app, deployment, &why).await;
            }
        }
        self.clear_away(app, deployment, &instance).await?;
        Ok(Step::Next(Phase::RolledBack))
    }

    /// The release to bring back, chosen once and written down.
    async fn fallback(
        &self,
        app: &App,
        deployment: &mut Deployment,
    ) -> Result<Option<Release>, StoreError> {
        if deployment.fallback.is_none() {
            let (id, bad, previous) = (
                app.id.clone(),
                deployment.release.clone(),
                deployment.previous.clone(),
            );
            deployment.fallback = self
                .store
                .read(move |db| {
                    if let Some(confirmed) = release::last_confirmed(db, &id, &bad)? {
                        return Ok(Some(confirmed.id));
                    }
                    // None was watched to the end: what served before is the best there is.
                    if let Some(previous) = previous {
                        let previous = release::get(db, &previous)?;
                        let good = previous.status != ReleaseStatus::RolledBack;
                        if good && previous.artifact.is_some() {
                            return Ok(Some(previous.id));
                        }
                    }
                    Ok(release::last_good(db, &id, &bad)?.map(|release| release.id))
                })
                .await?;
            if deployment.fallback.is_some() {
                self.record(deployment, |_, _| Ok(())).await?;
            }
        }
        let Some(id) = deployment.fallback.clone() else {
            return Ok(None);
        };
        self.store
            .read(move |db| release::get(db, &id))
            .await
            .map(Some)
    }

    /// An instance of `release` that is recorded and still runs, or was just being started.
    async fn present_of(
        &self,
        app: &App,
        release: &ReleaseId,
    ) -> Result<Option<Instance>, StoreError> {
        let id = app.id.clone();
        let present = self
            .store
            .read(move |db| instance::present(db, &id))
            .await?;
        for candidate in present.into_iter().rev() {
            if &candidate.release != release {
                continue;
            }
            if candidate.state == State::Starting || candidate.address.is_none() {
                return Ok(Some(candidate));
            }
            if let Some(runtime) = self.runtimes.get(candidate.runtime)
                && matches!(
                    runtime.state(&candidate.id).await,
                    Ok(InstanceState::Running | InstanceState::Resting { failed: None })
                )
            {
                return Ok(Some(candidate));
            }
        }
        Ok(None)
    }

    /// In the database, the fallback serves and the bad release does not.
    async fn flip_back(
        &self,
        app: &App,
        deployment: &mut Deployment,
        fallback: &Release,
        instance: &Instance,
    ) -> Result<(), StoreError> {
        let (app, fallback, instance) = (app.id.clone(), fallback.id.clone(), instance.id.clone());
        let reason = deployment.reason.clone();
        self.record(deployment, move |tx, deployment| {
            instance::switch(tx, &app, &instance)?;
            release::set_serving(tx, &app, &fallback)?;
            release::set_status(tx, &deployment.release, ReleaseStatus::RolledBack, &reason)
        })
        .await
    }

    /// In the database, the bad release serves again, and the fallback's instance is to be stopped.
    async fn flip_again(
        &self,
        app: &App,
        deployment: &mut Deployment,
        fallback: &Instance,
    ) -> Result<(), StoreError> {
        let (app, fallback) = (app.id.clone(), fallback.id.clone());
        self.record(deployment, move |tx, deployment| {
            tx.execute(
                "UPDATE instance SET state = iif(id = ?2, 'retiring', 'serving')
                 WHERE app = ?1 AND (id = ?2
                     OR (deployment = ?3 AND release = ?4 AND state = 'retiring'))",
                [
                    app.as_str(),
                    fallback.as_str(),
                    deployment.id.as_str(),
                    deployment.release.as_str(),
                ],
            )?;
            release::set_serving(tx, &app, &deployment.release)
        })
        .await
    }

    /// Stops what served or was to serve for this deployment, but the instance that serves again.
    async fn clear_away(
        &self,
        app: &App,
        deployment: &mut Deployment,
        serving: &Instance,
    ) -> Result<(), StoreError> {
        let until = Timestamp(Timestamp::now().0 + DRAIN_MS);
        let id = app.id.clone();
        let present = self
            .store
            .read(move |db| instance::present(db, &id))
            .await?;
        let mut log = None;
        // Not what a successor is starting meanwhile.
        let ours =
            |other: &Instance| other.state != State::Starting || other.deployment == deployment.id;
        let others = present.into_iter().filter(|other| other.id != serving.id);
        for other in others.filter(ours).collect::<Vec<_>>() {
            if other.state == State::Retiring {
                self.drained(&other.id, until).await;
            }
            self.stop_instance(&other).await?;
            if other.release == deployment.release {
                log = Some(self.paths.instance_log(&other.release, &other.id));
            }
        }
        if let Some(log) = log {
            deployment.last_lines = super::logs::last_lines(&log, LAST_LINES).await;
        }
        Ok(())
    }

    /// There is nothing better than the present release: it stays, and is started afresh if it is
    /// down.
    async fn stay(
        &self,
        app: &App,
        deployment: &mut Deployment,
        why: &str,
    ) -> Result<Step, StoreError> {
        warn!(app = %app.name, release = %deployment.release, reason = %deployment.reason, why, "a bad release stays");
        deployment.reason = shortened(format!("{}; {why}", deployment.reason));
        let reason = deployment.reason.clone();
        let down = self.is_down(app, deployment).await?.is_some();
        // Ended together with the queueing, so that a crash does not queue it twice.
        deployment.phase = Phase::Confirmed;
        let restart = down.then(|| Deployment::restart_of(app, &deployment.release));
        self.record(deployment, move |tx, row| {
            release::set_status(tx, &row.release, ReleaseStatus::Live, &reason)?;
            match &restart {
                Some(restart) => deployment::insert(tx, restart),
                None => Ok(()),
            }
        })
        .await?;
        // Older instances are not needed for going back any more.
        for old in self.instances(app, State::Retiring).await? {
            self.stop_instance(&old).await?;
        }
        Ok(Step::Next(Phase::Confirmed))
    }
}
