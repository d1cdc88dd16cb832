//! Refuses a build before it fills the disk that everything else needs too.

use crate::room::Room;
use std::path::{Path, PathBuf};
use std::time::Duration;
use temps_ipc::{Code, Fault};

/// Below this the databases and logs of the platform itself are in danger.
const MIN_BYTES: u64 = 256 * 1024 * 1024;

/// The same as a share of the file system, in percent.
const MIN_PERCENT: u64 = 2;

/// How often the free space is looked at while something writes: what a repository or a build becomes
/// is known only when it is there, and a small one can become very large.
const LOOK: Duration = Duration::from_secs(1);

/// Waits until too little is left at one of the directories.
pub(super) async fn exhausted(directories: Vec<PathBuf>) -> Fault {
    loop {
        tokio::time::sleep(LOOK).await;
        for directory in &directories {
            if let Err(fault) = check(directory) {
                return fault;
            }
        }
    }
}

/// Refuses if too little is left where `directory` is or will be.
pub(super) fn check(directory: &Path) -> Result<(), Fault> {
    let existing = directory.ancestors().find(|ancestor| ancestor.exists());
    existing.map_or(Ok(()), |existing| check_as(existing, existing))
}

/// Refuses if too little is left at `existing`, which has the name `shown` for people.
pub(super) fn check_as(existing: &Path, shown: &Path) -> Result<(), Fault> {
    // Where that cannot be told, writing will tell.
    Room::of(existing).map_or(Ok(()), |room| judge(room, shown))
}

fn judge(room: Room, place: &Path) -> Result<(), Fault> {
    if let Some((free, wanted)) = room.few_files() {
        return Err(full(format!(
            "only {free} more files can be made on the file system of {}; a build needs {wanted}",
            place.display()
        )));
    }
    let (free, all) = (room.bytes, room.all_bytes);
    let wanted = MIN_BYTES.max(all / 100 * MIN_PERCENT);
    // A file system smaller than what we ask for (a test's, a container's) is judged by its share.
    let wanted = if all < 4 * MIN_BYTES {
        all / 100 * MIN_PERCENT
    } else {
        wanted
    };
    if free >= wanted {
        return Ok(());
    }
    let mib = |bytes: u64| bytes / (1024 * 1024);
    Err(full(format!(
        "only {} MiB are free on the file system of {}; a build needs {} MiB",
        mib(free),
        place.display(),
        mib(wanted)
    )))
}

fn full(what: String) -> Fault {
    Fault::new(Code::NoSpace, what).hint(
        "free some space there, or destroy apps that are not needed (`temps app destroy APP`)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::Files;

    #[test]
    fn a_build_needs_a_quarter_gibibyte_and_two_percent() {
        const GIB: u64 = 1024 * 1024 * 1024;
        let judge = |bytes, all_bytes| {
            let files = None;
            let room = Room {
                bytes,
                all_bytes,
                files,
            };
            judge(room, Path::new("/"))
        };
        assert!(judge(GIB, 10 * GIB).is_ok());
        assert!(judge(GIB / 5, 10 * GIB).is_err());
        assert!(judge(GIB, 100 * GIB).is_err());
        assert!(judge(0, GIB / 2).is_err());
        let fault = judge(0, 10 * GIB).unwrap_err();
        assert_eq!(fault.code, Code::NoSpace);
        assert!(check(Path::new("/nowhere/at/all")).is_ok());
    }

    #[test]
    fn a_build_needs_files_too() {
        let room = |free| Room {
            bytes: 1 << 40,
            all_bytes: 1 << 40,
            files: Some(Files {
                free,
                all: 1_000_000,
            }),
        };
        assert!(judge(room(500_000), Path::new("/")).is_ok());
        let fault = judge(room(7), Path::new("/var")).unwrap_err();
        assert_eq!(fault.code, Code::NoSpace);
        assert!(
            fault.what.starts_with("only 7 more files can be made"),
            "{fault}"
        );
    }
}
