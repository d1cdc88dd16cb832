//! Apps that are started by requests (socket-activated), and how they are left alone.
//!
//! ```text
//! Probing .. Live: checked like any other, so it runs  --Confirmed-->  Passive: it may end when it is idle
//! ```
//! A check is a request, and would start it. So the proxy is told to check the release's instance only
//! while a deployment of it is open; later its unit tells how it is, and the proxy what does not reach
//! it. The generation of the routes is raised together with the end of the deployment: if we crash
//! before the proxy was told, the next reconciliation sees it.

use super::Engine;
use super::routes::next_generation;
use crate::checks::check as finding;
use crate::port::InstanceState;
use crate::store::app::{self, App};
use crate::store::deployment::{self, Deployment};
use crate::store::instance::Instance;
use crate::store::release::{self, Release};
use crate::store::{RowError, StoreError};
use rusqlite::{Connection, Transaction};
use temps_ipc::types::{AppName, Check, CheckLevel, HealthCheck, Phase};
use tracing::warn;

/// Most apps that one report names.
const REPORTED: usize = 20;

/// Apps that are looked at for a report; each costs two calls of the service manager.
const LOOKED_AT: usize = 200;

/// How the proxy checks the release's instance from now on.
pub(super) fn check(
    db: &Connection,
    app: &App,
    release: &Release,
) -> Result<HealthCheck, RowError> {
    if !release.socket_activated {
        return Ok(release.check());
    }
    let open = deployment::open(db, &app.id)?;
    let is_open = open.iter().any(|other| other.release == release.id);
    Ok(if is_open {
        release.check()
    } else {
        HealthCheck::Passive
    })
}

/// With a deployment that has just ended, notes that the proxy has to be told, if it has.
pub(super) fn rests_from_now_on(
    tx: &Transaction<'_>,
    deployment: &Deployment,
) -> Result<(), RowError> {
    if deployment.phase == Phase::Confirmed
        && release::get(tx, &deployment.release)?.socket_activated
    {
        next_generation(tx, 0)?;
    }
    Ok(())
}

impl Engine {
    /// Tells the proxy to check the release no more, if its deployment has ended.
    pub(super) async fn let_rest(
        &self,
        app: &App,
        deployment: &Deployment,
    ) -> Result<(), StoreError> {
        if deployment.phase != Phase::Confirmed || !self.release(deployment).await?.socket_activated
        {
            return Ok(());
        }
        if let Err(fault) = self.publish().await? {
            warn!(app = %app.name, %fault, "the proxy refused the routes; it goes on checking the app");
        }
        Ok(())
    }

    /// The apps that failed the last time that a request started them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn resting_checks(&self) -> Result<Vec<Check>, StoreError> {
        let serving = self.store.read(activated).await?;
        let looks = serving.into_iter().map(async |(name, instance)| {
            match self.state_of(&instance).await {
                Some(InstanceState::Resting { failed: Some(how) }) => Some(finding(
                    name.as_str(),
                    CheckLevel::Warning,
                    &format!("it {how}; the next request starts it again"),
                    &format!("see what it says before it ends: temps logs {name}"),
                )),
                _ => None,
            }
        });
        let found = futures::future::join_all(looks).await;
        Ok(found.into_iter().flatten().take(REPORTED).collect())
    }
}

/// What serves the apps that are started by requests.
fn activated(db: &Connection) -> Result<Vec<(AppName, Instance)>, RowError> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let apps = app::list(db, after.as_ref(), 200)?;
        let Some(last) = apps.last() else {
            return Ok(found);
        };
        after = Some(last.name.clone());
        for app in apps.iter().filter(|app| app.socket_activated) {
            let serving = super::restart::serving(db, &app.id)?;
            found.extend(serving.into_iter().map(|one| (app.name.clone(), one)));
        }
        if found.len() >= LOOKED_AT {
            found.truncate(LOOKED_AT);
            return Ok(found);
        }
    }
}
