//! Deployments: the durable queue, and where each act is.

use super::{RowError, from_json, parsed, to_json};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use temps_ipc::id::{AppId, DeploymentId, ReleaseId};
use temps_ipc::types::{Phase, Timestamp};

/// What a deployment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A new release.
    Deploy,
    /// An earlier release, asked for by hand.
    Rollback,
    /// The serving release again, since its instance died.
    Restart,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Deploy, Kind::Rollback, Kind::Restart];

    /// The name in the database.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Deploy => "deploy",
            Kind::Rollback => "rollback",
            Kind::Restart => "restart",
        }
    }
}

/// A deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Its id.
    pub id: DeploymentId,
    /// The app.
    pub app: AppId,
    /// What it puts into service.
    pub release: ReleaseId,
    /// What it is for.
    pub kind: Kind,
    /// Where it is.
    pub phase: Phase,
    /// What served before the switch.
    pub previous: Option<ReleaseId>,
    /// While rolling back: what is brought back.
    pub fallback: Option<ReleaseId>,
    /// Why it ended as it did, or is rolled back.
    pub reason: String,
    /// The last lines that the release printed.
    pub last_lines: Vec<String>,
    /// How long the release is watched after the switch, in milliseconds.
    pub watch_ms: u64,
    /// When requests to the old instances are cut.
    pub drain_until: Option<Timestamp>,
    /// When the watch window closes.
    pub watch_until: Option<Timestamp>,
    /// Raised at every change.
    pub revision: u64,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Of a restart: what it replaces was stopped from outside (by an operator, a reboot, a removal of
    /// the package) and did not die.
    pub from_outside: bool,
}

const COLUMNS: &str = "id, app, release, kind, phase, previous, fallback, reason, last_lines, \
     watch_ms, drain_until, watch_until, revision, created_at, ended_at, from_outside";

/// In SQL: not ended. A deployment in its watch window is open.
const OPEN: &str = "phase NOT IN ('confirmed', 'refused', 'rolled-back')";

fn read(row: &Row<'_>) -> Result<Deployment, RowError> {
    const TABLE: &str = "deployment";
    let unknown = |what: &str| RowError::Unreadable {
        table: TABLE,
        why: format!("unknown {what}"),
    };
    let kind: String = row.get(3)?;
    let phase: String = row.get(4)?;
    let release = |text: Option<String>| text.map(|text| parsed(TABLE, &text)).transpose();
    Ok(Deployment {
        id: parsed(TABLE, &row.get::<_, String>(0)?)?,
        app: parsed(TABLE, &row.get::<_, String>(1)?)?,
        release: parsed(TABLE, &row.get::<_, String>(2)?)?,
        kind: Kind::ALL
            .into_iter()
            .find(|known| known.name() == kind)
            .ok_or_else(|| unknown("kind"))?,
        phase: Phase::ALL
            .into_iter()
            .find(|known| known.name() == phase)
            .ok_or_else(|| unknown("phase"))?,
        previous: release(row.get(5)?)?,
        fallback: release(row.get(6)?)?,
        reason: row.get(7)?,
        last_lines: from_json(TABLE, &row.get::<_, String>(8)?)?,
        watch_ms: row.get::<_, i64>(9)?.unsigned_abs(),
        drain_until: row.get::<_, Option<i64>>(10)?.map(Timestamp),
        watch_until: row.get::<_, Option<i64>>(11)?.map(Timestamp),
        revision: row.get::<_, i64>(12)?.unsigned_abs(),
        created_at: Timestamp(row.get(13)?),
        ended_at: row.get::<_, Option<i64>>(14)?.map(Timestamp),
        from_outside: row.get(15)?,
    })
}

/// Queues a deployment.
pub fn insert(tx: &Transaction<'_>, deployment: &Deployment) -> Result<(), RowError> {
    tx.execute(
        &format!("INSERT INTO deployment({COLUMNS}) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)"),
        params![
            deployment.id.as_str(),
            deployment.app.as_str(),
            deployment.release.as_str(),
            deployment.kind.name(),
            deployment.phase.name(),
            deployment.previous.as_ref().map(ReleaseId::as_str),
            deployment.fallback.as_ref().map(ReleaseId::as_str),
            deployment.reason,
            to_json("deployment", &deployment.last_lines)?,
            deployment.watch_ms as i64,
            deployment.drain_until.map(|at| at.0),
            deployment.watch_until.map(|at| at.0),
            deployment.revision as i64,
            deployment.created_at.0,
            deployment.ended_at.map(|at| at.0),
            deployment.from_outside,
        ],
    )?;
    Ok(())
}

/// Writes where the deployment is now, and raises its revision.
///
/// # Errors
/// [`RowError::Busy`] if it was changed since it was read; then it is to be read again.
pub fn update(tx: &Transaction<'_>, deployment: &mut Deployment) -> Result<(), RowError> {
    let read = deployment.revision;
    deployment.revision += 1;
    let ended = matches!(
        deployment.phase,
        Phase::Confirmed | Phase::Refused | Phase::RolledBack
    );
    if ended && deployment.ended_at.is_none() {
        deployment.ended_at = Some(Timestamp::now());
    }
    let written = tx.execute(
        "UPDATE deployment SET phase = ?2, previous = ?3, fallback = ?4, reason = ?5,
            last_lines = ?6, drain_until = ?7, watch_until = ?8, revision = ?9, ended_at = ?10
         WHERE id = ?1 AND revision = ?11",
        params![
            deployment.id.as_str(),
            deployment.phase.name(),
            deployment.previous.as_ref().map(ReleaseId::as_str),
            deployment.fallback.as_ref().map(ReleaseId::as_str),
            deployment.reason,
            to_json("deployment", &deployment.last_lines)?,
            deployment.drain_until.map(|at| at.0),
            deployment.watch_until.map(|at| at.0),
            deployment.revision as i64,
            deployment.ended_at.map(|at| at.0),
            read as i64,
        ],
    )?;
    if written == 0 {
        return Err(RowError::Busy(format!(
            "the deployment `{}` has moved on",
            deployment.id
        )));
    }
    Ok(())
}

/// The app's watched release is replaced by deployment `by`: it served without a failure until now,
/// so it is confirmed.
pub fn end_watch(tx: &Transaction<'_>, app: &AppId, by: &DeploymentId) -> Result<(), RowError> {
    tx.execute(
        "UPDATE deployment SET phase = 'confirmed', revision = revision + 1, ended_at = ?3
         WHERE app = ?1 AND phase = 'live' AND id <> ?2",
        params![app.as_str(), by.as_str(), Timestamp::now().0],
    )?;
    Ok(())
}

/// The deployment of this id.
///
/// # Errors
/// [`RowError::Missing`] if there is none.
pub fn get(db: &Connection, id: &DeploymentId) -> Result<Deployment, RowError> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM deployment WHERE id = ?1"))?
        .query_row([id.as_str()], |row| Ok(read(row)))
        .optional()?
        .unwrap_or_else(|| Err(RowError::Missing(format!("there is no deployment `{id}`"))))
}

/// The app's open deployments, oldest first.
pub fn open(db: &Connection, app: &AppId) -> Result<Vec<Deployment>, RowError> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM deployment WHERE app = ?1 AND {OPEN} ORDER BY id"
    ))?;
    let rows = statement.query_map([app.as_str()], |row| Ok(read(row)))?;
    rows.map(|row| row?).collect()
}

/// Every app with an open deployment.
pub fn apps_with_open(db: &Connection) -> Result<Vec<AppId>, RowError> {
    let mut statement =
        db.prepare_cached(&format!("SELECT DISTINCT app FROM deployment WHERE {OPEN}"))?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
    rows.map(|row| parsed("deployment", &row?)).collect()
}

/// Forgets the app's ended deployments but the latest `keep`, unless an instance belongs to one.
pub fn remove_old(tx: &Transaction<'_>, app: &AppId, keep: u32) -> Result<(), RowError> {
    tx.execute(
        &format!(
            "DELETE FROM deployment WHERE app = ?1 AND NOT ({OPEN})
               AND id NOT IN (SELECT id FROM deployment WHERE app = ?1 ORDER BY id DESC LIMIT ?2)
               AND NOT EXISTS (SELECT 1 FROM instance WHERE instance.deployment = deployment.id)"
        ),
        params![app.as_str(), keep],
    )?;
    Ok(())
}

/// How many deployments wait or are under way, and how many are in their watch window.
pub fn count_open(db: &Connection) -> Result<(u32, u32), RowError> {
    let count = |condition: &str| {
        db.query_row(
            &format!("SELECT count(*) FROM deployment WHERE {OPEN} AND {condition}"),
            [],
            |row| row.get(0),
        )
    };
    Ok((count("phase <> 'live'")?, count("phase = 'live'")?))
}

/// In SQL: a restart that says something against the release. One that was refused does, whatever made
/// it necessary.
pub const COUNTS: &str = "(from_outside = 0 OR phase = 'refused')";

/// Restarts of the app's present release that count and ended after `since`, latest first: when each
/// ended.
pub fn restarts_since(
    db: &Connection,
    app: &AppId,
    since: Timestamp,
) -> Result<Vec<Timestamp>, RowError> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT ended_at FROM deployment
         WHERE app = ?1 AND release = (SELECT release FROM app WHERE id = ?1)
           AND kind = 'restart' AND {COUNTS} AND ended_at > ?2 ORDER BY ended_at DESC LIMIT 32"
    ))?;
    let rows = statement.query_map(params![app.as_str(), since.0], |row| row.get(0))?;
    rows.map(|row| Ok(Timestamp(row?))).collect()
}
