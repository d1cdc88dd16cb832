//! Secrets: systemd credentials and private key files.
//!
//! Secrets come from files only, never from arguments, the environment or the configuration. In
//! memory they are a [`Secret`], which does not print itself and is overwritten when dropped.

use crate::dirs::own_uid;
use nix::fcntl::OFlag;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use zeroize::Zeroizing;

/// systemd limits all credentials of a unit to 1 MiB; nothing of ours comes near.
const MAX_SECRET: u64 = 1024 * 1024;

/// Bytes of a generated key: what ChaCha20-Poly1305 and the like take.
pub const KEY_BYTES: usize = 32;

/// Why a secret could not be had. Never contains it.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The name could lead out of the directory.
    #[error("{0:?} cannot name a credential")]
    Name(String),
    /// Reading or writing failed.
    #[error("the secret {path} cannot be used")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Others than the owner may read it, or another user owns it.
    #[error("the secret {path} {problem}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// What is wrong and how to mend it.
        problem: String,
    },
}

/// Bytes that do not print themselves and are overwritten when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes over `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves, for the one who uses them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// The systemd credential `name`; `None` if the unit was not given it.
pub fn credential(name: &str) -> Result<Option<Secret>, CredentialError> {
    match std::env::var_os("CREDENTIALS_DIRECTORY") {
        Some(directory) => credential_in(Path::new(&directory), name),
        None => Ok(None),
    }
}

/// The credential `name` in `directory`; `None` if there is no such file.
pub fn credential_in(directory: &Path, name: &str) -> Result<Option<Secret>, CredentialError> {
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return Err(CredentialError::Name(name.to_owned()));
    }
    let path = directory.join(name);
    match File::open(&path) {
        Ok(file) => read(&path, file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CredentialError::Io { path, source }),
    }
}

/// The key in the file `path`, made of [`KEY_BYTES`] random bytes with mode 0600 if there is none.
///
/// Two processes that do this at once get the same key, and a crash leaves either a whole key or
/// none. The directory must exist.
pub fn key_file(path: &Path) -> Result<Secret, CredentialError> {
    let fail = |source| CredentialError::Io {
        path: path.to_owned(),
        source,
    };
    loop {
        match open_private(path) {
            Ok(file) => {
                check_owner(path, &file)?;
                let secret = read(path, file)?;
                if secret.expose().len() < KEY_BYTES {
                    return Err(exposed(
                        path,
                        "is too short for a key; restore it from a backup",
                    ));
                }
                return Ok(secret);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_key(path).map_err(fail)?;
            }
            Err(error) => return Err(fail(error)),
        }
    }
}

fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NOFOLLOW.bits() | OFlag::O_NONBLOCK.bits())
        .open(path)
}

fn check_owner(path: &Path, file: &File) -> Result<(), CredentialError> {
    let metadata = file.metadata().map_err(|source| CredentialError::Io {
        path: path.to_owned(),
        source,
    })?;
    let own = own_uid();
    if !metadata.is_file() {
        return Err(exposed(path, "is not a file"));
    }
    if metadata.uid() != own {
        let problem = format!("belongs to uid {}, not to uid {own}", metadata.uid());
        return Err(exposed(path, problem));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & !0o600 != 0 {
        let problem = format!(
            "has mode {mode:04o}: others may have read it; `chmod 600` it, or replace the key"
        );
        return Err(exposed(path, problem));
    }
    Ok(())
}

/// Writes a new key under a temporary name, then gives it its name if that is still free.
fn create_key(path: &Path) -> io::Result<()> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    getrandom::fill(key.as_mut()).map_err(io::Error::other)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // The process id keeps two processes apart, the number two threads.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}-{number}.new", std::process::id()));
    let temporary = directory.join(temporary);
    let written = write_key(&temporary, key.as_ref()).and_then(|()| {
        // A link, unlike a rename, never replaces.
        match std::fs::hard_link(&temporary, path) {
            // Somebody was faster: theirs is the key.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }
    });
    // A leftover is in nobody's way, and as private as the key.
    let _ = std::fs::remove_file(&temporary);
    written?;
    File::open(directory)?.sync_all()
}

fn write_key(path: &Path, key: &[u8]) -> io::Result<()> {
    // One left by a crash of a process with the same id would stand in the way for ever.
    let _ = std::fs::remove_file(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(key)?;
    file.sync_all()
}

fn read(path: &Path, file: File) -> Result<Secret, CredentialError> {
    let fail = |source| CredentialError::Io {
        path: path.to_owned(),
        source,
    };
    // Reserved whole, so that growing leaves no copies behind in freed memory.
    let length = file.metadata().map_err(fail)?.len().min(MAX_SECRET);
    let mut bytes = Zeroizing::new(Vec::with_capacity(length as usize + 1));
    file.take(MAX_SECRET + 1)
        .read_to_end(&mut bytes)
        .map_err(fail)?;
    if bytes.len() as u64 > MAX_SECRET {
        return Err(exposed(
            path,
            "is larger than 1 MiB, so it is no secret of ours",
        ));
    }
    Ok(Secret(bytes))
}

fn exposed(path: &Path, problem: impl Into<String>) -> CredentialError {
    CredentialError::Exposed {
        path: path.to_owned(),
        problem: problem.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_secret_does_not_print_itself() {
        let secret = Secret::new(b"hunter2".to_vec());
        assert_eq!(
            format!("{secret:?} {:?}", Some(&secret)),
            "[secret] Some([secret])"
        );
    }

    #[test]
    fn credentials_are_read_by_name_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("key"), b"k\n").unwrap();
        let secret = credential_in(dir.path(), "key").unwrap().unwrap();
        assert_eq!(secret.expose(), b"k\n");
        assert_eq!(credential_in(dir.path(), "absent").unwrap(), None);
        for name in ["", ".", "..", "../key", "/etc/passwd"] {
            assert!(matches!(
                credential_in(dir.path(), name),
                Err(CredentialError::Name(_))
            ));
        }
    }

    #[test]
    fn a_key_file_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret.key");
        let first = key_file(&path).unwrap();
        assert_eq!(first.expose().len(), KEY_BYTES);
        assert!(first.expose().iter().any(|byte| *byte != 0));
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600);
        assert_eq!(key_file(&path).unwrap(), first);
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing is left over"
        );
    }

    #[test]
    fn all_who_ask_at_once_get_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret.key");
        let keys: Vec<Secret> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| key_file(&path).unwrap()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret.key");
        key_file(&path).unwrap();
        for mode in [0o640, 0o604, 0o4600] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let error = key_file(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("has mode {mode:04o}")), "{error}");
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).unwrap();
        key_file(&path).unwrap();
    }

    #[test]
    fn truncated_keys_links_and_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        key_file(&key).unwrap();
        let link = dir.path().join("link");
        symlink(&key, &link).unwrap();
        assert!(key_file(&link).is_err());
        let short = dir.path().join("short");
        write_key(&short, b"short").unwrap();
        assert!(
            key_file(&short)
                .unwrap_err()
                .to_string()
                .contains("too short")
        );
        assert!(key_file(dir.path()).is_err());
        assert!(key_file(&dir.path().join("no/such/key")).is_err());
    }
}
