//! The names under which instances exist on the system.
//!
//! | what | name |
//! |---|---|
//! | unit of an instance | `temps-app-INSTANCE.service` |
//! | unit of its socket, if requests start it | `temps-app-INSTANCE.socket` |
//! | unit of its network namespace | `temps-netns@INSTANCE.service`; of a job's: `temps-netns@job-ID.service` |
//! | unit of what all of them share | `temps-network.service` |
//! | network namespace | `/run/netns/temps-INSTANCE`, `/run/netns/temps-job-ID` |
//! | its interface on the host | `tps` and the last three bytes of the address in hexadecimal |
//! | bridge of an installation's containers | `tpd-` and ten digits of the installation's name |
//! | user of an app | `temps-` and 16 hexadecimal digits of a digest of its name |
//! | data of an app | `/var/lib/temps-apps/APP` |

use sha2::{Digest, Sha256};
use std::fmt::Display;
use std::net::Ipv4Addr;
use temps_ipc::id::InstanceId;
use temps_ipc::types::AppName;

/// The unit of what all instances share.
pub(super) const SHARED: &str = "temps-network.service";

/// What every instance's unit is called.
pub(super) const PATTERN: &str = "temps-app-*.service";

/// Every interface on the host that leads to an instance, for firewall rules.
pub(super) const INTERFACES: &str = "tps*";

/// Every bridge that containers of an installation are on, for firewall rules.
pub(crate) const BRIDGES: &str = "tpd-*";

/// What the unit of every network namespace is called.
pub(super) const NAMESPACES: &str = "temps-netns@*.service";

/// The directory of all apps' data below `/var/lib`, as `StateDirectory=` has it.
pub(super) const DATA: &str = "temps-apps";

/// The unit of an instance.
pub(super) fn unit(id: &InstanceId) -> String {
    format!("temps-app-{id}.service")
}

/// The unit of an instance's socket: of the same name, so that it starts that unit (systemd.socket(5)).
pub(super) fn socket(id: &InstanceId) -> String {
    format!("temps-app-{id}.socket")
}

/// The instance whose unit it is.
pub(super) fn instance(unit: &str) -> Option<InstanceId> {
    let id = unit.strip_prefix("temps-app-")?.strip_suffix(".service")?;
    id.parse().ok()
}

/// The unit of the network namespace of an instance or a job.
pub(super) fn namespace_unit(id: &impl Display) -> String {
    format!("temps-netns@{id}.service")
}

/// The network namespace, as `ip netns` knows it.
pub(super) fn namespace(id: &impl Display) -> String {
    format!("temps-{id}")
}

/// The host's end of the link to an instance. Unique as long as addresses are: a range has at most
/// 16 million of them.
pub(super) fn interface(address: Ipv4Addr) -> String {
    let [_, a, b, c] = address.octets();
    format!("tps{a:02x}{b:02x}{c:02x}")
}

/// The user of an app. Names of users are at most 31 characters long, those of apps longer.
pub(super) fn user(app: &AppName) -> String {
    let digest = Sha256::digest(app.as_str().as_bytes());
    let digits: String = digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("temps-{digits}")
}

/// The directory of the app's data below `/var/lib`.
pub(super) fn data(app: &AppName) -> String {
    format!("{DATA}/{app}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_found_by_its_unit_and_nothing_else_is_one() {
        let id = InstanceId::fresh();
        assert_eq!(instance(&unit(&id)), Some(id));
        for name in [
            "temps-app-x.service",
            "temps-deployd.service",
            "temps-app-.service",
        ] {
            assert_eq!(instance(name), None, "{name}");
        }
    }

    #[test]
    fn names_are_as_short_as_the_kernel_and_the_manager_want_them() {
        assert_eq!(interface(Ipv4Addr::new(10, 231, 16, 5)), "tpse71005");
        let app: AppName = "shop".parse().unwrap();
        assert!(user(&app).len() <= 31);
        assert_ne!(user(&app), user(&"shop2".parse().unwrap()));
    }
}
