//! The replacement of an instance that went bad outside a watch window, by a fresh one of the same
//! release; and the pauses between the replacements of one that keeps dying.
//!
//! ```text
//! alarm, a replacement was refused, or what serves is found dead after a deployment was
//!   --> the pause is over ------------------------------------------------> queued
//!   --> it is not: waits for its end --> what serves is still bad --------> queued
//!                                    --> it recovered --------------------> left alone
//!                     another release serves, or none is wanted ----------> left alone at once
//! ```
//!
//! The first replacement begins at once. Then a pause follows each, refused or not, doubled every
//! time; what is older than a quarter of an hour does not count, nor does what befell another
//! release, nor the replacement of one that was stopped from outside. deployd stays awake over a pause, and if it ends all the same, the proxy's next alarm
//! begins another.

use super::Engine;
use super::news::News;
use super::resume::ended_from_outside;
use crate::event;
use crate::port::InstanceState;
use crate::store::app::App;
use crate::store::deployment::{self, Deployment};
use crate::store::instance::{self, Instance, State};
use crate::store::release;
use crate::store::{RowError, StoreError, app};
use rusqlite::Connection;
use std::sync::PoisonError;
use std::time::Duration;
use temps_ipc::id::{AppId, ReleaseId};
use temps_ipc::types::{Target, Timestamp};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::warn;

/// How far back replacements count.
const MEMORY_MS: i64 = 15 * 60 * 1000;

/// Pause before the first replacement is followed by another; doubled with every one.
const FIRST_PAUSE_MS: i64 = 5_000;

/// Longest pause between two.
const LONGEST_PAUSE_MS: i64 = 5 * 60 * 1000;

/// How long an instance has to show that it is well.
const LOOK: Duration = Duration::from_secs(1);

/// How long an engine may take to say how an instance is, before it counts as unknown.
const STATE_TIME: Duration = Duration::from_secs(2);

/// A wait for the next replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Whose instances die. Another release begins with a clean record.
    release: ReleaseId,
    /// When it is over.
    until: Timestamp,
}

/// What becomes of a request for a replacement.
enum Queued {
    Now(App),
    Later(Pause),
    /// Something else is under way, or nothing should run.
    Never,
}

/// What is found of what serves an app.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It answers.
    Well,
    /// It does not, in a sentence.
    Bad(String),
    /// It cannot be asked, in a sentence.
    Unknown(String),
}

impl Engine {
    /// Replaces an instance that is unhealthy outside a watch window: now, or after the pause.
    pub(super) async fn restart(&self, instance: &Instance, why: &str) -> Result<(), StoreError> {
        let from_outside = self.was_stopped(instance).await;
        let queued = self.queue_restart(&instance.app, true, from_outside);
        match queued.await? {
            Queued::Now(app) => self.restarting(&app, Some(instance), why),
            Queued::Later(pause) => self.restart_later(&instance.app, pause),
            Queued::Never => {}
        }
        Ok(())
    }

    /// A replacement was refused, and what it should replace is as bad as before: another one after
    /// the pause.
    pub(super) async fn restart_again(&self, app: &App) {
        match self.queue_restart(&app.id, true, false).await {
            Ok(Queued::Now(app)) => self.restarting(&app, None, ""),
            Ok(Queued::Later(pause)) => self.restart_later(&app.id, pause),
            Ok(Queued::Never) => {}
            // The proxy's next alarm begins another.
            Err(error) => {
                warn!(app = %app.name, %error, "its next start cannot be planned now");
            }
        }
    }

    /// A deployment was refused, so what served before it is to go on serving. Its alarms led to nothing
    /// while that was under way, and the proxy's next may be half a minute away: it is looked at now.
    pub(super) async fn look_after_refusal(&self, app: &App) {
        let looked = self.restart_if_dead(app);
        if let Some(Err(error)) = self.stopping.run_until_cancelled(looked).await {
            warn!(app = %app.name, %error, "what serves cannot be looked at now");
        }
    }

    async fn restart_if_dead(&self, app: &App) -> Result<(), StoreError> {
        let id = app.id.clone();
        let serving = self.store.read(move |db| serving(db, &id)).await?;
        for instance in &serving {
            let why = match self.how_ended(instance).await {
                Some(how) => how,
                // One that runs is only as bad as the proxy finds it, more than once.
                None if self.alarm_of(&instance.id).is_some() => {
                    match self.look_at(instance).await? {
                        Found::Bad(how) => how,
                        Found::Well | Found::Unknown(_) => continue,
                    }
                }
                None => continue,
            };
            return self.restart(instance, &why).await;
        }
        Ok(())
    }

    /// Whether the instance was ended from outside, as far as its runtime knows.
    async fn was_stopped(&self, instance: &Instance) -> bool {
        let state = self.state_of(instance).await;
        state.is_some_and(|state| ended_from_outside(instance, &state))
    }

    /// Queues a replacement; not before the end of the pause, if there is to be a `pause`. `from_outside`:
    /// what is replaced did not die.
    async fn queue_restart(
        &self,
        app: &AppId,
        pause: bool,
        from_outside: bool,
    ) -> Result<Queued, StoreError> {
        let id = app.clone();
        let now = Timestamp::now();
        self.store
            .write(move |tx| {
                let Some(app) = app::by_id(tx, &id)? else {
                    return Ok(Queued::Never);
                };
                let Some(release) = app.release.clone() else {
                    return Ok(Queued::Never);
                };
                if app.destroying || !deployment::open(tx, &id)?.is_empty() {
                    return Ok(Queued::Never);
                }
                let recent = deployment::restarts_since(tx, &id, Timestamp(now.0 - MEMORY_MS))?;
                match pause_end(&recent) {
                    Some(until) if pause && now < until => {
                        return Ok(Queued::Later(Pause { release, until }));
                    }
                    _ => {}
                }
                let mut restart = Deployment::restart_of(&app, &release);
                restart.from_outside = from_outside;
                deployment::insert(tx, &restart)?;
                Ok(Queued::Now(app))
            })
            .await
    }

    fn restarting(&self, app: &App, instance: Option<&Instance>, why: &str) {
        if let Some(instance) = instance {
            event::restarting(app, instance, why);
            self.tell(|| News::Replaced {
                app: app.name.clone(),
                instance: instance.id.clone(),
                why: why.to_owned(),
            });
        }
        self.wake(&app.id);
        self.changed();
    }

    /// Comes back to the app when the pause is over, unless it waits for this release already. A
    /// later pause, or one of another release, takes the place of an earlier.
    fn restart_later(&self, app: &AppId, pause: Pause) {
        {
            let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
            let known = paused.get(app);
            if known.is_some_and(|it| it.release == pause.release && it.until >= pause.until) {
                return;
            }
            paused.insert(app.clone(), pause.clone());
        }
        // Ends the wait whose place was taken.
        self.changed();
        let (engine, app) = (self.clone(), app.clone());
        let busy = self.idle.busy();
        self.tasks.spawn(async move {
            let wait = engine.wait_out(&app, &pause);
            if engine.stopping.run_until_cancelled(wait).await == Some(true)
                && let Err(error) = engine.restart_after_pause(&app, &pause).await
            {
                warn!(%app, %error, "its instance cannot be replaced now");
            }
            {
                let mut paused = engine.paused.lock().unwrap_or_else(PoisonError::into_inner);
                if paused.get(&app) == Some(&pause) {
                    paused.remove(&app);
                }
            }
            // Nothing may have come of it: then it is the pause's end that is seen.
            engine.changed();
            drop(busy);
        });
    }

    /// Waits for the pause's end; false as soon as nobody needs it any more.
    async fn wait_out(&self, app: &AppId, pause: &Pause) -> bool {
        let mut changes = self.changes.subscribe();
        let left = u64::try_from(pause.until.0 - Timestamp::now().0).unwrap_or(0);
        let end = Instant::now() + Duration::from_millis(left);
        loop {
            if !self.is_awaited(app, pause).await {
                return false;
            }
            tokio::select! {
                () = sleep_until(end) => return true,
                changed = changes.changed() => if changed.is_err() { return false },
            }
        }
    }

    async fn is_awaited(&self, app: &AppId, pause: &Pause) -> bool {
        {
            let paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
            if paused.get(app) != Some(pause) {
                return false;
            }
        }
        let (id, release) = (app.clone(), pause.release.clone());
        let is_wanted = |app: App| !app.destroying && app.release == Some(release);
        self.store
            .read(move |db| Ok(app::by_id(db, &id)?.is_some_and(is_wanted)))
            .await
            .unwrap_or(true)
    }

    async fn restart_after_pause(&self, app: &AppId, pause: &Pause) -> Result<(), StoreError> {
        if !self.is_awaited(app, pause).await {
            return Ok(());
        }
        let id = app.clone();
        let serving = self.store.read(move |db| serving(db, &id)).await?;
        // Of one that cannot be asked, the proxy will say with an alarm what it finds.
        let Found::Bad(why) = self.look(&serving).await? else {
            return Ok(());
        };
        let from_outside = match serving.first() {
            Some(instance) => self.was_stopped(instance).await,
            None => false,
        };
        if let Queued::Now(app) = self.queue_restart(app, false, from_outside).await? {
            self.restarting(&app, serving.first(), &why);
        }
        Ok(())
    }

    /// Whether what serves runs and, in the eyes of the proxy, answers.
    pub(super) async fn look(&self, serving: &[Instance]) -> Result<Found, StoreError> {
        if serving.is_empty() {
            return Ok(Found::Bad("nothing serves it".to_owned()));
        }
        for instance in serving {
            let found = self.look_at(instance).await?;
            if found != Found::Well {
                return Ok(found);
            }
        }
        Ok(Found::Well)
    }

    async fn look_at(&self, instance: &Instance) -> Result<Found, StoreError> {
        let Some(address) = instance.address.clone() else {
            return Ok(Found::Well);
        };
        if let Some(how) = self.how_ended(instance).await {
            return Ok(Found::Bad(how));
        }
        // Asked, it would be started.
        if self.state_of(instance).await == Some(InstanceState::Resting { failed: None }) {
            return Ok(Found::Well);
        }
        let release = instance.release.clone();
        let release = self
            .store
            .read(move |db| release::get(db, &release))
            .await?;
        let target = Target {
            id: instance.id.clone(),
            address,
            check: release.check(),
        };
        Ok(match self.proxy.probe(vec![target], LOOK).await {
            Ok(outcomes) => match outcomes.into_iter().find_map(|outcome| outcome.failure) {
                Some(failure) => Found::Bad(format!("its health check fails: {failure}")),
                None => Found::Well,
            },
            Err(fault) => Found::Unknown(fault.what),
        })
    }

    /// How the instance ended, in a sentence; none if it runs, or nobody knows.
    async fn how_ended(&self, instance: &Instance) -> Option<String> {
        instance.address.as_ref()?;
        let runtime = self.runtimes.get(instance.runtime)?;
        match timeout(STATE_TIME, runtime.state(&instance.id)).await {
            Ok(Ok(InstanceState::Exited { how, .. })) => Some(format!("it {how}")),
            Ok(Ok(InstanceState::Absent)) => Some("its instance is gone".to_owned()),
            Ok(Ok(InstanceState::Running | InstanceState::Resting { .. }) | Err(_)) | Err(_) => {
                None
            }
        }
    }

    /// When the app's instance is replaced next, if it waits for its pause.
    pub(super) fn restart_at(&self, app: &App) -> Option<Timestamp> {
        let paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = paused.get(&app.id)?;
        (app.release.as_ref() == Some(&pause.release)).then_some(pause.until)
    }
}

/// What serves the app.
pub(super) fn serving(db: &Connection, app: &AppId) -> Result<Vec<Instance>, RowError> {
    let present = instance::present(db, app)?;
    let is_serving = |instance: &Instance| instance.state == State::Serving;
    Ok(present.into_iter().filter(is_serving).collect())
}

/// Since when replacements count.
pub(super) fn since() -> Timestamp {
    Timestamp(Timestamp::now().0 - MEMORY_MS)
}

/// Replacements of instances of the app's release since then.
pub(super) fn count(db: &Connection, app: &AppId) -> Result<u32, RowError> {
    let recent = deployment::restarts_since(db, app, since())?;
    Ok(u32::try_from(recent.len()).unwrap_or(u32::MAX))
}

/// When the pause after the last of these replacements ends; they are given latest first.
fn pause_end(recent: &[Timestamp]) -> Option<Timestamp> {
    let last = recent.first()?;
    let doublings = recent.len().saturating_sub(1).min(16) as u32;
    let pause = (FIRST_PAUSE_MS << doublings).min(LONGEST_PAUSE_MS);
    Some(Timestamp(last.0 + pause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes() {
        assert_eq!(pause_end(&[]), None, "the first begins at once");
        for (restarts, seconds) in [(1, 5), (2, 10), (3, 20), (6, 160), (7, 300), (32, 300)] {
            let recent = vec![Timestamp(1_000); restarts];
            let end = Timestamp(1_000 + seconds * 1_000);
            assert_eq!(pause_end(&recent), Some(end), "{restarts}");
        }
    }
}
