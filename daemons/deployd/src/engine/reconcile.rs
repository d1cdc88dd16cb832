//! Bringing what runs in line with what should run: at the start of the platform, every quarter of
//! an hour, and when somebody asks.

use super::Engine;
use super::resume::ended_from_outside;
use crate::event;
use crate::port::InstanceState;
use crate::store::app::App;
use crate::store::deployment::{self, Deployment, Kind};
use crate::store::instance::{self, State};
use crate::store::{StoreError, app};
use std::collections::HashSet;
use std::time::Duration;
use temps_ipc::Fault;
use temps_ipc::id::{DeploymentId, ReleaseId};
use temps_ipc::types::{AppName, Outcome, Phase, Timestamp};
use tracing::warn;

/// How long a reconciliation waits for the instances that it starts.
const STARTS: Duration = Duration::from_secs(90);

/// How long requests to an instance that nobody knows of may take to end, in milliseconds.
const DRAIN_MS: i64 = 10_000;

/// Apps per page.
const PAGE: u32 = 200;

/// What a reconciliation did, in words for people.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// What is as it should be again.
    pub mended: Vec<String>,
    /// What is not, and why.
    pub failed: Vec<String>,
}

impl Reconciled {
    /// For who asked for it: what was mended, if nothing was left that should be.
    ///
    /// # Errors
    /// `Unavailable` otherwise; what was mended all the same is said there, too.
    pub fn answer(self) -> Result<Vec<String>, Fault> {
        if self.failed.is_empty() {
            return Ok(self.mended);
        }
        let mut what = self.failed.join("; ");
        if !self.mended.is_empty() {
            what = format!("{what} (mended: {})", self.mended.join("; "));
        }
        Err(Fault::unavailable(what)
            .hint("`temps doctor` and `journalctl -u temps-deployd` say more"))
    }

    pub(super) fn fail(&mut self, what: String) {
        warn!("{what}");
        self.failed.push(what);
    }
}

impl Deployment {
    /// The serving release again, with a fresh instance.
    pub(super) fn restart_of(app: &App, release: &ReleaseId) -> Self {
        Self::queued(app, release, Kind::Restart, 0)
    }

    /// A deployment that waits for its turn.
    pub(super) fn queued(app: &App, release: &ReleaseId, kind: Kind, watch_ms: u64) -> Self {
        Self {
            id: DeploymentId::fresh(),
            app: app.id.clone(),
            release: release.clone(),
            kind,
            phase: Phase::Queued,
            previous: None,
            fallback: None,
            reason: String::new(),
            last_lines: Vec::new(),
            watch_ms,
            drain_until: None,
            watch_until: None,
            revision: 1,
            created_at: Timestamp::now(),
            ended_at: None,
            from_outside: false,
        }
    }
}

impl Engine {
    /// Brings what runs in line with what should run.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn reconcile(&self) -> Result<Reconciled, StoreError> {
        let _reconciling = self.reconciling.lock().await;
        let _busy = self.idle.busy();
        let mut done = Reconciled::default();
        // Then the database was restored from an older copy, and requests may go to what it does not
        // know any more: nothing of that is removed before the proxy was told of what is known.
        let is_older = match self.proxy.generation().await {
            Ok(generation) => generation > self.generation().await?,
            Err(_) => false,
        };
        if !is_older {
            self.sweep_files().await;
        }
        let mut restarted = Vec::new();
        let mut after = None;
        loop {
            let from = after.clone();
            let apps = self
                .store
                .read(move |db| app::list(db, from.as_ref(), PAGE))
                .await?;
            let Some(last) = apps.last() else { break };
            after = Some(last.name.clone());
            for app in apps {
                if app.destroying {
                    match self.finish_destroying(&app).await? {
                        Ok(()) => done
                            .mended
                            .push(format!("{}: finished its removal", app.name)),
                        Err(fault) => done.fail(format!(
                            "{}: its removal is not finished: {}",
                            app.name, fault.what
                        )),
                    }
                } else if let Some(id) = self.revive(&app, &mut done).await? {
                    restarted.push((app.name, id));
                }
            }
        }
        self.resume().await?;
        let started = async {
            for (_, id) in &restarted {
                self.ended(id).await;
            }
        };
        // Those that are still being started then are told as that.
        let _ = tokio::time::timeout(STARTS, started).await;
        for (app, id) in restarted {
            self.tell_restart(&app, id, &mut done).await;
        }
        let outdated = match self.proxy.generation().await {
            Ok(generation) => generation != self.generation().await?,
            Err(_) => true,
        };
        if outdated {
            match self.publish().await? {
                Ok(true) => done
                    .mended
                    .push("gave the routes to the proxy again".to_owned()),
                Ok(false) => {}
                Err(fault) => done.fail(format!("the proxy refused the routes: {}", fault.what)),
            }
        }
        self.remove_strays(&mut done).await?;
        self.forget_removed(&mut done).await?;
        for line in &done.mended {
            event::reconciled(line);
        }
        Ok(done)
    }

    /// Says what became of an instance that was to be started again.
    async fn tell_restart(&self, app: &AppName, id: DeploymentId, done: &mut Reconciled) {
        let found = self.store.read(move |db| deployment::get(db, &id)).await;
        // It is gone with its app.
        let Ok(restart) = found else { return };
        match restart.phase.outcome() {
            Some(Outcome::Live) => done.mended.push(format!("{app}: started again")),
            Some(Outcome::Refused | Outcome::RolledBack) => {
                done.fail(format!(
                    "{app}: cannot be started again: {}",
                    restart.reason
                ));
            }
            None => done.mended.push(format!("{app}: is being started")),
        }
    }

    /// Waits until a deployment is neither waiting nor under way.
    async fn ended(&self, id: &DeploymentId) {
        let mut changes = self.changes.subscribe();
        loop {
            let wanted = id.clone();
            match self
                .store
                .read(move |db| deployment::get(db, &wanted))
                .await
            {
                Ok(row) if row.phase.outcome().is_none() => {}
                _ => return,
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = self.stopping.cancelled() => return,
            }
        }
    }

    /// Stops instances that nobody knows of, and those that should be gone.
    async fn remove_strays(&self, done: &mut Reconciled) -> Result<(), StoreError> {
        for runtime in self.runtimes.iter() {
            let running = match runtime.list().await {
                Ok(running) => running,
                // An engine that nobody uses may well be absent.
                Err(error) if !self.uses(runtime.kind()).await => {
                    tracing::debug!(runtime = %runtime.kind(), %error, "cannot list instances");
                    continue;
                }
                Err(error) => {
                    let kind = runtime.kind();
                    done.fail(format!("the {kind} runtime: {}", error.fault().what));
                    continue;
                }
            };
            // Read after listing: an instance is recorded before it is started.
            let known = self.store.read(instance::all_present).await?;
            let known: HashSet<_> = known.into_iter().map(|instance| instance.id).collect();
            for id in running.into_iter().filter(|id| !known.contains(id)) {
                // After a restore of the database the proxy may have sent requests to it.
                self.drained(&id, Timestamp(Timestamp::now().0 + DRAIN_MS))
                    .await;
                let log = self.paths.all_logs().join("stray.log");
                match runtime.stop(&id, self.settings.stop_grace, &log).await {
                    Ok(()) => done
                        .mended
                        .push(format!("stopped {id}, which nobody needs")),
                    Err(error) => done.fail(format!(
                        "{id}, which nobody needs, cannot be stopped: {}",
                        error.fault().what
                    )),
                }
            }
        }
        // Read together: a deployment that begins in between would look like one without a reason.
        let (open, present) = self
            .store
            .read(|db| Ok((deployment::apps_with_open(db)?, instance::all_present(db)?)))
            .await?;
        for instance in present {
            let wanted = instance.state == State::Serving || open.contains(&instance.app);
            if !wanted {
                self.stop_instance(&instance).await?;
                done.mended
                    .push(format!("stopped {}, which was left over", instance.id));
            }
        }
        Ok(())
    }

    /// Queues a fresh instance for an app whose serving one does not run; the deployment that
    /// brings it.
    pub(super) async fn revive(
        &self,
        app: &App,
        done: &mut Reconciled,
    ) -> Result<Option<DeploymentId>, StoreError> {
        let Some(release) = app.release.clone() else {
            return Ok(None);
        };
        let id = app.id.clone();
        let open = self.store.read(move |db| deployment::open(db, &id)).await?;
        if let Some(busy) = open.iter().find(|other| other.phase != Phase::Live) {
            // Being started again already: that is worth waiting for. Anything else is somebody's
            // deployment, which they wait for themselves; what serves until then is not.
            if busy.kind == Kind::Restart {
                return Ok(Some(busy.id.clone()));
            }
            self.revive_in_place(app, &release, busy, done).await?;
            return Ok(None);
        }
        if !open.is_empty() && self.is_worked_on(&app.id) {
            // Its worker watches the instance, and judges an end that it sees.
            return Ok(None);
        }
        let serving = self.instances(app, State::Serving).await?;
        let mut down = serving.is_empty();
        let mut from_outside = !down;
        for instance in &serving {
            if instance.address.is_none() {
                continue;
            }
            let Some(runtime) = self.runtimes.get(instance.runtime) else {
                done.fail(format!(
                    "{}: this installation has no {} runtime",
                    app.name, instance.runtime
                ));
                return Ok(None);
            };
            match runtime.state(&instance.id).await {
                Ok(InstanceState::Running | InstanceState::Resting { .. }) => {}
                Ok(state @ (InstanceState::Exited { .. } | InstanceState::Absent)) => {
                    down = true;
                    from_outside &= ended_from_outside(instance, &state);
                }
                Err(error) => {
                    done.fail(format!(
                        "{}: cannot tell whether its instance runs: {}",
                        app.name,
                        error.fault().what
                    ));
                    return Ok(None);
                }
            }
        }
        if !down {
            return Ok(None);
        }
        let mut watched = open.into_iter().next();
        let mut restart = Deployment::restart_of(app, &release);
        restart.from_outside = from_outside;
        let queued = restart.clone();
        self.store
            .write(move |tx| {
                // Its instance did not survive the platform's own stop: that is no fault of the
                // release, but nothing is left to watch either.
                if let Some(watched) = &mut watched {
                    watched.phase = Phase::Confirmed;
                    deployment::update(tx, watched)?;
                }
                deployment::insert(tx, &queued)
            })
            .await?;
        self.wake(&app.id);
        self.changed();
        Ok(Some(restart.id))
    }

    /// Starts the serving instance again, as it was, under a deployment that has not replaced it
    /// yet: a new one in its place would have to wait for that deployment.
    async fn revive_in_place(
        &self,
        app: &App,
        release: &ReleaseId,
        busy: &Deployment,
        done: &mut Reconciled,
    ) -> Result<(), StoreError> {
        let id = release.clone();
        let release = self
            .store
            .read(move |db| crate::store::release::get(db, &id))
            .await?;
        for instance in self.instances(app, State::Serving).await? {
            let Some(runtime) = self.runtimes.get(instance.runtime) else {
                continue;
            };
            let down = matches!(
                runtime.state(&instance.id).await,
                Ok(InstanceState::Exited { .. } | InstanceState::Absent)
            );
            // The deployment's own instance is for the deployment's worker.
            if !down || instance.address.is_none() || instance.deployment == busy.id {
                continue;
            }
            let started = self
                .bring_up(app, &release, busy, Some(instance.clone()))
                .await?;
            if let Err(fault) = started {
                done.fail(format!(
                    "{}: what served cannot be started again: {}",
                    app.name, fault.what
                ));
                continue;
            }
            // The worker may have replaced it meanwhile, and then stopped it before it ran.
            let serving = self.instances(app, State::Serving).await?;
            if !serving.iter().any(|other| other.id == instance.id) {
                self.stop_instance(&instance).await?;
                continue;
            }
            match self.becomes_healthy(&release, &instance).await {
                Ok(()) => done.mended.push(format!("{}: started again", app.name)),
                Err(why) => done.fail(format!(
                    "{}: what served is started again and not healthy: {why}",
                    app.name
                )),
            }
        }
        Ok(())
    }
}
