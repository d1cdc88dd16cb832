//! Calls of ip(8) and nft(8), and of what other firewalls are told by.

use std::io::{self, Write};
use std::process::{Command, Stdio};

/// Where the system's tools are; the manager's `PATH` may be shorter.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A tool that did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(super) enum ToolError {
    #[error("`{0}` cannot be started: {1}; it is in the package {2}")]
    Missing(&'static str, io::Error, &'static str),
    #[error("`{0}` failed: {1}")]
    Failed(String, String),
    #[error("`{0}` broke off: {1}")]
    Broken(&'static str, io::Error),
}

/// Runs `ip` with a batch of commands, of which the first failing one ends it.
pub(super) fn ip_batch(namespace: Option<&str>, lines: &[String]) -> Result<(), ToolError> {
    let mut args = Vec::new();
    if let Some(namespace) = namespace {
        args.extend(["-n", namespace]);
    }
    args.extend(["-batch", "-"]);
    run("ip", &args, &lines.join("\n")).map(drop)
}

/// What `ip` prints.
pub(super) fn ip(args: &[&str]) -> Result<String, ToolError> {
    run("ip", args, "")
}

/// Applies rules all at once or not at all.
pub(super) fn nft_apply(rules: &str) -> Result<(), ToolError> {
    run("nft", &["-f", "-"], rules).map(drop)
}

/// Applies rules in a namespace, all at once or not at all.
pub(super) fn nft_apply_in(namespace: &str, rules: &str) -> Result<(), ToolError> {
    let namespace = format!("--net=/run/netns/{namespace}");
    run("nsenter", &[&namespace, "nft", "-f", "-"], rules).map(drop)
}

/// What `nft` prints.
pub(super) fn nft(args: &[&str]) -> Result<String, ToolError> {
    run("nft", args, "")
}

/// Asks the service manager.
pub(super) fn systemctl(args: &[&str]) -> Result<String, ToolError> {
    run("systemctl", args, "")
}

/// Tells iptables-legacy.
pub(super) fn iptables_legacy(args: &[&str]) -> Result<String, ToolError> {
    run("iptables-legacy", args, "")
}

/// Calls a method of somebody on the bus.
pub(super) fn busctl(args: &[&str]) -> Result<String, ToolError> {
    run("busctl", args, "")
}

/// The unit has a time limit for all of it.
fn run(tool: &'static str, args: &[&str], input: &str) -> Result<String, ToolError> {
    let package = match tool {
        "ip" => "iproute2",
        "nft" => "nftables",
        "busctl" | "systemctl" => "systemd",
        "nsenter" => "util-linux",
        _ => "iptables",
    };
    let mut child = Command::new(tool)
        .args(args)
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| ToolError::Missing(tool, error, package))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A few kilobytes, which fit into the pipe; one that does not read them says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let done = child
        .wait_with_output()
        .map_err(|error| ToolError::Broken(tool, error))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    let line = format!("{tool} {}", args.join(" "));
    Err(ToolError::Failed(line, format!("{} ({said})", done.status)))
}
