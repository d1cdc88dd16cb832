//! After the switch: the old instances answer what they still have, and are stopped.
//!
//! ```text
//! switched -> Draining -> Retiring -> Live, watched; or Confirmed, for a restart
//!      nothing to stop ───────────────^
//! ```

use super::Engine;
use super::step::Step;
use crate::store::StoreError;
use crate::store::app::App;
use crate::store::deployment::{Deployment, Kind};
use crate::store::instance;
use std::time::Duration;
use temps_ipc::types::{Phase, Timestamp};
use tokio::time::Instant;
use tracing::info;

impl Engine {
    /// What comes after the switch: with nothing to stop, as for a first release, nobody waits for that.
    pub(super) async fn switched(
        &self,
        app: &App,
        deployment: &Deployment,
    ) -> Result<Step, StoreError> {
        let old = self.instances(app, instance::State::Retiring).await?;
        if old.is_empty() {
            return self.alone(app, deployment).await;
        }
        Ok(Step::Next(Phase::Draining))
    }

    /// Waits until no request can reach the old instances any more, or their time is over.
    pub(super) async fn drain(
        &self,
        app: &App,
        deployment: &Deployment,
    ) -> Result<Step, StoreError> {
        let until = deployment.drain_until.unwrap_or_else(Timestamp::now);
        let old = self.instances(app, instance::State::Retiring).await?;
        let drained = async {
            for instance in &old {
                self.drained(&instance.id, until).await;
            }
        };
        tokio::select! {
            () = drained => Ok(Step::Next(Phase::Retiring)),
            bad = self.turned_bad(app, deployment) => Ok(Step::RollBack(bad)),
            () = self.stopping.cancelled() => Ok(Step::Paused),
        }
    }

    /// Waits until `until` at most for requests to `target` to end.
    pub(super) async fn drained(&self, target: &temps_ipc::id::InstanceId, until: Timestamp) {
        let left = u64::try_from(until.0 - Timestamp::now().0).unwrap_or(0);
        let deadline = Instant::now() + Duration::from_millis(left);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let slice = left.min(Duration::from_secs(10));
            match self.proxy.drained(target, slice).await {
                Ok(true) => return,
                Ok(false) => {}
                // A proxy that was restarted has no request in flight to it; ask that one.
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
        info!(%target, "requests in flight are cut: the drain timeout is over");
    }

    /// Stops the old instances.
    pub(super) async fn retire(
        &self,
        app: &App,
        deployment: &Deployment,
    ) -> Result<Step, StoreError> {
        for old in self.instances(app, instance::State::Retiring).await? {
            self.stop_instance(&old).await?;
        }
        self.alone(app, deployment).await
    }

    /// What comes after the switch once no old instance is left.
    async fn alone(&self, app: &App, deployment: &Deployment) -> Result<Step, StoreError> {
        if deployment.kind == Kind::Restart {
            return Ok(Step::Next(Phase::Confirmed));
        }
        match self.is_down(app, deployment).await? {
            Some(how) => Ok(Step::RollBack(how)),
            None => Ok(Step::Next(Phase::Live)),
        }
    }
}
