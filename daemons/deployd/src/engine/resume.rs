//! Taking up what a crash or a stop left.
//!
//! An instance in its watch window that is gone may have been stopped with the platform, or with
//! the whole machine: that is no fault of its release, so it is started again instead of being
//! rolled back.

use super::Engine;
use super::reconcile::Reconciled;
use crate::port::InstanceState;
use crate::store::StoreError;
use crate::store::app::{self, App};
use crate::store::deployment::{self, Deployment};
use crate::store::instance::Instance;
use temps_ipc::types::{Phase, Timestamp};

impl Engine {
    /// Takes up every deployment that is open.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn resume(&self) -> Result<(), StoreError> {
        let apps = self.store.read(deployment::apps_with_open).await?;
        for id in apps {
            let wanted = id.clone();
            let (app, open) = self
                .store
                .read(move |db| Ok((app::by_id(db, &wanted)?, deployment::open(db, &wanted)?)))
                .await?;
            if let (Some(app), [watched]) = (app, open.as_slice())
                && watched.phase == Phase::Live
                && !self.is_worked_on(&id)
                && self.was_interrupted(&app, watched).await?
            {
                self.revive(&app, &mut Reconciled::default()).await?;
            }
            self.wake(&id);
        }
        Ok(())
    }

    /// Whether the watched instance was ended from outside, not by itself.
    pub(super) async fn was_interrupted(
        &self,
        app: &App,
        watched: &Deployment,
    ) -> Result<bool, StoreError> {
        let Some(instance) = self.own_instance(app, watched).await? else {
            return Ok(true);
        };
        let Some(runtime) = self
            .runtimes
            .get(instance.runtime)
            .filter(|_| instance.address.is_some())
        else {
            return Ok(false);
        };
        Ok(match runtime.state(&instance.id).await {
            Ok(state) => ended_from_outside(&instance, &state),
            Err(_) => false,
        })
    }
}

/// Whether an instance in this state was ended from outside: by an operator, a reboot, a removal of the
/// package.
pub(super) fn ended_from_outside(instance: &Instance, state: &InstanceState) -> bool {
    match state {
        InstanceState::Absent => true,
        InstanceState::Exited { .. } => is_older_than_boot(instance),
        InstanceState::Running | InstanceState::Resting { .. } => false,
    }
}

/// Whether the machine was started after the instance.
fn is_older_than_boot(instance: &Instance) -> bool {
    boot_time().is_some_and(|boot| instance.created_at < boot)
}

/// When the machine was started (proc_stat(5), `btime`: whole seconds).
fn boot_time() -> Option<Timestamp> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let seconds: i64 = text
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    Some(Timestamp(seconds * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_was_started_before_now() {
        assert!(boot_time().unwrap() < Timestamp::now());
    }
}
