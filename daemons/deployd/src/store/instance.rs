//! Instances: recorded before they are started, until after they are stopped.

use super::{RowError, from_json, parsed, to_json};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use temps_ipc::id::{AppId, DeploymentId, InstanceId, ReleaseId};
use temps_ipc::types::{Address, RuntimeKind, Timestamp};

/// What an instance is meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Being started; not routed.
    Starting,
    /// Routed.
    Serving,
    /// Not routed any more; to be stopped when drained.
    Retiring,
    /// Stopped and removed; its log may still be there.
    Gone,
}

impl State {
    const ALL: [State; 4] = [
        State::Starting,
        State::Serving,
        State::Retiring,
        State::Gone,
    ];

    /// The name in the database.
    pub const fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Serving => "serving",
            State::Retiring => "retiring",
            State::Gone => "gone",
        }
    }
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its id; also the proxy's target.
    pub id: InstanceId,
    /// The app.
    pub app: AppId,
    /// The release it runs.
    pub release: ReleaseId,
    /// The deployment that made it.
    pub deployment: DeploymentId,
    /// How it runs.
    pub runtime: RuntimeKind,
    /// Where it listens; absent for static sites.
    pub address: Option<Address>,
    /// What it is meant to be.
    pub state: State,
    /// When it was recorded.
    pub created_at: Timestamp,
}

const COLUMNS: &str = "id, app, release, deployment, runtime, address, state, created_at";

fn read(row: &Row<'_>) -> Result<Instance, RowError> {
    const TABLE: &str = "instance";
    let address: Option<String> = row.get(5)?;
    let state: String = row.get(6)?;
    Ok(Instance {
        id: parsed(TABLE, &row.get::<_, String>(0)?)?,
        app: parsed(TABLE, &row.get::<_, String>(1)?)?,
        release: parsed(TABLE, &row.get::<_, String>(2)?)?,
        deployment: parsed(TABLE, &row.get::<_, String>(3)?)?,
        runtime: parsed(TABLE, &row.get::<_, String>(4)?)?,
        address: address.map(|text| from_json(TABLE, &text)).transpose()?,
        state: State::ALL
            .into_iter()
            .find(|known| known.name() == state)
            .ok_or_else(|| RowError::Unreadable {
                table: TABLE,
                why: format!("unknown state `{state}`"),
            })?,
        created_at: Timestamp(row.get(7)?),
    })
}

fn rows(
    db: &Connection,
    condition: &str,
    values: &[&dyn rusqlite::ToSql],
) -> Result<Vec<Instance>, RowError> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM instance WHERE {condition} ORDER BY id"
    ))?;
    let rows = statement.query_map(values, |row| Ok(read(row)))?;
    rows.map(|row| row?).collect()
}

/// Records an instance that is about to be started.
pub fn insert(tx: &Transaction<'_>, instance: &Instance) -> Result<(), RowError> {
    tx.execute(
        &format!("INSERT INTO instance({COLUMNS}) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"),
        params![
            instance.id.as_str(),
            instance.app.as_str(),
            instance.release.as_str(),
            instance.deployment.as_str(),
            instance.runtime.name(),
            instance
                .address
                .as_ref()
                .map(|address| to_json("instance", address))
                .transpose()?,
            instance.state.name(),
            instance.created_at.0,
        ],
    )?;
    Ok(())
}

/// The instance of this id.
pub fn find(db: &Connection, id: &InstanceId) -> Result<Option<Instance>, RowError> {
    db.prepare_cached(&format!("SELECT {COLUMNS} FROM instance WHERE id = ?1"))?
        .query_row([id.as_str()], |row| Ok(read(row)))
        .optional()?
        .transpose()
}

/// The app's instances that are not gone.
pub fn present(db: &Connection, app: &AppId) -> Result<Vec<Instance>, RowError> {
    rows(db, "app = ?1 AND state <> 'gone'", &[&app.as_str()])
}

/// Every instance that is not gone.
pub fn all_present(db: &Connection) -> Result<Vec<Instance>, RowError> {
    rows(db, "state <> 'gone'", &[])
}

/// The app's instances, gone ones too, of one release if given: whose logs may be there.
pub fn of_app(
    db: &Connection,
    app: &AppId,
    release: Option<&ReleaseId>,
) -> Result<Vec<Instance>, RowError> {
    match release {
        Some(release) => rows(
            db,
            "app = ?1 AND release = ?2 AND address IS NOT NULL",
            &[&app.as_str(), &release.as_str()],
        ),
        None => rows(db, "app = ?1 AND address IS NOT NULL", &[&app.as_str()]),
    }
}

/// The app's gone instances but the latest `keep` of each release, with their releases.
pub fn surplus(
    db: &Connection,
    app: &AppId,
    keep: u32,
) -> Result<Vec<(InstanceId, ReleaseId)>, RowError> {
    let mut statement = db.prepare_cached(
        "SELECT id, release FROM (
            SELECT id, release, row_number() OVER (PARTITION BY release ORDER BY id DESC) AS place
            FROM instance WHERE app = ?1 AND state = 'gone')
         WHERE place > ?2",
    )?;
    let rows = statement.query_map(params![app.as_str(), keep], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    rows.map(|row| {
        let (id, release) = row?;
        Ok((parsed("instance", &id)?, parsed("instance", &release)?))
    })
    .collect()
}

/// Forgets an instance.
pub fn remove(tx: &Transaction<'_>, id: &InstanceId) -> Result<(), RowError> {
    tx.execute("DELETE FROM instance WHERE id = ?1", [id.as_str()])?;
    Ok(())
}

/// Sets what the instance is meant to be.
pub fn set_state(tx: &Transaction<'_>, id: &InstanceId, state: State) -> Result<(), RowError> {
    tx.execute(
        "UPDATE instance SET state = ?2 WHERE id = ?1",
        params![id.as_str(), state.name()],
    )?;
    Ok(())
}

/// `new` is routed from now on; whatever of the app was routed is to be retired.
pub fn switch(tx: &Transaction<'_>, app: &AppId, new: &InstanceId) -> Result<(), RowError> {
    tx.execute(
        "UPDATE instance SET state = 'retiring' WHERE app = ?1 AND state = 'serving' AND id <> ?2",
        params![app.as_str(), new.as_str()],
    )?;
    set_state(tx, new, State::Serving)
}
