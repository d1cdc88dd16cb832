use super::*;
use futures::{SinkExt, StreamExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use tarpc::client::{self, Channel, RpcError};
use tarpc::{Response, context, trace};
use temps_ipc::wire::transport;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(10);

/// A service over strings: `sleep`, `panic`, or the question comes back with the caller's role.
struct Service {
    _dir: tempfile::TempDir,
    path: PathBuf,
    shutdown: CancellationToken,
    idle: Idle,
    started: Arc<AtomicUsize>,
    ended: JoinHandle<io::Result<()>>,
}

fn service(policy: Policy, limits: Limits) -> Service {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rpc.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let shutdown = CancellationToken::new();
    let idle = Idle::new(Duration::from_millis(50));
    let started = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&started);
    let make = move |peer: Peer, role| {
        let count = Arc::clone(&count);
        move |_: Context, question: String| {
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                match question.as_str() {
                    "sleep" => sleep(Duration::from_millis(300)).await,
                    "for ever" => std::future::pending().await,
                    "panic" => panic!("asked for"),
                    _ => {}
                }
                Ok(format!("{question} from {} as {role}", peer.uid))
            }
        }
    };
    let serving = serve_rpc(
        listener,
        policy,
        limits,
        idle.clone(),
        shutdown.clone(),
        make,
    );
    Service {
        _dir: dir,
        path,
        shutdown,
        idle,
        started,
        ended: tokio::spawn(serving),
    }
}

fn ours() -> Service {
    service(Policy::only_uid(Peer::own().uid), Limits::default())
}

impl Service {
    async fn client(&self) -> Channel<String, String> {
        connect(&self.path).await
    }

    async fn until_started(&self, requests: usize) {
        while self.started.load(Ordering::SeqCst) < requests {
            sleep(Duration::from_millis(2)).await;
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.ended)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

async fn connect(path: &Path) -> Channel<String, String> {
    let stream = UnixStream::connect(path).await.unwrap();
    client::new(client::Config::default(), transport(stream)).spawn()
}

async fn ask(client: &Channel<String, String>, question: &str) -> Result<String, RpcError> {
    client.call(context::current(), question.to_owned()).await
}

#[tokio::test]
async fn a_handler_knows_who_asks() {
    let service = ours();
    let answer = ask(&service.client().await, "ping").await.unwrap();
    assert_eq!(
        answer,
        format!("ping from {} as an operator", Peer::own().uid)
    );
    service.stop().await;
}

#[tokio::test]
async fn a_stranger_is_told_and_runs_no_handler() {
    let service = service(Policy::only_uid(Peer::own().uid + 1), Limits::default());
    let RpcError::Server(error) = ask(&service.client().await, "ping").await.unwrap_err() else {
        panic!("not a server error");
    };
    let fault = temps_ipc::wire::refusal::decode(&error).unwrap();
    assert_eq!(fault.code, temps_ipc::Code::Denied);
    assert!(fault.hint.starts_with("this instance belongs to"));
    assert_eq!(service.started.load(Ordering::SeqCst), 0);
    service.stop().await;
}

#[tokio::test]
async fn no_deadline_can_end_the_daemon() {
    let service = ours();
    for deadline in [Duration::MAX, Duration::from_secs(1 << 40), Duration::ZERO] {
        let stream = UnixStream::connect(&service.path).await.unwrap();
        let mut raw = transport::<Response<String>, _>(stream);
        let request = (
            0_u32,
            deadline,
            trace::Context::default(),
            1_u64,
            "ping".to_owned(),
        );
        raw.send(request).await.unwrap();
        if !deadline.is_zero() {
            let response = timeout(PATIENCE, raw.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            assert!(response.message.unwrap().starts_with("ping"));
        }
    }
    ask(&service.client().await, "ping").await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn a_broken_or_oversize_frame_ends_only_its_connection() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let service = ours();
    let good = service.client().await;
    for frame in [&[0, 0, 0, 2, 9, 9][..], &[255; 64], &[0, 0, 0, 0]] {
        let mut stream = UnixStream::connect(&service.path).await.unwrap();
        stream.write_all(frame).await.unwrap();
        let mut rest = Vec::new();
        // Closed cleanly or by a reset: both are an end.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .unwrap();
        assert!(rest.is_empty());
    }
    ask(&good, "ping").await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn requests_in_flight_are_answered_after_the_shutdown_and_nothing_new_is_accepted() {
    let service = ours();
    let client = service.client().await;
    let slow = tokio::spawn(async move { ask(&client, "sleep").await });
    service.until_started(1).await;
    service.shutdown.cancel();
    sleep(Duration::from_millis(50)).await;
    assert!(
        UnixStream::connect(&service.path).await.is_err(),
        "nobody else holds the listener here"
    );
    assert!(slow.await.unwrap().unwrap().starts_with("sleep"));
    service.stop().await;
}

#[tokio::test]
async fn an_idle_connection_neither_holds_the_drain_nor_keeps_the_daemon() {
    let service = ours();
    let client = service.client().await;
    ask(&client, "ping").await.unwrap();
    timeout(PATIENCE, service.idle.expired())
        .await
        .expect("the connection is open, but idle");
    let begin = Instant::now();
    service.stop().await;
    assert!(begin.elapsed() < Limits::default().drain);
    assert!(ask(&client, "ping").await.is_err());
}

#[tokio::test]
async fn a_request_in_flight_keeps_the_daemon() {
    let service = ours();
    let client = service.client().await;
    let asked = tokio::spawn(async move { ask(&client, "for ever").await });
    service.until_started(1).await;
    assert!(service.idle.is_busy());
    asked.abort();
    let _ = asked.await;
    timeout(PATIENCE, service.idle.expired())
        .await
        .expect("its client hung up");
    service.stop().await;
}

#[tokio::test]
async fn a_connection_accepted_just_before_the_shutdown_is_served() {
    let service = ours();
    let stream = UnixStream::connect(&service.path).await.unwrap();
    sleep(Duration::from_millis(50)).await;
    service.shutdown.cancel();
    sleep(Duration::from_millis(50)).await;
    let client: Channel<String, String> =
        client::new(client::Config::default(), transport(stream)).spawn();
    ask(&client, "ping").await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn the_drain_time_cuts_what_does_not_end() {
    let limits = Limits {
        drain: Duration::from_millis(50),
        ..Limits::default()
    };
    let service = service(Policy::only_uid(Peer::own().uid), limits);
    let client = service.client().await;
    let asked = tokio::spawn(async move { ask(&client, "for ever").await });
    service.until_started(1).await;
    service.stop().await;
    assert!(asked.await.unwrap().is_err());
}

#[tokio::test]
async fn a_panicking_handler_is_an_answer() {
    let service = ours();
    let client = service.client().await;
    let error = ask(&client, "panic").await.unwrap_err();
    assert!(matches!(error, RpcError::Server(_)), "{error}");
    ask(&client, "ping").await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn connections_over_the_limit_wait_and_are_served_later() {
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let service = service(Policy::only_uid(Peer::own().uid), limits);
    let first = service.client().await;
    ask(&first, "ping").await.unwrap();
    let second = service.client().await;
    let waiting = tokio::spawn(async move { ask(&second, "ping").await });
    sleep(Duration::from_millis(50)).await;
    assert_eq!(service.started.load(Ordering::SeqCst), 1);
    drop(first);
    waiting.await.unwrap().unwrap();
    service.stop().await;
}

#[tokio::test]
async fn a_quiet_connection_is_closed() {
    let limits = Limits {
        quiet: Duration::from_millis(20),
        ..Limits::default()
    };
    let service = service(Policy::only_uid(Peer::own().uid), limits);
    let mut raw =
        transport::<Response<String>, ()>(UnixStream::connect(&service.path).await.unwrap());
    assert!(timeout(PATIENCE, raw.next()).await.unwrap().is_none());
    let client = service.client().await;
    ask(&client, "sleep")
        .await
        .expect("waiting for an answer is not quiet");
    service.stop().await;
}

#[tokio::test]
async fn a_refused_client_gives_up_at_once_with_the_fault() {
    use temps_ipc::rpc::DeploydClient;
    use temps_ipc::wire::client::{Link, Repeat};
    let service = service(Policy::only_uid(Peer::own().uid + 1), Limits::default());
    let link = Link::<DeploydClient>::new(&service.path);
    let call = link.call(Repeat::Idempotent, PATIENCE, async |_, _| Ok(Ok(())));
    let fault = timeout(PATIENCE / 2, call)
        .await
        .expect("no retries")
        .unwrap_err();
    assert_eq!(fault.code, temps_ipc::Code::Denied);
    service.stop().await;
}

#[tokio::test]
async fn requests_over_the_limit_of_a_connection_are_refused_and_the_rest_served() {
    let limits = Limits {
        requests: 1,
        ..Limits::default()
    };
    let service = service(Policy::only_uid(Peer::own().uid), limits);
    let client = service.client().await;
    let slow = tokio::spawn({
        let client = client.clone();
        async move { ask(&client, "sleep").await }
    });
    service.until_started(1).await;
    assert!(matches!(
        ask(&client, "ping").await,
        Err(RpcError::Server(_))
    ));
    slow.await.unwrap().unwrap();
    ask(&client, "ping").await.unwrap();
    service.stop().await;
}

#[tarpc::service]
trait Greeter {
    async fn greet(name: String) -> Result<String, Fault>;
}

#[derive(Clone)]
struct Rpc(Role);

impl Greeter for Rpc {
    async fn greet(self, _: Context, name: String) -> Result<String, Fault> {
        Ok(format!("{} greets {name}", self.0))
    }
}

#[tokio::test]
async fn a_generated_service_is_served_as_the_documentation_shows() {
    use tarpc::server::Serve;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rpc.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(serve_rpc(
        listener,
        Policy::only_uid(Peer::own().uid),
        Limits::default(),
        Idle::never(),
        shutdown.clone(),
        move |_peer, role| {
            let service = Rpc(role).serve();
            move |context, request| service.clone().serve(context, request)
        },
    ));
    let stream = UnixStream::connect(&path).await.unwrap();
    let client = GreeterClient::new(client::Config::default(), transport(stream)).spawn();
    let answer = client.greet(context::current(), "temps".to_owned()).await;
    assert_eq!(answer.unwrap().unwrap(), "an operator greets temps");
    shutdown.cancel();
    serving.await.unwrap().unwrap();
}
