//! What happens when an instance dies long after its watch window, and deployd sleeps.

use std::time::Instant;

use harness::docker;
use harness::http;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{PATIENCE, Setup, World, docker_or_skip, within};

const SHORT: &[&str] = &["--watch", "1s", "--health-timeout", "5s"];

/// Nobody looks at a target of its own accord while a test lasts.
const BLIND: &str = "fresh-grace = \"200ms\"\n[probes]\nrouted = \"1h\"\n";

fn blind(docker: bool) -> World {
    World::with(Setup {
        docker,
        deployd: "idle = \"1s\"\n",
        proxy: Some(BLIND),
        ..Setup::default()
    })
}

fn asleep(world: &World) -> bool {
    within(PATIENCE, || world.temps().daemon_pid("deployd").is_none())
}

fn instance(world: &World) -> String {
    let shown = world.json(&["app", "show", "shop"]);
    shown["instances"][0]["instance"]
        .as_str()
        .expect("it has one")
        .to_owned()
}

fn pid(world: &World) -> Option<i32> {
    let temps = world.temps();
    let answer = http::get(temps.http(), &temps.host("shop"), "/").ok()?;
    i32::try_from(answer.json().ok()?["pid"].as_i64()?).ok()
}

#[test]
fn an_instance_that_dies_outside_its_window_is_back_before_the_periodic_probe_would_notice() {
    let world = blind(false);
    let release = world.live("shop", "python", "fork", SHORT).release;
    world.settled("shop");
    let old = pid(&world).expect("it answers");
    assert!(asleep(&world), "it has to be woken");
    let load = world.light_load("shop");
    std::thread::sleep(std::time::Duration::from_millis(500));
    kill(Pid::from_raw(old), Signal::SIGKILL).unwrap();
    let begun = Instant::now();
    let is_back = within(PATIENCE, || pid(&world).is_some_and(|new| new != old));
    println!("answers again after {:.1?}", begun.elapsed());
    assert!(is_back, "{}", world.temps().log());
    let back = Instant::now();
    world.settled("shop");
    world.only(&[&release]);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let report = load.stop_blocking();
    println!("{report}");
    let late: Vec<_> = report
        .failed
        .iter()
        .filter(|failure| failure.when > back)
        .collect();
    assert!(late.is_empty(), "{late:?}");
}

#[test]
fn a_container_that_is_removed_is_back_before_the_periodic_probe_would_notice() {
    if !docker_or_skip() {
        return;
    }
    let world = blind(true);
    let release = world.live("shop", "container", "healthy", SHORT).release;
    world.settled("shop");
    let old = instance(&world);
    assert!(asleep(&world), "it has to be woken");
    let load = world.light_load("shop");
    std::thread::sleep(std::time::Duration::from_millis(500));
    docker::remove(&[old]).unwrap();
    let begun = Instant::now();
    let temps = world.temps();
    // Nothing answers at its address any more, not even a refusal.
    let is_back = within(PATIENCE, || {
        let answer = http::get(temps.http(), &temps.host("shop"), "/");
        answer.is_ok_and(|answer| answer.status == 200)
    });
    println!("answers again after {:.1?}", begun.elapsed());
    assert!(is_back, "{}", world.temps().log());
    assert_eq!(world.get("shop", "/").release(), release);
    let report = load.stop_blocking();
    println!("{report}");
    world.settled("shop");
    world.only(&[&release]);
}

#[test]
fn an_instance_that_keeps_dying_is_told_by_status_and_doctor_and_started_again() {
    let world = blind(false);
    let release = world.live("shop", "python", "fork", SHORT).release;
    world.settled("shop");
    let mut old = pid(&world).expect("it answers");
    let die = |pid: i32| kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    die(old);
    let is_back = |old: i32| pid(&world).is_some_and(|new| new != old);
    assert!(within(PATIENCE, || is_back(old)));
    world.settled("shop");
    old = pid(&world).expect("it answers");
    die(old);
    // A request finds it dead; what is tried next waits for its pause.
    let mut shown = world.json(&["status"])["apps"][0].clone();
    let is_paused = within(PATIENCE, || {
        let _ = pid(&world);
        shown = world.json(&["status"])["apps"][0].clone();
        shown["restart_at"].is_string()
    });
    assert!(is_paused, "{shown}");
    assert_eq!(
        (&shown["state"], &shown["restarts"]),
        (&"down".into(), &1.into())
    );
    let told = world.ok(["status"]).stdout;
    assert!(told.contains("shop: its instance keeps dying"), "{told}");
    let doctor = world.run(["doctor"]);
    println!("{}", doctor.stdout);
    assert_eq!(doctor.status, 1, "something failed");
    let named = format!(
        "shop: its instance keeps dying (restarts in the last 15 minutes: 1); next attempt at {}",
        shown["restart_at"].as_str().unwrap()
    );
    assert!(doctor.stdout.contains(&named), "{}", doctor.stdout);
    // Nobody reports it again: the checks are an hour apart, and no request is sent.
    let is_running = within(PATIENCE, || {
        let shown = world.json(&["app", "show", "shop"]);
        shown["state"] == "live" && shown["deployment"].is_null()
    });
    assert!(is_running, "{}", world.temps().log());
    assert!(is_back(old));
    world.only(&[&release]);
}
