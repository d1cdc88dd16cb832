//! The main job with containers.

use std::time::Instant;

use harness::docker;
use harness::http::Call;

use crate::world::{World, docker_or_skip};

const SHORT: &[&str] = &["--watch", "1s", "--health-timeout", "5s"];

#[test]
fn a_container_is_built_served_replaced_rolled_back_and_removed() {
    if !docker_or_skip() {
        return;
    }
    let world = World::docker();
    let begun = Instant::now();
    let first = world.live("shop", "container", "healthy", SHORT).release;
    println!("first container after {:.1?}", begun.elapsed());
    assert_eq!(world.json(&["app", "list"])[0]["runtime"], "docker");
    let temps = world.temps();
    let ca = std::fs::read(world.proxy_state().join("local-ca.pem")).unwrap();
    let answer = Call::get(temps.https(), &temps.https_host("shop"), "/")
        .tls(&ca)
        .h2()
        .send();
    assert_eq!(answer.unwrap().release(), first);
    let build = world.ok(["logs", "shop", "--build"]).stdout;
    assert!(build.contains("FROM scratch"), "{build}");
    let begun = Instant::now();
    let second = world.live("shop", "container", "healthy", SHORT).release;
    println!("second container after {:.1?}", begun.elapsed());
    world.only(&[&second]);
    for (variant, cause, line) in [
        ("crash", "exited with status 3", "cannot reach the database"),
        ("error", "500", "listens on"),
        ("wrong-port", "does not listen on", "listens on"),
    ] {
        let arguments = ["--watch", "1s", "--health-timeout", "3s"];
        let bad = world.deploy("shop", "container", variant, &arguments);
        assert_eq!(
            (&*bad.status, bad.exit),
            ("refused", 1),
            "{variant}: {bad:?}"
        );
        let reason = bad.reason.clone().unwrap_or_default();
        println!("{variant}: {reason}");
        assert!(reason.contains(cause), "{variant}: {reason}");
        assert!(bad.stderr.contains(line), "{variant}: {}", bad.stderr);
        world.only(&[&second]);
        assert_eq!(world.get("shop", "/").release(), second);
        let images = things("image", &bad.release);
        assert_eq!(
            images, 0,
            "{variant}: the image of a refused release is gone"
        );
        let log = world.ok(["logs", "shop", "--release", &bad.release]).stdout;
        assert!(log.contains(line), "{variant}: kept: {log}");
    }
    world.ok(["rollback", "shop"]);
    assert_eq!(world.get("shop", "/").release(), first);
    world.only(&[&first]);
    world.ok(["app", "destroy", "shop", "--yes"]);
    world.only(&[]);
    for kind in ["container", "image"] {
        for release in [&first, &second] {
            assert_eq!(things(kind, release), 0, "{kind} of {release}");
        }
    }
    assert_eq!(world.get("shop", "/").status, 404);
    assert!(world.files("releases").is_empty() && world.files("logs").is_empty());
}

#[test]
fn variables_and_logs_of_a_container_arrive_whole() {
    if !docker_or_skip() {
        return;
    }
    let world = World::docker();
    let value = "a b \"c\" 'd' $HOME\nsecond line = #";
    world.ok(["env", "set", "shop", &format!("ODD={value}"), "EMPTY="]);
    let release = world.live("shop", "container", "healthy", SHORT).release;
    let seen = world.get("shop", "/env?name=ODD").json().unwrap();
    assert_eq!(seen["value"], value);
    assert_eq!(
        world.get("shop", "/env?name=EMPTY").json().unwrap()["value"],
        ""
    );
    assert_eq!(world.get("shop", "/log?line=one%20line").status, 200);
    let printed = crate::world::within(crate::world::PATIENCE, || {
        world.ok(["logs", "shop"]).stdout.contains("one line")
    });
    assert!(printed, "{:?}", world.run(["logs", "shop"]));
    world.live("shop", "container", "healthy", SHORT);
    let kept = world.ok(["logs", "shop", "--release", &release]).stdout;
    assert!(kept.contains("one line"), "{kept}");
}

fn things(kind: &str, release: &str) -> usize {
    let things = docker::things().unwrap();
    let is_it = |thing: &&docker::Thing| {
        let label = thing.labels.get("sh.temps.release");
        thing.kind == kind && label.is_some_and(|label| label == release)
    };
    things.iter().filter(is_it).count()
}
