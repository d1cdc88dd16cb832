//! The platform's own ends: stopped, killed, restarted, idle.

use std::time::{Duration, Instant};

use harness::http;
use harness::process;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{PATIENCE, Setup, World, docker_or_skip, within};

const SHORT: &[&str] = &["--watch", "1s", "--health-timeout", "5s"];

fn stop(world: &mut World) {
    let begun = Instant::now();
    let status = world.temps_mut().stop().unwrap();
    println!("stopped in {:.1?} with status {status}", begun.elapsed());
    assert_eq!(status, 0, "{}", world.temps().log());
    let left = world.temps().leftovers();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_stop_leaves_nothing_and_the_next_start_brings_everything_back() {
    let mut world = World::up();
    let shop = world.live("shop", "python", "fork", SHORT).release;
    let node = world.live("node", "node", "healthy", SHORT).release;
    let ports = (world.temps().http(), world.temps().https());
    stop(&mut world);
    let begun = Instant::now();
    world.start_on(Some(ports)).unwrap();
    println!("ready again after {:.1?}", begun.elapsed());
    assert_eq!(world.get("shop", "/").release(), shop);
    assert_eq!(world.get("node", "/").release(), node);
    world.only(&[&shop, &node]);
    world.live("shop", "python", "healthy", SHORT);
    stop(&mut world);
}

#[test]
fn a_stop_during_a_deployment_ends_it_well_at_the_next_start() {
    let mut world = World::up();
    let first = world.live("shop", "python", "healthy", SHORT).release;
    let slow = harness::app::make("python", "slow-start:3", "v2").unwrap();
    let queued = world.ok([
        "deploy",
        "shop",
        "--source",
        slow.arg(),
        "--no-wait",
        "--json",
    ]);
    println!("{}", queued.stdout.trim());
    assert!(within(
        PATIENCE,
        || world.json(&["app", "show", "shop"])["deployment"]["phase"] == "probing"
    ));
    stop(&mut world);
    world.start_on(None).unwrap();
    let answered = world.get("shop", "/").release().to_owned();
    println!(
        "at ready: {} answers",
        if answered == first {
            "the old release"
        } else {
            "the new release"
        }
    );
    world.settled("shop");
    let second = world.get("shop", "/").release().to_owned();
    assert_ne!(second, first, "the deployment went on");
    world.only(&[&second]);
    stop(&mut world);
}

#[test]
fn a_deployment_survives_a_kill_of_the_supervisor() {
    let mut world = World::up();
    let first = world.live("shop", "python", "healthy", SHORT).release;
    let ports = (world.temps().http(), world.temps().https());
    let slow = harness::app::make("python", "slow-start:2", "v2").unwrap();
    world.ok(["deploy", "shop", "--source", slow.arg(), "--no-wait"]);
    let is_probing = || world.json(&["app", "show", "shop"])["deployment"]["phase"] == "probing";
    assert!(within(PATIENCE, is_probing));
    world.temps_mut().kill_supervisor().unwrap();
    world.succeed(ports);
    let answered = world.get("shop", "/");
    assert_eq!(answered.status, 200, "{}", answered.text());
    world.settled("shop");
    let second = world.get("shop", "/").release().to_owned();
    assert_ne!(second, first, "the deployment went on");
    world.only(&[&second]);
    stop(&mut world);
}

#[test]
fn an_instance_that_is_killed_is_replaced() {
    let world = World::up();
    let release = world.live("shop", "python", "fork", SHORT).release;
    world.settled("shop");
    let temps = world.temps();
    let pid = || {
        let answer = http::get(temps.http(), &temps.host("shop"), "/").ok()?;
        i32::try_from(answer.json().ok()?["pid"].as_i64()?).ok()
    };
    let old = pid().expect("it answers");
    kill(Pid::from_raw(old), Signal::SIGKILL).unwrap();
    let begun = Instant::now();
    assert!(within(PATIENCE, || pid().is_some_and(|new| new != old)));
    println!("answers again after {:.1?}", begun.elapsed());
    world.settled("shop");
    world.only(&[&release]);
}

#[test]
fn an_app_whose_supervisor_was_killed_goes_with_its_release() {
    let world = World::up();
    let first = world.live("shop", "python", "fork", SHORT).release;
    world.settled("shop");
    let state = world.deployd_state();
    let all = process::all();
    let supervisor = all
        .iter()
        .find(|one| one.uses(&state) && one.name() == "temps-instance");
    process::kill_now(supervisor.expect("it runs").pid);
    assert_eq!(world.get("shop", "/").release(), first, "it serves on");
    let second = world.live("shop", "python", "healthy", SHORT).release;
    world.only(&[&second]);
    assert_eq!(world.files("instances").len(), 1);
}

#[test]
fn a_stop_answers_the_requests_in_flight() {
    let mut world = World::up();
    let release = world.live("shop", "python", "healthy", SHORT).release;
    let long = http::Call::get(
        world.temps().http(),
        &world.temps().host("shop"),
        "/slow?s=3",
    )
    .start();
    std::thread::sleep(Duration::from_millis(500));
    stop(&mut world);
    let answer = long.join().unwrap().expect("an answer");
    assert_eq!((answer.status, answer.release()), (200, &*release));
}

#[test]
fn after_a_kill_of_the_supervisor_the_next_start_cleans_up_and_serves() {
    let mut world = World::up();
    let shop = world.live("shop", "python", "fork", SHORT).release;
    let node = world.live("node", "node", "healthy", SHORT).release;
    let ports = (world.temps().http(), world.temps().https());
    world.temps_mut().kill_supervisor().unwrap();
    // The daemons end by themselves; what is left are the instances, which nobody told to.
    let daemons = || {
        process::all().iter().any(|process| {
            process.state != 'Z'
                && ["temps-proxy", "temps-deployd"].contains(&process.name())
                && process.uses(&world.deployd_state().join(".."))
        })
    };
    println!(
        "daemons gone: {}",
        within(Duration::from_secs(10), || !daemons())
    );
    println!(
        "left: {:?}",
        world
            .temps()
            .leftovers()
            .iter()
            .map(|process| process.name().to_owned())
            .collect::<Vec<_>>()
    );
    let state = world.deployd_state();
    let orphans: Vec<i32> = process::all()
        .iter()
        .filter(|process| process.environment.contains_key("TEMPS_RELEASE") && process.uses(&state))
        .map(|process| process.pid)
        .collect();
    world.succeed(ports);
    println!(
        "{} processes of instances survived the kill; serving again",
        orphans.len()
    );
    assert_eq!(world.get("shop", "/").release(), shop);
    assert_eq!(world.get("node", "/").release(), node);
    world.only(&[&shop, &node]);
    stop(&mut world);
    let state = world.deployd_state();
    let left: Vec<_> = process::all()
        .into_iter()
        .filter(|process| process.state != 'Z' && process.uses(&state))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn containers_end_with_the_platform_and_come_back_with_it() {
    if !docker_or_skip() {
        return;
    }
    let mut world = World::docker();
    let shop = world.live("shop", "container", "healthy", SHORT).release;
    let ports = (world.temps().http(), world.temps().https());
    stop(&mut world);
    assert!(world.running().is_empty(), "{:?}", world.running());
    world.start_on(Some(ports)).unwrap();
    assert_eq!(world.get("shop", "/").release(), shop);
    world.only(&[&shop]);
    // Killed, it cannot stop them; its successor knows them again.
    let container = world.get("shop", "/").json().unwrap();
    world.temps_mut().kill_supervisor().unwrap();
    assert_eq!(world.running(), [&*shop]);
    world.succeed(ports);
    assert_eq!(world.get("shop", "/").release(), shop);
    println!(
        "{container} was followed by {}",
        world.get("shop", "/").json().unwrap()
    );
    world.only(&[&shop]);
    stop(&mut world);
    assert!(world.running().is_empty(), "{:?}", world.running());
}

#[test]
fn a_restart_of_the_proxy_under_load_loses_no_request() {
    let world = World::up();
    world.live("shop", "python", "healthy", SHORT);
    let load = world.load("shop");
    std::thread::sleep(Duration::from_secs(1));
    let old = world.temps().daemon_pid("proxy").unwrap();
    kill(Pid::from_raw(old), Signal::SIGTERM).unwrap();
    assert!(within(PATIENCE, || world
        .temps()
        .daemon_pid("proxy")
        .is_some_and(|pid| pid != old)));
    std::thread::sleep(Duration::from_secs(2));
    let report = load.stop_blocking();
    println!("{report}");
    report.assert_no_failure();
    let next = world.live("shop", "python", "healthy", SHORT).release;
    assert_eq!(world.get("shop", "/").release(), next);
}

#[test]
fn deployd_sleeps_when_idle_and_wakes_with_the_next_command() {
    let world = World::with(Setup {
        deployd: "idle = \"2s\"\n",
        ..Setup::default()
    });
    let first = world.live("shop", "python", "healthy", SHORT).release;
    let begun = Instant::now();
    assert!(within(PATIENCE, || world
        .temps()
        .daemon_pid("deployd")
        .is_none()));
    println!("asleep after {:.1?}", begun.elapsed());
    assert_eq!(world.get("shop", "/").release(), first);
    let begun = Instant::now();
    assert_eq!(world.json(&["app", "list"])[0]["state"], "live");
    println!("woke up and answered in {:.1?}", begun.elapsed());
    assert!(within(PATIENCE, || world
        .temps()
        .daemon_pid("deployd")
        .is_none()));
    let second = world.live("shop", "python", "healthy", SHORT).release;
    world.only(&[&second]);
    let log = world.temps().log();
    assert!(
        !log.contains("started again in"),
        "no restart was needed: {log}"
    );
}
