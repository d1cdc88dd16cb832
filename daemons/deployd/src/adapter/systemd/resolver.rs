//! How names are resolved inside an instance: its `/etc/hosts` and `/etc/resolv.conf`.
//!
//! A program that asks for its own name at start, as many do, must get an answer at once: the file of
//! hosts has it. Servers on the loopback address are the host's own and cannot be reached from the
//! instance's network, so those behind them are named instead; if there are none, none is named, and
//! the resolver of the instance refuses at once, and `temps doctor` says so. Whenever the instances are
//! looked through, theirs is made anew: the host's may have changed.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use temps_ipc::types::AppName;

/// The host's resolver configuration.
const CONFIGURED: &str = "/etc/resolv.conf";

/// The servers behind systemd-resolved's stub (systemd-resolved.service(8)).
const BEHIND_RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// More are not asked (resolv.conf(5)).
const MAX_SERVERS: usize = 3;

/// No configuration of a resolver comes near.
const MAX_FILE: u64 = 64 * 1024;

/// The instance's `/etc/hosts`.
pub(super) fn hosts(app: &AppName, host: &str, address: Ipv4Addr) -> String {
    // What stands first is what the address is called when it is asked for its name.
    let mut names = vec![app.as_str()];
    if !host.is_empty() && host != app.as_str() && host != "localhost" {
        names.push(host);
    }
    format!(
        "127.0.0.1 localhost\n::1 localhost\n{address} {}\n",
        names.join(" ")
    )
}

/// The instance's `/etc/resolv.conf`; `chosen` servers instead of the host's, if there are any.
pub(super) fn resolver(chosen: &[IpAddr]) -> String {
    let (servers, options) = find(chosen);
    render(&servers, &options)
}

/// The servers that instances ask, by IPv4.
pub(super) fn servers(chosen: &[IpAddr]) -> Vec<Ipv4Addr> {
    let (servers, _) = find(chosen);
    servers
        .iter()
        .filter_map(|server| server.parse().ok())
        .collect()
}

/// The servers, and the lines about searching.
fn find(chosen: &[IpAddr]) -> (Vec<String>, Vec<String>) {
    if !chosen.is_empty() {
        return (chosen.iter().map(IpAddr::to_string).collect(), Vec::new());
    }
    let configured = parse(&read(Path::new(CONFIGURED)));
    if configured.0.is_empty() {
        return parse(&read(Path::new(BEHIND_RESOLVED)));
    }
    configured
}

fn read(path: &Path) -> String {
    use std::io::Read;
    let mut text = String::new();
    if let Ok(file) = std::fs::File::open(path) {
        // What cannot be read names no server.
        let _ = file.take(MAX_FILE).read_to_string(&mut text);
    }
    text
}

/// The servers that can be reached from outside the host's loopback, by IPv4 as instances do, and the
/// lines about searching.
fn parse(text: &str) -> (Vec<String>, Vec<String>) {
    let mut servers = Vec::new();
    let mut options = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some("nameserver"), Some(server)) => {
                if let Ok(address) = server.parse::<Ipv4Addr>()
                    && !address.is_loopback()
                    && !address.is_unspecified()
                    && servers.len() < MAX_SERVERS
                {
                    servers.push(address.to_string());
                }
            }
            (Some("search" | "options"), Some(_)) => options.push(line.trim().to_owned()),
            _ => {}
        }
    }
    (servers, options)
}

fn render(servers: &[String], options: &[String]) -> String {
    let mut text = String::from("# Written by temps-deployd.\n");
    for server in servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    for line in options {
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_on_the_loopback_are_left_out() {
        let (servers, options) = parse(
            "# a comment\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 192.0.2.53\noptions edns0\nsearch example.org\n",
        );
        assert_eq!(servers, ["192.0.2.53"]);
        assert_eq!(options, ["options edns0", "search example.org"]);
    }

    #[test]
    fn chosen_servers_replace_the_hosts() {
        let text = resolver(&["9.9.9.9".parse().unwrap()]);
        assert!(text.ends_with("nameserver 9.9.9.9\n"), "{text}");
    }

    #[test]
    fn an_instance_knows_its_own_name() {
        let app: AppName = "shop".parse().unwrap();
        let text = hosts(&app, "server1", Ipv4Addr::new(10, 231, 16, 5));
        assert!(text.contains("\n10.231.16.5 shop server1\n"), "{text}");
        assert!(
            !hosts(&app, "localhost", Ipv4Addr::new(10, 231, 16, 5)).contains("shop localhost")
        );
    }
}
