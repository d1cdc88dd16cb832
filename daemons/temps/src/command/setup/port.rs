//! Who listens on a port of this machine, by name: `/proc/net/tcp` knows the socket, `/proc/PID/fd`
//! whose it is (proc(5)).

use super::machine::Machine;
use std::collections::BTreeSet;
use std::path::Path;

/// A port that the platform serves.
#[derive(Debug)]
pub struct Port {
    /// As its checks are called.
    pub name: &'static str,
    /// The number.
    pub number: u16,
    /// The unit that listens.
    pub socket: &'static str,
}

/// The ports of the proxy.
pub const PORTS: [Port; 2] = [
    Port {
        name: "http",
        number: 80,
        socket: "temps-proxy-http.socket",
    },
    Port {
        name: "https",
        number: 443,
        socket: "temps-proxy-https.socket",
    },
];

/// TCP_LISTEN, as the kernel prints it.
const LISTENING: &str = "0A";

/// Who listens.
#[derive(Debug, PartialEq, Eq)]
pub enum Holder {
    /// A process: its id, its name, and the unit that it belongs to.
    Process(u32, String, Option<String>),
    /// The service manager, for a socket unit.
    Manager,
    /// Somebody whose processes cannot be seen: only root sees them all.
    Unseen,
}

/// Who listens on a port; nobody if it is free.
pub fn holder(machine: &Machine, port: u16) -> Option<Holder> {
    let sockets: BTreeSet<u64> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(machine.path(table)).ok())
        .flat_map(|table| listening(&table, port))
        .collect();
    if sockets.is_empty() {
        return None;
    }
    let proc = machine.path("/proc");
    let mut pids: Vec<u32> = std::fs::read_dir(&proc)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    // A server's first process is the one to name, before its workers.
    pids.sort_unstable();
    let mut owners = pids
        .into_iter()
        .filter(|pid| holds(&proc.join(pid.to_string()), &sockets))
        .peekable();
    if owners.peek() == Some(&1) {
        return Some(Holder::Manager);
    }
    Some(match owners.next() {
        Some(pid) => {
            let place = proc.join(pid.to_string());
            let name = std::fs::read_to_string(place.join("comm")).unwrap_or_default();
            Holder::Process(pid, name.trim().to_owned(), unit(&place))
        }
        None => Holder::Unseen,
    })
}

/// The inodes of the sockets that listen on a port.
fn listening(table: &str, port: u16) -> Vec<u64> {
    let end = format!(":{port:04X}");
    table
        .lines()
        .filter_map(|line| {
            // sl local remote state queues timer retransmits uid timeout inode
            let fields: Vec<&str> = line.split_whitespace().collect();
            let listens = fields.get(1)?.ends_with(&end) && *fields.get(3)? == LISTENING;
            listens.then(|| fields.get(9)?.parse().ok()).flatten()
        })
        .collect()
}

fn holds(process: &Path, sockets: &BTreeSet<u64>) -> bool {
    let descriptors = std::fs::read_dir(process.join("fd"));
    descriptors.into_iter().flatten().flatten().any(|entry| {
        let Ok(target) = std::fs::read_link(entry.path()) else {
            return false;
        };
        let text = target.to_string_lossy();
        let inode = text
            .strip_prefix("socket:[")
            .and_then(|rest| rest.strip_suffix(']'));
        inode
            .and_then(|inode| inode.parse().ok())
            .is_some_and(|inode| sockets.contains(&inode))
    })
}

/// The service that a process belongs to.
fn unit(process: &Path) -> Option<String> {
    let groups = std::fs::read_to_string(process.join("cgroup")).ok()?;
    let mut parts = groups.lines().flat_map(|line| line.rsplit('/'));
    parts
        .find(|part| part.ends_with(".service"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
         0: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n\
         1: 0100007F:0050 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 0\n\
         2: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1 0\n";

    fn process(root: &Path, pid: u32, name: &str, inode: u64, group: &str) {
        let place = root.join(format!("proc/{pid}"));
        std::fs::create_dir_all(place.join("fd")).unwrap();
        symlink(format!("socket:[{inode}]"), place.join("fd/6")).unwrap();
        std::fs::write(place.join("comm"), format!("{name}\n")).unwrap();
        std::fs::write(place.join("cgroup"), group).unwrap();
    }

    #[test]
    fn the_process_that_listens_is_named_with_its_unit() {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::new(Some(dir.path()));
        assert_eq!(holder(&machine, 80), None, "there is no table");
        std::fs::create_dir_all(dir.path().join("proc/net")).unwrap();
        std::fs::write(dir.path().join("proc/net/tcp"), TABLE).unwrap();
        assert_eq!(holder(&machine, 80), Some(Holder::Unseen));
        assert_eq!(holder(&machine, 443), None);
        process(
            dir.path(),
            99,
            "nginx",
            4711,
            "0::/system.slice/nginx.service\n",
        );
        process(
            dir.path(),
            100,
            "nginx",
            4711,
            "0::/system.slice/nginx.service\n",
        );
        let nginx = Holder::Process(99, "nginx".to_owned(), Some("nginx.service".to_owned()));
        assert_eq!(holder(&machine, 80), Some(nginx));
        process(
            dir.path(),
            200,
            "node",
            4713,
            "0::/user.slice/session-1.scope\n",
        );
        let node = Holder::Process(200, "node".to_owned(), None);
        assert_eq!(holder(&machine, 8080), Some(node));
        process(dir.path(), 1, "systemd", 4711, "0::/init.scope\n");
        assert_eq!(holder(&machine, 80), Some(Holder::Manager));
    }

    #[test]
    fn a_port_of_this_process_is_found_where_it_is() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let machine = Machine::new(None);
        let found = holder(&machine, port);
        let own = std::process::id();
        assert!(
            matches!(found, Some(Holder::Process(pid, ..)) if pid == own),
            "{found:?}"
        );
    }
}
