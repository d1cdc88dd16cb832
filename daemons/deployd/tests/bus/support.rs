//! An engine over a simulated world, on a bus of its own, and a client of that bus.

use crate::engine::{Host, Running};
use crate::private::{PrivateBus, SOON, owned};
use futures::StreamExt as _;
use std::sync::Arc;
use std::time::Duration;
use temps_deployd::bus;
use temps_deployd::engine::Engine;
use temps_deployd::port::Runtimes;
use temps_ipc::id::ReleaseId;
use temps_ipc::types::{Phase, RuntimeKind};
use temps_unit::bus::{Bus, Place};
use temps_unit::idle::Idle;
use temps_unit::task::Supervisor;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use zbus::{
    Connection, DynamicType, MatchRule, Message, MessageStream, OwnedObjectPath, OwnedVariant,
};

pub const NAME: &str = bus::NAME;
pub const ROOT: &str = bus::ROOT;

const APP: &str = "/sh/temps/Deploy1/app/shop";

/// The app of every case.
pub fn shop() -> String {
    crate::engine::shop().to_string()
}

/// Names of properties.
pub struct App;

impl App {
    pub const RELEASE: &str = "Release";
    pub const STATE: &str = "State";
    pub const RUNTIME: &str = "Runtime";
    pub const INSTANCES: &str = "Instances";
}

pub struct Case {
    pub bus: PrivateBus,
    pub client: Connection,
    host: Host,
    running: Running,
    present: Bus,
}

/// deployd with its name.
pub async fn on_the_bus() -> Case {
    let bus = PrivateBus::start(&["sh.temps.Deploy1.conf"]);
    let host = Host::new();
    let running = host.start_with(Runtimes::new(vec![
        Arc::new(host.world.runtime(RuntimeKind::Docker)),
        Arc::new(host.world.runtime(RuntimeKind::Systemd)),
    ]));
    let supervisor = Supervisor::new(CancellationToken::new());
    let place = Place::At(bus.address());
    let present = bus::start(&running.engine, &Idle::never(), place, &supervisor);
    let client = bus.connect().await;
    owned(&client, NAME).await;
    Case {
        bus,
        client,
        host,
        running,
        present,
    }
}

impl Case {
    pub fn engine(&self) -> &Engine {
        &self.running.engine
    }

    /// Deploys and waits until the bus shows it; the release.
    pub async fn deploy(&self, behaviour: &str) -> String {
        let release = self.deploy_unheard(behaviour).await;
        self.until_app(App::RELEASE, &release).await;
        self.until_app(App::STATE, "live").await;
        release
    }

    /// Deploys, bus or no bus.
    pub async fn deploy_unheard(&self, behaviour: &str) -> String {
        let view = self.running.deploy(behaviour).await;
        assert_eq!(view.phase, Phase::Live);
        view.release.to_string()
    }

    /// Deploys, and waits for the end of the watch window: nobody looks at its instance then.
    pub async fn deploy_confirmed(&self, behaviour: &str) {
        let mut request = self.running.request(behaviour);
        request.watch_ms = Some(1);
        let queued = self.engine().deploy(request, 0).await.unwrap();
        self.running.until(queued, Phase::Confirmed).await;
    }

    /// Deploys what requests start, and lets it rest.
    pub async fn deploy_resting(&self) {
        let mut request = self.running.request("healthy");
        request.runtime = None;
        request.socket_activated = Some(true);
        request.watch_ms = Some(1);
        let queued = self.engine().deploy(request, 0).await.unwrap();
        let view = self.running.until(queued, Phase::Confirmed).await;
        self.host.world.rest(&self.host.instance_of(&view.release));
    }

    /// Cancels what a job does.
    pub async fn cancel(&self, job: &str) -> zbus::Result<()> {
        let interface = Some("sh.temps.Deploy1.Job");
        let cancel = self
            .client
            .call_method(Some(NAME), job, interface, "Cancel", &());
        cancel.await.map(drop)
    }

    /// Everything that runs dies.
    pub fn kill_instances(&self) {
        self.host.kill_instances();
    }

    /// Begins a deployment; its job, once that is shown.
    pub async fn queue(&self, behaviour: &str) -> String {
        let view = self.running.queue(behaviour).await;
        let job = format!("{ROOT}/job/{}", view.id);
        let shown = async {
            let interface = "sh.temps.Deploy1.Job";
            while view.phase.outcome().is_none()
                && self
                    .property::<String>(&job, interface, "State")
                    .await
                    .is_err()
                && self.is_open(&view.id).await
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(SOON, shown).await.unwrap();
        job
    }

    async fn is_open(&self, id: &temps_ipc::id::DeploymentId) -> bool {
        let view = self
            .engine()
            .deployment(id.clone(), 0, Duration::ZERO)
            .await;
        view.unwrap().phase.outcome().is_none()
    }

    /// The release answers 500 from now on, and deployd is told as the proxy tells it.
    pub async fn go_bad(&self, release: &str) {
        let release: ReleaseId = release.parse().unwrap();
        let instance = self.host.instance_of(&release);
        let why = "it answers 500";
        self.engine()
            .target_unhealthy(&instance, why)
            .await
            .unwrap();
    }

    /// Calls a method of the root; the object in its answer.
    pub async fn call<B>(&self, method: &str, arguments: &B) -> zbus::Result<String>
    where
        B: serde::Serialize + DynamicType,
    {
        let interface = Some("sh.temps.Deploy1");
        let reply = self
            .client
            .call_method(Some(NAME), ROOT, interface, method, arguments)
            .await?;
        Ok(reply.body().deserialize::<OwnedObjectPath>()?.to_string())
    }

    pub async fn property<T>(&self, path: &str, interface: &str, name: &str) -> zbus::Result<T>
    where
        T: TryFrom<OwnedVariant>,
        T::Error: std::fmt::Debug,
    {
        let properties = Some("org.freedesktop.DBus.Properties");
        let reply = self
            .client
            .call_method(Some(NAME), path, properties, "Get", &(interface, name))
            .await?;
        let value: OwnedVariant = reply.body().deserialize()?;
        Ok(T::try_from(value).unwrap())
    }

    pub async fn app<T>(&self, name: &str) -> T
    where
        T: TryFrom<OwnedVariant>,
        T::Error: std::fmt::Debug,
    {
        let interface = "sh.temps.Deploy1.App";
        self.property(APP, interface, name).await.unwrap()
    }

    pub async fn root<T>(&self, name: &str) -> T
    where
        T: TryFrom<OwnedVariant>,
        T::Error: std::fmt::Debug,
    {
        self.property(ROOT, "sh.temps.Deploy1", name).await.unwrap()
    }

    /// Every property of an object, as text.
    pub async fn all(&self, path: &str, interface: &str) -> String {
        let properties = Some("org.freedesktop.DBus.Properties");
        let reply = self
            .client
            .call_method(Some(NAME), path, properties, "GetAll", &interface)
            .await;
        reply.map_or_else(
            |error| error.to_string(),
            |reply| format!("{:?}", reply.body()),
        )
    }

    /// Waits until a property of the app is `value`.
    pub async fn until_app(&self, name: &str, value: &str) {
        let interface = "sh.temps.Deploy1.App";
        let mut last = None;
        let reached = async {
            loop {
                let shown = self.property::<String>(APP, interface, name).await;
                if shown.as_ref().is_ok_and(|shown| shown == value) {
                    return;
                }
                last = Some(shown);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let in_time = timeout(SOON, reached).await;
        assert!(in_time.is_ok(), "{name} is {last:?}, not {value}");
    }

    pub async fn reconnect(&mut self) {
        self.client = self.bus.connect().await;
        owned(&self.client, NAME).await;
    }

    /// `PropertiesChanged` of an object from now on.
    pub async fn changes(&self, path: &str) -> MessageStream {
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .interface("org.freedesktop.DBus.Properties")
            .path(path.to_owned())
            .build()
            .unwrap();
        MessageStream::for_match_rule(rule, &self.client, None)
            .await
            .unwrap()
    }

    /// The signals of the root from now on.
    pub async fn signals(&self) -> Signals {
        let rule = MatchRule::builder()
            .msg_type(zbus::message::Type::Signal)
            .interface("sh.temps.Deploy1")
            .path(ROOT)
            .build()
            .unwrap();
        let stream = MessageStream::for_match_rule(rule, &self.client, None).await;
        Signals(stream.unwrap())
    }

    pub async fn end(self) {
        self.present.leave().await;
        self.host.well();
        self.running.stop().await;
    }
}

/// See [`Case::signals`].
pub struct Signals(MessageStream);

impl Signals {
    /// The next signal, whatever it is.
    pub async fn next(&mut self) -> Message {
        let next = timeout(SOON, self.0.next()).await;
        next.unwrap().unwrap().unwrap()
    }

    /// The next signal of this name.
    pub async fn until(&mut self, name: &str) -> Message {
        let mut others = Vec::new();
        let heard = async {
            loop {
                let message = self.0.next().await.unwrap().unwrap();
                let header = message.header();
                let member = header.member().unwrap().to_string();
                if member == name {
                    return message.clone();
                }
                others.push(member);
            }
        };
        let in_time = timeout(SOON, heard).await;
        in_time.unwrap_or_else(|_| panic!("no {name}, but {others:?}"))
    }
}
