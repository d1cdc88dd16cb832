//! The files of an instance, in `instances/<id>` of the state directory, and the one that all share.
//!
//! | name | what | read by |
//! |---|---|---|
//! | `app` | command and variables, private | the service manager, as a credential |
//! | `address` | the instance's address | `temps-netns` |
//! | `hosts`, `resolv.conf` | how names are resolved | the instance, in place of those in `/etc` |
//! | `listening` | what its namespace listened on when that was last asked | deployd |
//!
//! The directory exists from before the instance's unit until after it: what a crash left behind is
//! found by it.

use super::launch::Launch;
use super::range::Range;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use temps_ipc::id::InstanceId;

/// What all instances share, told by `temps-netns` to deployd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shared {
    /// The range of addresses.
    pub(super) range: Range,
}

impl Shared {
    const FILE: &str = "apps-network.json";

    pub(super) fn read(state: &Path) -> io::Result<Self> {
        let text = fs::read(state.join(Self::FILE))?;
        Ok(serde_json::from_slice(&text)?)
    }

    pub(super) fn write(self, state: &Path) -> io::Result<()> {
        if Self::read(state).is_ok_and(|found| found == self) {
            return Ok(());
        }
        let fresh = state.join(format!("{}.new", Self::FILE));
        private(&fresh, &serde_json::to_vec(&self)?)?;
        fs::rename(fresh, state.join(Self::FILE))
    }
}

/// The files of one instance.
#[derive(Debug, Clone)]
pub(super) struct InstanceDirectory(PathBuf);

impl InstanceDirectory {
    pub(super) fn new(state: &Path, id: &InstanceId) -> Self {
        Self(instances(state).join(id.as_str()))
    }

    pub(super) fn launch(&self) -> PathBuf {
        self.0.join("app")
    }

    pub(super) fn hosts(&self) -> PathBuf {
        self.0.join("hosts")
    }

    pub(super) fn resolver(&self) -> PathBuf {
        self.0.join("resolv.conf")
    }

    pub(super) fn listening(&self) -> PathBuf {
        self.0.join("listening")
    }

    /// Writes what the instance is started with.
    pub(super) fn write(
        &self,
        launch: &Launch,
        address: Ipv4Addr,
        hosts: &str,
        resolver: &str,
    ) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)?;
        private(&self.launch(), &serde_json::to_vec(launch)?)?;
        private(&self.0.join("address"), address.to_string().as_bytes())?;
        for (path, text) in [(self.hosts(), hosts), (self.resolver(), resolver)] {
            private(&path, text.as_bytes())?;
            // Shown to the instance by itself; the directory stays closed.
            fs::set_permissions(&path, Permissions::from_mode(0o644))?;
        }
        Ok(())
    }

    /// Has the instance ask other servers for names, if they are others. In place: it sees the file, not
    /// its name.
    pub(super) fn renew(&self, resolver: &str) -> io::Result<()> {
        match fs::read_to_string(self.resolver()) {
            Ok(present) if present != resolver => private(&self.resolver(), resolver.as_bytes()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub(super) fn address(&self) -> io::Result<Ipv4Addr> {
        let text = fs::read_to_string(self.0.join("address"))?;
        text.trim().parse().map_err(io::Error::other)
    }

    pub(super) fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Every instance that has a directory.
pub(super) fn list(state: &Path) -> io::Result<Vec<InstanceId>> {
    let entries = match fs::read_dir(instances(state)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    entries
        .map(|entry| {
            Ok(entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok()))
        })
        .filter_map(Result::transpose)
        .collect()
}

fn instances(state: &Path) -> PathBuf {
    state.join("instances")
}

/// Writes a file that is private from its first byte on.
fn private(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn what_is_secret_is_private_and_what_is_written_is_read() {
        let state = tempfile::tempdir().unwrap();
        let id = InstanceId::fresh();
        let directory = InstanceDirectory::new(state.path(), &id);
        let launch = Launch {
            command: "true".to_owned(),
            env: BTreeMap::new(),
        };
        let address = Ipv4Addr::new(10, 231, 16, 5);
        assert_eq!(list(state.path()).unwrap(), []);
        for _ in 0..2 {
            directory.write(&launch, address, "hosts", "names").unwrap();
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory.launch()), 0o600);
        assert_eq!(mode(&directory.0), 0o700);
        assert_eq!(mode(&directory.resolver()), 0o644);
        assert_eq!(directory.address().unwrap(), address);
        let seen = fs::File::open(directory.resolver()).unwrap();
        directory.renew("others").unwrap();
        assert_eq!(io::read_to_string(seen).unwrap(), "others");
        assert_eq!(mode(&directory.resolver()), 0o644);
        assert_eq!(list(state.path()).unwrap(), [id]);
        directory.remove().unwrap();
        directory.remove().unwrap();
        assert_eq!(list(state.path()).unwrap(), []);
    }

    #[test]
    fn the_shared_range_is_told() {
        let state = tempfile::tempdir().unwrap();
        assert!(Shared::read(state.path()).is_err());
        let shared = Shared {
            range: "10.231.16.0/20".parse().unwrap(),
        };
        shared.write(state.path()).unwrap();
        assert_eq!(Shared::read(state.path()).unwrap(), shared);
    }
}
