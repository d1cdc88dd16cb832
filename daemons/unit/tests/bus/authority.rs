//! Root, everybody else without polkit, and everybody else with a polkit that says one thing or the
//! other. Other users exist only for root.

use crate::echo::{NAME, PATH};
use crate::private::{NOBODY, PrivateBus, contract, is_root, owned};
use crate::{bus, started};
use std::collections::HashMap;
use std::process::Output;
use std::sync::{Arc, Mutex};
use zbus::{Connection, OwnedVariant, interface};

const GUARDED: [&str; 1] = ["sh.temps.Echo1.Guarded"];

fn said(output: &Output) -> String {
    let (out, problem) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(problem)
    )
}

/// A polkit that answers always the same.
struct Polkit {
    answer: (bool, bool),
    asked: Arc<Mutex<Vec<(String, u32)>>>,
}

#[interface(name = "org.freedesktop.PolicyKit1.Authority")]
impl Polkit {
    fn check_authorization(
        &self,
        subject: (String, HashMap<String, OwnedVariant>),
        action: String,
        _details: HashMap<String, String>,
        flags: u32,
        _cancel: String,
    ) -> ((bool, bool, HashMap<String, String>),) {
        assert_eq!(subject.0, "system-bus-name");
        assert!(subject.1.contains_key("name"));
        self.asked.lock().unwrap().push((action, flags));
        ((self.answer.0, self.answer.1, HashMap::new()),)
    }
}

/// What it was asked, and its connection.
async fn polkit(
    bus: &PrivateBus,
    answer: (bool, bool),
) -> (Connection, Arc<Mutex<Vec<(String, u32)>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let connection = bus.connect().await;
    let polkit = Polkit {
        answer,
        asked: Arc::clone(&asked),
    };
    let server = connection.object_server();
    server
        .at("/org/freedesktop/PolicyKit1/Authority", polkit)
        .await
        .unwrap();
    let name = "org.freedesktop.PolicyKit1";
    connection.request_name(name).await.unwrap();
    (connection, asked)
}

#[tokio::test]
async fn without_polkit_only_root_may() {
    if !is_root() {
        println!("SKIPPED: needs root, to be somebody else");
        return;
    }
    let mut bus = bus();
    bus.revive();
    let daemon = started(&bus);
    owned(&bus.connect().await, NAME).await;
    let allowed = said(&bus.call_as(0, NAME, PATH, &GUARDED).await);
    assert!(allowed.contains("root by dbus"), "{allowed}");
    let refused = said(&bus.call_as(NOBODY, NAME, PATH, &GUARDED).await);
    assert!(
        refused.contains("sh.temps.Error.Denied")
            && refused.contains("uid 65534 may not do this")
            && refused.contains("polkit does not answer"),
        "{refused}"
    );
    daemon.leave().await;
}

#[tokio::test]
async fn polkit_decides_for_everybody_but_root() {
    if !is_root() {
        println!("SKIPPED: needs root, to be somebody else");
        return;
    }
    for (answer, heard) in [
        ((true, false), "nobody by dbus"),
        ((false, true), "polkit wants a password"),
        ((false, false), "polkit refuses sh.temps.echo"),
    ] {
        let mut bus = bus();
        bus.revive();
        let (_polkit, asked) = polkit(&bus, answer).await;
        let daemon = started(&bus);
        owned(&bus.connect().await, NAME).await;
        let answered = said(&bus.call_as(NOBODY, NAME, PATH, &GUARDED).await);
        assert!(answered.contains(heard), "{answer:?}: {answered}");
        // dbus-send lets nobody be asked for a password.
        let question = ("sh.temps.echo".to_owned(), 0);
        assert_eq!(*asked.lock().unwrap(), [question]);
        let allowed = said(&bus.call_as(0, NAME, PATH, &GUARDED).await);
        assert!(allowed.contains("root by dbus"), "{allowed}");
        assert_eq!(asked.lock().unwrap().len(), 1, "root is not asked about");
        daemon.leave().await;
    }
}

#[tokio::test]
async fn the_log_level_is_roots_to_change() {
    if !is_root() {
        println!("SKIPPED: needs root, to be somebody else");
        return;
    }
    let mut bus = bus();
    bus.revive();
    temps_unit::journal::init("temps-test");
    let daemon = started(&bus);
    owned(&bus.connect().await, NAME).await;
    let path = "/org/freedesktop/LogControl1";
    let get = [
        "org.freedesktop.DBus.Properties.Get",
        "string:org.freedesktop.LogControl1",
        "string:LogLevel",
    ];
    let set = |level: &'static str| {
        [
            "org.freedesktop.DBus.Properties.Set",
            "string:org.freedesktop.LogControl1",
            "string:LogLevel",
            level,
        ]
    };
    let refused = said(
        &bus.call_as(NOBODY, NAME, path, &set("variant:string:debug"))
            .await,
    );
    assert!(refused.contains("sh.temps.Error.Denied"), "{refused}");
    let level = said(&bus.call_as(NOBODY, NAME, path, &get).await);
    assert!(level.contains("\"info\""), "{level}");
    let done = bus
        .call_as(0, NAME, path, &set("variant:string:debug"))
        .await;
    assert!(done.status.success(), "{}", said(&done));
    let level = said(&bus.call_as(NOBODY, NAME, path, &get).await);
    assert!(level.contains("\"debug\""), "{level}");
    let wrong = said(
        &bus.call_as(0, NAME, path, &set("variant:string:loud"))
            .await,
    );
    assert!(wrong.contains("sh.temps.Error.Invalid"), "{wrong}");
    daemon.leave().await;
}

#[tokio::test]
async fn nobody_else_owns_our_names() {
    if !is_root() {
        println!("SKIPPED: needs root, to be somebody else");
        return;
    }
    let bus = PrivateBus::start(&["sh.temps.Deploy1.conf", "sh.temps.Proxy1.conf"]);
    for name in ["sh.temps.Deploy1", "sh.temps.Proxy1"] {
        let request = [
            "org.freedesktop.DBus.RequestName",
            &format!("string:{name}"),
            "uint32:4",
        ];
        let (bus_name, path) = ("org.freedesktop.DBus", "/org/freedesktop/DBus");
        let refused = said(&bus.call_as(NOBODY, bus_name, path, &request).await);
        assert!(refused.contains("AccessDenied"), "{refused}");
        let allowed = bus.call_as(0, bus_name, path, &request).await;
        assert!(allowed.status.success(), "{}", said(&allowed));
    }
}

#[test]
fn the_policy_allows_nothing_without_naming_a_destination() {
    for file in ["sh.temps.Deploy1.conf", "sh.temps.Proxy1.conf"] {
        let text = std::fs::read_to_string(contract(file)).unwrap();
        let name = file.trim_end_matches(".conf");
        for rule in text.lines().filter(|line| line.contains("<allow send_")) {
            assert!(
                rule.contains(&format!("send_destination=\"{name}\"")),
                "{rule}"
            );
        }
        let own = format!("<allow own=\"{name}\"/>");
        assert_eq!(text.matches("own=").count(), text.matches(&own).count());
    }
}
