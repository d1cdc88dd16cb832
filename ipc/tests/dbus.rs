//! The files of `dbus/` agree with each other, with temps-dbus(5) and with what the daemons ask for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use temps_ipc::Code;

const NAMES: [&str; 2] = ["sh.temps.Deploy1", "sh.temps.Proxy1"];

fn tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(tree(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What follows each `before` up to the next quote.
fn quoted<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
    let parts = text.split(before).skip(1);
    parts.filter_map(|part| part.split('"').next()).collect()
}

#[test]
fn every_member_has_its_place_in_the_manual() {
    let manual = read("man/temps-dbus.5");
    for name in NAMES {
        let interfaces = read(&format!("ipc/dbus/{name}.xml"));
        let mut members = 0;
        for (kind, macro_name) in [("method", "Fn"), ("property", "Sy"), ("signal", "Sy")] {
            for member in quoted(&interfaces, &format!("<{kind} name=\"")) {
                let entry = format!(".It {macro_name} {member} ");
                assert!(manual.contains(&entry), "{kind} {member} of {name}");
                members += 1;
            }
        }
        assert!(members > 10, "{name} has {members} members");
        for interface in quoted(&interfaces, "<interface name=\"") {
            assert!(
                manual.contains(&format!("{interface}\n"))
                    || manual.contains(&format!("{interface} ")),
                "{interface}"
            );
        }
    }
}

#[test]
fn the_manual_has_no_member_that_is_not_there() {
    let manual = read("man/temps-dbus.5");
    let all: String = NAMES
        .iter()
        .map(|name| read(&format!("ipc/dbus/{name}.xml")))
        .collect();
    let log_control = ["LogLevel", "LogTarget", "SyslogIdentifier"];
    for line in manual.lines() {
        let mut words = line.split(' ');
        let (Some(".It"), Some("Fn" | "Sy"), Some(member)) =
            (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let is_there = all.contains(&format!("name=\"{member}\"")) || log_control.contains(&member);
        assert!(is_there, "{member}");
    }
}

#[test]
fn every_code_is_an_error_in_the_manual() {
    let manual = read("man/temps-dbus.5");
    for code in Code::ALL {
        let entry = format!(".It Li sh.temps.Error.{}\n", code.name());
        assert!(manual.contains(&entry), "{code}");
    }
}

#[test]
fn polkit_knows_every_action_that_is_asked_for_and_no_other() {
    let known: BTreeSet<String> = quoted(&read("ipc/dbus/sh.temps.policy"), "<action id=\"")
        .into_iter()
        .map(str::to_owned)
        .collect();
    let sources = [
        "daemons/deployd/src/bus/manager.rs",
        "daemons/deployd/src/bus/job.rs",
        "daemons/proxy/src/bus.rs",
    ]
    .map(read)
    .concat();
    let asked: BTreeSet<String> = ["\"sh.temps.deploy.", "\"sh.temps.proxy."]
        .iter()
        .flat_map(|prefix| {
            let found = quoted(&sources, prefix);
            found
                .into_iter()
                .map(|rest| format!("{}{rest}", &prefix[1..]))
        })
        .collect();
    assert_eq!(known, asked);
    let manual = read("man/temps-dbus.5");
    for action in known {
        assert!(manual.contains(&format!(".Li {action} ")), "{action}");
    }
}

#[test]
fn a_call_to_a_name_starts_the_unit_that_says_it_owns_it() {
    for (name, unit) in NAMES.into_iter().zip(["temps-deployd", "temps-proxy"]) {
        let activation = read(&format!("ipc/dbus/{name}.service"));
        for line in [
            format!("Name={name}\n"),
            format!("SystemdService={unit}.service\n"),
            "Exec=/bin/false\n".to_owned(),
        ] {
            assert!(activation.contains(&line), "{line}");
        }
        let unit = read(&format!("systemd/system/{unit}.service"));
        assert!(unit.contains(&format!("\nBusName={name}\n")));
        let user = unit.lines().find_map(|line| line.strip_prefix("User="));
        let policy = read(&format!("ipc/dbus/{name}.conf"));
        let own = format!("<policy user=\"{}\">", user.unwrap());
        assert!(policy.contains(&own), "{own}");
    }
}
