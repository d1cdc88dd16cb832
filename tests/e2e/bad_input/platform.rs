//! `temps up` itself: what it cannot start with, and what its daemons cannot read.

use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use harness::command::{self, Output};
use harness::temps::binary;
use tempfile::TempDir;

use crate::world::{PATIENCE, World, within};

fn up(state: &TempDir, runtime: &TempDir, more: &[&str]) -> Output {
    let mut command = Command::new(binary().unwrap());
    command
        .arg("up")
        .arg("--state")
        .arg(state.path())
        .arg("--runtime-dir")
        .arg(runtime.path());
    if !more.contains(&"--http") {
        command.args(["--http", "127.0.0.1:0"]);
    }
    command.args(["--https", "127.0.0.1:0"]).args(more);
    command::run(&mut command, PATIENCE).expect("it ends by itself")
}

fn directory() -> TempDir {
    tempfile::Builder::new()
        .prefix("t-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in("/tmp")
        .unwrap()
}

fn assert_said(output: &Output, status: i32, said: &[&str]) {
    println!(
        "exit {}: {}",
        output.status,
        output.stderr.trim().replace('\n', " | ")
    );
    assert_eq!(output.status, status, "{output:?}");
    for text in said {
        assert!(output.stderr.contains(text), "{text}: {output:?}");
    }
    assert!(!output.stdout.contains("ready"), "{output:?}");
}

#[test]
fn a_second_platform_on_the_same_directories_is_refused() {
    let world = World::up();
    let pid = world.temps().pid().to_string();
    let other = directory();
    let mut command = Command::new(binary().unwrap());
    command
        .arg("up")
        .arg("--state")
        .arg(world.temps().state())
        .arg("--runtime-dir")
        .arg(other.path());
    command.args(["--http", "127.0.0.1:0", "--https", "127.0.0.1:0"]);
    let output = command::run(&mut command, PATIENCE).unwrap();
    assert_said(&output, 75, &["another `temps up`", &pid, "--state"]);
    let mut command = Command::new(binary().unwrap());
    command
        .arg("up")
        .arg("--state")
        .arg(other.path().join("s"))
        .arg("--runtime-dir")
        .arg(world.temps().runtime_dir());
    command.args(["--http", "127.0.0.1:0", "--https", "127.0.0.1:0"]);
    let output = command::run(&mut command, PATIENCE).unwrap();
    assert_said(&output, 75, &["another `temps up`", &pid, "--runtime-dir"]);
    world.ok(["status"]);
}

#[test]
fn a_taken_port_is_named_with_the_option_that_chooses_another() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = up(&directory(), &directory(), &["--http", &address]);
    assert_said(&output, 75, &[&address, "taken", "--http"]);
    let output = up(&directory(), &directory(), &["--http", "192.0.2.1:0"]);
    assert_said(&output, 64, &["192.0.2.1", "--http"]);
    let output = up(&directory(), &directory(), &["--http", "nonsense"]);
    assert_said(&output, 64, &["nonsense"]);
}

fn configured(daemon: &str, text: &str) -> TempDir {
    let state = directory();
    std::fs::create_dir(state.path().join("config")).unwrap();
    std::fs::write(state.path().join(format!("config/{daemon}.toml")), text).unwrap();
    state
}

#[test]
fn a_configuration_the_proxy_cannot_read_ends_the_start() {
    for (text, said) in [
        ("colour = \"red\"\n", "colour"),
        ("[probes]\nrouted = \"often\"\n", "often"),
        ("[probes\n", "proxy.toml"),
    ] {
        let output = up(&configured("proxy", text), &directory(), &[]);
        assert_said(
            &output,
            78,
            &[said, "proxy.toml", "temps-proxy exited with status 78"],
        );
    }
}

#[test]
fn a_wrong_configuration_leaves_the_last_good_one_also_at_a_start() {
    let mut world = World::up();
    let good = world
        .live("shop", "python", "healthy", &["--watch", "1s"])
        .release;
    let ports = (world.temps().http(), world.temps().https());
    let file = world.deployd_state().join("../config/deployd.toml");
    for (text, said) in [
        ("wach = \"1s\"\n", "wach"),
        ("builds-at-once = 0\n", "builds-at-once"),
    ] {
        std::fs::write(&file, text).unwrap();
        let old = world.temps().kill_daemon("deployd").unwrap();
        assert!(within(PATIENCE, || world.run(["app", "list"]).is_success()));
        assert_ne!(world.temps().daemon_pid("deployd"), Some(old));
        assert_wrong(&world, "deployd.toml", said);
        assert_eq!(world.get("shop", "/").release(), good, "routes serve on");
    }
    let proxy = world.deployd_state().join("../config/proxy.toml");
    let right = std::fs::read(&proxy).unwrap();
    std::fs::write(&proxy, "colour = 1\n").unwrap();
    assert_eq!(world.temps_mut().stop().unwrap(), 0);
    world
        .start_on(Some(ports))
        .expect("it starts with what was right");
    assert_eq!(world.get("shop", "/").release(), good, "apps are back");
    assert_wrong(&world, "deployd.toml", "builds-at-once");
    assert_wrong(&world, "proxy.toml", "colour");
    std::fs::write(&proxy, right).unwrap();
    std::fs::write(&file, "").unwrap();
    assert_eq!(world.temps_mut().stop().unwrap(), 0);
    world.start_on(Some(ports)).unwrap();
    let doctor = world.run(["doctor"]).stdout;
    assert!(!doctor.contains("the configuration is wrong"), "{doctor}");
}

/// The mistake is in the log and in `temps doctor`, which fails.
fn assert_wrong(world: &World, file: &str, said: &str) {
    let log = world.temps().log();
    assert!(
        log.contains(said) && log.contains("the last good one is used"),
        "{log}"
    );
    let doctor = world.run(["doctor"]);
    let line = doctor
        .stdout
        .lines()
        .find(|line| line.contains(&format!("{file}: the configuration is wrong")));
    assert!(
        doctor.status == 1 && line.is_some_and(|line| line.contains(said)),
        "{doctor:?}"
    );
}
