//! Packs a directory into a tar archive: regular files, directories and links, owned by nobody in
//! particular. Whatever else is there (sockets, devices) is left out.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Writes everything below `root` to `to`, and the end of the archive. Blocks.
///
/// # Errors
/// What the file system says, with the name of what cannot be read; what `to` says.
pub fn pack(root: &Path, to: impl Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(to);
    let mut waiting = vec![PathBuf::new()];
    while let Some(directory) = waiting.pop() {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", directory.display()))
        };
        for entry in fs::read_dir(root.join(&directory)).map_err(named)? {
            let name = directory.join(entry.map_err(named)?.file_name());
            let path = root.join(&name);
            let found = fs::symlink_metadata(&path)?;
            append(&mut archive, &name, &path, &found)?;
            if found.is_dir() {
                waiting.push(name);
            }
        }
    }
    archive.into_inner()?.flush()
}

/// Appends the file, directory or link at `path` as `name`.
///
/// # Errors
/// When it cannot be read, or the archive cannot be written.
pub fn append(
    archive: &mut tar::Builder<impl Write>,
    name: &Path,
    path: &Path,
    found: &fs::Metadata,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(found.permissions().mode() & 0o777);
    header.set_mtime(u64::try_from(found.mtime()).unwrap_or(0));
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    if found.is_dir() {
        header.set_entry_type(tar::EntryType::Directory);
        return archive.append_data(&mut header, name, io::empty());
    }
    if found.is_symlink() {
        header.set_entry_type(tar::EntryType::Symlink);
        return archive.append_link(&mut header, name, fs::read_link(path)?);
    }
    if !found.is_file() {
        return Ok(());
    }
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(found.len());
    let file = File::open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", name.display())))?;
    // What is promised in the header is sent, even if the file grows meanwhile.
    archive.append_data(&mut header, name, file.take(found.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{Limits, Links, unpack};
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn what_was_packed_is_unpacked_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let long = format!("deep/{}/{}", "a".repeat(120), "b".repeat(120));
        fs::create_dir_all(from.join(&long)).unwrap();
        fs::create_dir_all(&to).unwrap();
        fs::write(from.join(&long).join("file"), "content").unwrap();
        fs::write(from.join("run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(from.join("run"), fs::Permissions::from_mode(0o4755)).unwrap();
        symlink("/usr/bin/python3", from.join("python")).unwrap();
        let _socket = UnixListener::bind(from.join("socket")).unwrap();
        let mut archive = Vec::new();
        pack(&from, &mut archive).unwrap();
        let go = AtomicBool::new(false);
        let limits = Limits::default();
        unpack(&archive[..], &to, limits, Links::Anywhere, &go).unwrap();
        assert_eq!(
            fs::read_to_string(to.join(&long).join("file")).unwrap(),
            "content"
        );
        let mode = to.join("run").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755, "no set-id bit survives");
        let link = fs::read_link(to.join("python")).unwrap();
        assert_eq!(link, Path::new("/usr/bin/python3"));
        assert!(!to.join("socket").exists());
        let within = dir.path().join("within");
        fs::create_dir_all(&within).unwrap();
        assert!(unpack(&archive[..], &within, limits, Links::Within, &go).is_err());
    }
}
