//! The harness against a stand-in for the binary.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// A program that does what `script` says; `$state` is what it was given.
fn stand_in(script: &str) -> (TempDir, Options) {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("temps");
    let text = format!("#!/bin/sh\nstate=$3\n{script}\n");
    std::fs::write(&program, text).expect("it is written");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("it may run");
    (
        dir,
        Options {
            program: Some(program),
            ..Options::default()
        },
    )
}

const SERVE: &str = "
case $1 in up) ;; *) echo \"$TEMPS_RUNTIME_DIR $*\"; exit 4 ;; esac
mkdir -p $state
echo starting; echo a log line >&2
cp $(command -v sleep) $state/temps-deployd
$state/temps-deployd 300 &
(cd $state && env -i MARK=1 setsid sleep 300) &
(cd / && exec env -i MARK=2 setsid sleep 300) >$state/lock &
(cd / && exec env -i MARK=3 TEMPS_RELEASE=rel_abc setsid sleep 300) &
trap 'exit 7' TERM
echo ready http=http://127.0.0.1:81 https=https://127.0.0.1:444 state=$state
while :; do sleep 0.05; done";

fn alive(pid: i32) -> bool {
    process::all()
        .iter()
        .any(|process| process.pid == pid && process.state != 'Z')
}

fn wait_for<T>(what: impl Fn() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(Instant::now() < end, "it does not happen");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_instance_is_known_by_its_ports_daemons_and_leftovers() {
    let (_dir, options) = stand_in(SERVE);
    let mut temps = Temps::up(options).expect("it is ready");
    assert_eq!((temps.http_port(), temps.https_port()), (81, 444));
    assert_eq!(temps.host("shop"), "shop.localhost:81");
    assert!(temps.log().contains("a log line"));

    let output = temps.run(["app", "show", "rel_abc"]).expect("it runs");
    assert_eq!(output.status, 4);
    let said = format!("{} app show rel_abc\n", temps.runtime_dir().display());
    assert_eq!(output.stdout, said);

    let daemon = wait_for(|| temps.daemon_pid("deployd"));
    assert_eq!(temps.daemon_pid("proxy"), None);
    let escaped = |process: &Process| process.environment.contains_key("MARK");
    // One works in the state directory, one has a file there open, one runs a known release.
    let all_escaped = || {
        temps
            .leftovers()
            .iter()
            .filter(|process| escaped(process))
            .count()
            == 3
    };
    wait_for(|| all_escaped().then_some(()));
    assert_eq!(temps.kill_daemon("deployd").expect("it runs"), daemon);
    wait_for(|| temps.daemon_pid("deployd").is_none().then_some(()));

    assert_eq!(temps.stop().expect("it ends"), 7);
    let left = temps.leftovers();
    assert!(left.len() == 3 && left.iter().all(escaped), "{left:?}");
    drop(temps);
    assert!(left.iter().all(|process| !alive(process.pid)), "{left:?}");
}

#[test]
fn a_dropped_instance_leaves_no_process() {
    let (_dir, options) = stand_in(&SERVE.replace("exit 7", "true"));
    let temps = Temps::up(options).expect("it is ready");
    let daemon = wait_for(|| temps.daemon_pid("deployd"));
    let supervisor = temps.pid();
    drop(temps);
    assert!(!alive(daemon) && !alive(supervisor));
}

#[test]
fn a_start_that_fails_shows_its_log() {
    let (_dir, options) = stand_in("echo the port is taken >&2; exit 1");
    let error = Temps::up(options).expect_err("it ends");
    assert!(
        format!("{error:#}").contains("the port is taken"),
        "{error:#}"
    );
}
