//! What `temps doctor` says of apps whose instance keeps dying, or died and cannot be replaced.

use super::Engine;
use super::restart::{self, Found};
use crate::checks::check;
use crate::store::app::{self, App};
use crate::store::deployment::{self, Kind};
use crate::store::instance::Instance;
use crate::store::{RowError, StoreError, parsed};
use rusqlite::Connection;
use temps_ipc::id::AppId;
use temps_ipc::types::{Check, CheckLevel, Phase, Timestamp};

/// Replacements from which on an app is said to keep dying, even if it runs right now. One or two
/// may as well come from restarts of the platform.
const MANY: u32 = 3;

/// Most apps that one report names.
const REPORTED: usize = 20;

/// Longest reason in characters that a finding repeats; `temps app show` has all of it.
const MAX_REASON: usize = 300;

/// An app whose release had its instance replaced lately.
struct Restarted {
    app: App,
    serving: Vec<Instance>,
    /// What is being done about it now.
    under_way: Option<Kind>,
    restarts: u32,
    /// Why the last replacement was refused, if it was.
    refused: Option<String>,
}

impl Engine {
    /// The apps whose instance keeps dying, or cannot be replaced.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn dying_checks(&self) -> Result<Vec<Check>, StoreError> {
        let since = restart::since();
        let apps = self.store.read(move |db| restarted(db, since)).await?;
        let found = apps
            .into_iter()
            .filter(|row| {
                let is_dying = row.restarts >= MANY || row.refused.is_some();
                is_dying || self.restart_at(&row.app).is_some()
            })
            .take(REPORTED)
            .map(async |row| {
                let found = self.look(&row.serving).await?;
                // Asked last: what was found may have led to it.
                let next = self.restart_at(&row.app);
                Ok(describe(&row, &found, next))
            });
        futures::future::join_all(found).await.into_iter().collect()
    }
}

fn describe(row: &Restarted, found: &Found, next: Option<Timestamp>) -> Check {
    let name = row.app.name.as_str();
    let times = format!("(restarts in the last 15 minutes: {})", row.restarts);
    let head = match &row.refused {
        Some(why) => format!("its instance cannot be replaced: {why} {times}"),
        None => format!("its instance keeps dying {times}"),
    };
    let (level, then) = match (found, next, row.under_way) {
        (Found::Bad(how), Some(at), None) => (
            CheckLevel::Failed,
            format!("next attempt at {}; it is down: {how}", at.rfc3339()),
        ),
        (Found::Bad(how), _, Some(Kind::Restart)) => (
            CheckLevel::Failed,
            format!("it is being started again; it is down: {how}"),
        ),
        (Found::Bad(how), _, Some(Kind::Deploy | Kind::Rollback)) => (
            CheckLevel::Failed,
            format!("a deployment is under way; it is down: {how}"),
        ),
        (Found::Bad(how), None, None) => (CheckLevel::Failed, format!("it is down: {how}")),
        (Found::Well, Some(at), _) => (
            CheckLevel::Warning,
            format!("it answers now, and is looked at again at {}", at.rfc3339()),
        ),
        (Found::Well, None, _) => (CheckLevel::Warning, "it answers now".to_owned()),
        (Found::Unknown(why), Some(at), _) => (
            CheckLevel::Failed,
            format!(
                "next attempt at {}; how it is now is unknown: {why}",
                at.rfc3339()
            ),
        ),
        (Found::Unknown(why), None, _) => (
            CheckLevel::Warning,
            format!("how it is now is unknown: {why}"),
        ),
    };
    let now = match (found, next) {
        (Found::Bad(_), Some(_)) => "; `temps reconcile` starts it now",
        _ => "",
    };
    let hint = format!("see what it says before it ends: temps logs {name}{now}");
    check(name, level, &format!("{head}; {then}"), &hint)
}

/// The apps of whose release instances were replaced after `since`; those first whose last
/// replacement was refused, then those with most.
fn restarted(db: &Connection, since: Timestamp) -> Result<Vec<Restarted>, RowError> {
    // With max(), the other columns are those of the latest row (SQLite, "bare columns").
    let counts = deployment::COUNTS;
    let mut statement = db.prepare_cached(&format!(
        "SELECT app.id, phase, reason, count(*) FILTER (WHERE {counts}) AS restarts, max(ended_at)
         FROM deployment JOIN app ON app.id = deployment.app AND app.release = deployment.release
         WHERE kind = 'restart' AND ended_at > ?1 AND app.destroying = 0
         GROUP BY app.id ORDER BY phase = 'refused' DESC, restarts DESC, app.name"
    ))?;
    let rows = statement.query_map([since.0], |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, String>(2)?,
            row.get(3)?,
        ))
    })?;
    let mut found = Vec::new();
    for row in rows {
        let (id, phase, reason, restarts) = row?;
        let id: AppId = parsed("app", &id)?;
        let Some(app) = app::by_id(db, &id)? else {
            continue;
        };
        let open = deployment::open(db, &id)?;
        let under_way = open.iter().find(|other| other.phase != Phase::Live);
        found.push(Restarted {
            app,
            serving: restart::serving(db, &id)?,
            under_way: under_way.map(|other| other.kind),
            restarts,
            refused: (phase == Phase::Refused.name()).then(|| in_one_line(&reason)),
        });
    }
    Ok(found)
}

/// A reason that fits a line.
fn in_one_line(reason: &str) -> String {
    let line = reason.lines().next().unwrap_or_default();
    let mut characters = line.chars().filter(|c| !c.is_control());
    let mut text: String = characters.by_ref().take(MAX_REASON).collect();
    if characters.next().is_some() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_in_one_line() {
        assert_eq!(in_one_line("it died\nand so on"), "it died");
        let long = in_one_line(&"é".repeat(MAX_REASON + 1));
        assert_eq!(long.chars().count(), MAX_REASON + 1);
        assert!(long.ends_with('…'));
    }
}
