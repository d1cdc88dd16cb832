//! The start of an instance, up to its program being executed, and why it did not come so far.

use super::launch::Launch;
use super::manager::{JobResult, ManagerError};
use super::state::Found;
use super::{SystemdRuntime, failed, name, resolver, unit, unreachable_manager};
use crate::port::{Artifact, InstanceSpec, InstanceState, RuntimeError};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use temps_ipc::Fault;
use temps_ipc::id::InstanceId;
use temps_ipc::types::{Address, RuntimeKind};

/// How long a start may take until the program is executed: the namespace is made before, and the
/// app's data may change its owner.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The largest credential in bytes: the manager takes 1 MB of all of a unit's together.
const MAX_LAUNCH: usize = 1_000_000;

impl SystemdRuntime {
    /// Starts an instance that is not there yet: its files, its namespace, its unit.
    pub(super) async fn start_new(&self, spec: &InstanceSpec) -> Result<(), RuntimeError> {
        let refused = |what: String| Err(RuntimeError::Refused(Fault::invalid(what)));
        let Artifact::Directory { root, command } = &spec.artifact else {
            return refused(format!(
                "release {} is not made for the {} runtime",
                spec.release,
                RuntimeKind::Systemd
            ));
        };
        let Some((address, ip)) = ipv4(&spec.address) else {
            return refused("the systemd runtime needs an IPv4 address".to_owned());
        };
        let range = self.range().await?;
        if !range.contains(ip) {
            // The network was made anew with another range; the engine chooses another address then.
            return Err(RuntimeError::Unavailable(Fault::unavailable(format!(
                "{ip} is no address of the apps' network {range}"
            ))));
        }
        let launch = Launch::new(
            spec,
            command,
            address,
            &format!("http://{}", range.gateway()),
        );
        let size = serde_json::to_vec(&launch).map_or(0, |text| text.len());
        if size > MAX_LAUNCH {
            return refused(format!(
                "the app's variables are too large together ({size} bytes; the service manager takes {MAX_LAUNCH})"
            ));
        }
        let directory = self.directory(&spec.id);
        let host = nix::unistd::gethostname()
            .ok()
            .and_then(|host| host.into_string().ok())
            .unwrap_or_default();
        let hosts = resolver::hosts(&spec.app, &host, ip);
        let names = resolver::resolver(&self.settings.resolvers);
        directory
            .write(&launch, ip, &hosts, &names)
            .map_err(failed)?;
        let unit = name::unit(&spec.id);
        let properties = unit::properties(spec, root, &directory, &self.settings.limits);
        let started = if spec.socket_activated {
            let socket = unit::socket(spec, address.port());
            let others = vec![(unit, properties)];
            self.manager
                .start_with(&name::socket(&spec.id), socket, others, START_LIMIT)
                .await
        } else {
            self.manager
                .start_transient(&unit, properties, START_LIMIT)
                .await
        };
        match started {
            Ok(JobResult::Done) => Ok(()),
            Ok(JobResult::Unknown)
                if matches!(
                    self.current(&spec.id).await,
                    Ok(InstanceState::Running | InstanceState::Resting { .. })
                ) =>
            {
                Ok(())
            }
            Ok(JobResult::Other(result)) if spec.socket_activated && result != "dependency" => {
                Err(RuntimeError::Unavailable(
                    Fault::unavailable(format!("the app's socket cannot be opened ({result})"))
                        .hint(format!(
                            "`journalctl -u {}` says why",
                            name::socket(&spec.id)
                        )),
                ))
            }
            Ok(result) => Err(RuntimeError::Unavailable(self.why(&spec.id, &result).await)),
            Err(ManagerError::Refused { name, text }) => Err(RuntimeError::Unavailable(
                Fault::unavailable(format!(
                    "the service manager refuses to start the app: {text} ({name})"
                ))
                .hint("systemd 252 or later is needed"),
            )),
            Err(error) => Err(unreachable_manager(&error)),
        }
    }

    /// Why an instance did not come as far as being executed.
    async fn why(&self, id: &InstanceId, result: &JobResult) -> Fault {
        let unit = name::unit(id);
        let how = match result {
            JobResult::Other(result) if result == "dependency" => {
                return Fault::unavailable("the app's network cannot be made").hint(format!(
                    "`journalctl -u {}` says why",
                    name::namespace_unit(id)
                ));
            }
            JobResult::Other(result) => result.as_str(),
            _ => "its end was missed",
        };
        let found = self.manager.properties(&unit).await.ok().flatten();
        let status = found.map_or(String::new(), |found| {
            match Found(&found).state(self.settings.limits.memory) {
                InstanceState::Exited { how, .. } => format!(": it {how}"),
                _ => String::new(),
            }
        });
        Fault::unavailable(format!(
            "the service manager cannot start the app ({how}){status}"
        ))
        .hint(format!("`journalctl -u {unit}` says why"))
    }
}

fn ipv4(address: &Address) -> Option<(SocketAddr, Ipv4Addr)> {
    match address {
        Address::Tcp(address) => match address.ip() {
            IpAddr::V4(ip) => Some((*address, ip)),
            IpAddr::V6(_) => None,
        },
        _ => None,
    }
}
