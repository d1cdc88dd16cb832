//! The replacement of an instance that went bad outside a watch window, by a fresh one of the same
//! release; and the pauses between the replacements of one that keeps dying.
//!
//! ```text
//! alarm --> the pause is over -----------------------------------------> queued
//!       --> it is not: waits for its end --> still unhealthy ----------> queued
//!                                        --> recovered, or replaced ---> left alone
//! ```
//!
//! The first replacement begins at once. Then a pause follows each, doubled every time; what is older
//! than a quarter of an hour does not count. deployd stays awake over a pause, and if it ends all the
//! same, the proxy's next alarm begins another.

use super::Engine;
use crate::checks::check;
use crate::event;
use crate::store::app::App;
use crate::store::deployment::{self, Deployment};
use crate::store::instance::{self, Instance, State};
use crate::store::release::{self, Release};
use crate::store::{RowError, StoreError, app, parsed};
use rusqlite::Connection;
use std::sync::PoisonError;
use std::time::Duration;
use temps_ipc::id::AppId;
use temps_ipc::types::{Check, CheckLevel, Target, Timestamp};
use tokio::time::sleep;
use tracing::warn;

/// How far back replacements count.
const MEMORY_MS: i64 = 15 * 60 * 1000;

/// Pause before the first replacement is followed by another; doubled with every one.
const FIRST_PAUSE_MS: i64 = 5_000;

/// Longest pause between two.
const LONGEST_PAUSE_MS: i64 = 5 * 60 * 1000;

/// Replacements from which on an app is said to keep dying, even if it runs right now. One or two
/// may as well come from restarts of the platform.
const MANY: u32 = 3;

/// How long an instance has after a pause to show that it is well again.
const LOOK: Duration = Duration::from_secs(1);

/// Most apps that one report names.
const REPORTED: u32 = 20;

/// What becomes of a request for a replacement.
enum Queued {
    Now(App),
    Later(Timestamp),
    /// Something else is under way, or nothing should run.
    Never,
}

impl Engine {
    /// Replaces an instance that is unhealthy outside a watch window: now, or after the pause.
    pub(super) async fn restart(&self, instance: &Instance, why: &str) -> Result<(), StoreError> {
        match self.queue_restart(instance, true).await? {
            Queued::Now(app) => self.restarting(&app, instance, why),
            Queued::Later(at) => self.restart_later(instance, why, at),
            Queued::Never => {}
        }
        Ok(())
    }

    async fn queue_restart(&self, instance: &Instance, pause: bool) -> Result<Queued, StoreError> {
        let id = instance.app.clone();
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
                    Some(end) if pause && now < end => return Ok(Queued::Later(end)),
                    _ => {}
                }
                deployment::insert(tx, &Deployment::restart_of(&app, &release))?;
                Ok(Queued::Now(app))
            })
            .await
    }

    fn restarting(&self, app: &App, instance: &Instance, why: &str) {
        event::restarting(app, instance, why);
        self.wake(&app.id);
        self.changed();
    }

    /// Comes back to the instance at `at`; one such task per app.
    fn restart_later(&self, instance: &Instance, why: &str, at: Timestamp) {
        {
            let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
            if paused.contains_key(&instance.app) {
                return;
            }
            paused.insert(instance.app.clone(), at);
        }
        let (engine, instance, why) = (self.clone(), instance.clone(), why.to_owned());
        let busy = self.idle.busy();
        self.tasks.spawn(async move {
            let left = u64::try_from(at.0 - Timestamp::now().0).unwrap_or(0);
            let pause = sleep(Duration::from_millis(left));
            let is_over = engine.stopping.run_until_cancelled(pause).await.is_some();
            {
                let mut paused = engine.paused.lock().unwrap_or_else(PoisonError::into_inner);
                paused.remove(&instance.app);
            }
            if is_over && let Err(error) = engine.restart_after_pause(&instance, &why).await {
                warn!(app = %instance.app, %error, "its instance cannot be replaced now");
            }
            drop(busy);
        });
    }

    async fn restart_after_pause(&self, instance: &Instance, why: &str) -> Result<(), StoreError> {
        let (id, of) = (instance.id.clone(), instance.release.clone());
        let (present, release) = self
            .store
            .read(move |db| Ok((instance::find(db, &id)?, release::get(db, &of)?)))
            .await?;
        let is_serving = present.is_some_and(|instance| instance.state == State::Serving);
        if !is_serving || !self.is_still_bad(instance, &release).await {
            return Ok(());
        }
        if let Queued::Now(app) = self.queue_restart(instance, false).await? {
            self.restarting(&app, instance, why);
        }
        Ok(())
    }

    /// Whether the proxy finds it unhealthy. A proxy that does not say so will, with an alarm.
    async fn is_still_bad(&self, instance: &Instance, release: &Release) -> bool {
        let Some(address) = instance.address.clone() else {
            return false;
        };
        let target = Target {
            id: instance.id.clone(),
            address,
            check: release.check(),
        };
        let outcomes = self.proxy.probe(vec![target], LOOK).await;
        outcomes.is_ok_and(|outcomes| outcomes.iter().any(|outcome| outcome.failure.is_some()))
    }

    /// When the app's instance is replaced next, if it waits for its pause.
    pub(super) fn restart_at(&self, app: &AppId) -> Option<Timestamp> {
        let paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        paused.get(app).copied()
    }

    /// The apps whose instance keeps dying.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn dying_checks(&self) -> Result<Vec<Check>, StoreError> {
        let since = since();
        let apps = self.store.read(move |db| restarted(db, since)).await?;
        Ok(apps
            .into_iter()
            .filter_map(|(id, name, restarts)| {
                let next = self.restart_at(&id);
                if restarts < MANY && next.is_none() {
                    return None;
                }
                let (level, then) = match next {
                    Some(at) => (
                        CheckLevel::Failed,
                        format!("next attempt at {}", at.rfc3339()),
                    ),
                    None => (CheckLevel::Warning, "it runs now".to_owned()),
                };
                let what = format!(
                    "its instance keeps dying (restarts in the last 15 minutes: {restarts}); {then}"
                );
                let hint = format!("see what it says before it ends: temps logs {name}");
                Some(check(&name, level, &what, &hint))
            })
            .collect())
    }
}

/// Since when replacements count.
pub(super) fn since() -> Timestamp {
    Timestamp(Timestamp::now().0 - MEMORY_MS)
}

/// Replacements of the app's instance since then.
pub(super) fn count(db: &Connection, app: &AppId) -> Result<u32, RowError> {
    let recent = deployment::restarts_since(db, app, since())?;
    Ok(u32::try_from(recent.len()).unwrap_or(u32::MAX))
}

/// The apps with most replacements after `since`, and how many.
fn restarted(db: &Connection, since: Timestamp) -> Result<Vec<(AppId, String, u32)>, RowError> {
    let mut statement = db.prepare_cached(
        "SELECT app.id, app.name, count(*) AS restarts
         FROM deployment JOIN app ON app.id = deployment.app
         WHERE kind = 'restart' AND ended_at > ?1 AND app.destroying = 0
         GROUP BY app.id ORDER BY restarts DESC, app.name LIMIT ?2",
    )?;
    let rows = statement.query_map([since.0, i64::from(REPORTED)], |row| {
        Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?))
    })?;
    rows.map(|row| {
        let (id, name, restarts) = row?;
        Ok((parsed("app", &id)?, name, restarts))
    })
    .collect()
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
