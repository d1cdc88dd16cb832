//! Opens a static release to its reader: temps-proxy serves it as a user of its own.
//!
//! Everything deployd makes is private. The state directory and the one of all releases let others
//! pass through (0711), so that a release that is public anyway can be opened, and nothing beside it.
//! Hidden names stay closed, but for `.well-known`: they are never served (RFC 8615).

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Opens `directory`, made for one release, and the files to serve below it.
pub(super) fn open(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") && name != ".well-known" {
            continue;
        }
        // Of the entry itself: a link is not followed, here as when it is asked for.
        let kind = entry.file_type()?;
        if kind.is_dir() {
            open(&entry.path())?;
        } else if kind.is_file() {
            fs::set_permissions(entry.path(), Permissions::from_mode(0o644))?;
        }
    }
    // Last, so that a release is never open in part.
    fs::set_permissions(directory, Permissions::from_mode(0o755))
}

/// Opens everything below `directory`, which itself stays closed: the service manager shows it to the
/// app, which runs as a user of its own.
pub(super) fn open_below(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            continue;
        }
        if kind.is_dir() {
            open_below(&entry.path())?;
        }
        let mode = entry.metadata()?.permissions().mode() & 0o777;
        // As its owner may, so may others, but for writing.
        let open = mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6;
        if open != mode {
            fs::set_permissions(entry.path(), Permissions::from_mode(open))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_an_app_runs_is_opened_and_the_release_stays_closed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("bin")).unwrap();
        for (name, mode) in [("bin/run", 0o700), (".env", 0o600)] {
            fs::write(root.join(name), "x").unwrap();
            fs::set_permissions(root.join(name), Permissions::from_mode(mode)).unwrap();
        }
        for place in [root.join("bin"), root.clone(), dir.path().to_owned()] {
            fs::set_permissions(place, Permissions::from_mode(0o700)).unwrap();
        }
        open_below(dir.path()).unwrap();
        for (name, wanted) in [
            ("", 0o700),
            ("root", 0o755),
            ("root/bin", 0o755),
            ("root/bin/run", 0o755),
            ("root/.env", 0o644),
        ] {
            assert_eq!(mode(&dir.path().join(name)), wanted, "{name}");
        }
    }

    #[test]
    fn what_is_served_is_opened_and_hidden_names_stay_closed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("release");
        for name in ["root/css", "root/.git", "root/.well-known"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        let files = [
            "root/index.html",
            "root/css/a.css",
            "root/.env",
            "root/.git/config",
            "root/.well-known/x",
        ];
        for name in files {
            fs::write(root.join(name), "x").unwrap();
        }
        std::os::unix::fs::symlink("/etc/shadow", root.join("root/link")).unwrap();
        let closed = Permissions::from_mode(0o600);
        for name in files {
            fs::set_permissions(root.join(name), closed.clone()).unwrap();
        }
        for name in ["root/.git", "root/css", "root", "."] {
            fs::set_permissions(root.join(name), Permissions::from_mode(0o700)).unwrap();
        }
        open(&root).unwrap();
        for (name, wanted) in [
            (".", 0o755),
            ("root", 0o755),
            ("root/css", 0o755),
            ("root/index.html", 0o644),
            ("root/css/a.css", 0o644),
            ("root/.well-known", 0o755),
            ("root/.well-known/x", 0o644),
            ("root/.env", 0o600),
            ("root/.git", 0o700),
            ("root/.git/config", 0o600),
        ] {
            assert_eq!(mode(&root.join(name)), wanted, "{name}");
        }
    }
}
