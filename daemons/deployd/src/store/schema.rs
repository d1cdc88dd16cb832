//! The schema and its versions. A migration is appended, never changed.

use rusqlite::Connection;
use std::time::Duration;

/// The schema that this version writes.
pub const VERSION: i64 = 3;

/// How long a write waits for a reader of another process (a backup).
const BUSY: Duration = Duration::from_secs(5);

/// One step per version, the first from an empty file.
const MIGRATIONS: [&str; VERSION as usize] = [FIRST, ACTIVATION, FROM_OUTSIDE];

const FIRST: &str = "
    CREATE TABLE meta(
        key TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) STRICT;
    INSERT INTO meta(key, value) VALUES('generation', '0');

    CREATE TABLE app(
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        created_at INTEGER NOT NULL,
        runtime TEXT,
        health TEXT,
        health_timeout_ms INTEGER NOT NULL,
        watch_ms INTEGER NOT NULL,
        release TEXT,
        destroying INTEGER NOT NULL DEFAULT 0
    ) STRICT;

    CREATE TABLE domain(
        host TEXT PRIMARY KEY,
        app TEXT NOT NULL REFERENCES app(id) ON DELETE CASCADE,
        created_at INTEGER NOT NULL
    ) STRICT;

    CREATE TABLE env(
        app TEXT NOT NULL REFERENCES app(id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        sealed BLOB NOT NULL,
        PRIMARY KEY(app, name)
    ) STRICT;

    CREATE TABLE release(
        id TEXT PRIMARY KEY,
        app TEXT NOT NULL REFERENCES app(id) ON DELETE CASCADE,
        status TEXT NOT NULL,
        material TEXT NOT NULL,
        wanted_runtime TEXT,
        runtime TEXT,
        artifact TEXT,
        env BLOB NOT NULL,
        health TEXT,
        health_timeout_ms INTEGER NOT NULL,
        source TEXT NOT NULL,
        reason TEXT NOT NULL DEFAULT '',
        actor TEXT NOT NULL,
        served_at INTEGER,
        created_at INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX release_by_app ON release(app, id);

    CREATE TABLE deployment(
        id TEXT PRIMARY KEY,
        app TEXT NOT NULL REFERENCES app(id) ON DELETE CASCADE,
        release TEXT NOT NULL REFERENCES release(id) ON DELETE CASCADE,
        kind TEXT NOT NULL,
        phase TEXT NOT NULL,
        previous TEXT,
        fallback TEXT,
        reason TEXT NOT NULL DEFAULT '',
        last_lines TEXT NOT NULL DEFAULT '[]',
        watch_ms INTEGER NOT NULL,
        drain_until INTEGER,
        watch_until INTEGER,
        revision INTEGER NOT NULL DEFAULT 1,
        created_at INTEGER NOT NULL,
        ended_at INTEGER
    ) STRICT;
    CREATE INDEX deployment_by_app ON deployment(app, id);
    CREATE INDEX deployment_open ON deployment(app, id)
        WHERE phase NOT IN ('confirmed', 'refused', 'rolled-back');

    CREATE TABLE instance(
        id TEXT PRIMARY KEY,
        app TEXT NOT NULL REFERENCES app(id) ON DELETE CASCADE,
        release TEXT NOT NULL REFERENCES release(id) ON DELETE CASCADE,
        deployment TEXT NOT NULL REFERENCES deployment(id) ON DELETE CASCADE,
        runtime TEXT NOT NULL,
        address TEXT,
        state TEXT NOT NULL,
        created_at INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX instance_by_app ON instance(app, id);
    CREATE INDEX instance_present ON instance(state) WHERE state <> 'gone';

    CREATE TABLE audit(
        id INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        uid INTEGER NOT NULL,
        actor TEXT NOT NULL,
        via TEXT NOT NULL,
        verb TEXT NOT NULL,
        app TEXT NOT NULL,
        detail TEXT NOT NULL
    ) STRICT;
";

/// Apps that are started by requests.
const ACTIVATION: &str = "
    ALTER TABLE app ADD COLUMN socket_activated INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE release ADD COLUMN socket_activated INTEGER NOT NULL DEFAULT 0;
";

/// Restarts of what was stopped from outside.
const FROM_OUTSIDE: &str = "
    ALTER TABLE deployment ADD COLUMN from_outside INTEGER NOT NULL DEFAULT 0;
";

/// Sets how the connection works.
pub(super) fn prepare(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // What a transaction wrote survives a power cut: a deployment's step is written before it is
    // taken, so a lost write could leave an instance nobody knows of.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(())
}

/// Brings the file to [`VERSION`]; answers the version found if it is newer.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<i64> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > VERSION {
        return Ok(found);
    }
    for (version, step) in (1..)
        .zip(MIGRATIONS)
        .skip(usize::try_from(found).unwrap_or(0))
    {
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", version)?;
    }
    transaction.commit()?;
    Ok(VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_first_version_wrote_is_started_as_before() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(FIRST).unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        connection
            .execute_batch(
                "INSERT INTO app(id, name, created_at, health_timeout_ms, watch_ms)
                 VALUES('app_1', 'shop', 1, 1, 1);
                 INSERT INTO release(id, app, status, material, env, health_timeout_ms, source, actor, created_at)
                 VALUES('rel_1', 'app_1', 'live', '{}', x'', 1, '', '', 1);",
            )
            .unwrap();
        assert_eq!(migrate(&mut connection).unwrap(), VERSION);
        for table in ["app", "release"] {
            let activated: bool = connection
                .query_row(
                    &format!("SELECT socket_activated FROM {table}"),
                    [],
                    |row| row.get(0),
                )
                .unwrap();
            assert!(!activated, "{table}");
        }
    }
}
