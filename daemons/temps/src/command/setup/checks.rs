//! What may be in the way of a platform that serves. A finding that keeps requests from being served is
//! a failure; what only some apps need is a warning.

use super::machine::Machine;
use super::port::{Holder, PORTS, Port, holder};
use super::present::Present;
use crate::command::doctor::{failed, ok, warning};
use nix::ifaddrs::getifaddrs;
use nix::sys::statvfs::statvfs;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use temps_ipc::Fault;
use temps_ipc::types::{Check, Host};
use tokio::net::lookup_host;
use tokio::time::timeout;

/// How long a name may take to be resolved.
const RESOLVE: Duration = Duration::from_secs(5);
/// In MiB: below, a build and an app do not fit beside each other.
const MEMORY: u64 = 512;
/// In MiB: an image and two releases of an ordinary app.
const DISK: u64 = 2048;
/// A name that nobody has, to see whether a wildcard answers.
const ANY: &str = "temps-setup-looks-for-a-wildcard";
/// Who may have the public ports: the proxy, and what stands in for it while it is restarted.
const OWN: [&str; 2] = ["temps-proxy.service", "temps-proxy-handover.service"];
/// How D-Bus finds polkit.
const POLKIT: &str = "/usr/share/dbus-1/system-services/org.freedesktop.PolicyKit1.service";

/// Looks at everything.
pub async fn all(machine: &Machine, present: &Present, domain: &Host) -> Vec<Check> {
    let mut checks: Vec<Check> = PORTS
        .iter()
        .map(|port| check_port(machine, present, port))
        .collect();
    checks.push(engine(machine, &present.engine));
    checks.push(git(machine));
    checks.extend(bus(machine));
    checks.extend(memory(machine));
    checks.extend(disk(machine));
    if machine.is_this() {
        checks.extend(dns(domain).await);
    }
    checks
}

fn check_port(machine: &Machine, present: &Present, port: &Port) -> Check {
    let number = port.number;
    if machine.runs && present.unit(port.socket).is_some_and(|unit| unit.is_active) {
        return ok(
            port.name,
            format!("{} listens on port {number}", port.socket),
        );
    }
    let again = "then `temps setup` starts what could not be started";
    let (who, what) = match holder(machine, number) {
        None => return ok(port.name, format!("port {number} is free")),
        Some(Holder::Manager) => (
            "another socket unit".to_owned(),
            "`systemctl list-sockets` names it: disable it".to_owned(),
        ),
        // It serves although its socket unit does not listen: the plan mends that.
        Some(Holder::Process(_, _, Some(unit))) if OWN.contains(&unit.as_str()) => {
            return ok(port.name, format!("{unit} serves port {number}"));
        }
        Some(Holder::Process(pid, name, Some(unit))) => (
            format!("{name} (process {pid} of {unit})"),
            format!("`systemctl disable --now {unit}` stops it"),
        ),
        Some(Holder::Process(pid, name, None)) => {
            (format!("{name} (process {pid})"), "stop it".to_owned())
        }
        Some(Holder::Unseen) => (
            "another program".to_owned(),
            "stop it: root sees which it is".to_owned(),
        ),
    };
    let edit = format!("or choose another port by `systemctl edit {}`", port.socket);
    let fault = Fault::unavailable(format!("port {number} is taken by {who}"))
        .hint(format!("{what}, {edit}; {again}"));
    failed(port.name, &fault)
}

fn engine(machine: &Machine, socket: &Path) -> Check {
    const NAME: &str = "container engine";
    let place = machine.path(&socket.display().to_string());
    if place.exists() {
        // Somebody who is not root may not connect, and it is there all the same.
        return match UnixStream::connect(&place) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => warning(
                NAME,
                format!("nobody answers at {}", socket.display()),
                "start it: `systemctl start docker.socket`",
            ),
            _ => ok(NAME, socket.display().to_string()),
        };
    }
    let podman = "/run/podman/podman.sock";
    if machine.path(podman).exists() {
        let hint = format!("write docker-socket = \"{podman}\" into /etc/temps/deployd.toml");
        return warning(
            NAME,
            format!("there is none at {}", socket.display()),
            &hint,
        );
    }
    warning(
        NAME,
        "there is none: apps from a Dockerfile or an image cannot be deployed, others can",
        "`apt-get install docker.io` or `dnf install moby-engine` brings one",
    )
}

fn git(machine: &Machine) -> Check {
    if ["/usr/bin/git", "/usr/local/bin/git", "/bin/git"]
        .iter()
        .any(|path| machine.path(path).exists())
    {
        return ok("git", "is there");
    }
    warning(
        "git",
        "is not installed: `temps deploy --git` cannot fetch",
        "install the package git",
    )
}

fn bus(machine: &Machine) -> Vec<Check> {
    let dbus = if machine.path("/run/dbus/system_bus_socket").exists() || !machine.runs {
        ok("dbus", "is there")
    } else {
        warning(
            "dbus",
            "does not run: `temps` and all apps work, programs that watch over D-Bus do not",
            "install the package dbus",
        )
    };
    let polkit = if machine.path(POLKIT).exists() {
        ok("polkit", "is there")
    } else {
        warning(
            "polkit",
            "is not installed: over D-Bus only root may change things; `temps` asks the group temps-admin",
            "install the package polkitd (Debian) or polkit (Fedora)",
        )
    };
    vec![dbus, polkit]
}

fn memory(machine: &Machine) -> Option<Check> {
    let text = std::fs::read_to_string(machine.path("/proc/meminfo")).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    let mib = kib / 1024;
    Some(enough(
        "memory",
        mib,
        MEMORY,
        "builds will run out of it: build elsewhere, and deploy images",
    ))
}

fn disk(machine: &Machine) -> Option<Check> {
    let found = statvfs(&machine.path("/var/lib")).ok()?;
    let bytes = found.blocks_available() as u64 * found.fragment_size() as u64;
    Some(enough(
        "disk",
        bytes / (1024 * 1024),
        DISK,
        "free some of /var/lib before apps are deployed",
    ))
}

fn enough(name: &str, mib: u64, least: u64, hint: &str) -> Check {
    let what = format!("{mib} MiB");
    if mib < least {
        return warning(name, format!("{what}, and {least} are few already"), hint);
    }
    ok(name, what)
}

async fn dns(domain: &Host) -> Vec<Check> {
    if domain.as_str() == "localhost" {
        return vec![warning(
            "dns",
            "apps answer at APP.localhost, on this machine only",
            "`temps setup --base-domain HOST` gives them a domain that others reach",
        )];
    }
    let own = addresses();
    let any = format!("{ANY}.{domain}");
    let (base, wildcard) = tokio::join!(resolve(domain.as_str()), resolve(&any));
    vec![
        judge("dns", domain.as_str(), &base, &own),
        judge("wildcard", &format!("*.{domain}"), &wildcard, &own),
    ]
}

async fn resolve(name: &str) -> BTreeSet<IpAddr> {
    match timeout(RESOLVE, lookup_host((name, 443))).await {
        Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
        _ => BTreeSet::new(),
    }
}

/// The addresses of this machine that others may reach.
fn addresses() -> BTreeSet<IpAddr> {
    let interfaces = getifaddrs().into_iter().flatten();
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .filter(|ip| !ip.is_loopback())
        .collect()
}

fn judge(check: &str, name: &str, found: &BTreeSet<IpAddr>, own: &BTreeSet<IpAddr>) -> Check {
    let list = |set: &BTreeSet<IpAddr>| {
        set.iter()
            .map(IpAddr::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let record = format!("make an A or AAAA record of {name} that leads to this machine");
    if found.is_empty() {
        return warning(check, format!("{name} does not resolve"), &record);
    }
    if found.is_disjoint(own) {
        return warning(
            check,
            format!(
                "{name} resolves to {}, which is no address of this machine",
                list(found)
            ),
            &format!("right if that is passed on to {}; else {record}", list(own)),
        );
    }
    ok(check, format!("{name} resolves to {}", list(found)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use temps_ipc::types::CheckLevel;

    fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
        addresses.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn a_name_is_judged_by_where_it_leads() {
        let own = set(&["192.0.2.1", "2001:db8::1"]);
        let level = |found: &[&str]| judge("dns", "example.org", &set(found), &own).level;
        assert_eq!(level(&["2001:db8::1"]), CheckLevel::Ok);
        assert_eq!(level(&[]), CheckLevel::Warning);
        let elsewhere = judge("dns", "example.org", &set(&["198.51.100.9"]), &own);
        assert_eq!(elsewhere.level, CheckLevel::Warning);
        assert!(
            elsewhere.what.contains("198.51.100.9"),
            "{}",
            elsewhere.what
        );
        assert!(elsewhere.hint.contains("192.0.2.1"), "{}", elsewhere.hint);
    }

    #[test]
    fn little_memory_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::new(Some(dir.path()));
        assert!(memory(&machine).is_none());
        std::fs::create_dir(dir.path().join("proc")).unwrap();
        let level = |text: &str| {
            std::fs::write(dir.path().join("proc/meminfo"), text).unwrap();
            memory(&machine).unwrap().level
        };
        assert_eq!(level("MemTotal:  262144 kB\n"), CheckLevel::Warning);
        assert_eq!(level("MemTotal: 8388608 kB\n"), CheckLevel::Ok);
    }

    #[test]
    fn an_engine_that_is_not_there_or_another_one_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::new(Some(dir.path()));
        let docker = Path::new("/run/docker.sock");
        assert!(engine(&machine, docker).what.contains("there is none"));
        std::fs::create_dir_all(dir.path().join("run/podman")).unwrap();
        std::fs::write(dir.path().join("run/podman/podman.sock"), "").unwrap();
        assert!(engine(&machine, docker).hint.contains("podman.sock"));
        let _listener = std::os::unix::net::UnixListener::bind(dir.path().join("run/docker.sock"));
        assert_eq!(engine(&machine, docker).level, CheckLevel::Ok);
    }
}
