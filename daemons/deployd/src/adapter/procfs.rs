//! What `/proc` tells about processes and their sockets. Everything is best effort: a process may
//! end between two reads.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// The state of a listening socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// Every process id there is now.
fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The parent of a process: the second field after the name, which may itself contain anything.
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Every process that descends from `root`, without itself.
pub(crate) fn descendants(root: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for pid in pids() {
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            found.push(child);
            next.push(child);
        }
    }
    found
}

/// Every process but ourselves that was started with the variable `NAME=value`.
pub(crate) fn with_variable(variable: &str) -> Vec<i32> {
    let ourselves = std::process::id() as i32;
    pids()
        .filter(|&pid| pid != ourselves)
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environ| {
                environ
                    .split(|&byte| byte == 0)
                    .any(|entry| entry == variable.as_bytes())
            })
        })
        .collect()
}

/// The addresses on which these processes listen, sorted.
pub(crate) fn listening(pids: &[i32]) -> Vec<String> {
    let inodes: HashSet<String> = pids.iter().flat_map(|&pid| sockets(pid)).collect();
    let Some(&first) = pids.first() else {
        return Vec::new();
    };
    let mut found: Vec<String> = listeners(first)
        .into_iter()
        .filter(|(_, inode)| inodes.contains(inode))
        .map(|(address, _)| address)
        .collect();
    found.sort();
    found.dedup();
    found
}

/// The addresses on which anything listens in the network namespace of the process.
pub(crate) fn listening_in_namespace(pid: i32) -> Vec<String> {
    let mut found: Vec<String> = listeners(pid)
        .into_iter()
        .map(|(address, _)| address)
        .collect();
    found.sort();
    found.dedup();
    found
}

/// The inodes of the sockets that the process has open.
fn sockets(pid: i32) -> Vec<String> {
    let inode = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        let inode = target
            .to_str()?
            .strip_prefix("socket:[")?
            .strip_suffix(']')?;
        Some(inode.to_owned())
    };
    fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .filter_map(|entry| inode(entry.ok()?))
        .collect()
}

/// Listening sockets in the network namespace of the process: address and inode.
fn listeners(pid: i32) -> Vec<(String, String)> {
    ["tcp", "tcp6"]
        .iter()
        .filter_map(|name| {
            fs::read_to_string(
                Path::new("/proc")
                    .join(pid.to_string())
                    .join("net")
                    .join(name),
            )
            .ok()
        })
        .flat_map(|table| table_listeners(&table))
        .collect()
}

/// Listening sockets in the text of a table: address and inode.
fn table_listeners(table: &str) -> Vec<(String, String)> {
    // The line of headings is none.
    table.lines().filter_map(listener).collect()
}

/// The addresses on which anything listens, by the text of `/proc/net/tcp` and `tcp6`, sorted.
pub(crate) fn listening_in_tables(tables: &str) -> Vec<String> {
    let mut found: Vec<String> = table_listeners(tables)
        .into_iter()
        .map(|(address, _)| address)
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Address and inode, if the line of the table is a listening socket.
fn listener(line: &str) -> Option<(String, String)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    if *fields.get(3)? != LISTEN {
        return None;
    }
    let (host, port) = fields.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Each group of 8 digits is a 32-bit word in the byte order of the machine.
    let bytes: Vec<u8> = host
        .as_bytes()
        .chunks(8)
        .map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok())
        .collect::<Option<Vec<u32>>>()?
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect();
    let host = match bytes.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).to_string(),
        16 => format!("[{}]", Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => return None,
    };
    Some((format!("{host}:{port}"), (*fields.get(9)?).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_listening_sockets_are_found_by_address() {
        let four = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = listening(&[std::process::id() as i32]);
        assert!(
            found.contains(&four.local_addr().unwrap().to_string()),
            "{found:?}"
        );
        let accepted = std::net::TcpStream::connect(four.local_addr().unwrap()).unwrap();
        let found = listening(&[std::process::id() as i32]);
        assert!(!found.contains(&accepted.local_addr().unwrap().to_string()));
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn addresses_of_both_families_are_read() {
        let tail = "00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1";
        for (text, address) in [
            ("0100007F:1F90", "127.0.0.1:8080"),
            ("00000000000000000000000000000000:0050", "[::]:80"),
            ("00000000000000000000000001000000:0050", "[::1]:80"),
        ] {
            let found = listener(&format!("  0: {text} {tail}"));
            assert_eq!(
                found,
                Some((address.to_owned(), "4711".to_owned())),
                "{text}"
            );
        }
    }

    #[test]
    fn a_child_is_a_descendant_and_known_by_its_environment() {
        let mut child = std::process::Command::new("sleep")
            .arg("30")
            .env("TEMPS_TEST_MARK", "4f2c")
            .spawn()
            .unwrap();
        let pid = child.id() as i32;
        assert!(descendants(std::process::id() as i32).contains(&pid));
        // The kernel shows the environment a moment after the exec that spawning waits for.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while with_variable("TEMPS_TEST_MARK=4f2c").is_empty() && std::time::Instant::now() < end {
            std::thread::yield_now();
        }
        assert_eq!(with_variable("TEMPS_TEST_MARK=4f2c"), [pid]);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
