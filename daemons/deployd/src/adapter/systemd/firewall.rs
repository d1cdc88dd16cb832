//! Whether the network of the apps could be made, and the rules that keep them apart are there. deployd has
//! no right to look for those, so a unit does that has the one capability for it.

use super::manager::{JobResult, Manager, ManagerError, Properties};
use super::{directory, name};
use std::path::Path;
use std::time::Duration;
use temps_ipc::Fault;

const UNIT: &str = "temps-network-check.service";

/// The program that looks, as it is installed.
const PROGRAM: &str = "/usr/libexec/temps/temps-netns";

/// It calls one program, which asks the kernel one thing.
const LIMIT: Duration = Duration::from_secs(5);

/// Says so if what all instances share could not be made, and there are any.
///
/// # Errors
/// `Unavailable`. That it cannot be found out is no error.
pub(super) async fn check_network(manager: &Manager, state: &Path) -> Result<(), Fault> {
    let units = manager.list(name::SHARED).await.unwrap_or_default();
    let failed = units.iter().any(|unit| unit.active == "failed");
    let instances = directory::list(state).unwrap_or_default();
    match broken(failed, instances.len()) {
        Some(fault) => Err(fault),
        None => Ok(()),
    }
}

/// What is to be said of the network of so many instances, if its unit has `failed`.
fn broken(failed: bool, instances: usize) -> Option<Fault> {
    (failed && instances > 0).then(|| {
        Fault::unavailable(format!(
            "the network of the apps could not be made: {} has failed",
            name::SHARED
        ))
        .hint("`journalctl -u temps-network` says why; `temps reconcile` tries again")
    })
}

/// Says so if they are not there.
///
/// # Errors
/// `Unavailable`. That it cannot be found out is no error.
pub(super) async fn check(manager: &Manager) -> Result<(), Fault> {
    match manager.start_transient(UNIT, properties(), LIMIT).await {
        Ok(JobResult::Other(result)) if result == "failed" => Err(Fault::unavailable(
            "the firewall's rules for apps (`nft list table inet temps`) are gone: something flushed them",
        )
        .hint(
            "`systemctl reload temps-network` sets them again; until then apps do not reach the outside, and only the rules inside their own networks keep them from this host",
        )),
        Ok(_) => Ok(()),
        // Somebody else is looking.
        Err(ManagerError::Exists) => Ok(()),
        Err(error) => {
            tracing::warn!(%error, "cannot look for the rules of the firewall");
            Ok(())
        }
    }
}

fn properties() -> Properties {
    // linux/capability.h: CAP_NET_ADMIN, which listing rules takes too.
    let capabilities: u64 = 1 << 12;
    let argv: Vec<String> = [PROGRAM, "network", "check"].map(str::to_owned).into();
    let families: Vec<String> = ["AF_UNIX", "AF_NETLINK"].map(str::to_owned).into();
    vec![
        (
            "Description",
            "Temps: looks for the rules of the apps' network".into(),
        ),
        ("Slice", "temps-daemons.slice".into()),
        ("Type", "oneshot".into()),
        ("ExecStart", vec![(PROGRAM.to_owned(), argv, false)].into()),
        ("CollectMode", "inactive-or-failed".into()),
        (
            "TimeoutStartUSec",
            u64::try_from(LIMIT.as_micros()).unwrap_or(u64::MAX).into(),
        ),
        ("CapabilityBoundingSet", capabilities.into()),
        ("NoNewPrivileges", true.into()),
        ("ProtectSystem", "strict".into()),
        ("ProtectHome", "yes".into()),
        ("PrivateDevices", true.into()),
        ("RestrictAddressFamilies", (true, families).into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_could_not_be_made_is_told_while_there_are_instances() {
        let told = broken(true, 1).unwrap();
        assert!(told.hint.contains("temps-network"), "{told:?}");
        assert_eq!(broken(true, 0), None);
        assert_eq!(broken(false, 1), None);
    }
}
