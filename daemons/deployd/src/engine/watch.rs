//! The watch window: whether a release that serves stays good.

use super::Engine;
use super::health::ended;
use super::step::Step;
use crate::port::InstanceState;
use crate::store::app::App;
use crate::store::deployment::{self, Deployment, Kind};
use crate::store::{StoreError, instance};
use std::time::Duration;
use temps_ipc::id::InstanceId;
use temps_ipc::types::{Phase, Timestamp};

/// How long an engine may take to say how an instance is, before it counts as unknown.
const STATE_TIME: Duration = Duration::from_secs(5);

impl Engine {
    /// The proxy reports an instance whose health check failed three times in a row.
    pub(super) fn raise_alarm(&self, instance: &InstanceId, why: &str) {
        self.alarms
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .insert(instance.clone(), why.to_owned());
        self.alarm.notify_waiters();
    }

    /// An instance that was stopped raises no alarm any more.
    pub(super) fn forget_alarm(&self, instance: &InstanceId) {
        self.alarms
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .remove(instance);
    }

    /// Takes what the proxy reported of the instance, if it did.
    pub(super) fn alarm_of(&self, instance: &InstanceId) -> Option<String> {
        self.alarms
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .remove(instance)
    }

    async fn alarmed(&self, instance: &InstanceId) -> String {
        loop {
            // Registered before looking, so that no alarm falls between the two.
            let rung = self.alarm.notified();
            if let Some(why) = self.alarm_of(instance) {
                return why;
            }
            rung.await;
        }
    }

    /// Waits until the deployment's instance ends or fails its health checks; why, in a sentence.
    /// Never, for a static site or a restart.
    pub(super) async fn turned_bad(&self, app: &App, deployment: &Deployment) -> String {
        let watched = match self.own_instance(app, deployment).await {
            Ok(Some(instance))
                if instance.address.is_some() && deployment.kind != Kind::Restart =>
            {
                instance
            }
            _ => return std::future::pending().await,
        };
        let Some(runtime) = self.runtimes.get(watched.runtime) else {
            return std::future::pending().await;
        };
        tokio::select! {
            how = ended(&runtime, &watched) => format!("it {how} while it was watched"),
            why = self.alarmed(&watched.id) => format!("its health check failed three times in a row while it was watched: {why}"),
        }
    }

    /// How the deployment's instance ended, if it does not run now. Unknown counts as running.
    pub(super) async fn is_down(
        &self,
        app: &App,
        deployment: &Deployment,
    ) -> Result<Option<String>, StoreError> {
        let Some(instance) = self.own_instance(app, deployment).await? else {
            return Ok(Some("disappeared".to_owned()));
        };
        if instance.address.is_none() {
            return Ok(None);
        }
        let Some(runtime) = self.runtimes.get(instance.runtime) else {
            return Ok(None);
        };
        let state = tokio::time::timeout(STATE_TIME, runtime.state(&instance.id)).await;
        Ok(match state {
            Ok(Ok(
                InstanceState::Exited { how, .. } | InstanceState::Resting { failed: Some(how) },
            )) => Some(format!("it {how} while it was watched")),
            Ok(Ok(InstanceState::Absent)) => {
                Some("its instance disappeared while it was watched".to_owned())
            }
            _ => None,
        })
    }

    /// Watches the release until its window closes or it turns bad; pauses when a successor waits,
    /// whose switch ends the window.
    pub(super) async fn watch(
        &self,
        app: &App,
        deployment: &Deployment,
    ) -> Result<Step, StoreError> {
        let until = deployment.watch_until.unwrap_or_else(Timestamp::now);
        let left = u64::try_from(until.0 - Timestamp::now().0).unwrap_or(0);
        tokio::select! {
            biased;
            bad = self.turned_bad(app, deployment) => Ok(Step::RollBack(bad)),
            () = self.stopping.cancelled() => Ok(Step::Paused),
            () = self.successor(app, deployment) => Ok(Step::Paused),
            () = tokio::time::sleep(Duration::from_millis(left)) => Ok(Step::Next(Phase::Confirmed)),
        }
    }

    /// Waits until the app is being removed.
    pub(super) async fn being_destroyed(&self, app: &App) {
        let mut changes = self.changes.subscribe();
        loop {
            let id = app.id.clone();
            let gone = self
                .store
                .read(move |db| {
                    Ok(crate::store::app::by_id(db, &id)?.is_none_or(|app| app.destroying))
                })
                .await;
            if gone.unwrap_or(false) {
                return;
            }
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Waits until another deployment of the app is queued, or the app is being destroyed.
    async fn successor(&self, app: &App, deployment: &Deployment) {
        let mut changes = self.changes.subscribe();
        loop {
            let (id, own) = (app.id.clone(), deployment.id.clone());
            let waits = self
                .store
                .read(move |db| {
                    let destroying =
                        crate::store::app::by_id(db, &id)?.is_none_or(|app| app.destroying);
                    let open = deployment::open(db, &id)?;
                    Ok(destroying || open.iter().any(|other| other.id != own))
                })
                .await;
            if waits.unwrap_or(false) {
                return;
            }
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Waits until the watched release turns bad while its successor `next` has not replaced it yet;
    /// why, in a sentence.
    pub(super) async fn fails_before_successor(
        &self,
        app: &App,
        watched: &Deployment,
        next: &Deployment,
    ) -> String {
        let bad = self.turned_bad(app, watched).await;
        let (watched_id, next_id) = (watched.id.clone(), next.id.clone());
        let is_first = self
            .store
            .read(move |db| {
                let watched = deployment::get(db, &watched_id)?;
                let next = deployment::get(db, &next_id)?;
                Ok(watched.phase == Phase::Live && next.phase.is_before_switch())
            })
            .await
            .unwrap_or(false);
        // Stopped by us, or with the platform: that is no fault of the release.
        if !is_first || self.was_interrupted(app, watched).await.unwrap_or(true) {
            return std::future::pending().await;
        }
        bad
    }

    /// The proxy says that a routed target is unhealthy. Inside the watch window the worker rolls
    /// back; later the instance is replaced by a fresh one of the same release.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn target_unhealthy(&self, target: &InstanceId, why: &str) -> Result<(), StoreError> {
        let id = target.clone();
        let found = self
            .store
            .read(move |db| {
                let Some(instance) = instance::find(db, &id)? else {
                    return Ok(None);
                };
                let open = deployment::open(db, &instance.app)?;
                Ok(Some((instance, open)))
            })
            .await?;
        let Some((instance, open)) = found else {
            return Ok(());
        };
        if instance.state != instance::State::Serving {
            return Ok(());
        }
        if open.is_empty() {
            return self.restart(&instance, why).await;
        }
        let why: String = why.chars().filter(|c| !c.is_control()).take(300).collect();
        self.raise_alarm(target, &why);
        self.wake(&instance.app);
        Ok(())
    }
}
