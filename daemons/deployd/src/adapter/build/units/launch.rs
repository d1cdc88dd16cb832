//! Runs the units of builds: with the service manager, or in tests as children.

use super::end::End;
use super::property::{OWNER, ROOT, properties};
use super::unit::{PATTERN, Unit};
use crate::adapter::systemd::JobNetworks;
use crate::adapter::systemd::manager::{JobResult, Manager, ManagerError};
use async_trait::async_trait;
use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use temps_ipc::Fault;
use tokio::runtime::Handle;
use tracing::{info, warn};

/// How much longer than its unit may take its end is waited for: it is killed by then, and empties its
/// directories.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long stopping may take: what it wrote is removed meanwhile.
const STOP: Duration = Duration::from_secs(90);

/// What the manager says of a start that somebody gave up, by stopping the unit.
const CANCELED: &str = "canceled";

/// What a unit reads and writes.
#[derive(Debug)]
pub struct Streams {
    /// Its standard input.
    pub stdin: OwnedFd,
    /// Its standard output.
    pub stdout: OwnedFd,
    /// Its standard error.
    pub stderr: OwnedFd,
}

/// Something that runs units.
#[async_trait]
pub trait Launcher: Send + Sync + Debug {
    /// Runs the unit to its end. Dropped, the unit is stopped with all its processes.
    ///
    /// # Errors
    /// When it cannot be run; how it ended is no error.
    async fn run(&self, unit: Unit, streams: Streams) -> Result<End, Fault>;

    /// Stops every unit that was left by an earlier process.
    ///
    /// # Errors
    /// When it is not known that none is left.
    async fn sweep(&self) -> Result<(), Fault>;
}

/// Runs units as transient ones of the service manager.
#[derive(Debug)]
pub struct SystemdLauncher {
    manager: Arc<Manager>,
    networks: JobNetworks,
}

impl SystemdLauncher {
    /// With this manager, and networks from there.
    pub fn new(manager: Arc<Manager>, networks: JobNetworks) -> Self {
        Self { manager, networks }
    }
}

impl SystemdLauncher {
    /// Whether temps-deployd itself is being stopped, or will be.
    async fn owner_ends(&self) -> bool {
        let found = self.manager.list(OWNER).await;
        found.is_ok_and(|units| units.iter().any(|unit| unit.has_job))
    }
}

/// Refuses where jobs would have no root: the manager says of that only a number.
fn room_for_roots(root: &Path) -> Result<(), Fault> {
    if root.is_dir() {
        return Ok(());
    }
    let what = format!("the root of jobs is missing: {}", root.display());
    Err(Fault::unavailable(what).hint("`systemd-tmpfiles --create temps.conf` makes it again"))
}

/// Stops a unit whose end nobody waits for any more.
struct StopOnDrop {
    manager: Arc<Manager>,
    unit: Option<String>,
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        let Some(unit) = self.unit.take() else { return };
        let manager = Arc::clone(&self.manager);
        // Where there is no runtime any more, the process ends, and the unit with it.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                if let Err(problem) = stop(&manager, &unit).await {
                    warn!(unit, %problem, "a job of a build cannot be stopped");
                }
            });
        }
    }
}

async fn stop(manager: &Manager, unit: &str) -> Result<(), ManagerError> {
    match manager.stop(unit, STOP).await {
        Ok(_) | Err(ManagerError::NoSuchUnit) => manager.reset_failed(unit).await,
        Err(error) => Err(error),
    }
}

fn fault(error: &ManagerError) -> Fault {
    Fault::unavailable(format!("a job of the build cannot be run: {error}"))
        .hint("`systemctl status temps-deployd` and `journalctl -u 'temps-job-*'` may say more")
}

#[async_trait]
impl Launcher for SystemdLauncher {
    async fn run(&self, unit: Unit, streams: Streams) -> Result<End, Fault> {
        room_for_roots(Path::new(ROOT))?;
        let name = unit.name.clone();
        let limit = unit.limits.time + PATIENCE;
        let undescribed = |error| Fault::internal(format!("a job cannot be described: {error}"));
        let network = unit.network.then(|| self.networks.fresh()).transpose();
        let network = network.map_err(undescribed)?;
        let described = || properties(&unit, &streams, network.as_ref()).map_err(undescribed);
        let mut guard = StopOnDrop {
            manager: Arc::clone(&self.manager),
            unit: Some(name.clone()),
        };
        let mut started = self
            .manager
            .start_transient(&name, described()?, limit)
            .await;
        if started == Err(ManagerError::Exists) {
            // One that was given up a moment ago.
            stop(&self.manager, &name)
                .await
                .map_err(|error| fault(&error))?;
            started = self
                .manager
                .start_transient(&name, described()?, limit)
                .await;
        }
        let result = started.map_err(|error| fault(&error))?;
        if result == JobResult::Done {
            guard.unit = None;
            return Ok(End::Success);
        }
        if let JobResult::Other(why) = &result
            && why == "dependency"
        {
            // It was never begun, so nothing of it is left.
            guard.unit = None;
            let result = why.clone();
            return Ok(End::Failure { result, status: 0 });
        }
        if result == JobResult::Other(CANCELED.to_owned()) {
            if self.owner_ends().await {
                // Jobs end before it. This is given up, and done again by the next one.
                tokio::time::sleep(STOP).await;
            }
            // What it wrote is being removed.
            stop(&self.manager, &name)
                .await
                .map_err(|error| fault(&error))?;
            guard.unit = None;
            return Ok(End::Failure {
                result: CANCELED.to_owned(),
                status: 0,
            });
        }
        let found = self.manager.properties(&name).await;
        let end = match found.map_err(|error| fault(&error))? {
            Some(properties) => {
                let text = |name: &str| {
                    let value = properties.get(name)?;
                    String::try_from(value.try_clone().ok()?).ok()
                };
                let status = properties
                    .get("ExecMainStatus")
                    .and_then(|value| i32::try_from(value.try_clone().ok()?).ok());
                End::Failure {
                    result: text("Result").unwrap_or_default(),
                    status: status.unwrap_or_default(),
                }
            }
            // Unloaded is only what did not fail.
            None => match result {
                JobResult::Other(result) => End::Failure { result, status: 0 },
                _ => End::Success,
            },
        };
        guard.unit = None;
        self.manager
            .reset_failed(&name)
            .await
            .map_err(|error| fault(&error))?;
        Ok(end)
    }

    async fn sweep(&self) -> Result<(), Fault> {
        let left = self
            .manager
            .list(PATTERN)
            .await
            .map_err(|error| fault(&error))?;
        for unit in left {
            info!(
                unit = unit.name,
                "stopping a job that was left of an earlier build"
            );
            stop(&self.manager, &unit.name)
                .await
                .map_err(|error| fault(&error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_removed_the_root_of_jobs_is_told_what_makes_it_again() {
        let dir = tempfile::tempdir().unwrap();
        assert!(room_for_roots(dir.path()).is_ok());
        let fault = room_for_roots(&dir.path().join("job-root")).unwrap_err();
        assert!(fault.hint.contains("systemd-tmpfiles"), "{fault}");
    }
}
