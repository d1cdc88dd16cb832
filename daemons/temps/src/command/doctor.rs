//! `temps doctor`: what is wrong, and what to do about it. The daemons report on themselves; here is
//! what can only be seen from outside.

use super::app;
use super::status::{ask_deployd, ask_proxy};
use crate::instance::Instance;
use crate::output::{Done, Out, Stop, Style};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use temps_ipc::Fault;
use temps_ipc::types::{Check, CheckLevel, RuntimeKind, Timestamp};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long connecting to a port of this machine may take.
const CONNECT: Duration = Duration::from_secs(3);

/// The IPv4 routes of this machine.
const ROUTES: &str = "/proc/net/route";

/// In [`ROUTES`]: a route in use, and one that refuses (linux/route.h).
const RTF_UP: u32 = 0x1;
const RTF_REJECT: u32 = 0x200;

/// 2026-01-01: no clock that is right shows an earlier time.
const RELEASED: Timestamp = Timestamp(1_767_225_600_000);

/// Checks everything; exit status 1 if something failed.
pub async fn run(instance: &Instance, out: &Out) -> Done {
    let checks = all(instance).await;
    if out.json {
        out.object(&checks)?;
    } else {
        for check in &checks {
            show(check, out)?;
        }
    }
    if checks.iter().any(|check| check.level == CheckLevel::Failed) {
        return Err(Stop::Status(1));
    }
    Ok(())
}

/// Prints a finding, and what to do about it.
pub fn show(check: &Check, out: &Out) -> Done {
    let level = match check.level {
        CheckLevel::Ok => out.styled(Style::Good, "ok     "),
        CheckLevel::Warning => out.styled(Style::Warning, "warning"),
        CheckLevel::Failed => out.styled(Style::Error, "failed "),
    };
    out.line(format!("{level} {}: {}", check.name, check.what))?;
    if check.hint.is_empty() {
        Ok(())
    } else {
        out.line(format!("        {}", check.hint))
    }
}

async fn all(instance: &Instance) -> Vec<Check> {
    let mut checks = vec![
        clock(Timestamp::now()),
        private("runtime directory", &instance.dir),
    ];
    let (proxy, deployd) = tokio::join!(ask_proxy(instance), ask_deployd(instance));
    let ours = env!("CARGO_PKG_VERSION");
    match proxy {
        Ok(status) => {
            checks.push(version("temps-proxy", &status.build, ours));
            for (name, address) in [("http", status.http), ("https", status.https)] {
                match address {
                    Some(address) => checks.push(port(name, address).await),
                    None => checks.push(warning(name, "is not served", "")),
                }
            }
            checks.extend(status.checks);
        }
        Err(fault) => checks.push(failed("temps-proxy", &fault)),
    }
    match deployd {
        Ok(status) => {
            checks.push(version("temps-deployd", &status.build, ours));
            checks.push(private("state", &status.state_dir));
            checks.extend(status.checks);
            checks.extend(outside(instance).await);
        }
        Err(fault) => checks.push(failed("temps-deployd", &fault)),
    }
    checks
}

/// What keeps apps from the outside that have networks of their own: those have IPv4 only. deployd cannot
/// see it, since it has no network itself.
async fn outside(instance: &Instance) -> Option<Check> {
    let routes = std::fs::read_to_string(ROUTES).ok()?;
    if has_default_route(&routes) {
        return None;
    }
    let apps = app::all(instance).await.ok()?;
    let mut runtimes = apps.iter().filter_map(|app| app.runtime);
    runtimes.any(|kind| kind == RuntimeKind::Systemd).then(|| {
        warning(
            "network",
            "this machine has no default route for IPv4: apps of the systemd runtime reach nothing outside",
            "give it one; these apps have no IPv6",
        )
    })
}

/// Whether there is a way to everywhere among the lines of [`ROUTES`]: interface, destination, gateway, flags,
/// three others, mask.
fn has_default_route(routes: &str) -> bool {
    routes.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "00000000", _, flags, _, _, _, "00000000", ..] = fields[..] else {
            return false;
        };
        let flags = u32::from_str_radix(flags, 16).unwrap_or(0);
        flags & RTF_UP != 0 && flags & RTF_REJECT == 0
    })
}

fn clock(now: Timestamp) -> Check {
    if now < RELEASED {
        let fault = Fault::internal(format!("shows {}, which is in the past", now.rfc3339()))
            .hint("set the clock, or start time synchronisation: certificates will not be valid otherwise");
        return failed("clock", &fault);
    }
    ok("clock", format!("shows {}", now.rfc3339()))
}

fn version(name: &str, theirs: &str, ours: &str) -> Check {
    if theirs.split_whitespace().next() == Some(ours) {
        return ok(name, format!("answers, version {theirs}"));
    }
    warning(
        name,
        format!("answers, but has version {theirs}, and this command {ours}"),
        "finish the upgrade: restart the daemons",
    )
}

/// Whether only its owner can write to a directory.
fn private(name: &str, path: &Path) -> Check {
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) => {
            // Deployd's state may be out of our sight, and rightly so.
            return warning(
                name,
                format!("{} cannot be examined: {error}", path.display()),
                "",
            );
        }
    };
    let mode = metadata.mode() & 0o7777;
    if mode & 0o022 != 0 {
        let fault = Fault::internal(format!(
            "others can write to {} (mode {mode:04o})",
            path.display()
        ))
        .hint(format!("chmod go-w {}", path.display()));
        return failed(name, &fault);
    }
    ok(name, format!("{} (mode {mode:04o})", path.display()))
}

async fn port(name: &str, address: SocketAddr) -> Check {
    let reachable = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => {
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port())
        }
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port())
        }
        _ => address,
    };
    match timeout(CONNECT, TcpStream::connect(reachable)).await {
        Ok(Ok(_)) => ok(name, format!("{address} accepts connections")),
        Ok(Err(error)) => failed(
            name,
            &Fault::unavailable(format!("{address} cannot be reached: {error}")),
        ),
        Err(_) => failed(
            name,
            &Fault::unavailable(format!("{address} does not answer"))
                .hint("see the log of temps-proxy"),
        ),
    }
}

/// A finding: nothing is wrong.
pub fn ok(name: &str, what: impl Into<String>) -> Check {
    check(name, CheckLevel::Ok, what, "")
}

/// A finding that wants attention.
pub fn warning(name: &str, what: impl Into<String>, hint: &str) -> Check {
    check(name, CheckLevel::Warning, what, hint)
}

/// A finding that keeps something from working.
pub fn failed(name: &str, fault: &Fault) -> Check {
    check(name, CheckLevel::Failed, fault.what.as_str(), &fault.hint)
}

fn check(name: &str, level: CheckLevel, what: impl Into<String>, hint: &str) -> Check {
    Check {
        name: name.to_owned(),
        level,
        what: what.into(),
        hint: hint.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_clock_from_before_the_release_is_a_failure() {
        assert_eq!(clock(Timestamp(0)).level, CheckLevel::Failed);
        assert_eq!(clock(Timestamp::now()).level, CheckLevel::Ok);
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(private("x", dir.path()).level, CheckLevel::Ok);
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o770)).unwrap();
        assert_eq!(private("x", dir.path()).level, CheckLevel::Failed);
    }

    #[test]
    fn a_machine_without_a_way_to_everywhere_is_told_from_others() {
        let head =
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";
        let near = "eth0\t0002000A\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";
        let default = "eth0\t00000000\t0202000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n";
        let refusing = "*\t00000000\t00000000\t0201\t0\t0\t100\t00000000\t0\t0\t0\n";
        assert!(has_default_route(&[head, near, default].concat()));
        for routes in ["", head, &[head, near].concat(), &[head, refusing].concat()] {
            assert!(!has_default_route(routes), "{routes}");
        }
    }

    #[tokio::test]
    async fn a_port_is_checked_by_connecting() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(port("http", address).await.level, CheckLevel::Ok);
        drop(listener);
        assert_eq!(port("http", address).await.level, CheckLevel::Failed);
    }
}
