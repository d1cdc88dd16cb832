//! The `systemd` runtime: instances are transient units of the service manager. No container engine
//! is needed.
//!
//! What holds for every instance:
//! - its unit ([`mod@unit`]) is sandboxed, limited, and runs as the app's own user, the same for all
//!   releases of the app, who has nothing but the app's data directory;
//! - it has a network namespace of its own ([`netns`]), from which it reaches the proxy and the
//!   outside, and nothing else on this host;
//! - command and variables are handed over as a credential ([`launch`]);
//! - what it prints goes to the journal, and from there into its log file ([`journal`]);
//! - the manager never restarts it: deployd decides what runs;
//! - if it is socket-activated, the manager holds its socket, in the same namespace, and starts it with
//!   the first connection, also after it has ended. What waits in the socket is lost by neither.
//!
//! ```text
//! (none) --files, namespace, unit--> running --ends--> failed or exited --stop: log, remove--> (none)
//!            '--start fails: remove--> (none)            '--host reboots--> directory alone = Absent
//! ```
//!
//! The instance's directory is made first and removed last, so whatever a crash leaves is found.

mod directory;
mod exec;
mod firewall;
mod job;
mod journal;
mod launch;
pub mod manager;
mod name;
mod netns;
mod range;
mod resolver;
mod shared;
mod start;
mod state;
mod stderr;
mod unit;

pub use job::{JobNetwork, JobNetworks};
pub use launch::EXEC_APPLET;
pub(crate) use name::BRIDGES;
pub use netns::NETNS_APPLET;
pub use range::Range;
pub use shared::ContainerRules;
pub use unit::Limits;

use crate::adapter::procfs;
use crate::port::{Artifact, InstanceSpec, InstanceState, Runtime, RuntimeError};
use async_trait::async_trait;
use directory::{InstanceDirectory, Shared};
use journal::Journal;
use manager::{JobResult, Manager, ManagerError};
use nix::libc;
use state::{Found, Starts};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use temps_ipc::Fault;
use temps_ipc::id::{InstanceId, ReleaseId};
use temps_ipc::types::{Address, AppName, RuntimeKind, Timestamp};
use tokio::io::AsyncReadExt;
use tokio::time::sleep;

/// The port of every instance: each has an address of its own.
const PORT: u16 = 8080;

/// How long the manager gets beyond the grace to kill what is left and tell.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// How long making or removing the network may take.
const NETWORK_LIMIT: Duration = Duration::from_secs(30);

/// How long removing an app's data may take.
const ERASE_LIMIT: Duration = Duration::from_secs(310);

/// How often a unit is looked at while its end is waited for.
const POLL: Duration = Duration::from_millis(250);

/// Where the manager says that it is the one (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// What the runtime is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemdSettings {
    /// How instances are limited.
    pub limits: Limits,
    /// Servers that instances ask for names, instead of the host's.
    pub resolvers: Vec<IpAddr>,
}

/// Runs instances as transient units.
#[derive(Debug)]
pub struct SystemdRuntime {
    state: PathBuf,
    settings: SystemdSettings,
    manager: Manager,
    journal: Journal,
}

impl SystemdRuntime {
    /// Whether this machine is run by systemd.
    pub fn is_there() -> bool {
        Path::new(BOOTED).is_dir()
    }

    /// For the installation whose state is in `state`. The manager is not talked to before it is
    /// needed.
    pub fn new(settings: SystemdSettings, state: &Path) -> Self {
        Self {
            state: state.to_owned(),
            settings,
            manager: Manager::new(),
            journal: Journal::default(),
        }
    }

    fn directory(&self, id: &InstanceId) -> InstanceDirectory {
        InstanceDirectory::new(&self.state, id)
    }

    /// The range of addresses, with the network made if there is none.
    async fn range(&self) -> Result<Range, RuntimeError> {
        let made = self.manager.start(name::SHARED, NETWORK_LIMIT).await;
        self.network(made)
    }

    fn network(&self, made: Result<JobResult, ManagerError>) -> Result<Range, RuntimeError> {
        match made {
            Ok(JobResult::Done | JobResult::Unknown) => {}
            Ok(JobResult::Other(result)) => {
                return Err(RuntimeError::Unavailable(
                    Fault::unavailable(format!(
                        "the network of the apps cannot be made ({result})"
                    ))
                    .hint("`journalctl -u temps-network` says why"),
                ));
            }
            Err(error) => return Err(unreachable_manager(&error)),
        }
        Shared::read(&self.state)
            .map(|shared| shared.range)
            .map_err(failed)
    }

    /// Whether an instance, a build or a container needs what they share.
    async fn is_shared_needed(&self) -> Result<bool, RuntimeError> {
        shared::is_needed(&self.manager, &self.state)
            .await
            .map_err(|error| unreachable_manager(&error))
    }

    async fn current(&self, id: &InstanceId) -> Result<InstanceState, ManagerError> {
        let memory = self.settings.limits.memory;
        let Some(found) = self.manager.properties(&name::unit(id)).await? else {
            return Ok(InstanceState::Absent);
        };
        let found = Found(&found);
        if !found.is_activated() {
            return Ok(found.state(memory));
        }
        let socket = self.manager.properties(&name::socket(id)).await?;
        Ok(found.activated(socket.as_ref().map(Found), memory))
    }

    /// Stops the unit: the polite signal, after `grace` the other one.
    async fn stop_unit(&self, unit: &str, grace: Duration) -> Result<(), ManagerError> {
        let stop = self.manager.stop(unit, grace + STOP_LIMIT);
        let kill = async {
            sleep(grace).await;
            // The manager's own deadline may be later: it was set when the unit was started. One that
            // has just ended cannot be killed, and the end is what is waited for.
            let _ = self.manager.kill(unit, libc::SIGKILL).await;
            std::future::pending::<Infallible>().await
        };
        let stopped = tokio::select! {
            stopped = stop => stopped,
            never = kill => match never {},
        };
        match stopped {
            Ok(_) | Err(ManagerError::NoSuchUnit) => {}
            Err(error) => return Err(error),
        }
        self.manager.reset_failed(unit).await
    }

    /// Stops the instance's units: its socket first, which would start it again.
    async fn stop_units(&self, id: &InstanceId, grace: Duration) -> Result<(), ManagerError> {
        self.stop_unit(&name::socket(id), Duration::from_secs(10))
            .await?;
        self.stop_unit(&name::unit(id), grace).await
    }

    /// Removes the units and the namespace; the directory goes last.
    async fn remove(&self, id: &InstanceId, grace: Duration) -> Result<(), RuntimeError> {
        let remove = async {
            self.stop_units(id, grace).await?;
            self.stop_unit(&name::namespace_unit(id), Duration::from_secs(10))
                .await
        };
        remove.await.map_err(|error| unreachable_manager(&error))?;
        self.directory(id).remove().map_err(failed)
    }

    async fn look(&self, id: &InstanceId) -> Option<Vec<String>> {
        let unit = format!("temps-look-{id}.service");
        let file = self.directory(id).listening();
        let properties = unit::look(id.as_str(), id, &file);
        let limit = Duration::from_secs(5);
        self.manager
            .start_transient(&unit, properties, limit)
            .await
            .ok()?;
        let mut tables = Vec::new();
        // Two tables.
        let file = tokio::fs::File::open(&file).await.ok()?;
        file.take(2 * unit::MAX_TABLE)
            .read_to_end(&mut tables)
            .await
            .ok()?;
        let tables = String::from_utf8_lossy(&tables);
        Some(procfs::listening_in_tables(&tables))
    }

    /// Removes what the app has kept, once it is gone.
    async fn erase(&self, app: &AppName) -> Result<(), RuntimeError> {
        let unit = format!("temps-erase-{app}.service");
        let properties = unit::erase(&name::data(app));
        match self
            .manager
            .start_transient(&unit, properties, ERASE_LIMIT)
            .await
        {
            Ok(JobResult::Done | JobResult::Unknown) => Ok(()),
            Ok(JobResult::Other(result)) => Err(RuntimeError::Unavailable(Fault::unavailable(
                format!("the data of `{app}` cannot be removed ({result})"),
            ))),
            Err(error) => Err(unreachable_manager(&error)),
        }
    }
}

#[async_trait]
impl Runtime for SystemdRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Systemd
    }

    async fn check(&self) -> Result<String, Fault> {
        let unreachable = |error| unreachable_manager(&error).fault().clone();
        firewall::check_network(&self.manager, &self.state).await?;
        let version = self.manager.version().await.map_err(unreachable)?;
        let used = self.is_shared_needed().await;
        if used.map_err(|error| error.fault().clone())? {
            firewall::check(&self.manager).await?;
        }
        Ok(format!("systemd {version}"))
    }

    fn lacking(&self) -> Option<Fault> {
        resolver::servers(&self.settings.resolvers).is_empty().then(|| {
            Fault::unavailable(
                "its apps cannot resolve names: /etc/resolv.conf names no server that they reach, and those on this machine's loopback are not",
            )
            .hint("name servers that they reach as `apps-resolvers` in deployd.toml, and restart temps-deployd")
        })
    }

    async fn choose_address(
        &self,
        artifact: &Artifact,
        taken: &[Address],
    ) -> Result<Address, RuntimeError> {
        if !matches!(artifact, Artifact::Directory { .. }) {
            return Err(RuntimeError::Refused(Fault::invalid(
                "only source with a Procfile runs on the systemd runtime",
            )));
        }
        let range = self.range().await?;
        range
            .free_address(taken)
            .map(|address| Address::Tcp((address, PORT).into()))
            .ok_or_else(|| {
                RuntimeError::Unavailable(
                    Fault::unavailable(format!("the apps' network {range} has no free address"))
                        .hint("destroy apps that are not needed (`temps app destroy APP`)"),
                )
            })
    }

    async fn start(&self, spec: &InstanceSpec) -> Result<(), RuntimeError> {
        let state = self.state(&spec.id).await?;
        match state {
            InstanceState::Running | InstanceState::Resting { .. } => return Ok(()),
            InstanceState::Exited { .. } => {
                self.stop(&spec.id, Duration::ZERO, &spec.log).await?;
            }
            InstanceState::Absent => {}
        }
        let started = self.start_new(spec).await;
        if started.is_err() {
            // What was printed meanwhile is kept.
            self.stop(&spec.id, Duration::ZERO, &spec.log).await?;
        }
        started
    }

    async fn state(&self, id: &InstanceId) -> Result<InstanceState, RuntimeError> {
        self.current(id)
            .await
            .map_err(|error| unreachable_manager(&error))
    }

    async fn ended(&self, id: &InstanceId) -> Result<InstanceState, RuntimeError> {
        let unit = name::unit(id);
        let begun = Timestamp::now();
        let mut starts = Starts::default();
        loop {
            // One that is started again at once may never be seen dead.
            let started = self.manager.started(&unit).await;
            if starts.is_another(started.map_err(|error| unreachable_manager(&error))?)
                && let Some(how) = self.journal.crash(&unit, begun).await
            {
                return Ok(InstanceState::Resting { failed: Some(how) });
            }
            let sub = self.manager.sub_state(&unit).await;
            if sub.map_err(|error| unreachable_manager(&error))?.as_deref() != Some("running") {
                match self.state(id).await? {
                    InstanceState::Running | InstanceState::Resting { failed: None } => {}
                    state => return Ok(state),
                }
            }
            sleep(POLL).await;
        }
    }

    async fn listening(&self, id: &InstanceId) -> Vec<String> {
        self.look(id).await.unwrap_or_default()
    }

    async fn stop(&self, id: &InstanceId, grace: Duration, log: &Path) -> Result<(), RuntimeError> {
        if self.current(id).await != Ok(InstanceState::Absent) {
            self.stop_units(id, grace)
                .await
                .map_err(|error| unreachable_manager(&error))?;
            self.journal.sync().await;
            self.journal
                .collect(&name::unit(id), log)
                .await
                .map_err(failed)?;
        }
        self.remove(id, grace).await
    }

    async fn collect_log(
        &self,
        id: &InstanceId,
        _: &ReleaseId,
        log: &Path,
    ) -> Result<(), RuntimeError> {
        self.journal
            .collect(&name::unit(id), log)
            .await
            .map_err(failed)
    }

    async fn list(&self) -> Result<Vec<InstanceId>, RuntimeError> {
        let units = self
            .manager
            .list(name::PATTERN)
            .await
            .map_err(|error| unreachable_manager(&error))?;
        let mut found: BTreeSet<InstanceId> = units
            .iter()
            .filter_map(|unit| name::instance(&unit.name))
            .collect();
        if !found.is_empty() || self.is_shared_needed().await? {
            // Somebody may have flushed all rules of the firewall, ours among them.
            let made = self
                .manager
                .reload_or_start(name::SHARED, NETWORK_LIMIT)
                .await;
            self.network(made)?;
        }
        // The host's servers may have changed since, as with a new lease.
        let names = resolver::resolver(&self.settings.resolvers);
        for id in directory::list(&self.state).map_err(failed)? {
            self.directory(&id).renew(&names).map_err(failed)?;
            found.insert(id);
        }
        Ok(found.into_iter().collect())
    }

    async fn release_shared(&self) -> Result<(), RuntimeError> {
        // Builds and containers need it as well; it then stays until the last app goes the next time.
        if self.is_shared_needed().await? {
            return Ok(());
        }
        match self.manager.stop(name::SHARED, NETWORK_LIMIT).await {
            Ok(_) | Err(ManagerError::NoSuchUnit) => Ok(()),
            Err(error) => Err(unreachable_manager(&error)),
        }
    }

    async fn remove_data(&self, app: &AppName) -> Result<(), RuntimeError> {
        // An app of another runtime, or one that never ran, has none.
        if !Path::new("/var/lib/private").join(name::data(app)).exists() {
            return Ok(());
        }
        self.erase(app).await
    }

    async fn remove_artifact(&self, _: &Artifact) -> Result<(), RuntimeError> {
        // The release directory is all there is, and the engine's.
        Ok(())
    }
}

fn unreachable_manager(error: &ManagerError) -> RuntimeError {
    RuntimeError::Unavailable(
        Fault::unavailable(error.to_string())
            .hint("`systemctl status` and `journalctl -b` tell more"),
    )
}

fn failed(error: io::Error) -> RuntimeError {
    RuntimeError::Unavailable(Fault::unavailable(format!(
        "the systemd runtime failed: {error}"
    )))
}
