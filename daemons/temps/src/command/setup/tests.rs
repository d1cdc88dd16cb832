//! Setting up a machine that lies in a directory; one that runs is part of the package's suite.

use super::*;
use clap::Parser;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

/// What the package would have put there, a tool that notes what it is told, and two users.
fn machine() -> (TempDir, Machine) {
    let dir = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    for unit in [
        "temps.target",
        "temps-proxy-http.socket",
        "temps-proxy.service",
    ] {
        let text = "[Install]\nWantedBy=multi-user.target\n";
        put(&format!("usr/lib/systemd/system/{unit}"), text);
    }
    put(
        "usr/lib/systemd/system/temps-failure@.service",
        "[Service]\n",
    );
    put(
        "etc/passwd",
        "root:x:0:0::/root:/bin/sh\nada:x:1000:1000::/:/bin/sh\n",
    );
    put("etc/group", "root:x:0:\ntemps-admin:x:990:\n");
    // `is-enabled` of a unit is what was enabled before; everything that is told is noted.
    let tool = format!(
        "#!/bin/sh\nroot={0}\necho \"${{0##*/}} $*\" >>$root/told\nshift\ncase $1 in\n\
         is-enabled) shift; for unit; do grep -qsx $unit $root/enabled && echo enabled || echo disabled; done ;;\n\
         enable) shift; for unit; do echo $unit >>$root/enabled; done ;;\nesac\n",
        dir.path().display()
    );
    put("tools/systemctl", &tool);
    let usermod = format!(
        "#!/bin/sh\necho usermod \"$*\" >>{0}/told\nsed -i \"s/^temps-admin:.*/&$7/\" {0}/etc/group\n",
        dir.path().display()
    );
    put("tools/usermod", &usermod);
    for tool in ["systemctl", "usermod"] {
        let path = dir.path().join("tools").join(tool);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut machine = Machine::new(Some(dir.path()));
    machine.tools = Some(dir.path().join("tools"));
    (dir, machine)
}

fn args(line: &[&str]) -> SetupArgs {
    let line = [&["temps", "setup"], line].concat();
    match crate::cli::Cli::try_parse_from(line).unwrap().command {
        crate::cli::Command::Setup(args) => args,
        other => panic!("{other:?}"),
    }
}

async fn plan(machine: &Machine, line: &[&str]) -> Result<Plan, Fault> {
    let present = Present::read(machine).await?;
    let mut args = args(line);
    args.yes = true;
    let wanted = wanted(&args, &present, machine)?;
    let checks = checks::all(machine, &present, &wanted.base_domain).await;
    Ok(Plan::new(&present, &wanted, &checks))
}

async fn make(machine: &Machine, line: &[&str]) -> usize {
    let plan = plan(machine, line).await.unwrap();
    for change in &plan.changes {
        change.make(machine).await.unwrap();
    }
    plan.changes.len()
}

fn read(dir: &TempDir, path: &str) -> String {
    fs::read_to_string(dir.path().join(path)).unwrap_or_default()
}

const LINE: [&str; 4] = ["--base-domain", "Example.org", "--operator", "ada"];

#[tokio::test]
async fn what_was_asked_for_is_written_and_a_second_run_changes_nothing() {
    let (dir, machine) = machine();
    assert_eq!(make(&machine, &LINE).await, 4);
    let file = read(&dir, "etc/temps/deployd.toml.d/10-setup.toml");
    assert!(
        file.ends_with("\nbase-domain = \"example.org\"\n"),
        "{file}"
    );
    assert!(read(&dir, "etc/group").contains("temps-admin:x:990:ada"));
    let enabled = read(&dir, "enabled");
    let mut enabled = enabled.lines().collect::<Vec<_>>();
    enabled.sort_unstable();
    assert_eq!(
        enabled,
        [
            "temps-proxy-http.socket",
            "temps-proxy.service",
            "temps.target"
        ]
    );
    assert_eq!(make(&machine, &LINE).await, 0);
    assert_eq!(make(&machine, &[]).await, 0, "what was not said stays");
    let left: Vec<_> = fs::read_dir(dir.path().join("etc/temps/deployd.toml.d"))
        .unwrap()
        .collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test]
async fn another_domain_replaces_the_one_before() {
    let (dir, machine) = machine();
    make(&machine, &LINE).await;
    let changes = plan(&machine, &["--base-domain", "other.example"])
        .await
        .unwrap()
        .changes;
    assert_eq!(
        changes,
        [
            Change::Domain("other.example".parse().unwrap()),
            Change::Apply
        ]
    );
    make(&machine, &["--base-domain", "other.example"]).await;
    assert!(read(&dir, "etc/temps/deployd.toml.d/10-setup.toml").contains("other.example"));
}

#[tokio::test]
async fn a_file_that_comes_later_decides_and_is_told() {
    let (dir, machine) = machine();
    make(&machine, &LINE).await;
    let later = dir.path().join("etc/temps/deployd.toml.d/50-local.toml");
    fs::write(later, "base-domain = \"local.example\"\n").unwrap();
    assert_eq!(
        make(&machine, &LINE).await,
        0,
        "writing it again would not help"
    );
    let wanted = Wanted {
        base_domain: "example.org".parse().unwrap(),
        operators: Vec::new(),
    };
    let check = overruled(&machine, &wanted, false).unwrap().unwrap();
    assert!(check.what.contains("local.example"), "{}", check.what);
}

#[tokio::test]
async fn a_user_who_does_not_exist_stops_everything() {
    let (dir, machine) = machine();
    let fault = plan(&machine, &["--operator", "ada", "--operator", "eve"])
        .await
        .unwrap_err();
    assert_eq!(fault.code, Code::NotFound);
    assert!(fault.what.contains("eve"), "{}", fault.what);
    assert!(!read(&dir, "told").contains("usermod"));
}

#[tokio::test]
async fn root_operates_it_anyway_and_nobody_is_added_twice() {
    let (_dir, machine) = machine();
    let line = [
        "--operator",
        "root",
        "--operator",
        "ada",
        "--operator",
        "ada",
    ];
    let changes = plan(&machine, &line).await.unwrap().changes;
    let operators = changes
        .iter()
        .filter(|change| matches!(change, Change::Operator(_)));
    assert_eq!(operators.count(), 1, "{changes:?}");
}

#[tokio::test]
async fn without_the_package_there_is_nothing_to_set_up() {
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine::new(Some(dir.path()));
    let fault = Present::read(&machine).await.unwrap_err();
    assert_eq!(fault.code, Code::Unavailable);
    assert!(fault.hint.contains("install"), "{}", fault.hint);
}

#[tokio::test]
async fn a_broken_configuration_is_named_and_nothing_is_changed() {
    let (dir, machine) = machine();
    let path = dir.path().join("etc/temps/deployd.toml");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "base-domian = \"x.example\"\n").unwrap();
    let fault = plan(&machine, &LINE).await.unwrap_err();
    assert_eq!(fault.code, Code::Config);
    assert!(fault.what.contains("deployd.toml:1"), "{}", fault.what);
}

#[tokio::test]
async fn a_socket_whose_port_is_taken_is_left_out() {
    let (_dir, machine) = machine();
    let mut present = Present::read(&machine).await.unwrap();
    for unit in &mut present.units {
        unit.is_active = false;
    }
    let wanted = Wanted {
        base_domain: present.base_domain.clone(),
        operators: Vec::new(),
    };
    let taken = doctor::failed("http", &Fault::unavailable("port 80 is taken by nginx"));
    let plan = Plan::new(&present, &wanted, &[taken]);
    let Some(Change::Start(units)) = plan.changes.last() else {
        panic!("{plan:?}");
    };
    assert!(
        !units.iter().any(|unit| unit == "temps-proxy-http.socket"),
        "{units:?}"
    );
    assert!(
        units.iter().any(|unit| unit == "temps-proxy.service"),
        "{units:?}"
    );
}

#[test]
fn only_root_may_change_this_machine() {
    let (_dir, machine) = machine();
    assert!(
        machine.may_change().is_ok(),
        "a directory belongs to whoever may write to it"
    );
    let denied = Machine::new(None).may_change();
    assert_eq!(denied.is_err(), !nix::unistd::geteuid().is_root());
}

#[tokio::test]
async fn what_is_not_built_is_refused_by_name() {
    let line = ["--acme-mail", "ada@example.org"];
    let stop = run(args(&line), &Out::new(false)).await.unwrap_err();
    assert!(matches!(stop, Stop::Fault(fault) if fault.code == Code::Unsupported));
}
