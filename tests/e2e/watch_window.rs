//! What happens between the switch and the end of the watch window.

use std::time::{Duration, Instant};

use harness::app;
use harness::http::Call;
use harness::websocket::WebSocket;

use crate::world::{PATIENCE, Setup, World, within};

const SHORT: &[&str] = &["--watch", "1s", "--health-timeout", "5s"];

/// Deploys a release that turns bad and waits until it is rolled back by itself.
fn turns_bad(of: &str, world: &World, variant: &str, cause: &str) {
    let good = world.live("shop", of, "healthy", SHORT).release;
    let load = world.light_load("shop");
    let bad = world.live("shop", of, variant, &["--watch", "20s"]).release;
    assert_eq!(world.get("shop", "/").release(), bad);
    let begun = Instant::now();
    let rolled_back = within(PATIENCE, || {
        world.release("shop", &bad)["status"] == "rolled_back"
    });
    let took = begun.elapsed();
    let listed = world.release("shop", &bad);
    assert!(rolled_back, "{listed}");
    assert!(
        took < Duration::from_secs(19),
        "the window did not end it: {took:.1?}"
    );
    let reason = listed["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains(cause), "{reason}");
    world.settled("shop");
    let back = Instant::now();
    world.only(&[&good]);
    std::thread::sleep(Duration::from_millis(500));
    let report = load.stop_blocking();
    println!("{of} {variant}: rolled back {took:.1?} after deploy returned: {reason}\n{report}");
    assert_eq!(report.answers_from_after(&bad, back), 0);
    assert!(report.answers_from_after(&good, back) > 10, "{report}");
    let late: Vec<_> = report
        .failed
        .iter()
        .filter(|failure| failure.when > back)
        .collect();
    assert!(late.is_empty(), "{late:?}");
    assert_eq!(world.release("shop", &good)["status"], "live");
    let log = world.ok(["logs", "shop", "--release", &bad]).stdout;
    assert!(log.contains("listens on"), "its log is kept: {log}");
}

#[test]
fn a_release_that_dies_is_rolled_back_unasked() {
    turns_bad("python", &World::up(), "dies:3", "exited with status 1");
}

#[test]
fn a_release_that_answers_500_later_is_rolled_back_unasked() {
    turns_bad("python", &World::up(), "bad-later:3", "500");
}

#[test]
fn a_container_that_dies_is_rolled_back_unasked() {
    if crate::world::docker_or_skip() {
        turns_bad(
            "container",
            &World::docker(),
            "dies:3",
            "exited with status 1",
        );
    }
}

#[test]
fn the_default_probes_find_a_bad_release_too() {
    let world = World::up();
    // As `temps up` comes.
    std::fs::write(world.proxy_state().join("../config/proxy.toml"), "").unwrap();
    let mut world = world;
    assert_eq!(world.temps_mut().stop().unwrap(), 0);
    world.start_on(None).unwrap();
    let good = world.live("shop", "python", "healthy", SHORT).release;
    let bad = world
        .live("shop", "python", "bad-later:1", &["--watch", "40s"])
        .release;
    let begun = Instant::now();
    assert!(within(PATIENCE, || world.release("shop", &bad)["status"]
        == "rolled_back"));
    println!("rolled back after {:.1?}", begun.elapsed());
    world.only(&[&good]);
}

#[test]
fn a_first_release_that_turns_bad_is_started_afresh() {
    let world = World::up();
    let only = world
        .live("shop", "python", "dies:2", &["--watch", "20s"])
        .release;
    let first = world.get("shop", "/").json().unwrap()["pid"].clone();
    let temps = world.temps();
    let again = within(PATIENCE, || {
        let answer = harness::http::get(temps.http(), &temps.host("shop"), "/");
        answer.is_ok_and(|answer| {
            answer.status == 200 && answer.json().is_ok_and(|json| json["pid"] != first)
        })
    });
    assert!(again, "{}", world.release("shop", &only));
    let listed = world.release("shop", &only);
    println!("{listed}");
    assert!(
        listed["reason"]
            .as_str()
            .unwrap()
            .contains("no earlier release"),
        "{listed}"
    );
}

#[test]
fn after_the_window_a_dead_instance_is_restarted_not_rolled_back() {
    let world = World::up();
    world.live("shop", "python", "healthy", SHORT);
    let second = world
        .live("shop", "python", "dies:4", &["--watch", "500ms"])
        .release;
    world.settled("shop");
    let first = world.get("shop", "/").json().unwrap()["pid"].clone();
    let begun = Instant::now();
    let temps = world.temps();
    let again = within(PATIENCE, || {
        let answer = harness::http::get(temps.http(), &temps.host("shop"), "/");
        answer.is_ok_and(|answer| {
            answer.status == 200 && answer.json().is_ok_and(|json| json["pid"] != first)
        })
    });
    println!("serves again {:.1?} after the window", begun.elapsed());
    assert!(again);
    assert_eq!(world.get("shop", "/").release(), second);
    assert_eq!(world.release("shop", &second)["status"], "live");
}

#[test]
fn a_long_request_is_answered_by_the_release_that_took_it() {
    let world = World::up();
    let first = world.live("shop", "python", "healthy", SHORT).release;
    let temps = world.temps();
    let long = Call::get(temps.http(), &temps.host("shop"), "/slow?s=4").start();
    std::thread::sleep(Duration::from_millis(300));
    let made = app::make("python", "healthy", "v2").unwrap();
    let deploying = world.deploy_meanwhile("shop", &made, SHORT);
    let begun = Instant::now();
    assert!(within(Duration::from_secs(3), || world
        .get("shop", "/")
        .release()
        != first));
    println!(
        "new requests go to the new release after {:.1?}",
        begun.elapsed()
    );
    let answer = long.join().unwrap().unwrap();
    assert_eq!((answer.status, answer.release()), (200, &*first));
    let second = deploying.join().unwrap().live().unwrap().release;
    world.only(&[&second]);
}

#[test]
fn a_web_socket_delays_neither_its_switch_nor_another_app() {
    let world = World::with(Setup {
        deployd: "drain-timeout = \"4s\"\n",
        ..Setup::default()
    });
    let first = world.live("chat", "python", "healthy", SHORT).release;
    world.live("shop", "python", "healthy", SHORT);
    let temps = world.temps();
    let mut socket = WebSocket::open(temps.http(), &temps.host("chat"), "/ws").unwrap();
    assert_eq!(socket.echo("before").unwrap(), "before");
    let made = app::make("python", "healthy", "v2").unwrap();
    let begun = Instant::now();
    let deploying = world.deploy_meanwhile("chat", &made, SHORT);
    assert!(within(Duration::from_secs(3), || world
        .get("chat", "/")
        .release()
        != first));
    assert_eq!(socket.echo("after the switch").unwrap(), "after the switch");
    let other = Instant::now();
    let shop = world.live("shop", "python", "healthy", SHORT).release;
    let other = other.elapsed();
    assert_eq!(world.get("shop", "/").release(), shop);
    assert!(
        !deploying.is_finished(),
        "the other app was deployed while the socket was held"
    );
    let second = deploying.join().unwrap().live().unwrap().release;
    println!(
        "with a WebSocket open: its own deployment {:.1?}, another app's {other:.1?}",
        begun.elapsed()
    );
    let end = socket.receive();
    println!("the WebSocket ends with {end:?}");
    world.only(&[&second, &shop]);
}
