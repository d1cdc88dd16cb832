//! A proxy in this process on ports of its own.

use super::manager::{Manager, Sockets};
use super::{Answer, PATIENCE};
use async_trait::async_trait;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use temps_ipc::Fault;
use temps_ipc::id::{InstanceId, ReleaseId};
use temps_ipc::rpc::{Drain, ProxyClient};
use temps_ipc::types::{
    Backend, ProbeOutcome, ProbeRequest, ProxyStatus, Route, Snapshot, StaticSite, Target,
};
use temps_ipc::wire::client::{Link, Repeat};
use temps_proxy::config::Settings;
use temps_proxy::daemon::{self, Duty, Start};
use temps_proxy::handover::client::Helper;
use temps_proxy::port::Alarm;
use temps_unit::exit::Exit;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Alarms that were raised.
#[derive(Default)]
pub(super) struct Heard(Mutex<Vec<(InstanceId, String)>>);

#[async_trait]
impl Alarm for Heard {
    async fn target_unhealthy(&self, target: InstanceId, why: String) -> Result<(), Fault> {
        self.0.lock().unwrap().push((target, why));
        Ok(())
    }
}

/// A proxy, and the way to its control socket.
pub struct Proxy {
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub state: TempDir,
    heard: Arc<Heard>,
    pub stop: CancellationToken,
    task: JoinHandle<Exit>,
    control: Link<ProxyClient>,
    generation: AtomicUsize,
    sockets: Sockets,
    manager: Option<Manager>,
}

fn settings() -> Settings {
    let mut settings = Settings {
        standalone: true,
        threads: 2,
        fresh_grace: Duration::from_millis(300),
        drain_deadline: Duration::from_secs(10),
        ..Settings::default()
    };
    settings.probes.fresh = Duration::from_millis(20);
    settings.probes.routed = Duration::from_millis(50);
    settings.probes.report = Duration::from_millis(200);
    settings
}

impl Proxy {
    pub async fn new() -> Self {
        Self::with(|_| ()).await
    }

    /// With settings that `change` makes of the usual ones.
    pub async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        Self::start(settings, tempfile::tempdir().unwrap()).await
    }

    /// With what an earlier one has left.
    pub async fn over(state: TempDir) -> Self {
        Self::start(settings(), state).await
    }

    /// One that hands over to a helper, which somebody starts when it is called.
    pub async fn handing_over() -> Self {
        let state = tempfile::tempdir().unwrap();
        let sockets = Sockets::bind(state.path());
        let manager = Manager::start(&sockets, settings(), state.path());
        Self::begin(settings(), state, sockets, Some(manager)).await
    }

    /// Stops it, and starts the next one with the same sockets as soon as it has ended.
    pub async fn restart(self) -> Self {
        let (sockets, manager, state) = self.end().await;
        Self::begin(settings(), state, sockets, manager).await
    }

    /// Stops it; another is not started.
    pub async fn end(self) -> (Sockets, Option<Manager>, TempDir) {
        self.stop.cancel();
        let exit = timeout(PATIENCE, self.task).await;
        assert_eq!(exit.expect("the proxy ends").unwrap(), Exit::Success);
        (self.sockets, self.manager, self.state)
    }

    /// Helpers that were started so far.
    pub fn helpers(&self) -> usize {
        self.manager.as_ref().map_or(0, Manager::started)
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    async fn start(settings: Settings, state: TempDir) -> Self {
        let sockets = Sockets::bind(state.path());
        Self::begin(settings, state, sockets, None).await
    }

    async fn begin(
        settings: Settings,
        state: TempDir,
        sockets: Sockets,
        manager: Option<Manager>,
    ) -> Self {
        let copy = sockets.copy();
        let (http, https) = (
            copy.http.local_addr().unwrap(),
            copy.https.local_addr().unwrap(),
        );
        let helper = manager.as_ref();
        let start = Start {
            http: vec![copy.http],
            https: vec![copy.https],
            duty: Duty::Main {
                control: copy.control,
                helper: helper.map(|_| Helper::new(Sockets::handover(state.path()))),
            },
            settings,
            problem: Arc::default(),
            state: state.path().to_owned(),
        };
        let (heard, stop) = (Arc::new(Heard::default()), CancellationToken::new());
        let task = tokio::spawn(daemon::serve(start, heard.clone(), stop.clone(), None));
        let proxy = Self {
            http,
            https,
            heard,
            stop,
            task,
            control: Link::new(Sockets::control(state.path())),
            state,
            generation: AtomicUsize::new(0),
            sockets,
            manager,
        };
        let generation = proxy.call_generation().await;
        proxy
            .generation
            .store(generation as usize, Ordering::SeqCst);
        proxy
    }

    async fn call_generation(&self) -> u64 {
        let call = self
            .control
            .call(Repeat::Idempotent, PATIENCE, |client, context| async move {
                client.generation(context).await
            });
        call.await.unwrap()
    }

    pub async fn apply(&self, routes: Vec<Route>) -> Result<u64, Fault> {
        let generation = self.generation.fetch_add(1, Ordering::SeqCst) as u64 + 1;
        self.apply_as(generation, routes).await
    }

    /// Takes over a snapshot of nothing but these: each host leads to its target.
    pub async fn serve<const N: usize>(&self, targets: [(&str, &Target); N]) {
        let routes = targets.map(|(host, target)| route(host, "/", &[target]));
        self.apply(routes.into()).await.unwrap();
    }

    pub async fn apply_as(&self, generation: u64, routes: Vec<Route>) -> Result<u64, Fault> {
        let snapshot = Snapshot { generation, routes };
        let call = self
            .control
            .call(Repeat::Idempotent, PATIENCE, |client, context| {
                let snapshot = snapshot.clone();
                async move { client.apply(context, snapshot).await }
            });
        call.await.map(|applied| applied.generation)
    }

    pub async fn drained(&self, target: &InstanceId, wait: Duration) -> Drain {
        let call = self
            .control
            .call(Repeat::Idempotent, PATIENCE, |client, context| {
                let target = target.clone();
                async move {
                    client
                        .drained(context, target, wait.as_millis() as u64)
                        .await
                }
            });
        call.await.unwrap()
    }

    pub async fn probe(
        &self,
        targets: Vec<Target>,
        limit: Duration,
    ) -> Result<Vec<ProbeOutcome>, Fault> {
        let request = ProbeRequest {
            targets,
            timeout_ms: limit.as_millis() as u64,
        };
        let call = self
            .control
            .call(Repeat::Idempotent, PATIENCE, |client, context| {
                let request = request.clone();
                async move { client.probe(context, request).await }
            });
        call.await
    }

    pub async fn status(&self) -> ProxyStatus {
        let call = self
            .control
            .call(Repeat::Idempotent, PATIENCE, |client, context| async move {
                client.status(context).await
            });
        call.await.unwrap()
    }

    /// The alarms so far.
    pub fn heard(&self) -> Vec<(InstanceId, String)> {
        self.heard.0.lock().unwrap().clone()
    }

    pub fn forget_heard(&self) {
        self.heard.0.lock().unwrap().clear();
    }

    pub async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.http).await.unwrap()
    }

    /// One request on a connection of its own; everything that comes back.
    pub async fn raw(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .expect("the proxy ends the connection");
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub async fn get(&self, host: &str, path: &str) -> Answer {
        self.request("GET", host, path, "").await
    }

    /// One request with extra header `lines`, each ended by CRLF.
    pub async fn request(&self, method: &str, host: &str, path: &str, lines: &str) -> Answer {
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{lines}\r\n");
        Answer::parse(&self.raw(&request).await)
    }

    /// Stops and waits for the end.
    pub async fn stop(self) -> (Exit, TempDir) {
        self.stop.cancel();
        let exit = timeout(PATIENCE, self.task)
            .await
            .expect("the proxy ends")
            .unwrap();
        (exit, self.state)
    }
}

/// Requests below `prefix` of `host` go to one of `targets`.
pub fn route(host: &str, prefix: &str, targets: &[&Target]) -> Route {
    Route {
        host: host.parse().unwrap(),
        path_prefix: prefix.parse().unwrap(),
        app: "app".parse().unwrap(),
        release: ReleaseId::fresh(),
        backend: Backend::Targets(targets.iter().map(|target| (*target).clone()).collect()),
    }
}

/// `host` answers with the files below `root`.
pub fn site(host: &str, root: PathBuf, spa: bool) -> Route {
    Route {
        host: host.parse().unwrap(),
        path_prefix: "/".parse().unwrap(),
        app: "site".parse().unwrap(),
        release: ReleaseId::fresh(),
        backend: Backend::Static(StaticSite {
            id: InstanceId::fresh(),
            root,
            spa,
        }),
    }
}
