//! deployd on a bus of its own, over a simulated world: what is shown, told, asked and refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "the suite of the engine needs more of it")]
#[path = "../engine/support.rs"]
mod engine;
mod job;
#[path = "../../../unit/tests/bus/private.rs"]
mod private;
mod property;
mod support;

use private::{NOBODY, assert_golden, introspected, is_root};
use support::{App, NAME, ROOT, on_the_bus};

#[tokio::test]
async fn the_interfaces_are_those_that_are_documented() {
    let case = on_the_bus().await;
    let behaviour = "slow-build:5000";
    let job = case.queue(behaviour).await;
    let mut interfaces = introspected(&case.client, NAME, ROOT).await;
    // The root lists what is below it, too.
    interfaces.truncate(interfaces.find("  </interface>\n").unwrap() + 15);
    let app = "/sh/temps/Deploy1/app/shop";
    interfaces += &introspected(&case.client, NAME, app).await;
    interfaces += &introspected(&case.client, NAME, &job).await;
    assert_golden("sh.temps.Deploy1.xml", &interfaces);
    case.end().await;
}

#[tokio::test]
async fn everybody_may_look_and_only_root_may_change() {
    if !is_root() {
        println!("SKIPPED: needs root, to be somebody else");
        return;
    }
    let case = on_the_bus().await;
    let first = case.deploy("healthy").await;
    let second = case.deploy("healthy").await;
    let app = "/sh/temps/Deploy1/app/shop";
    let read = |interface: &str| {
        [
            "org.freedesktop.DBus.Properties.GetAll".to_owned(),
            format!("string:{interface}"),
        ]
    };
    for (path, interface, expected) in [
        (ROOT, "sh.temps.Deploy1", "BaseDomain"),
        (app, "sh.temps.Deploy1.App", second.as_str()),
    ] {
        let call = read(interface);
        let call: Vec<&str> = call.iter().map(String::as_str).collect();
        let read = case.bus.call_as(NOBODY, NAME, path, &call).await;
        let text = String::from_utf8(read.stdout).unwrap();
        assert!(text.contains(expected), "{text}");
    }
    for call in [
        &["Rollback", "string:shop", "string:"][..],
        &["Redeploy", "string:shop", "string:"],
        &["DestroyApp", "string:shop"],
        &["Reconcile"],
    ] {
        let method = format!("sh.temps.Deploy1.{}", call[0]);
        let call: Vec<&str> = std::iter::once(method.as_str())
            .chain(call[1..].iter().copied())
            .collect();
        let refused = case.bus.call_as(NOBODY, NAME, ROOT, &call).await;
        let text = String::from_utf8(refused.stderr).unwrap();
        assert!(text.contains("sh.temps.Error.Denied"), "{method}: {text}");
    }
    let shown: String = case.app(App::RELEASE).await;
    assert_eq!(shown, second);
    let call = ["sh.temps.Deploy1.Rollback", "string:shop", "string:"];
    let allowed = case.bus.call_as(0, NAME, ROOT, &call).await;
    assert!(allowed.status.success());
    case.until_app(App::RELEASE, &first).await;
    case.end().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_call_has_the_name_of_its_code() {
    let case = on_the_bus().await;
    case.deploy("healthy").await;
    for (method, arguments, error) in [
        ("GetApp", ("shops", None), "NotFound"),
        ("GetApp", ("Shop!", None), "Invalid"),
        ("Rollback", ("shops", Some("")), "NotFound"),
        ("Rollback", ("shop", Some("")), "NotFound"),
        ("Rollback", ("shop", Some("1")), "Invalid"),
        ("Redeploy", ("shops", Some("")), "NotFound"),
        ("DestroyApp", ("shops", None), "NotFound"),
    ] {
        let (app, release) = arguments;
        let failed = match release {
            Some(release) => case.call(method, &(app, release)).await,
            None => case.call(method, &app).await,
        };
        let Err(zbus::Error::MethodError(name, Some(text), _)) = failed else {
            panic!("{method}{arguments:?}: {failed:?}");
        };
        assert_eq!(name.as_str(), format!("sh.temps.Error.{error}"), "{text}");
        assert!(!text.is_empty());
    }
    case.end().await;
}

#[tokio::test]
async fn a_bus_that_was_killed_shows_everything_when_it_is_back() {
    let mut case = on_the_bus().await;
    let release = case.deploy("healthy").await;
    case.bus.kill();
    // Nobody waits for the bus.
    let second = case.deploy_unheard("healthy").await;
    case.bus.revive();
    case.reconnect().await;
    assert_ne!(release, second);
    case.until_app(App::RELEASE, &second).await;
    case.end().await;
}
