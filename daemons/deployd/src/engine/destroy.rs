//! Removing an app: marked first, so that a crash half-way is finished by the next reconciliation.

use super::Engine;
use super::news::News;
use super::reconcile::Reconciled;
use super::routes::Publishing;
use crate::event;
use crate::store::app::{self, App};
use crate::store::{StoreError, audit, deployment, instance, release};
use std::time::Duration;
use temps_ipc::id::AppId;
use temps_ipc::types::{Actor, AppName, Phase, Timestamp};
use temps_ipc::{Code, Fault};
use tokio::time::Instant;
use tracing::warn;

/// How long requests in flight may take to end, in milliseconds.
const DRAIN_MS: i64 = 10_000;

/// How long its worker may take to notice: a rollback that it has just begun goes to its end.
const WORKER_END: Duration = Duration::from_secs(90);

/// What becomes of an app whose removal is cut short.
const LATER: &str =
    "the app is not routed any more; the rest is removed by the next reconciliation";

/// Pause between two looks at whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Engine {
    /// Removes the app with all that belongs to it; answers when nothing is left.
    ///
    /// # Errors
    /// `NotFound`; `Busy` while a deployment of it is past its build (one that waits or builds is given up); `Unavailable` if something
    /// cannot be stopped now. Then it is routed no more, and a reconciliation removes the rest.
    pub async fn app_destroy(&self, name: AppName, actor: Actor, uid: u32) -> Result<(), Fault> {
        let _busy = self.idle.busy();
        let reserve = self.paths.removal_reserve();
        // Blocking work is not cancelled, so this only fails if it panics.
        let _ = tokio::task::spawn_blocking(move || reserve.spend_if_full()).await;
        let turn = self.publishing().await;
        let app = self
            .store
            .write(move |tx| {
                let mut app = app::get(tx, &name)?;
                let open = deployment::open(tx, &app.id)?;
                // A build is given up; what is being started or switched is soon over.
                let given_up = [Phase::Live, Phase::Queued, Phase::Preparing];
                if open
                    .iter()
                    .any(|deployment| !given_up.contains(&deployment.phase))
                {
                    return Ok(None);
                }
                app.destroying = true;
                app::put(tx, &app)?;
                audit::record(tx, uid, &actor, "app destroy", name.as_str(), "")?;
                Ok(Some(app))
            })
            .await?;
        let Some(app) = app else {
            return Err(
                Fault::new(Code::Busy, "a deployment of the app is under way")
                    .hint("wait until it has ended, then try again"),
            );
        };
        // A worker in the watch window sees the mark and ends.
        self.changed();
        Self::unrouted(turn, &app).await??;
        self.left_by_its_worker(&app.id).await?;
        self.finish_destroying(&app).await?
    }

    /// Gives the proxy the routes without those of an app that was marked, and the turn back. Inner: the
    /// daemon stops.
    async fn unrouted(turn: Publishing<'_>, app: &App) -> Result<Result<(), Fault>, StoreError> {
        match turn.apply().await? {
            Ok(true) => {}
            Ok(false) => {
                return Ok(Err(Fault::unavailable("temps-deployd stops").hint(LATER)));
            }
            Err(fault) => {
                warn!(app = %app.name, %fault, "the proxy keeps the routes of a removed app");
            }
        }
        Ok(Ok(()))
    }

    /// Waits until no worker can start an instance of the app any more.
    async fn left_by_its_worker(&self, app: &AppId) -> Result<(), Fault> {
        let deadline = Instant::now() + WORKER_END;
        while self.is_worked_on(app) {
            if Instant::now() >= deadline {
                return Err(
                    Fault::new(Code::Busy, "its release is just being rolled back")
                        .hint("it is removed when that has ended; try again to see when"),
                );
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// Removes what is left of an app that was marked. Inner: what stays for the next time.
    pub(super) async fn finish_destroying(
        &self,
        app: &App,
    ) -> Result<Result<(), Fault>, StoreError> {
        // Again: its worker may have been in the middle of a switch.
        let unrouted = Self::unrouted(self.publishing().await, app).await?;
        if unrouted.is_err() {
            return Ok(unrouted);
        }
        let until = Timestamp(Timestamp::now().0 + DRAIN_MS);
        let id = app.id.clone();
        for instance in self
            .store
            .read(move |db| instance::present(db, &id))
            .await?
        {
            self.drained(&instance.id, until).await;
            self.stop_instance(&instance).await?;
        }
        let mut before = None;
        loop {
            let (id, older) = (app.id.clone(), before.clone());
            let releases = self
                .store
                .read(move |db| release::list(db, &id, older.as_ref(), 200))
                .await?;
            let Some(last) = releases.last() else { break };
            before = Some(last.id.clone());
            for release in &releases {
                self.remove_artifact(release).await;
                let _ = tokio::fs::remove_dir_all(self.paths.logs(&release.id)).await;
                let _ = tokio::fs::remove_file(self.paths.material(&release.id)).await;
            }
        }
        if let Err(fault) = self.remove_data(app).await? {
            return Ok(Err(fault.hint(LATER)));
        }
        let id = app.id.clone();
        let left = self
            .store
            .write(move |tx| {
                let left = instance::present(tx, &id)?.len();
                if left == 0 {
                    app::remove(tx, &id)?;
                }
                Ok(left)
            })
            .await?;
        self.changed();
        if left > 0 {
            warn!(app = %app.name, left, "instances of a removed app cannot be stopped now");
            let what = format!("{left} instances of `{}` cannot be stopped now", app.name);
            return Ok(Err(Fault::unavailable(what).hint(LATER)));
        }
        // The next reconciliation finds that it is there.
        if let Err(fault) = self.builder.forget(&app.name).await {
            warn!(app = %app.name, %fault, "what builds of a removed app kept cannot be removed now");
        }
        event::destroyed(app);
        self.tell(|| News::Destroyed(app.name.clone()));
        self.release_shared(app).await?;
        Ok(Ok(()))
    }

    /// Removes what builds of removed apps kept, where that could not be done with the app.
    pub(super) async fn forget_removed(&self, done: &mut Reconciled) -> Result<(), StoreError> {
        let kept = match self.builder.kept().await {
            Ok(kept) => kept,
            Err(fault) => {
                let what = fault.what;
                done.fail(format!("cannot tell what builds have kept: {what}"));
                return Ok(());
            }
        };
        for app in kept {
            let name = app.clone();
            let found = self.store.read(move |db| app::find(db, &name)).await?;
            if found.is_some() {
                continue;
            }
            match self.builder.forget(&app).await {
                Ok(()) => {
                    let what = format!("{app}: removed what builds of this removed app had kept");
                    done.mended.push(what);
                }
                Err(fault) => done.fail(format!(
                    "{app}: what builds of this removed app kept cannot be removed: {}",
                    fault.what
                )),
            }
        }
        Ok(())
    }

    /// Removes what the app's instances kept, on whichever runtime they were, once none of them is left.
    /// Before the app's name is free: another app of that name must not find it.
    async fn remove_data(&self, app: &App) -> Result<Result<(), Fault>, StoreError> {
        let id = app.id.clone();
        let present = self
            .store
            .read(move |db| instance::present(db, &id))
            .await?;
        if present.is_empty() {
            for runtime in self.runtimes.iter() {
                if let Err(error) = runtime.remove_data(&app.name).await {
                    warn!(app = %app.name, %error, "the data of a removed app cannot be removed now");
                    return Ok(Err(error.fault().clone()));
                }
            }
        }
        Ok(Ok(()))
    }

    /// The last app of a runtime takes with it what its instances shared.
    async fn release_shared(&self, app: &App) -> Result<(), StoreError> {
        let Some(runtime) = app.runtime.and_then(|kind| self.runtimes.get(kind)) else {
            return Ok(());
        };
        // No instance of another app may be starting meanwhile.
        let _choosing = self.choosing.lock().await;
        let present = self.store.read(instance::all_present).await?;
        if present
            .iter()
            .all(|instance| instance.runtime != runtime.kind())
            && let Err(error) = runtime.release_shared().await
        {
            warn!(runtime = %runtime.kind(), %error, "what its instances shared cannot be removed now");
        }
        Ok(())
    }
}
