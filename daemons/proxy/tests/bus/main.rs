//! The proxy on a bus of its own: what is shown, told, asked and refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../unit/tests/bus/private.rs"]
mod private;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::StreamExt as _;
use private::{NOBODY, PrivateBus, SOON, assert_golden, introspected, is_root, owned};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use temps_ipc::Fault;
use temps_ipc::id::{InstanceId, ReleaseId};
use temps_ipc::types::{
    Address, Backend, HealthCheck, PathPrefix, Route, Snapshot, Target, Timestamp,
};
use temps_proxy::bus::{self, NAME, ROOT};
use temps_proxy::config::Settings;
use temps_proxy::daemon::reload::Reload;
use temps_proxy::engine::Engine;
use temps_proxy::engine::watch::{self, Rhythm};
use temps_proxy::http::live::Live;
use temps_proxy::port::Alarm;
use temps_proxy::spool::Spool;
use temps_proxy::status::{Problem, Status};
use temps_proxy::store::Store;
use temps_proxy::tls::authority::Authority;
use temps_proxy::tls::certificates::Certificates;
use temps_unit::bus::{Bus, Place};
use temps_unit::task::Supervisor;
use temps_unit::watchdog::Watchdog;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedVariant};

struct Case {
    bus: PrivateBus,
    client: Connection,
    engine: Arc<Engine>,
    present: Bus,
    _state: TempDir,
}

/// The proxy, without its doors, with its name.
async fn on_the_bus() -> Case {
    let bus = PrivateBus::start(&["sh.temps.Proxy1.conf"]);
    let state = tempfile::tempdir().unwrap();
    let engine = Arc::new(Engine::new(Store::new(state.path())));
    let authority = Authority::open(state.path()).unwrap();
    let certificates = Certificates::new(Arc::clone(&engine), authority, state.path().to_owned());
    let problem = Problem::default();
    let settings = Settings::default();
    let status = Arc::new(Status {
        engine: Arc::clone(&engine),
        live: Arc::new(Live::default()),
        certificates: Arc::new(certificates),
        spool: Spool::none(),
        problem: Arc::clone(&problem),
        started_at: Timestamp::now(),
        http: None,
        https: None,
    });
    let reload = Reload {
        timeouts: Arc::new(ArcSwap::from_pointee(settings.timeouts)),
        header_bytes: Arc::new(ArcSwap::from_pointee(settings.limits.header_bytes)),
        problem,
        state: state.path().to_owned(),
        status: Arc::clone(&status),
    };
    let supervisor = Supervisor::new(CancellationToken::new());
    let place = Place::At(bus.address());
    let present = bus::start(&status, reload, place, &supervisor);
    let client = bus.connect().await;
    owned(&client, NAME).await;
    Case {
        bus,
        client,
        engine,
        present,
        _state: state,
    }
}

impl Case {
    /// Serves a route with one target at `address`.
    async fn apply(&self, generation: u64, address: std::net::SocketAddr) -> InstanceId {
        let id = InstanceId::fresh();
        let target = Target {
            id: id.clone(),
            address: Address::Tcp(address),
            check: HealthCheck::Tcp,
        };
        let route = Route {
            host: "a.test".parse().unwrap(),
            path_prefix: PathPrefix::root(),
            app: "a".parse().unwrap(),
            release: ReleaseId::fresh(),
            backend: Backend::Targets(vec![target]),
        };
        let routes = vec![route];
        self.engine
            .apply(Snapshot { generation, routes })
            .await
            .unwrap();
        id
    }

    async fn properties(&self) -> HashMap<String, OwnedVariant> {
        let interface = Some("org.freedesktop.DBus.Properties");
        let reply = self
            .client
            .call_method(Some(NAME), ROOT, interface, "GetAll", &NAME)
            .await;
        reply.unwrap().body().deserialize().unwrap()
    }

    async fn signals(&self, interface: &str) -> MessageStream {
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .interface(interface.to_owned())
            .path(ROOT)
            .build()
            .unwrap();
        let stream = MessageStream::for_match_rule(rule, &self.client, None).await;
        stream.unwrap()
    }
}

async fn next(signals: &mut MessageStream, name: &str) -> Message {
    let message = timeout(SOON, signals.next()).await.unwrap();
    let message = message.unwrap().unwrap();
    assert_eq!(message.header().member().unwrap().as_str(), name);
    message
}

struct Deaf;

#[async_trait]
impl Alarm for Deaf {
    async fn target_unhealthy(&self, _: InstanceId, _: String) -> Result<(), Fault> {
        Ok(())
    }
}

#[tokio::test]
async fn the_interface_is_the_one_that_is_documented() {
    let case = on_the_bus().await;
    let interfaces = introspected(&case.client, NAME, ROOT).await;
    assert_golden("sh.temps.Proxy1.xml", &interfaces);
    case.present.leave().await;
}

#[tokio::test]
async fn a_new_snapshot_is_told_after_its_figures() {
    let case = on_the_bus().await;
    let mut signals = case.signals(NAME).await;
    let mut changes = case.signals("org.freedesktop.DBus.Properties").await;
    let address = "127.0.0.1:9".parse().unwrap();
    case.apply(7, address).await;
    let changed = next(&mut changes, "PropertiesChanged").await;
    let (_, changed, _) = changed
        .body()
        .deserialize::<(String, HashMap<String, OwnedVariant>, Vec<String>)>()
        .unwrap();
    let mut names: Vec<&str> = changed.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["Generation", "Routes", "Targets"]);
    let applied = next(&mut signals, "SnapshotApplied").await;
    assert_eq!(applied.body().deserialize::<(u64, u32)>().unwrap(), (7, 1));
    let shown = case.properties().await;
    assert_eq!(u64::try_from(&shown["Generation"]).unwrap(), 7);
    assert_eq!(u32::try_from(&shown["Routes"]).unwrap(), 1);
    case.present.leave().await;
}

#[tokio::test]
async fn a_target_that_fails_and_recovers_is_told_of() {
    let case = on_the_bus().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let target = case.apply(1, address).await;
    let shown = async {
        while u64::try_from(&case.properties().await["Generation"]).unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, shown).await.unwrap();
    // The snapshot's own signal is over.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut signals = case.signals(NAME).await;
    let rhythm = Rhythm {
        check: Duration::from_millis(10),
        alarm: Duration::from_secs(60),
    };
    let alive = Watchdog::new(None).register("watch").ticker();
    let engine = Arc::clone(&case.engine);
    let watching = tokio::spawn(watch::run(engine, Arc::new(Deaf), rhythm, alive));
    let failed = next(&mut signals, "TargetFailed").await;
    let (id, reason): (String, String) = failed.body().deserialize().unwrap();
    assert_eq!(id, target.as_str());
    assert_eq!(reason, "nothing accepts connections there");
    let unhealthy = &case.properties().await["UnhealthyTargets"];
    assert_eq!(u32::try_from(unhealthy).unwrap(), 1);
    let _back = TcpListener::bind(address).await.unwrap();
    let recovered = next(&mut signals, "TargetRecovered").await;
    let id: String = recovered.body().deserialize().unwrap();
    assert_eq!(id, target.as_str());
    let unhealthy = &case.properties().await["UnhealthyTargets"];
    assert_eq!(u32::try_from(unhealthy).unwrap(), 0);
    watching.abort();
    case.present.leave().await;
}

#[tokio::test]
async fn a_reload_is_roots_and_everybody_may_look() {
    if !is_root() {
        println!("SKIPPED: needs root, to be somebody else");
        return;
    }
    let case = on_the_bus().await;
    let reload = ["sh.temps.Proxy1.Reload"];
    let refused = case.bus.call_as(NOBODY, NAME, ROOT, &reload).await;
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("sh.temps.Error.Denied"), "{text}");
    let look = [
        "org.freedesktop.DBus.Properties.Get",
        "string:sh.temps.Proxy1",
        "string:Requests",
    ];
    let seen = case.bus.call_as(NOBODY, NAME, ROOT, &look).await;
    assert!(seen.status.success());
    let done = case.bus.call_as(0, NAME, ROOT, &reload).await;
    assert!(done.status.success(), "{done:?}");
    case.present.leave().await;
}
