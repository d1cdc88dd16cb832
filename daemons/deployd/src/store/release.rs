//! Releases: immutable but for their status and, once, their artifact.

use super::{RowError, from_json, parsed, to_json};
use crate::port::{Artifact, Built, Material};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use temps_ipc::id::{AppId, ReleaseId};
use temps_ipc::types::{HealthCheck, ReleaseStatus, RuntimeKind, Timestamp};

/// A release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Its id.
    pub id: ReleaseId,
    /// The app.
    pub app: AppId,
    /// What became of it.
    pub status: ReleaseStatus,
    /// What it is made from.
    pub material: Material,
    /// The runtime asked for, if one was.
    pub wanted_runtime: Option<RuntimeKind>,
    /// The runtime it was made for, once it was made.
    pub runtime: Option<RuntimeKind>,
    /// What it is made of, once it was made and until it is removed to save space.
    pub artifact: Option<Artifact>,
    /// The sealed variables it was made with.
    pub env: Vec<u8>,
    /// The health check's path, if one was given.
    pub health: Option<String>,
    /// How long an instance may take to become healthy, in milliseconds.
    pub health_timeout_ms: u64,
    /// Where it came from, for people.
    pub source: String,
    /// Why it has its status.
    pub reason: String,
    /// Who asked for it.
    pub actor: String,
    /// When it last began to serve.
    pub served_at: Option<Timestamp>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Whether its instances are started by requests.
    pub socket_activated: bool,
}

impl Release {
    /// How an instance of it is checked.
    pub fn check(&self) -> HealthCheck {
        match &self.health {
            Some(path) => HealthCheck::Http { path: path.clone() },
            None => HealthCheck::Any,
        }
    }
}

const COLUMNS: &str = "id, app, status, material, wanted_runtime, runtime, artifact, env, health, \
     health_timeout_ms, source, reason, actor, served_at, created_at, socket_activated";

fn status(text: &str) -> Result<ReleaseStatus, RowError> {
    ReleaseStatus::ALL
        .into_iter()
        .find(|status| status.name() == text)
        .ok_or_else(|| RowError::Unreadable {
            table: "release",
            why: format!("unknown status `{text}`"),
        })
}

fn read(row: &Row<'_>) -> Result<Release, RowError> {
    const TABLE: &str = "release";
    let kind = |text: Option<String>| text.map(|text| parsed(TABLE, &text)).transpose();
    let artifact: Option<String> = row.get(6)?;
    let served_at: Option<i64> = row.get(13)?;
    Ok(Release {
        id: parsed(TABLE, &row.get::<_, String>(0)?)?,
        app: parsed(TABLE, &row.get::<_, String>(1)?)?,
        status: status(&row.get::<_, String>(2)?)?,
        material: from_json(TABLE, &row.get::<_, String>(3)?)?,
        wanted_runtime: kind(row.get(4)?)?,
        runtime: kind(row.get(5)?)?,
        artifact: artifact.map(|text| from_json(TABLE, &text)).transpose()?,
        env: row.get(7)?,
        health: row.get(8)?,
        health_timeout_ms: row.get::<_, i64>(9)?.unsigned_abs(),
        source: row.get(10)?,
        reason: row.get(11)?,
        actor: row.get(12)?,
        served_at: served_at.map(Timestamp),
        created_at: Timestamp(row.get(14)?),
        socket_activated: row.get(15)?,
    })
}

/// Writes a new release.
pub fn insert(tx: &Transaction<'_>, release: &Release) -> Result<(), RowError> {
    tx.execute(
        &format!("INSERT INTO release({COLUMNS}) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)"),
        params![
            release.id.as_str(),
            release.app.as_str(),
            release.status.name(),
            to_json("release", &release.material)?,
            release.wanted_runtime.map(RuntimeKind::name),
            release.runtime.map(RuntimeKind::name),
            release.artifact.as_ref().map(|artifact| to_json("release", artifact)).transpose()?,
            release.env,
            release.health,
            release.health_timeout_ms as i64,
            release.source,
            release.reason,
            release.actor,
            release.served_at.map(|at| at.0),
            release.created_at.0,
            release.socket_activated,
        ],
    )?;
    Ok(())
}

/// The release of this id.
///
/// # Errors
/// [`RowError::Missing`] if there is none.
pub fn get(db: &Connection, id: &ReleaseId) -> Result<Release, RowError> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM release WHERE id = ?1"))?
        .query_row([id.as_str()], |row| Ok(read(row)))
        .optional()?
        .unwrap_or_else(|| Err(RowError::Missing(format!("there is no release `{id}`"))))
}

/// The app's releases, latest first, older than `before`, at most `limit`.
pub fn list(
    db: &Connection,
    app: &AppId,
    before: Option<&ReleaseId>,
    limit: u32,
) -> Result<Vec<Release>, RowError> {
    // `~` sorts after every identifier.
    let before = before.map_or("~", ReleaseId::as_str);
    let mut statement = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM release WHERE app = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3"
    ))?;
    let rows = statement.query_map(params![app.as_str(), before, limit], |row| Ok(read(row)))?;
    rows.map(|row| row?).collect()
}

/// The release that a bad one is rolled back to: the one that served last and was watched to the
/// end of its window without a failure.
pub fn last_confirmed(
    db: &Connection,
    app: &AppId,
    bad: &ReleaseId,
) -> Result<Option<Release>, RowError> {
    let confirmed = "EXISTS(
        SELECT 1 FROM deployment
        WHERE deployment.release = release.id AND deployment.kind <> 'restart'
          AND deployment.phase = 'confirmed' AND deployment.reason = ''
          AND deployment.ended_at >= deployment.watch_until)";
    served_last(db, app, bad, confirmed)
}

/// The release to go back to from `bad`: the one that served last without turning bad and can
/// still be started.
pub fn last_good(
    db: &Connection,
    app: &AppId,
    bad: &ReleaseId,
) -> Result<Option<Release>, RowError> {
    served_last(db, app, bad, "true")
}

/// The release but `bad` that served last, did not turn bad, can still be started, and of which
/// `condition` is true.
fn served_last(
    db: &Connection,
    app: &AppId,
    bad: &ReleaseId,
    condition: &'static str,
) -> Result<Option<Release>, RowError> {
    db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM release
         WHERE app = ?1 AND id <> ?2 AND status IN ('superseded', 'live')
           AND served_at IS NOT NULL AND artifact IS NOT NULL AND {condition}
         ORDER BY served_at DESC, id DESC LIMIT 1"
    ))?
    .query_row([app.as_str(), bad.as_str()], |row| Ok(read(row)))
    .optional()?
    .transpose()
}

/// Whether releases of the app were refused, and none has ever served.
pub fn never_served(db: &Connection, app: &AppId) -> Result<bool, RowError> {
    let (refused, served): (i64, i64) = db
        .prepare_cached(
            "SELECT count(*) FILTER (WHERE status = 'refused'), count(served_at)
             FROM release WHERE app = ?1",
        )?
        .query_row([app.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(refused > 0 && served == 0)
}

/// Records what the release is made of. What an app keeps of earlier releases may not fit what this one
/// turned out to be: only the systemd runtime hands sockets over.
pub fn set_built(tx: &Transaction<'_>, id: &ReleaseId, built: &Built) -> Result<(), RowError> {
    tx.execute(
        "UPDATE release SET artifact = ?2, runtime = ?3, source = ?4,
            socket_activated = socket_activated AND ?3 = 'systemd' WHERE id = ?1",
        params![
            id.as_str(),
            to_json("release", &built.artifact)?,
            built.runtime.name(),
            built.source
        ],
    )?;
    Ok(())
}

/// Forgets what the release was made of: its files are being removed.
pub fn forget_artifact(tx: &Transaction<'_>, id: &ReleaseId) -> Result<(), RowError> {
    tx.execute(
        "UPDATE release SET artifact = NULL WHERE id = ?1",
        [id.as_str()],
    )?;
    Ok(())
}

/// Records what became of the release.
pub fn set_status(
    tx: &Transaction<'_>,
    id: &ReleaseId,
    status: ReleaseStatus,
    reason: &str,
) -> Result<(), RowError> {
    tx.execute(
        "UPDATE release SET status = ?2, reason = ?3 WHERE id = ?1",
        params![id.as_str(), status.name(), reason],
    )?;
    Ok(())
}

/// Records that the release serves from now on, and that what served before it does not.
pub fn set_serving(tx: &Transaction<'_>, app: &AppId, id: &ReleaseId) -> Result<(), RowError> {
    tx.execute(
        "UPDATE release SET status = 'superseded' WHERE app = ?1 AND status = 'live' AND id <> ?2",
        params![app.as_str(), id.as_str()],
    )?;
    tx.execute(
        // One that served already and is only started again keeps what is said of it.
        "UPDATE release SET status = 'live', reason = iif(status = 'live', reason, ''), served_at = ?2 WHERE id = ?1",
        params![id.as_str(), Timestamp::now().0],
    )?;
    tx.execute(
        "UPDATE app SET release = ?2 WHERE id = ?1",
        params![app.as_str(), id.as_str()],
    )?;
    Ok(())
}
