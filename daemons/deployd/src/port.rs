//! What the engine needs from the world: somewhere to run instances, something that makes releases,
//! and the proxy. Each has a real adapter and a simulated one under `adapter/`.
//!
//! Every method may be called again after a crash: starting what runs, stopping what is gone and
//! removing what was removed all succeed.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use temps_ipc::Fault;
use temps_ipc::id::{InstanceId, ReleaseId};
use temps_ipc::types::{
    Address, AppName, EnvVar, ProbeOutcome, RuntimeKind, Snapshot, Target, Timestamp,
};

/// What a release is made of; immutable once made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Artifact {
    /// A container image by its content id (`sha256:…`), never by a tag that may move.
    Image {
        /// The image's id.
        id: String,
        /// The TCP port that its instances shall listen on (`PORT`).
        port: u16,
    },
    /// A directory with a command that runs in it.
    Directory {
        /// The release directory.
        root: PathBuf,
        /// The command of the `web` process, for `/bin/sh -c`.
        command: String,
    },
    /// Files that the proxy serves.
    Files {
        /// The release directory.
        root: PathBuf,
        /// Answer unknown paths with `/index.html`.
        spa: bool,
    },
}

/// An instance to start.
#[derive(Debug, Clone)]
pub struct InstanceSpec {
    /// Its id; names the container or process.
    pub id: InstanceId,
    /// The app.
    pub app: AppName,
    /// The release.
    pub release: ReleaseId,
    /// What to run.
    pub artifact: Artifact,
    /// Where it shall listen; chosen before by [`Runtime::choose_address`] and recorded.
    pub address: Address,
    /// The app's variables. The runtime adds the platform's own: `PORT`, `HOST`, `TEMPS_APP`,
    /// `TEMPS_RELEASE`, `TEMPS_INSTANCE`, `TEMPS_APP_URL`.
    pub env: Vec<EnvVar>,
    /// Where the public reaches the app, for `TEMPS_APP_URL`.
    pub url: String,
    /// Where its output is kept, in the format of [`crate::logfile`].
    pub log: PathBuf,
    /// Whether the first request starts it, in a socket that is there before it; only ever asked of the
    /// systemd runtime.
    pub socket_activated: bool,
}

/// How an instance is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceState {
    /// It runs.
    Running,
    /// It does not run, and the next request starts it: socket-activated.
    Resting {
        /// How it ended, in words, if it did not end well.
        failed: Option<String>,
    },
    /// It ended by itself.
    Exited {
        /// In words, such as `exited with status 3` or `was killed by signal 9 (out of memory)`.
        how: String,
        /// When, if known.
        at: Option<Timestamp>,
    },
    /// There is no such instance, or it was stopped by us.
    Absent,
}

/// Why an instance could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The engine or the system does not answer; trying again later may do.
    #[error("{0}")]
    Unavailable(Fault),
    /// It answers, and refuses: the artifact is at fault.
    #[error("{0}")]
    Refused(Fault),
}

impl RuntimeError {
    /// The fault, for people.
    pub fn fault(&self) -> &Fault {
        match self {
            RuntimeError::Unavailable(fault) | RuntimeError::Refused(fault) => fault,
        }
    }
}

/// Somewhere to run instances.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Which one this is.
    fn kind(&self) -> RuntimeKind;

    /// Whether it can be used now; in words what it is (`Docker Engine 20.10.24, API 1.41`).
    ///
    /// # Errors
    /// `Unavailable` with what to do about it.
    async fn check(&self) -> Result<String, Fault>;

    /// What its apps lack on this machine although it can be used: what, and what to do about it.
    fn lacking(&self) -> Option<Fault> {
        None
    }

    /// An address for a new instance that is not among `taken`.
    ///
    /// # Errors
    /// When there is none left or the network cannot be made.
    async fn choose_address(
        &self,
        artifact: &Artifact,
        taken: &[Address],
    ) -> Result<Address, RuntimeError>;

    /// Starts the instance, unless it runs already. Returns when it was started, not when it is
    /// healthy.
    ///
    /// # Errors
    /// See [`RuntimeError`]; then nothing of it is left behind but its log.
    async fn start(&self, spec: &InstanceSpec) -> Result<(), RuntimeError>;

    /// How the instance is.
    ///
    /// # Errors
    /// When the engine does not answer: the state is unknown then, not `Absent`.
    async fn state(&self, id: &InstanceId) -> Result<InstanceState, RuntimeError>;

    /// Waits until the instance does not run any more (at once if it does not); one that rests has not
    /// ended, unless it failed. Cancel-safe.
    ///
    /// # Errors
    /// When the engine does not answer.
    async fn ended(&self, id: &InstanceId) -> Result<InstanceState, RuntimeError>;

    /// TCP addresses (`0.0.0.0:9999`, `127.0.0.1:5000`, as the instance sees them) on which the
    /// instance listens now, for the message about a wrong port. Best effort.
    async fn listening(&self, id: &InstanceId) -> Vec<String>;

    /// Stops the instance and its children: the polite signal, after `grace` the other one; then
    /// removes it, its log brought up to date in `log` before. Succeeds if it is gone.
    ///
    /// # Errors
    /// When the engine does not answer or cannot remove it.
    async fn stop(&self, id: &InstanceId, grace: Duration, log: &Path) -> Result<(), RuntimeError>;

    /// Brings the instance's log file up to date, where the runtime does not write it itself.
    ///
    /// # Errors
    /// When the engine does not answer.
    async fn collect_log(
        &self,
        id: &InstanceId,
        release: &ReleaseId,
        log: &Path,
    ) -> Result<(), RuntimeError>;

    /// Every instance of this installation that exists here, running or not: what is not in the
    /// store was left behind by a crash.
    ///
    /// # Errors
    /// When the engine does not answer.
    async fn list(&self) -> Result<Vec<InstanceId>, RuntimeError>;

    /// Gives back what instances share (a network): called when no app uses this runtime any more.
    /// It is made again when it is needed.
    ///
    /// # Errors
    /// When the engine does not answer.
    async fn release_shared(&self) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// Removes the data that instances of an app have kept, when the app is destroyed and none of them
    /// is left.
    ///
    /// # Errors
    /// When it cannot be removed now.
    async fn remove_data(&self, _: &AppName) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// Removes what this runtime keeps for an artifact that no release has any more.
    ///
    /// # Errors
    /// When the engine does not answer.
    async fn remove_artifact(&self, artifact: &Artifact) -> Result<(), RuntimeError>;
}

/// What to make a release from. Uploads are already on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Material {
    /// A tar archive of source.
    Archive {
        /// The archive.
        path: PathBuf,
        /// What the caller called it.
        label: String,
    },
    /// A tar archive of files to serve.
    Static {
        /// The archive.
        path: PathBuf,
        /// What the caller called it.
        label: String,
        /// Answer unknown paths with `/index.html`.
        spa: bool,
    },
    /// An image reference.
    Image {
        /// As given.
        reference: String,
    },
    /// A git repository.
    Git {
        /// Where. In the database without its password.
        url: String,
        /// Branch, tag or commit.
        reference: Option<String>,
        /// In the database only: the URL with its password, sealed, if it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sealed: Option<Vec<u8>>,
    },
    /// An earlier release's artifact, as it is.
    Artifact {
        /// Whose.
        release: ReleaseId,
        /// It.
        artifact: Artifact,
        /// The runtime that it was made for.
        runtime: RuntimeKind,
    },
}

/// A release to make.
#[derive(Debug, Clone)]
pub struct BuildJob {
    /// The app.
    pub app: AppName,
    /// The release to be.
    pub release: ReleaseId,
    /// From what.
    pub material: Material,
    /// For which runtime; chosen by what is found if absent.
    pub runtime: Option<RuntimeKind>,
    /// The app's variables, for the source's own build command.
    pub env: Vec<EnvVar>,
    /// A directory for this release alone; absent at first. What stays in it is the release's.
    pub directory: PathBuf,
    /// Where the build's output is kept, in the format of [`crate::logfile`].
    pub log: PathBuf,
}

impl BuildJob {
    /// What the source's own build command finds in its environment, beside what every program needs:
    /// the app's variables, in plain text, and whose build it is.
    pub fn variables(&self) -> impl Iterator<Item = (String, String)> {
        let app = self.env.iter().map(|one| {
            let name = one.name.as_str().to_owned();
            // The command needs the plain text.
            (name, one.value.reveal().to_owned())
        });
        let own = [
            ("TEMPS_APP", self.app.to_string()),
            ("TEMPS_RELEASE", self.release.to_string()),
        ];
        app.chain(own.map(|(name, value)| (name.to_owned(), value)))
    }
}

/// A made release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// What it is made of.
    pub artifact: Artifact,
    /// The runtime it was made for.
    pub runtime: RuntimeKind,
    /// Where it came from, for `release list`: `git https://… main (4f2c1d0)`, `dir shop`.
    pub source: String,
}

/// Makes releases.
#[async_trait]
pub trait Builder: Send + Sync {
    /// Makes the release; started again from nothing after a crash. Cancelled by dropping.
    ///
    /// # Errors
    /// `Invalid`: the source is at fault (with the cause in `what`); `Unavailable`: a part that is
    /// needed is missing; `NoSpace`; `Unsupported`.
    async fn build(&self, job: &BuildJob) -> Result<Built, Fault>;

    /// Ends what an earlier process left at work. Called once, at the start.
    ///
    /// # Errors
    /// When something may be left; a build tries again before it begins.
    async fn recover(&self) -> Result<(), Fault> {
        Ok(())
    }

    /// Removes what is kept of a destroyed app from one build to the next.
    ///
    /// # Errors
    /// When it cannot be removed.
    async fn forget(&self, _: &AppName) -> Result<(), Fault> {
        Ok(())
    }

    /// The apps of which something is kept, destroyed ones too.
    ///
    /// # Errors
    /// When that cannot be told.
    async fn kept(&self) -> Result<Vec<AppName>, Fault> {
        Ok(Vec::new())
    }
}

/// The proxy, as far as the engine needs it.
#[async_trait]
pub trait ProxyPort: Send + Sync {
    /// See `temps_ipc::rpc::Proxy::probe`.
    ///
    /// # Errors
    /// The proxy's fault, or `Unavailable`.
    async fn probe(
        &self,
        targets: Vec<Target>,
        timeout: Duration,
    ) -> Result<Vec<ProbeOutcome>, Fault>;

    /// See `temps_ipc::rpc::Proxy::apply`.
    ///
    /// # Errors
    /// The proxy's fault, or `Unavailable`.
    async fn apply(&self, snapshot: Snapshot) -> Result<(), Fault>;

    /// The generation the proxy serves.
    ///
    /// # Errors
    /// The proxy's fault, or `Unavailable`.
    async fn generation(&self) -> Result<u64, Fault>;

    /// Waits until no request is in flight to `target`; false if there still is one after `wait`.
    ///
    /// # Errors
    /// The proxy's fault, or `Unavailable`.
    async fn drained(&self, target: &InstanceId, wait: Duration) -> Result<bool, Fault>;
}

/// The runtimes that this installation has, by kind.
#[derive(Clone, Default)]
pub struct Runtimes(Vec<Arc<dyn Runtime>>);

impl Runtimes {
    /// These runtimes.
    pub fn new(runtimes: Vec<Arc<dyn Runtime>>) -> Self {
        Self(runtimes)
    }

    /// The runtime of this kind, if this installation has it.
    pub fn get(&self, kind: RuntimeKind) -> Option<Arc<dyn Runtime>> {
        self.0
            .iter()
            .find(|runtime| runtime.kind() == kind)
            .cloned()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Runtime>> {
        self.0.iter()
    }
}
