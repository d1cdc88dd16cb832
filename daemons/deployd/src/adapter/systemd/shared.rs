//! Who needs what the networks of apps share (`temps-network.service`): instances and builds, each by the
//! unit of its namespace, and containers, whose bridges its rules name ([`name::BRIDGES`]).
//!
//! Containers outlive temps-deployd, which sees no bridge from its own network and may find the engine
//! silent. So that they need the rules is a file in the state directory: there before the first of them
//! runs, and until the last one is gone.

use super::manager::{JobResult, Manager, ManagerError};
use super::name;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use temps_ipc::Fault;

/// Says that containers need the rules.
const FILE: &str = "containers.network";

/// How long setting or removing the rules may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Whether an instance, a build or a container needs what they share.
pub(super) async fn is_needed(manager: &Manager, state: &Path) -> Result<bool, ManagerError> {
    // What cannot be told counts as yes: then the rules stay.
    if state.join(FILE).try_exists().unwrap_or(true) {
        return Ok(true);
    }
    let units = manager.list(name::NAMESPACES).await?;
    Ok(units
        .iter()
        .any(|unit| !matches!(unit.active.as_str(), "inactive" | "failed")))
}

/// The rules that keep containers from this machine and from those who tell it its credentials, for the
/// runtime `docker`. While they are needed, every look through the instances sets them again.
#[derive(Debug)]
pub struct ContainerRules {
    state: PathBuf,
    manager: Manager,
}

impl ContainerRules {
    /// For the installation whose state is in `state`. The manager is not talked to before it is needed.
    pub fn new(state: &Path) -> Self {
        Self {
            state: state.to_owned(),
            manager: Manager::new(),
        }
    }

    /// Has the rules in force: to be called before a container is started.
    ///
    /// # Errors
    /// `Unavailable`: then none may be started.
    pub async fn need(&self) -> Result<(), Fault> {
        fs::write(self.state.join(FILE), "").map_err(|error| unwritten(&error))?;
        judge(self.manager.start(name::SHARED, LIMIT).await)
    }

    /// No container is left. The rules stay if somebody else needs them.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn release(&self) -> Result<(), Fault> {
        match fs::remove_file(self.state.join(FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unwritten(&error)),
            _ => {}
        }
        match is_needed(&self.manager, &self.state).await {
            Ok(true) => Ok(()),
            Ok(false) => match self.manager.stop(name::SHARED, LIMIT).await {
                Ok(_) | Err(ManagerError::NoSuchUnit) => Ok(()),
                Err(error) => judge(Err(error)),
            },
            Err(error) => judge(Err(error)),
        }
    }
}

fn judge(made: Result<JobResult, ManagerError>) -> Result<(), Fault> {
    let why = match made {
        Ok(JobResult::Done | JobResult::Unknown) => return Ok(()),
        Ok(JobResult::Other(result)) => result,
        Err(error) => error.to_string(),
    };
    Err(Fault::unavailable(format!(
        "the rules that keep containers from this machine and from its credentials cannot be set ({why})"
    ))
    .hint("`journalctl -u temps-network` says why"))
}

fn unwritten(error: &io::Error) -> Fault {
    Fault::unavailable(format!("the state directory cannot be written: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_containers_need_is_needed_whoever_else_is_there() {
        let state = tempfile::tempdir().unwrap();
        fs::write(state.path().join(FILE), "").unwrap();
        // The manager is not even asked.
        assert_eq!(is_needed(&Manager::new(), state.path()).await, Ok(true));
    }

    #[test]
    fn a_container_without_rules_is_refused_with_a_reason() {
        assert_eq!(judge(Ok(JobResult::Done)), Ok(()));
        for made in [
            Ok(JobResult::Other("failed".to_owned())),
            Err(ManagerError::NoSuchUnit),
        ] {
            let fault = judge(made).unwrap_err();
            assert_eq!(fault.code, temps_ipc::Code::Unavailable);
            assert!(fault.hint.contains("temps-network"), "{fault:?}");
        }
    }
}
