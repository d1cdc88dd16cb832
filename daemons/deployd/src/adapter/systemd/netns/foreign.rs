//! Other firewalls of this host. What one of them refuses stays refused whatever another has let
//! through, so each is told that what our own rules let through may pass.
//!
//! | firewall | what it is told |
//! |---|---|
//! | Docker, ufw, iptables-nft | rules in their chain `DOCKER-USER` or `FORWARD` of `ip filter` |
//! | iptables-legacy | the same rules; its tables are not those of nft(8) |
//! | firewalld | the range is a source of its zone `trusted`; the package has a zone for it, too |
//!
//! Said again with every instance and with every reconciliation: each of them may have been started,
//! or may have loaded its own rules anew, after us. Whoever cannot be told is no reason not to go on:
//! apps are served all the same, and only do not reach the outside.

use super::super::range::Range;
use super::NetnsError;
use super::{rules, tool};
use std::fs;
use std::io::{self, Write};

/// Names of the tables of iptables-legacy that are in force.
const LEGACY_TABLES: &str = "/proc/net/ip_tables_names";

/// Has everybody let through what our rules let through.
pub(super) fn admit(range: Range) -> Result<(), NetnsError> {
    for chain in rules::FOREIGN {
        let listing = listing(chain);
        if listing.is_empty() {
            continue;
        }
        if rules::handles(&listing).is_empty() {
            for rule in rules::foreign() {
                tool::nft_apply(&format!("insert rule ip filter {chain} {rule}\n"))?;
            }
        }
        // Behind the first one the second is not asked.
        break;
    }
    firewalld(true, range);
    Ok(())
}

/// The same for iptables-legacy, which takes more rights than to make the network of an instance.
pub(super) fn admit_legacy() {
    if !has_legacy() {
        return;
    }
    for rule in rules::legacy() {
        if legacy("-C", &rule).is_err()
            && let Err(error) = legacy("-I", &rule)
        {
            warn(&format!(
                "what iptables-legacy forwards cannot be changed: {error}"
            ));
        }
    }
}

/// Takes everything back.
pub(super) fn withdraw(range: Option<Range>) -> Result<(), NetnsError> {
    for chain in rules::FOREIGN {
        for handle in rules::handles(&listing(chain)) {
            let handle = handle.to_string();
            tool::nft(&["delete", "rule", "ip", "filter", chain, "handle", &handle])?;
        }
    }
    if has_legacy() {
        for rule in rules::legacy() {
            // It may not be there.
            let _ = legacy("-D", &rule);
        }
    }
    if let Some(range) = range {
        firewalld(false, range);
    }
    Ok(())
}

/// The chain with its rules' handles; empty if there is none.
fn listing(chain: &str) -> String {
    tool::nft(&["-a", "list", "chain", "ip", "filter", chain]).unwrap_or_default()
}

fn has_legacy() -> bool {
    fs::read_to_string(LEGACY_TABLES)
        .is_ok_and(|tables| tables.lines().any(|table| table == "filter"))
}

fn legacy(what: &str, rule: &str) -> Result<String, tool::ToolError> {
    let mut args = vec!["-w", "5", what, "FORWARD"];
    args.extend(rule.split(' '));
    tool::iptables_legacy(&args)
}

/// Makes the range a source of firewalld's zone of those that are trusted, or takes it out of it. The
/// zone that it has for our interfaces (`temps`, of the package) it knows only after it was loaded anew,
/// and this it forgets when it is.
fn firewalld(is_trusted: bool, range: Range) {
    // One that is not running refuses nothing, and neither does one without a bus.
    let Ok(answer) = zone("querySource", range) else {
        return;
    };
    let method = match (answer.trim() == "b true", is_trusted) {
        (false, true) => "addSource",
        (true, false) => "removeSource",
        _ => return,
    };
    if let Err(error) = zone(method, range) {
        warn(&format!("firewalld cannot be told of the apps: {error}"));
    }
}

fn zone(method: &str, range: Range) -> Result<String, tool::ToolError> {
    let range = range.to_string();
    let place = [
        "org.fedoraproject.FirewallD1",
        "/org/fedoraproject/FirewallD1",
    ];
    let interface = "org.fedoraproject.FirewallD1.zone";
    let mut args = vec!["--system", "--auto-start=no", "--timeout=5", "call"];
    args.extend(place);
    args.extend([interface, method, "ss", "trusted", &range]);
    tool::busctl(&args)
}

fn warn(text: &str) {
    // The level of the journal's line.
    let _ = writeln!(io::stderr(), "<4>{text}");
}
