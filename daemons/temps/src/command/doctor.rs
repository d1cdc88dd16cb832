//! `temps doctor`: what is wrong, and what to do about it. The daemons report on themselves; here is
//! what can only be seen from outside.

use super::status::{ask_deployd, ask_proxy};
use crate::instance::Instance;
use crate::output::{Done, Out, Stop, Style};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use temps_ipc::Fault;
use temps_ipc::types::{Check, CheckLevel, Timestamp};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long connecting to a port of this machine may take.
const CONNECT: Duration = Duration::from_secs(3);

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
        }
        Err(fault) => checks.push(failed("temps-deployd", &fault)),
    }
    checks
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

    #[tokio::test]
    async fn a_port_is_checked_by_connecting() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(port("http", address).await.level, CheckLevel::Ok);
        drop(listener);
        assert_eq!(port("http", address).await.level, CheckLevel::Failed);
    }
}
