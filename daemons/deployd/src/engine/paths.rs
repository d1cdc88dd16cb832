//! Where deployd keeps files below its state directory.
//!
//! ```text
//! deployd.db            the database, with its last good copy beside it
//! reserve*              room kept for a full disk
//! key                   the sealing key, unless systemd gives it as a credential
//! uploads/TICKET        archives that no deployment has taken yet
//! material/REL.tar      the archive that a release is being made from
//! releases/REL/         what a release is made of, if that is files
//! logs/REL/build.log    what making it printed
//! logs/REL/INS.log      what an instance printed
//! instances/            the process runtime's own
//! builds/APP/           what builds of an app keep under `temps up`: their HOME
//! ```

use crate::reserve::{self, Reserve};
use std::path::{Path, PathBuf};
use temps_ipc::id::{InstanceId, ReleaseId};

/// Paths below the state directory.
#[derive(Debug, Clone)]
pub struct Paths {
    state: PathBuf,
}

impl Paths {
    /// Below `state`.
    pub fn new(state: impl Into<PathBuf>) -> Self {
        Self {
            state: state.into(),
        }
    }

    /// Makes the directories, private to this user. Only the one of all releases lets others pass
    /// through, to those that are served: what others may read is opened one by one.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(&self) -> std::io::Result<()> {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        for directory in [
            self.uploads(),
            self.materials(),
            self.releases(),
            self.all_logs(),
        ] {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)?;
        }
        let passable = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(self.releases(), passable)
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.state.join("deployd.db")
    }

    /// Whether there was a database here once, and nothing is left of it, nor of its copy.
    pub fn lost_its_database(&self) -> bool {
        let holds = |directory: PathBuf| {
            let entries = std::fs::read_dir(directory);
            entries.is_ok_and(|mut entries| entries.next().is_some())
        };
        let there = |path: &Path| std::fs::metadata(path).is_ok_and(|found| found.len() > 0);
        !there(&self.database())
            && !there(&crate::store::copy::copy_of(&self.database()))
            && (holds(self.releases()) || holds(self.all_logs()))
    }

    /// Room kept for what must be written on a full disk.
    pub fn reserve(&self) -> Reserve {
        Reserve::new(self.state.join("reserve"), reserve::GENERAL)
    }

    /// Room kept for the removal of an app on a full disk.
    pub fn removal_reserve(&self) -> Reserve {
        Reserve::new(self.state.join("reserve-removal"), reserve::REMOVAL)
    }

    /// The sealing key.
    pub fn key(&self) -> PathBuf {
        self.state.join("key")
    }

    /// Archives that no deployment has taken yet.
    pub fn uploads(&self) -> PathBuf {
        self.state.join("uploads")
    }

    /// Archives that releases are being made from.
    pub fn materials(&self) -> PathBuf {
        self.state.join("material")
    }

    /// The archive of one release.
    pub fn material(&self, release: &ReleaseId) -> PathBuf {
        self.materials().join(format!("{release}.tar"))
    }

    /// What releases are made of.
    pub fn releases(&self) -> PathBuf {
        self.state.join("releases")
    }

    /// What one release is made of.
    pub fn release(&self, release: &ReleaseId) -> PathBuf {
        self.releases().join(release.as_str())
    }

    /// What builds keep for the next one, by app.
    pub fn build_homes(&self) -> PathBuf {
        self.state.join("builds")
    }

    /// All logs.
    pub fn all_logs(&self) -> PathBuf {
        self.state.join("logs")
    }

    /// The logs of one release.
    pub fn logs(&self, release: &ReleaseId) -> PathBuf {
        self.all_logs().join(release.as_str())
    }

    /// What making a release printed.
    pub fn build_log(&self, release: &ReleaseId) -> PathBuf {
        self.logs(release).join("build.log")
    }

    /// What an instance printed.
    pub fn instance_log(&self, release: &ReleaseId, instance: &InstanceId) -> PathBuf {
        self.logs(release).join(format!("{instance}.log"))
    }
}
