//! The switch: the one moment at which requests begin to go to the new release, and the way back.
//!
//! ```text
//! a turn to publish, to the end
//! record: the new instance serves, the old one retires (one transaction) -> publish -> Draining, or Live
//!   the proxy refuses            -> record the opposite, publish -> Refusing
//!   stopped with the platform    -> Starting again; if the release fails then: take_back
//! ```

use super::step::{Step, explain};
use super::{Engine, failpoint};
use crate::store::app::App;
use crate::store::deployment::{self, Deployment, Kind};
use crate::store::{StoreError, instance, release};
use temps_ipc::types::{Phase, ReleaseStatus};
use tracing::warn;

impl Engine {
    /// Flips what serves, tells the proxy, and answers when new requests go to the new release.
    pub(super) async fn switch(
        &self,
        app: &App,
        deployment: &mut Deployment,
    ) -> Result<Step, StoreError> {
        let Some(new) = self.own_instance(app, deployment).await? else {
            return Ok(Step::Refuse(
                "its instance disappeared before the switch".to_owned(),
            ));
        };
        if self.went_with_the_platform(&new).await {
            return Ok(Step::Next(Phase::Starting));
        }
        let release = self.release(deployment).await?;
        if deployment.previous.is_none() {
            deployment.previous = app.release.clone().filter(|serving| *serving != release.id);
        }
        let owner = app.clone();
        let fresh = deployment.kind == Kind::Deploy;
        let id = new.id.clone();
        // Held until what the proxy refuses is taken back, so that nobody else is refused for it.
        let turn = self.publishing().await;
        self.record(deployment, move |tx, deployment| {
            instance::switch(tx, &owner.id, &id)?;
            release::set_serving(tx, &owner.id, &deployment.release)?;
            deployment::end_watch(tx, &owner.id, &deployment.id)?;
            if fresh {
                // What the release was deployed with is what the app has from now on.
                tx.execute(
                    "UPDATE app SET runtime = ?2, health = ?3, health_timeout_ms = ?4, watch_ms = ?5,
                        socket_activated = ?6 WHERE id = ?1",
                    rusqlite::params![
                        owner.id.as_str(),
                        release.runtime.map(temps_ipc::types::RuntimeKind::name),
                        release.health,
                        release.health_timeout_ms as i64,
                        deployment.watch_ms as i64,
                        release.socket_activated,
                    ],
                )?;
            }
            Ok(())
        })
        .await?;
        failpoint::hit(Phase::Switching.name(), "recorded").await;
        match turn.apply().await? {
            Ok(true) => {
                drop(turn);
                self.switched(app, deployment).await
            }
            Ok(false) => Ok(Step::Paused),
            Err(fault) => {
                warn!(app = %app.name, %fault, "the proxy refused the routes; the old release stays");
                self.unswitch(app, deployment).await?;
                let refusal = format!("the proxy refused the new routes: {}", explain(&fault));
                // What it wrote before it failed is not what it shall serve after its next start.
                match turn.apply().await? {
                    Ok(true) => {}
                    Ok(false) => return Ok(Step::Paused),
                    Err(fault) => {
                        warn!(app = %app.name, %fault, "the proxy refused the old routes")
                    }
                }
                Ok(Step::Refuse(refusal))
            }
        }
    }

    /// What comes next for a release that failed before it served; nothing if the daemon stops.
    ///
    /// Usually nothing is to be undone. If the platform was stopped in the middle of the switch, the
    /// database, and perhaps the proxy, say that the release serves already.
    pub(super) async fn take_back(
        &self,
        app: &App,
        deployment: &mut Deployment,
    ) -> Result<Option<Phase>, StoreError> {
        let own = self.own_instance(app, deployment).await?;
        if own.is_none_or(|own| own.state != instance::State::Serving) {
            return Ok(Some(Phase::Refusing));
        }
        if deployment.previous.is_some() {
            return Ok(Some(Phase::RollingBack));
        }
        let turn = self.publishing().await;
        self.unswitch(app, deployment).await?;
        match turn.apply().await? {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(fault) => warn!(app = %app.name, %fault, "the proxy keeps the refused routes"),
        }
        Ok(Some(Phase::Refusing))
    }

    /// Takes a recorded switch back. Whether the proxy saw it or not, it is told again.
    async fn unswitch(&self, app: &App, deployment: &mut Deployment) -> Result<(), StoreError> {
        let app = app.id.clone();
        self.record(deployment, move |tx, deployment| {
            // Only what served before: an instance of another release that could not be stopped yet
            // must not get requests again.
            let before = deployment.previous.as_ref().unwrap_or(&deployment.release);
            tx.execute(
                "UPDATE instance SET state = CASE WHEN deployment = ?2 THEN 'starting' ELSE 'serving' END
                 WHERE app = ?1 AND state IN ('serving', 'retiring')
                   AND (deployment = ?2 OR release = ?3)",
                [app.as_str(), deployment.id.as_str(), before.as_str()],
            )?;
            // A reconciliation sees that the proxy serves something else.
            super::routes::next_generation(tx, 0)?;
            let status = match deployment.kind {
                Kind::Deploy => ReleaseStatus::Pending,
                Kind::Rollback => ReleaseStatus::Superseded,
                Kind::Restart => return Ok(()),
            };
            release::set_status(tx, &deployment.release, status, "")?;
            match &deployment.previous {
                Some(previous) => release::set_serving(tx, &app, previous),
                None => {
                    tx.execute("UPDATE app SET release = NULL WHERE id = ?1", [app.as_str()])?;
                    Ok(())
                }
            }
        })
        .await
    }
}
