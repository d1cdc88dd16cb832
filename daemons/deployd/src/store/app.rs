//! Apps, their hosts and their sealed variables.

use super::{RowError, parsed};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use temps_ipc::id::{AppId, ReleaseId};
use temps_ipc::types::{AppName, EnvName, Host, RuntimeKind, Timestamp};

/// An app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// For ever.
    pub id: AppId,
    /// What people call it.
    pub name: AppName,
    /// When it was made.
    pub created_at: Timestamp,
    /// The runtime asked for last.
    pub runtime: Option<RuntimeKind>,
    /// The health check's path, if one was given.
    pub health: Option<String>,
    /// How long an instance may take to become healthy, in milliseconds.
    pub health_timeout_ms: u64,
    /// How long a release is watched after the switch, in milliseconds.
    pub watch_ms: u64,
    /// The release that serves.
    pub release: Option<ReleaseId>,
    /// Its removal has begun.
    pub destroying: bool,
    /// Whether its next release is started by requests, unless it is said otherwise.
    pub socket_activated: bool,
}

const COLUMNS: &str = "id, name, created_at, runtime, health, health_timeout_ms, watch_ms, release, destroying, \
     socket_activated";

fn read(row: &Row<'_>) -> Result<App, RowError> {
    let runtime: Option<String> = row.get(3)?;
    let release: Option<String> = row.get(7)?;
    Ok(App {
        id: parsed("app", &row.get::<_, String>(0)?)?,
        name: parsed("app", &row.get::<_, String>(1)?)?,
        created_at: Timestamp(row.get(2)?),
        runtime: runtime.map(|text| parsed("app", &text)).transpose()?,
        health: row.get(4)?,
        health_timeout_ms: row.get::<_, i64>(5)?.unsigned_abs(),
        watch_ms: row.get::<_, i64>(6)?.unsigned_abs(),
        release: release.map(|text| parsed("app", &text)).transpose()?,
        destroying: row.get(8)?,
        socket_activated: row.get(9)?,
    })
}

/// Writes the app, new or changed.
pub fn put(tx: &Transaction<'_>, app: &App) -> Result<(), RowError> {
    tx.execute(
        "INSERT INTO app(id, name, created_at, runtime, health, health_timeout_ms, watch_ms, release, destroying,
            socket_activated)
         VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         ON CONFLICT(id) DO UPDATE SET name = ?2, runtime = ?4, health = ?5,
            health_timeout_ms = ?6, watch_ms = ?7, release = ?8, destroying = ?9, socket_activated = ?10",
        params![
            app.id.as_str(),
            app.name.as_str(),
            app.created_at.0,
            app.runtime.map(RuntimeKind::name),
            app.health,
            app.health_timeout_ms as i64,
            app.watch_ms as i64,
            app.release.as_ref().map(ReleaseId::as_str),
            app.destroying,
            app.socket_activated,
        ],
    )?;
    Ok(())
}

/// The app of this name.
pub fn find(db: &Connection, name: &AppName) -> Result<Option<App>, RowError> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM app WHERE name = ?1"))?
        .query_row([name.as_str()], |row| Ok(read(row)))
        .optional()?
        .transpose()
}

/// The app of this name.
///
/// # Errors
/// [`RowError::Missing`] if there is none.
pub fn get(db: &Connection, name: &AppName) -> Result<App, RowError> {
    find(db, name)?.ok_or_else(|| RowError::Missing(format!("there is no app `{name}`")))
}

/// The app of this id.
pub fn by_id(db: &Connection, id: &AppId) -> Result<Option<App>, RowError> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM app WHERE id = ?1"))?
        .query_row([id.as_str()], |row| Ok(read(row)))
        .optional()?
        .transpose()
}

/// Apps by name after `after`, at most `limit`.
pub fn list(db: &Connection, after: Option<&AppName>, limit: u32) -> Result<Vec<App>, RowError> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM app WHERE name > ?1 ORDER BY name LIMIT ?2"
    ))?;
    let rows = statement.query_map(params![after.map_or("", AppName::as_str), limit], |row| {
        Ok(read(row))
    })?;
    rows.map(|row| row?).collect()
}

/// Removes the app with all rows that belong to it.
pub fn remove(tx: &Transaction<'_>, id: &AppId) -> Result<(), RowError> {
    // Not left to the cascade alone: an instance refers to three parents.
    for table in ["instance", "deployment", "release", "domain", "env"] {
        tx.execute(
            &format!("DELETE FROM {table} WHERE app = ?1"),
            [id.as_str()],
        )?;
    }
    tx.execute("DELETE FROM app WHERE id = ?1", [id.as_str()])?;
    Ok(())
}

/// The hosts given to the app, in the order they were given.
pub fn domains(db: &Connection, id: &AppId) -> Result<Vec<Host>, RowError> {
    let mut statement =
        db.prepare_cached("SELECT host FROM domain WHERE app = ?1 ORDER BY created_at, host")?;
    let rows = statement.query_map([id.as_str()], |row| row.get::<_, String>(0))?;
    rows.map(|row| parsed("domain", &row?)).collect()
}

/// Gives a host to the app; nothing happens if it has it.
///
/// # Errors
/// [`RowError::Exists`] if another app has it.
pub fn add_domain(tx: &Transaction<'_>, id: &AppId, host: &Host) -> Result<(), RowError> {
    let owner: Option<(String, String)> = tx
        .query_row(
            "SELECT app.id, app.name FROM domain JOIN app ON app.id = domain.app WHERE host = ?1",
            [host.as_str()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    match owner {
        Some((owner, _)) if owner == id.as_str() => Ok(()),
        Some((_, name)) => Err(RowError::Exists(format!(
            "{host} belongs to the app `{name}`"
        ))),
        None => {
            tx.execute(
                "INSERT INTO domain(host, app, created_at) VALUES(?1, ?2, ?3)",
                params![host.as_str(), id.as_str(), Timestamp::now().0],
            )?;
            Ok(())
        }
    }
}

/// Takes a host from the app; false if it has not got it.
pub fn remove_domain(tx: &Transaction<'_>, id: &AppId, host: &Host) -> Result<bool, RowError> {
    let removed = tx.execute(
        "DELETE FROM domain WHERE app = ?1 AND host = ?2",
        [id.as_str(), host.as_str()],
    )?;
    Ok(removed > 0)
}

/// Stores a sealed variable.
pub fn put_env(
    tx: &Transaction<'_>,
    id: &AppId,
    name: &EnvName,
    sealed: &[u8],
) -> Result<(), RowError> {
    tx.execute(
        "INSERT INTO env(app, name, sealed) VALUES(?1, ?2, ?3)
         ON CONFLICT(app, name) DO UPDATE SET sealed = ?3",
        params![id.as_str(), name.as_str(), sealed],
    )?;
    Ok(())
}

/// Removes a variable; false if it is not set.
pub fn remove_env(tx: &Transaction<'_>, id: &AppId, name: &EnvName) -> Result<bool, RowError> {
    let removed = tx.execute(
        "DELETE FROM env WHERE app = ?1 AND name = ?2",
        [id.as_str(), name.as_str()],
    )?;
    Ok(removed > 0)
}

/// The app's sealed variables by name.
pub fn env(db: &Connection, id: &AppId) -> Result<Vec<(EnvName, Vec<u8>)>, RowError> {
    let mut statement =
        db.prepare_cached("SELECT name, sealed FROM env WHERE app = ?1 ORDER BY name")?;
    let rows = statement.query_map([id.as_str()], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?))
    })?;
    rows.map(|row| {
        let (name, sealed) = row?;
        Ok((parsed("env", &name)?, sealed))
    })
    .collect()
}
