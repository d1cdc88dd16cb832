//! The main job with the process runtime.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::app;
use harness::http::{self, Call};
use serde_json::Value;

use crate::world::{PATIENCE, World, within};

/// A window that closes while the test looks elsewhere.
const SHORT: &[&str] = &["--watch", "1s", "--health-timeout", "5s"];

#[test]
fn a_release_answers_on_http_https_and_http2() {
    let world = World::up();
    let first = world.live("shop", "python", "healthy", SHORT);
    let temps = world.temps();
    let expected = format!("http://shop.localhost:{}", temps.http_port());
    assert_eq!(first.url.as_deref(), Some(&*expected));
    let plain = world.get("shop", "/a?b=c");
    assert_eq!(
        (plain.status, plain.release()),
        (200, first.release.as_str())
    );
    assert_eq!(plain.json().unwrap()["path"], "/a");
    let ca = std::fs::read(world.proxy_state().join("local-ca.pem")).unwrap();
    let host = temps.https_host("shop");
    for is_h2 in [false, true] {
        let call = Call::get(temps.https(), &host, "/").tls(&ca);
        let call = if is_h2 { call.h2() } else { call };
        let answer = call.send().expect("an answer over TLS");
        assert_eq!((answer.status, answer.release()), (200, &*first.release));
    }
}

#[test]
fn a_second_deploy_replaces_the_first_and_broken_ones_change_nothing() {
    let world = World::up();
    let first = world.live("shop", "python", "healthy", SHORT);
    let second = world.live("shop", "python", "healthy", SHORT);
    assert_ne!(first.release, second.release);
    world.only(&[&second.release]);
    let cases: [(&str, &[&str], &str); 3] = [
        (
            "crash",
            &["exited with status 3"],
            "cannot reach the database",
        ),
        ("error", &["500"], "listens on"),
        (
            "wrong-port",
            &["does not listen on", "it listens on"],
            "listens on",
        ),
    ];
    for (variant, causes, line) in cases {
        let begun = Instant::now();
        let arguments = ["--watch", "1s", "--health-timeout", "3s"];
        let bad = world.deploy("shop", "python", variant, &arguments);
        assert_eq!(
            (&*bad.status, bad.exit),
            ("refused", 1),
            "{variant}: {bad:?}"
        );
        let reason = bad.reason.clone().unwrap_or_default();
        for cause in causes {
            assert!(reason.contains(cause), "{variant}: {reason}");
            assert!(bad.stderr.contains(cause), "{variant}: {}", bad.stderr);
        }
        assert!(bad.stderr.contains(line), "{variant}: {}", bad.stderr);
        println!("{variant}: refused after {:.1?}: {reason}", begun.elapsed());
        world.only(&[&second.release]);
        assert_eq!(world.get("shop", "/").release(), second.release);
        let listed = world.release("shop", &bad.release);
        assert_eq!(
            (&listed["status"], &listed["reason"]),
            (&"refused".into(), &reason.into())
        );
        let log = world.ok(["logs", "shop", "--release", &bad.release]);
        assert!(log.stdout.contains(line), "kept after the refusal: {log:?}");
        assert!(
            !world.files("releases").contains(&bad.release),
            "its files are gone"
        );
    }
    assert_eq!(world.release("shop", &second.release)["status"], "live");
}

#[test]
fn rollback_goes_back_by_one_and_to_a_named_release() {
    let world = World::up();
    let deployed: Vec<_> = (0..3)
        .map(|_| world.live("shop", "python", "healthy", SHORT).release)
        .collect();
    let back = world.ok(["rollback", "shop", "--json"]);
    let back: Value = serde_json::from_str(&back.stdout).unwrap();
    assert_eq!(
        (&back["release"], &back["status"]),
        (&(*deployed[1]).into(), &"live".into())
    );
    assert_eq!(world.get("shop", "/").release(), deployed[1]);
    world.ok(["rollback", "shop", &deployed[0]]);
    assert_eq!(world.get("shop", "/").release(), deployed[0]);
    world.only(&[&deployed[0]]);
    for release in &deployed[1..] {
        assert_eq!(world.release("shop", release)["status"], "superseded");
    }
    assert_eq!(world.release("shop", &deployed[0])["status"], "live");
}

#[test]
fn changed_variables_come_into_service_by_a_redeploy() {
    let world = World::up();
    let value = || world.get("shop", "/env?name=COLOUR").json().unwrap()["value"].clone();
    let refused = world.run(["redeploy", "shop"]);
    assert_eq!(refused.status, 66, "it makes no app: {refused:?}");
    let first = world.live("shop", "python", "healthy", SHORT).release;
    let set = world.ok(["env", "set", "shop", "COLOUR=blue"]);
    assert!(set.stderr.contains("`temps redeploy shop`"), "{set:?}");
    assert_eq!(value(), Value::Null);
    let again = world.ok(["redeploy", "shop", "--json"]);
    let again: Value = serde_json::from_str(&again.stdout).unwrap();
    let second = again["release"].as_str().expect("a release").to_owned();
    assert_ne!((&*second, &again["status"]), (&*first, &"queued".into()));
    assert_eq!(world.get("shop", "/").release(), second);
    assert_eq!(value(), "blue");
    world.only(&[&second]);
    let other = world.run(["redeploy", "shop", "rel_nope"]);
    assert!(matches!(other.status, 64 | 66), "{other:?}");
    let named = world.ok(["redeploy", "shop", &first, "--json"]);
    let named: Value = serde_json::from_str(&named.stdout).unwrap();
    assert_ne!(named["release"], *first, "a release never changes");
    assert_eq!(value(), "blue", "the variables are those of now");
}

#[test]
fn the_lists_have_the_fields_that_scripts_rely_on() {
    let world = World::up();
    let first = world.live("shop", "python", "healthy", SHORT);
    let releases = world.json(&["release", "list", "shop"]);
    let one = &releases.as_array().expect("a list")[0];
    assert_eq!(
        (&one["release"], &one["status"]),
        (&(*first.release).into(), &"live".into())
    );
    assert_eq!(one["reason"], "");
    assert!(
        one["source"].as_str().unwrap().starts_with("dir app-"),
        "{one}"
    );
    let created = one["created_at"].as_str().unwrap();
    assert!(
        created.len() >= 20 && created.contains('T') && created.ends_with('Z'),
        "{created}"
    );
    let apps = world.json(&["app", "list"]);
    let expected = serde_json::json!([{
        "app": "shop", "url": first.url, "runtime": "process", "release": first.release, "state": "live",
        "restarts": 0, "restart_at": null,
    }]);
    assert_eq!(apps, expected);
    let status = world.json(&["status"]);
    assert_eq!(
        (&status["proxy"]["up"], &status["deployd"]["up"]),
        (&true.into(), &true.into())
    );
    let doctor = world.run(["doctor", "--json"]);
    println!("doctor: exit {}, {}", doctor.status, doctor.stdout.trim());
}

#[test]
fn logs_are_kept_and_followed_over_a_redeploy() {
    let world = World::up();
    world.live("shop", "python", "healthy", SHORT);
    let build = world.ok(["logs", "shop", "--build"]);
    assert!(build.stdout.contains("Procfile: web runs"), "{build:?}");
    let mut follow = world
        .temps()
        .command(["logs", "shop", "-f"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (send, lines) = std::sync::mpsc::channel();
    let stdout = follow.stdout.take().unwrap();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    let until = |text: &str| {
        let begun = Instant::now();
        while let Ok(line) = lines.recv_timeout(PATIENCE) {
            if line.contains(text) {
                return begun.elapsed();
            }
        }
        panic!("no line with {text:?}");
    };
    assert_eq!(
        world.get("shop", "/log?line=before%20the%20switch").status,
        200
    );
    println!(
        "a line is followed after {:.1?}",
        until("before the switch")
    );
    let second = world.live("shop", "python", "healthy", SHORT);
    assert_eq!(
        world.get("shop", "/log?line=after%20the%20switch").status,
        200
    );
    until("after the switch");
    follow.kill().unwrap();
    follow.wait().unwrap();
    let all = world.ok(["logs", "shop", "--json"]).stdout;
    let lines: Vec<Value> = all
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["text"], &last["release"]),
        (&"after the switch".into(), &(*second.release).into())
    );
    let tail = world.ok(["logs", "shop", "-n", "1"]).stdout;
    assert_eq!(tail.lines().count(), 1, "{tail}");
}

#[test]
fn variables_reach_the_app_byte_for_byte() {
    let world = World::up();
    let values = [
        ("PLAIN", "value"),
        ("EMPTY", ""),
        ("SPACES", "  two  spaces  "),
        ("QUOTES", r#"it's "quoted" `here`"#),
        ("DOLLAR", "$HOME ${PATH} $(id) %s \\n \\"),
        ("LINES", "first\nsecond\n\tthird"),
        ("EQUALS", "a=b=c"),
        ("UNICODE", "ünïcödé 🚀"),
        ("COMMENT", "#no comment; & | > /dev/null"),
    ];
    let mut arguments = vec!["env".to_owned(), "set".to_owned(), "shop".to_owned()];
    arguments.extend(values.map(|(name, value)| format!("{name}={value}")));
    world.ok(arguments);
    world.live("shop", "python", "healthy", SHORT);
    let seen = |name: &str| {
        world
            .get("shop", &format!("/env?name={name}"))
            .json()
            .unwrap()["value"]
            .clone()
    };
    for (name, value) in values {
        assert_eq!(seen(name), value, "{name}");
    }
    let masked = world.ok(["env", "list", "shop"]).stdout;
    assert!(
        !masked.contains("value") && masked.contains("PLAIN"),
        "{masked}"
    );
    let shown = world.json(&["env", "list", "shop", "--reveal"]);
    for (name, value) in values {
        let listed = shown
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["name"] == name);
        assert_eq!(listed.unwrap()["value"], value, "{name}");
    }
    world.ok(["env", "unset", "shop", "PLAIN", "EMPTY"]);
    assert_eq!(seen("PLAIN"), "value", "a release never changes");
    world.live("shop", "python", "healthy", SHORT);
    assert_eq!(seen("PLAIN"), Value::Null);
    assert_eq!(seen("EQUALS"), "a=b=c");
    let release = world.get("shop", "/").release().to_owned();
    assert_eq!(seen("TEMPS_RELEASE"), release.as_str());
    for file in ["deployd.db", "deployd.db-wal"] {
        let bytes = std::fs::read(world.deployd_state().join(file)).unwrap_or_default();
        let text = "two  spaces".as_bytes();
        assert!(
            !bytes.windows(text.len()).any(|part| part == text),
            "{file} holds a value in the clear"
        );
    }
}

#[test]
fn domains_are_routed_at_once() {
    let world = World::up();
    let release = world.live("shop", "python", "healthy", SHORT).release;
    let status = |host: &str| http::get(world.temps().http(), host, "/").unwrap().status;
    assert_eq!(status("www.example.test"), 404);
    world.ok(["domain", "add", "shop", "www.example.test", "example.test"]);
    assert_eq!(status("www.example.test"), 200);
    let answer = http::get(world.temps().http(), "example.test", "/").unwrap();
    assert_eq!(answer.release(), release);
    let listed = world.json(&["domain", "list", "shop"]);
    assert_eq!(
        listed,
        serde_json::json!(["shop.localhost", "www.example.test", "example.test"])
    );
    world.ok(["domain", "remove", "shop", "www.example.test"]);
    assert_eq!(
        (status("www.example.test"), status("example.test")),
        (404, 200)
    );
    let other = world.run(["domain", "add", "shop", "example.test"]);
    println!(
        "adding it again: exit {}: {}",
        other.status,
        other.stderr.trim()
    );
}

#[test]
fn a_destroyed_app_leaves_nothing() {
    let world = World::up();
    world.ok(["env", "set", "shop", "A=b"]);
    world.live("shop", "python", "fork", SHORT);
    world.live("shop", "python", "fork", SHORT);
    let kept = world.live("other", "python", "healthy", SHORT).release;
    let begun = Instant::now();
    world.ok(["app", "destroy", "shop", "--yes"]);
    println!("destroyed in {:.1?}", begun.elapsed());
    world.only(&[&kept]);
    assert_eq!(world.get("shop", "/").status, 404);
    assert_eq!(world.files("releases"), [&*kept]);
    assert_eq!(world.files("logs"), [&*kept]);
    assert_eq!(world.files("instances").len(), 1);
    assert!(world.files("uploads").is_empty() && world.files("material").is_empty());
    assert_eq!(world.run(["app", "show", "shop"]).status, 66);
    assert_eq!(world.get("other", "/").release(), kept);
    // The name is free again, and nothing of the old app comes with it.
    world.live("shop", "python", "healthy", SHORT);
    assert_eq!(world.json(&["env", "list", "shop"]), serde_json::json!([]));
}

#[test]
fn a_node_app_a_static_site_and_a_git_repository_are_served() {
    let world = World::up();
    let node = world.live("node", "node", "healthy", SHORT);
    assert_eq!(world.get("node", "/").release(), node.release);
    let site = app::make("static", "healthy", "v9").unwrap();
    let deployed = world
        .temps()
        .deploy_json(["site", "--static", site.arg(), "--watch", "1s"]);
    deployed.unwrap().live().unwrap();
    let page = world.get("site", "/");
    assert!(page.text().contains("v9") && page.status == 200, "{page:?}");
    assert_eq!(world.get("site", "/nothing").status, 404);
    let source = app::make("python", "healthy", "v1").unwrap();
    let git = |arguments: &[&str]| {
        let mut command = std::process::Command::new("git");
        command.current_dir(source.path()).args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@example.test",
        ]);
        harness::command::run(command.args(arguments), PATIENCE)
            .unwrap()
            .success()
            .unwrap()
    };
    git(&["init", "-q", "-b", "main"]);
    git(&["add", "."]);
    git(&["commit", "-qm", "first"]);
    git(&["tag", "v1"]);
    let from = format!("{}#v1", source.arg());
    let deployed = world
        .temps()
        .deploy_json(["cloned", "--git", &from, "--watch", "1s"]);
    let deployed = deployed.unwrap().live().unwrap();
    assert_eq!(world.get("cloned", "/").release(), deployed.release);
    let source = world.release("cloned", &deployed.release)["source"].clone();
    assert!(source.as_str().unwrap().starts_with("git "), "{source}");
}

#[test]
fn a_slow_starter_passes_and_its_queue_goes_in_order() {
    let world = World::up();
    let slow = app::make("python", "slow-start:2", "v1").unwrap();
    let fast = app::make("python", "healthy", "v2").unwrap();
    let first = world.deploy_meanwhile("shop", &slow, SHORT);
    assert!(within(PATIENCE, || world
        .run(["app", "show", "shop"])
        .is_success()));
    let second = world.deploy_meanwhile("shop", &fast, SHORT);
    let first = first.join().unwrap().live().unwrap();
    let second = second.join().unwrap().live().unwrap();
    assert!(first.release < second.release);
    assert_eq!(world.get("shop", "/").header("x-version"), "v2");
    assert!(within(Duration::from_secs(5), || world.running()
        == [&*second.release]));
}
