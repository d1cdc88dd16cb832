//! A proxy in this process on ports of its own, and small upstream servers to stand behind it.

#![allow(dead_code, reason = "each suite uses its part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use async_trait::async_trait;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use temps_ipc::Fault;
use temps_ipc::id::{InstanceId, ReleaseId};
use temps_ipc::rpc::{Drain, ProxyClient};
use temps_ipc::types::{
    Address, Backend, HealthCheck, ProbeOutcome, ProbeRequest, ProxyStatus, Route, Snapshot,
    StaticSite, Target,
};
use temps_ipc::wire::client::{Link, Repeat};
use temps_proxy::config::Settings;
use temps_proxy::daemon::{self, Start};
use temps_proxy::port::Alarm;
use temps_unit::exit::Exit;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Alarms that were raised.
#[derive(Default)]
pub struct Heard(pub Mutex<Vec<(InstanceId, String)>>);

#[async_trait]
impl Alarm for Heard {
    async fn target_unhealthy(&self, target: InstanceId, why: String) -> Result<(), Fault> {
        self.0.lock().unwrap().push((target, why));
        Ok(())
    }
}

pub struct Proxy {
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub state: tempfile::TempDir,
    pub heard: Arc<Heard>,
    pub stop: CancellationToken,
    pub task: JoinHandle<Exit>,
    control: Link<ProxyClient>,
    generation: AtomicUsize,
}

fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

pub fn settings() -> Settings {
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

pub async fn proxy() -> Proxy {
    proxy_with(settings()).await
}

pub async fn proxy_with(settings: Settings) -> Proxy {
    proxy_in(settings, tempfile::tempdir().unwrap()).await
}

pub async fn proxy_in(settings: Settings, state: tempfile::TempDir) -> Proxy {
    let (http, https) = (bind(), bind());
    let socket = state.path().join("control.sock");
    let _ = std::fs::remove_file(&socket);
    let control = UnixListener::bind(&socket).unwrap();
    let (http_address, https_address) = (http.local_addr().unwrap(), https.local_addr().unwrap());
    let start = Start {
        http: vec![http],
        https: vec![https],
        control,
        settings,
        state: state.path().to_owned(),
    };
    let (heard, stop) = (Arc::new(Heard::default()), CancellationToken::new());
    let task = tokio::spawn(daemon::serve(start, heard.clone(), stop.clone(), None));
    let proxy = Proxy {
        http: http_address,
        https: https_address,
        state,
        heard,
        stop,
        task,
        control: Link::new(socket),
        generation: AtomicUsize::new(0),
    };
    let generation = proxy.call_generation().await;
    proxy
        .generation
        .store(generation as usize, Ordering::SeqCst);
    proxy
}

impl Proxy {
    pub async fn call_generation(&self) -> u64 {
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
    pub async fn stop(self) -> (Exit, tempfile::TempDir) {
        self.stop.cancel();
        let exit = timeout(PATIENCE, self.task)
            .await
            .expect("the proxy ends")
            .unwrap();
        (exit, self.state)
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or(0);
        Self {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// Reads one answer with a Content-Length from a kept connection.
pub async fn read_answer(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<Answer> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let answer = Answer::parse(&String::from_utf8_lossy(&bytes));
            let length: usize = answer
                .header("content-length")
                .map_or(0, |length| length.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                return Some(answer);
            }
        }
        match timeout(PATIENCE, stream.read_buf(&mut bytes))
            .await
            .expect("an answer in time")
        {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

/// What an upstream does with a request: the head it was sent, and the connection to answer on.
pub type Handler = Arc<
    dyn Fn(String, TcpStream) -> futures::future::BoxFuture<'static, Option<TcpStream>>
        + Send
        + Sync,
>;

pub struct Upstream {
    pub target: Target,
    pub address: SocketAddr,
    /// Requests that have begun.
    pub requests: Arc<AtomicUsize>,
    /// Their heads.
    pub heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An upstream whose `handler` answers each request.
pub async fn upstream(handler: Handler) -> Upstream {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (requests, heads) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(Mutex::new(Vec::new())),
    );
    let (counter, kept) = (requests.clone(), heads.clone());
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (handler, counter, kept) = (handler.clone(), counter.clone(), kept.clone());
            connections.spawn(async move {
                let mut stream = stream;
                while let Some(head) = read_head(&mut stream).await {
                    if !head.contains("temps-probe") {
                        counter.fetch_add(1, Ordering::SeqCst);
                        kept.lock().unwrap().push(head.clone());
                    }
                    match handler(head, stream).await {
                        Some(again) => stream = again,
                        None => return,
                    }
                }
            });
        }
    });
    Upstream {
        target: Target {
            id: InstanceId::fresh(),
            address: Address::Tcp(address),
            check: HealthCheck::Tcp,
        },
        address,
        requests,
        heads,
        task,
    }
}

async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await.ok()?;
        bytes.push(byte);
    }
    String::from_utf8(bytes).ok()
}

/// An upstream that answers every request with `body` and keeps the connection.
pub async fn says(body: &'static str) -> Upstream {
    upstream(answering(Duration::ZERO, body)).await
}

/// As [`says`], after a while.
pub async fn says_after(delay: Duration, body: &'static str) -> Upstream {
    upstream(answering(delay, body)).await
}

fn answering(delay: Duration, body: &'static str) -> Handler {
    Arc::new(move |_, mut stream| {
        Box::pin(async move {
            tokio::time::sleep(delay).await;
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.ok()?;
            Some(stream)
        })
    })
}

/// An upstream that answers each connection with `answer` as it is, and closes.
pub async fn writes(answer: &'static str) -> Upstream {
    upstream(Arc::new(move |_, mut stream| {
        Box::pin(async move {
            stream.write_all(answer.as_bytes()).await.ok()?;
            None
        })
    }))
    .await
}

pub fn route(host: &str, prefix: &str, targets: &[&Target]) -> Route {
    Route {
        host: host.parse().unwrap(),
        path_prefix: prefix.parse().unwrap(),
        app: "app".parse().unwrap(),
        release: ReleaseId::fresh(),
        backend: Backend::Targets(targets.iter().map(|target| (*target).clone()).collect()),
    }
}

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

pub async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("it happens");
}

/// A TLS connection that trusts the proxy's authority and nobody else.
pub async fn tls(
    proxy: &Proxy,
    name: &str,
    protocols: &[&str],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    use rustls::pki_types::pem::PemObject;
    let pem = std::fs::read(proxy.state.path().join("local-ca.pem")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(rustls::pki_types::CertificateDer::from_pem_slice(&pem).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols
        .iter()
        .map(|protocol| protocol.as_bytes().to_vec())
        .collect();
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let stream = TcpStream::connect(proxy.https).await?;
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}
