//! Who changed what.

use super::RowError;
use rusqlite::{Transaction, params};
use temps_ipc::types::{Actor, Timestamp};

/// Most rows kept; the oldest go first.
const KEPT: i64 = 100_000;

/// Records a change: `uid` is what the kernel vouches for, `actor` what the caller says.
pub fn record(
    tx: &Transaction<'_>,
    uid: u32,
    actor: &Actor,
    verb: &str,
    app: &str,
    detail: &str,
) -> Result<(), RowError> {
    tx.execute(
        "INSERT INTO audit(at, uid, actor, via, verb, app, detail) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![Timestamp::now().0, uid, actor.name, actor.via, verb, app, detail],
    )?;
    tx.execute(
        "DELETE FROM audit WHERE id <= last_insert_rowid() - ?1",
        [KEPT],
    )?;
    Ok(())
}
