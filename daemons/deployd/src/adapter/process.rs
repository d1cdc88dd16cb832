//! The `process` runtime: instances are plain processes beside the daemon, under its own user. Only
//! `temps up` has it, and only for code that its user trusts.
//!
//! Each instance has a directory `instances/<id>` in the state directory:
//!
//! | name | what |
//! |---|---|
//! | `lock` | locked by the instance's supervisor as long as anything of the instance lives |
//! | `pid` | the supervisor's process id; means something only while `lock` is held |
//! | `exit.json` | how the app ended; written before the lock is given back |
//! | `home`, `tmp` | the app's `HOME` and `TMPDIR` |
//!
//! The supervisor ([`shim`]) is no child that the daemon must keep: it outlives `kill -9` of the
//! daemon, and the next daemon finds it by its lock.
//!
//! ```text
//! (no directory)  --start-->  lock held  --app ends-->  exit.json, lock free  --stop-->  (none)
//!   Absent                     Running                    Exited
//!                                 '--supervisor killed--> lock free, no exit.json = Exited
//! ```

mod directory;
mod launch;
mod port;
pub mod shim;

use crate::adapter::procfs;
use crate::port::{Artifact, InstanceSpec, InstanceState, Runtime, RuntimeError};
use async_trait::async_trait;
use directory::InstanceDirectory;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use temps_ipc::Fault;
use temps_ipc::id::{InstanceId, ReleaseId};
use temps_ipc::types::{Address, RuntimeKind};
use tokio::time::{Instant, sleep};

/// How often a lock is looked at while its end is waited for. Looking costs one system call.
const POLL: Duration = Duration::from_millis(100);

/// The same while we stop an instance ourselves, which usually takes a few milliseconds.
const STOP_POLL: Duration = Duration::from_millis(10);

/// How long a supervisor gets to kill what it supervises before it is killed itself.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// Where programs are looked for if nothing else was said.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs instances as plain processes.
#[derive(Debug, Clone)]
pub struct ProcessRuntime {
    instances: PathBuf,
    shim: PathBuf,
    path: String,
}

impl ProcessRuntime {
    /// Keeps its instances under `state_dir`; `shim` is an executable that runs the applet
    /// [`shim::INSTANCE_APPLET`] (a link of that applet's name).
    pub fn new(state_dir: &Path, shim: PathBuf) -> Self {
        Self {
            instances: state_dir.join("instances"),
            shim,
            path: DEFAULT_PATH.to_owned(),
        }
    }

    /// The `PATH` of the instances, instead of the system's directories.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    fn directory(&self, id: &InstanceId) -> InstanceDirectory {
        InstanceDirectory::new(&self.instances, id)
    }
}

/// Stops every instance under the state directory, all at once: the polite signal, after `grace`
/// the other one.
///
/// # Errors
/// The first failure; the others are stopped nevertheless.
pub async fn stop_all(state_dir: &Path, grace: Duration) -> io::Result<()> {
    let instances = state_dir.join("instances");
    let ids = directory::list(&instances)?;
    let stops = ids
        .iter()
        .map(|id| stop(InstanceDirectory::new(&instances, id), id.clone(), grace));
    futures::future::join_all(stops).await.into_iter().collect()
}

#[async_trait]
impl Runtime for ProcessRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Process
    }

    async fn check(&self) -> Result<String, Fault> {
        match std::fs::metadata(&self.shim) {
            Ok(found) if found.is_file() => Ok(format!(
                "plain processes under the user of this daemon (uid {}): for trusted code only",
                nix::unistd::getuid()
            )),
            _ => Err(Fault::unavailable(format!(
                "the supervisor of processes, {}, is missing",
                self.shim.display()
            ))
            .hint("restart `temps up`, which makes it")),
        }
    }

    async fn choose_address(
        &self,
        _: &Artifact,
        taken: &[Address],
    ) -> Result<Address, RuntimeError> {
        port::choose(taken).map(Address::Tcp).ok_or_else(|| {
            RuntimeError::Unavailable(
                Fault::unavailable("no TCP port of 127.0.0.1 is free for another instance")
                    .hint("stop apps that are not needed (`temps app destroy APP`)"),
            )
        })
    }

    async fn start(&self, spec: &InstanceSpec) -> Result<(), RuntimeError> {
        let directory = self.directory(&spec.id);
        launch::launch(&self.shim, &self.path, &directory, spec).await
    }

    async fn state(&self, id: &InstanceId) -> Result<InstanceState, RuntimeError> {
        let (directory, id) = (self.directory(id), id.clone());
        blocking(move || directory.state(&id)).await
    }

    async fn ended(&self, id: &InstanceId) -> Result<InstanceState, RuntimeError> {
        let directory = self.directory(id);
        while directory.is_locked().map_err(unavailable)? {
            sleep(POLL).await;
        }
        self.state(id).await
    }

    async fn listening(&self, id: &InstanceId) -> Vec<String> {
        let directory = self.directory(id);
        let find = move || match directory.supervisor() {
            Ok(Some(pid)) => procfs::listening(&procfs::descendants(pid.as_raw())),
            _ => Vec::new(),
        };
        tokio::task::spawn_blocking(find).await.unwrap_or_default()
    }

    async fn stop(&self, id: &InstanceId, grace: Duration, _: &Path) -> Result<(), RuntimeError> {
        stop(self.directory(id), id.clone(), grace)
            .await
            .map_err(unavailable)
    }

    async fn collect_log(
        &self,
        _: &InstanceId,
        _: &ReleaseId,
        _: &Path,
    ) -> Result<(), RuntimeError> {
        // The supervisor writes it.
        Ok(())
    }

    async fn list(&self) -> Result<Vec<InstanceId>, RuntimeError> {
        directory::list(&self.instances).map_err(unavailable)
    }

    async fn remove_artifact(&self, _: &Artifact) -> Result<(), RuntimeError> {
        // The release directory is all there is, and the engine's.
        Ok(())
    }
}

async fn stop(directory: InstanceDirectory, id: InstanceId, grace: Duration) -> io::Result<()> {
    // The supervisor passes SIGTERM on as it is and takes SIGQUIT for "now"; if it does not answer
    // to that either, its own death takes the app's main process with it.
    let steps = [
        (Signal::SIGTERM, grace),
        (Signal::SIGQUIT, KILL_GRACE),
        (Signal::SIGKILL, KILL_GRACE),
    ];
    for (signal, patience) in steps {
        let deadline = Instant::now() + patience;
        let mut sent = false;
        while directory.is_locked()? {
            if !sent && let Some(supervisor) = directory.supervisor()? {
                // It may have ended meanwhile; the lock says so in the next round.
                let _ = kill(supervisor, signal);
                sent = true;
            }
            if Instant::now() >= deadline {
                break;
            }
            sleep(STOP_POLL).await;
        }
    }
    if directory.is_locked()? {
        return Err(io::Error::other(format!(
            "the supervisor of {id} does not end, even after SIGKILL"
        )));
    }
    let remove = move || {
        if !directory.has_exit_record() {
            kill_leftovers(&id)?;
        }
        directory.remove()
    };
    tokio::task::spawn_blocking(remove)
        .await
        .map_err(io::Error::other)?
}

/// Kills what a supervisor left behind that was itself killed: the app's processes still carry the
/// instance's id in their environment.
fn kill_leftovers(id: &InstanceId) -> io::Result<()> {
    let variable = format!("TEMPS_INSTANCE={id}");
    // A process may fork between two looks, so look until there is none; a killed one that nobody
    // waits for has no environment any more.
    for _ in 0..200 {
        let found = procfs::with_variable(&variable);
        if found.is_empty() {
            return Ok(());
        }
        for pid in found {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        directory::pause(Duration::from_millis(10));
    }
    Err(io::Error::other(format!(
        "processes of {id} do not end, even after SIGKILL"
    )))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, RuntimeError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| unavailable(io::Error::other(error)))?
        .map_err(unavailable)
}

fn unavailable(error: io::Error) -> RuntimeError {
    RuntimeError::Unavailable(Fault::unavailable(format!(
        "the process runtime failed: {error}"
    )))
}
