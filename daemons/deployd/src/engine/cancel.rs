//! Cancelling a deployment that does not serve yet.
//!
//! ```text
//! queued                         -> refused    nothing of it is there but what it was to be made from
//! preparing, starting, probing   -> refusing   its worker leaves the build or the wait, and cleans up
//! switching, and whatever follows              requests go to it: that is undone by a rollback
//! ```
//! The phase is written by the call, with who cancelled as the reason, so it holds when the call
//! answers, also after a crash. The worker's own next write fails then, by the revision that it read
//! ([`deployment::update`]), and it goes on from the phase that it finds. If it comes first, with the
//! switch, the call finds that and is refused: there is no moment between the two.

use super::Engine;
use crate::store::app::{self, App};
use crate::store::deployment::{self, Deployment, Kind};
use crate::store::{RowError, audit, release};
use rusqlite::Transaction;
use temps_ipc::id::ReleaseId;
use temps_ipc::types::{Actor, AppName, DeploymentView, Phase, ReleaseStatus};
use temps_ipc::{Code, Fault};

/// How the reason of a cancelled deployment begins; no other does.
const CANCELLED_BY: &str = "cancelled by ";

impl Engine {
    /// Cancels the deployment of `wanted`, or the only one that does not serve yet. Answers when that
    /// is written: what was started is still to be removed then, unless the deployment has ended.
    ///
    /// # Errors
    /// `NotFound` if there is none; `Invalid` if it serves already, has ended, or several wait and none
    /// is named; `Busy` while the app is being removed.
    pub async fn cancel(
        &self,
        name: AppName,
        wanted: Option<ReleaseId>,
        actor: Actor,
        uid: u32,
    ) -> Result<DeploymentView, Fault> {
        let (app, deployment, is_new) = self
            .store
            .write(move |tx| cancel(tx, &name, wanted.as_ref(), &actor, uid))
            .await??;
        if is_new {
            self.changed();
            if deployment.phase == Phase::Refused {
                let material = self.paths.material(&deployment.release);
                let _ = tokio::fs::remove_file(material).await;
            } else {
                self.wake(&app.id);
            }
            self.advanced(&app, &deployment).await;
        }
        Ok(self.view_deployment(&app.name, &deployment))
    }

    /// Waits until somebody else has written where the deployment is.
    pub(super) async fn cancelled(&self, deployment: &Deployment) {
        let mut changes = self.changes.subscribe();
        loop {
            let id = deployment.id.clone();
            match self.store.read(move |db| deployment::get(db, &id)).await {
                Ok(row) if row.revision != deployment.revision => return,
                // It goes with its app, or cannot be read now; others say so.
                Ok(_) | Err(_) => {}
            }
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

/// Whether a deployment that was refused for this reason was cancelled.
pub fn is_reason(reason: &str) -> bool {
    reason.starts_with(CANCELLED_BY)
}

/// Writes that the deployment is cancelled; whether it was not before.
fn cancel(
    tx: &Transaction<'_>,
    name: &AppName,
    wanted: Option<&ReleaseId>,
    actor: &Actor,
    uid: u32,
) -> Result<Result<(App, Deployment, bool), Fault>, RowError> {
    let app = app::get(tx, name)?;
    if app.destroying {
        return Err(RowError::Busy(format!("the app `{name}` is being removed")));
    }
    let mut deployment = match chosen(tx, &app, wanted)? {
        Ok(deployment) => deployment,
        Err(fault) => return Ok(Err(fault)),
    };
    deployment.phase = match deployment.phase {
        Phase::Refusing => return Ok(Ok((app, deployment, false))),
        Phase::Queued => Phase::Refused,
        _ => Phase::Refusing,
    };
    deployment.reason = format!("{CANCELLED_BY}{}", actor.name);
    deployment::update(tx, &mut deployment)?;
    if deployment.phase == Phase::Refused && deployment.kind == Kind::Deploy {
        let (id, why) = (&deployment.release, &deployment.reason);
        release::set_status(tx, id, ReleaseStatus::Refused, why)?;
    }
    let id = deployment.release.as_str();
    audit::record(tx, uid, actor, "release cancel", name.as_str(), id)?;
    Ok(Ok((app, deployment, true)))
}

/// The deployment that is meant, if it can be cancelled or is just being refused.
fn chosen(
    tx: &Transaction<'_>,
    app: &App,
    wanted: Option<&ReleaseId>,
) -> Result<Result<Deployment, Fault>, RowError> {
    let mut open = deployment::open(tx, &app.id)?;
    // Nobody asked for the restart of an instance that died.
    open.retain(|open| open.kind != Kind::Restart);
    if let Some(id) = wanted {
        if release::get(tx, id)?.app != app.id {
            let what = format!("the app `{}` has no release `{id}`", app.name);
            return Err(RowError::Missing(what));
        }
        let Some(found) = open.into_iter().rev().find(|open| open.release == *id) else {
            return Ok(Err(if app.release.as_ref() == Some(id) {
                serves(app, id)
            } else {
                Fault::invalid(format!("the deployment of {id} has ended"))
                    .hint(format!("`temps release list {}` shows how", app.name))
            }));
        };
        return Ok(cancellable(app, found));
    }
    let (mut waiting, others): (Vec<_>, Vec<_>) = open
        .into_iter()
        .partition(|open| cancellable(app, open.clone()).is_ok());
    if waiting.len() > 1 {
        let list: Vec<String> = waiting
            .iter()
            .map(|open| format!("{} ({})", open.release, open.phase.name()))
            .collect();
        let what = format!("several deployments can be cancelled: {}", list.join(", "));
        let hint = format!("name one: `temps release cancel {} RELEASE`", app.name);
        return Ok(Err(Fault::invalid(what).hint(hint)));
    }
    Ok(match (waiting.pop(), others.into_iter().next_back()) {
        (Some(only), _) => Ok(only),
        (None, Some(other)) => cancellable(app, other),
        (None, None) => {
            let what = format!("no deployment of `{}` waits or is under way", app.name);
            Err(Fault::new(Code::NotFound, what))
        }
    })
}

fn cancellable(app: &App, deployment: Deployment) -> Result<Deployment, Fault> {
    let id = &deployment.release;
    match deployment.phase {
        // After a stop in its switch a release starts again that requests may go to already.
        _ if app.release.as_ref() == Some(id) => Err(serves(app, id)),
        Phase::Refusing => Ok(deployment),
        Phase::RollingBack => Err(Fault::invalid(format!("{id} is being rolled back already"))),
        phase if phase.is_before_switch() => Ok(deployment),
        _ => Err(serves(app, id)),
    }
}

fn serves(app: &App, id: &ReleaseId) -> Fault {
    Fault::invalid(format!(
        "{id} cannot be cancelled: requests go to it already"
    ))
    .hint(format!(
        "`temps rollback {}` brings back the release before it",
        app.name
    ))
}
