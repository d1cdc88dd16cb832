//! What deployd says of itself: `temps status` and its part of `temps doctor`.

use crate::engine::Engine;
use crate::reserve::Reserve;
use crate::room::Room;
use crate::store::copy;
use std::path::Path;
use temps_ipc::Fault;
use temps_ipc::types::{Check, CheckLevel, DeploydStatus};

/// Free space below which a warning is due, in MiB.
const LOW_DISK: u64 = 1024;

/// Free space below which builds are refused, in MiB.
const NO_DISK: u64 = 256;

/// How deployd is.
///
/// # Errors
/// When the database fails.
pub async fn status(engine: &Engine) -> Result<DeploydStatus, Fault> {
    let (apps, (deployments, watching)) = engine.counts().await?;
    let mut checks = vec![disk(engine)];
    checks.extend(wrong_configuration(engine));
    checks.extend(damaged_database(engine));
    checks.extend(copy_behind(engine));
    checks.extend(engine.runtime_checks().await);
    checks.extend(engine.dying_checks().await?);
    checks.extend(engine.resting_checks().await?);
    checks.push(match engine.proxy_check().await {
        Ok(()) => check(
            "proxy",
            CheckLevel::Ok,
            "temps-proxy serves the present routes",
            "",
        ),
        Err(fault) => check("proxy", CheckLevel::Failed, &fault.what, &fault.hint),
    });
    Ok(DeploydStatus {
        build: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: engine.started_at(),
        apps,
        deployments,
        watching,
        base_domain: engine.settings().base_domain.clone(),
        state_dir: engine.paths().state().to_owned(),
        checks,
    })
}

pub(crate) fn check(name: &str, level: CheckLevel, what: &str, hint: &str) -> Check {
    Check {
        name: name.to_owned(),
        level,
        what: what.to_owned(),
        hint: hint.to_owned(),
    }
}

fn wrong_configuration(engine: &Engine) -> Option<Check> {
    let problem = engine.settings().problem.as_ref()?;
    Some(check(
        "deployd.toml",
        CheckLevel::Failed,
        &format!("the configuration is wrong: {problem}; the last good one is used"),
        "mend it: temps-deployd reads it at its next start",
    ))
}

fn copy_behind(engine: &Engine) -> Option<Check> {
    let problem = engine.copy_problem()?;
    Some(check(
        "database",
        CheckLevel::Warning,
        &format!("its last good copy is behind it: {problem}"),
        "mend that: the copy takes the place of a database that is found damaged",
    ))
}

/// A database that had to be replaced is told until somebody removes what is kept of it.
fn damaged_database(engine: &Engine) -> Option<Check> {
    let kept = copy::damaged(&engine.paths().database()).pop()?;
    let what = format!(
        "the database was found damaged and replaced by its last good copy; the damaged one is {}",
        kept.display()
    );
    Some(check(
        "database",
        CheckLevel::Warning,
        &what,
        "see that nothing of the last changes is missing and that the disk is sound, then remove that file",
    ))
}

fn disk(engine: &Engine) -> Check {
    let state = engine.paths().state();
    let Some(found) = Room::of(state) else {
        return check(
            "disk",
            CheckLevel::Warning,
            "the free space cannot be read",
            "",
        );
    };
    if let Some((free, wanted)) = found.few_files() {
        return check(
            "disk",
            CheckLevel::Failed,
            &format!("only {free} more files can be made at {}", state.display()),
            &format!("remove files: builds and uploads are refused below {wanted} (`df -i`)"),
        );
    }
    let reserves = [engine.paths().removal_reserve(), engine.paths().reserve()];
    room(
        state,
        found.bytes >> 20,
        reserves.iter().all(Reserve::is_kept),
    )
}

/// What is said of a disk with `free` MiB free, and of the room kept for when it is full.
fn room(state: &Path, free: u64, is_kept: bool) -> Check {
    let gone = if is_kept {
        ""
    } else {
        "; the room kept for a full disk is gone"
    };
    let what = format!("{free} MiB free at {}{gone}", state.display());
    let hint = "free some space: builds and uploads are refused below 256 MiB";
    match free {
        0..NO_DISK => check("disk", CheckLevel::Failed, &what, hint),
        NO_DISK..LOW_DISK => check("disk", CheckLevel::Warning, &what, hint),
        _ if !is_kept => check(
            "disk",
            CheckLevel::Warning,
            &what,
            "temps-deployd takes it again within seconds; if it does not, see what is in the place of the files `reserve` and `reserve-removal` there",
        ),
        _ => check("disk", CheckLevel::Ok, &what, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_the_room_kept_for_when_it_is_full_is_a_warning() {
        let state = Path::new("/var/lib/temps");
        assert_eq!(room(state, 5_000, true).level, CheckLevel::Ok);
        for (free, level) in [
            (5_000, CheckLevel::Warning),
            (500, CheckLevel::Warning),
            (5, CheckLevel::Failed),
        ] {
            let told = room(state, free, false);
            assert_eq!(told.level, level);
            assert!(told.what.ends_with("is gone"), "{told:?}");
        }
    }
}
