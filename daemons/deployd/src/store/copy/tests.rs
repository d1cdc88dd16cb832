use super::*;
use std::os::unix::fs::PermissionsExt;

async fn put(store: &Store, key: &'static str) {
    store
        .write(move |tx| {
            tx.execute("INSERT INTO meta(key, value) VALUES(?1, '')", [key])?;
            Ok(())
        })
        .await
        .unwrap();
}

async fn keys(store: &Store) -> i64 {
    store
        .read(|db| Ok(db.query_row("SELECT count(*) FROM meta", [], |row| row.get(0))?))
        .await
        .unwrap()
}

/// A database with a saved copy, closed; its path and how many rows it has.
async fn saved(directory: &Path) -> (PathBuf, i64) {
    let path = directory.join("deployd.db");
    let (store, restored) = open_or_restore(&path).unwrap();
    assert!(restored.is_none());
    put(&store, "a").await;
    assert!(store.save_copy().await.unwrap());
    assert!(!store.save_copy().await.unwrap(), "nothing was written");
    let rows = keys(&store).await;
    (path, rows)
}

#[tokio::test]
async fn a_damaged_database_is_set_aside_and_its_copy_takes_its_place() {
    for bytes in [
        Some(&[0x5A; 8192][..]),
        Some(b""),
        Some(b"SQLite format 3\0cut short"),
        None,
    ] {
        let directory = tempfile::tempdir().unwrap();
        let (path, rows) = saved(directory.path()).await;
        if let Some(bytes) = bytes {
            std::fs::write(&path, bytes).unwrap();
        } else {
            // A page in the middle, which opening alone does not read.
            let mut whole = std::fs::read(&path).unwrap();
            assert!(whole.len() > 16 * 4096, "{}", whole.len());
            whole[5 * 4096..9 * 4096].fill(0xA5);
            std::fs::write(&path, whole).unwrap();
        }
        let (store, restored) = open_or_restore(&path).unwrap();
        let restored = restored.unwrap();
        assert!(restored.why.is_damage());
        assert_eq!(damaged(&path), [restored.damaged.unwrap()]);
        assert_eq!(keys(&store).await, rows);
        put(&store, "b").await;
        drop(store);
        let (store, restored) = open_or_restore(&path).unwrap();
        assert!(restored.is_none());
        assert_eq!(keys(&store).await, rows + 1);
    }
}

#[tokio::test]
async fn without_a_whole_copy_nothing_is_moved() {
    let directory = tempfile::tempdir().unwrap();
    let (path, _) = saved(directory.path()).await;
    std::fs::write(&path, [0x5A; 8192]).unwrap();
    std::fs::write(copy_of(&path), [0x5A; 8192]).unwrap();
    assert!(open_or_restore(&path).err().unwrap().is_damage());
    assert!(damaged(&path).is_empty());
    assert_eq!(std::fs::read(&path).unwrap(), [0x5A; 8192]);
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_not_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let (path, _) = saved(directory.path()).await;
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", super::super::schema::VERSION + 1)
        .unwrap();
    let error = open_or_restore(&path).err().unwrap();
    assert!(matches!(error, StoreError::Newer { .. }), "{error}");
    assert!(damaged(&path).is_empty());
}

#[tokio::test]
async fn a_database_that_is_gone_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let (path, rows) = saved(directory.path()).await;
    std::fs::remove_file(&path).unwrap();
    let (store, restored) = open_or_restore(&path).unwrap();
    assert!(restored.unwrap().damaged.is_none(), "nothing is left of it");
    assert_eq!(keys(&store).await, rows);
}

/// A database whose last writes are in its `-wal` only, as after `kill -9`, with a copy of them.
async fn killed(directory: &Path) -> (PathBuf, i64) {
    let (path, _) = saved(directory).await;
    let (store, _) = open_or_restore(&path).unwrap();
    put(&store, "later").await;
    store.save_copy().await.unwrap();
    let rows = keys(&store).await;
    let left: Vec<_> = [&path, &beside(&path, "-wal")]
        .map(|file| (file.clone(), std::fs::read(file).unwrap()))
        .into();
    drop(store);
    for (file, bytes) in left {
        std::fs::write(file, bytes).unwrap();
    }
    let _ = std::fs::remove_file(beside(&path, "-shm"));
    (path, rows)
}

#[tokio::test]
async fn a_database_that_lost_its_last_writes_is_replaced_and_the_copy_is_not() {
    for ruin in ["none", "removed", "emptied", "garbled"] {
        let directory = tempfile::tempdir().unwrap();
        let (path, rows) = killed(directory.path()).await;
        let wal = beside(&path, "-wal");
        match ruin {
            "removed" => std::fs::remove_file(&wal).unwrap(),
            "emptied" => std::fs::write(&wal, "").unwrap(),
            "garbled" => {
                let mut bytes = std::fs::read(&wal).unwrap();
                bytes[..24].fill(0xA5);
                std::fs::write(&wal, bytes).unwrap();
            }
            _ => {}
        }
        let (store, restored) = open_or_restore(&path).unwrap();
        assert_eq!(restored.is_some(), ruin != "none", "{ruin}");
        assert_eq!(keys(&store).await, rows, "{ruin}");
        assert!(
            !store.save_copy().await.unwrap(),
            "{ruin}: the copy is as good"
        );
    }
}

#[tokio::test]
async fn damage_met_by_a_call_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let (path, _) = saved(directory.path()).await;
    let (store, _) = open_or_restore(&path).unwrap();
    let failed: Result<(), _> = store
        .read(|_| {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            Err(rusqlite::Error::SqliteFailure(code, None).into())
        })
        .await;
    assert!(failed.is_err());
    store.damaged().await;
}

#[tokio::test]
async fn a_copy_that_cannot_be_made_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deployd.db");
    std::fs::create_dir(copy_of(&path)).unwrap();
    let (store, _) = open_or_restore(&path).unwrap();
    put(&store, "a").await;
    store.save_copy().await.unwrap_err();
    assert!(store.copy_problem().is_some());
    std::fs::remove_dir(copy_of(&path)).unwrap();
    store.save_copy().await.unwrap();
    assert_eq!(store.copy_problem(), None);
}

#[tokio::test]
async fn the_copy_is_private() {
    let directory = tempfile::tempdir().unwrap();
    let (path, _) = saved(directory.path()).await;
    let mode = std::fs::metadata(copy_of(&path))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}
