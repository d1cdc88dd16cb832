//! The reconnecting client against servers that behave badly.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures::StreamExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tarpc::context::Context;
use tarpc::server::{BaseChannel, Channel};
use temps_ipc::id::InstanceId;
use temps_ipc::rpc::{Applied, Drain, Hello, Proxy, ProxyClient};
use temps_ipc::types::{ProbeOutcome, ProbeRequest, ProxyStatus, Snapshot};
use temps_ipc::wire::client::{Link, Repeat};
use temps_ipc::{Code, Fault, wire};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

/// A proxy that counts calls and says hello with a protocol of our choice.
#[derive(Clone)]
struct Fake {
    protocol: u32,
    calls: Arc<AtomicU32>,
}

impl Fake {
    fn new(protocol: u32) -> Self {
        Self {
            protocol,
            calls: Arc::default(),
        }
    }

    /// Serves until aborted.
    fn listen(&self, path: &Path) -> JoinHandle<()> {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        let fake = self.clone();
        tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let channel = BaseChannel::with_defaults(wire::transport(stream));
                connections.spawn(channel.execute(Proxy::serve(fake.clone())).for_each(
                    |answer| async {
                        tokio::spawn(answer);
                    },
                ));
            }
        })
    }
}

impl Proxy for Fake {
    async fn hello(self, _: Context, _: Hello) -> Result<Hello, Fault> {
        Ok(Hello {
            protocol: self.protocol,
            build: "9.9.9".into(),
        })
    }
    async fn probe(self, _: Context, _: ProbeRequest) -> Result<Vec<ProbeOutcome>, Fault> {
        Ok(Vec::new())
    }
    async fn apply(self, _: Context, snapshot: Snapshot) -> Result<Applied, Fault> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Ok(Applied {
            generation: snapshot.generation,
        })
    }
    async fn drained(self, _: Context, _: InstanceId, _: u64) -> Result<Drain, Fault> {
        std::future::pending().await
    }
    async fn status(self, _: Context) -> Result<ProxyStatus, Fault> {
        Err(Fault::internal("not here"))
    }
    async fn generation(self, _: Context) -> Result<u64, Fault> {
        Ok(u64::from(self.calls.fetch_add(1, Ordering::SeqCst)))
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

async fn generation(link: &Link<ProxyClient>, repeat: Repeat) -> Result<u64, Fault> {
    link.call(repeat, PATIENCE, |client, context| async move {
        client.generation(context).await
    })
    .await
}

#[tokio::test]
async fn a_daemon_that_was_restarted_is_called_again_whatever_the_call() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.sock");
    let fake = Fake::new(temps_ipc::PROTOCOL);
    let link = Link::new(&path);
    for repeat in [Repeat::Idempotent, Repeat::Never] {
        let server = fake.listen(&path);
        generation(&link, repeat).await.unwrap();
        server.abort();
        let _ = server.await;
        let server = fake.listen(&path);
        generation(&link, repeat).await.unwrap();
        server.abort();
        let _ = server.await;
    }
    assert_eq!(
        fake.calls.load(Ordering::SeqCst),
        4,
        "no call was made twice"
    );
}

#[tokio::test]
async fn another_protocol_is_refused_with_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.sock");
    let fake = Fake::new(temps_ipc::PROTOCOL + 1);
    let server = fake.listen(&path);
    let fault = generation(&Link::new(&path), Repeat::Idempotent)
        .await
        .unwrap_err();
    assert_eq!(fault.code, Code::Unavailable);
    assert!(fault.hint.contains("upgrade"), "{fault:?}");
    assert_eq!(fake.calls.load(Ordering::SeqCst), 0);
    server.abort();
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_named_with_a_hint_and_without_waiting() {
    let link = Link::<ProxyClient>::new("/nonexistent/proxy.sock");
    let fault = generation(&link, Repeat::Idempotent).await.unwrap_err();
    assert_eq!(fault.code, Code::Unavailable);
    assert!(fault.what.contains("temps-proxy"), "{fault:?}");
    assert!(fault.hint.contains("temps up"), "{fault:?}");
}

#[tokio::test]
async fn a_daemon_that_never_answers_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.sock");
    let server = Fake::new(temps_ipc::PROTOCOL).listen(&path);
    let link = Link::<ProxyClient>::new(&path);
    let fault = link
        .call(
            Repeat::Idempotent,
            Duration::from_millis(300),
            |client, context| async move { client.drained(context, InstanceId::fresh(), 0).await },
        )
        .await
        .unwrap_err();
    assert_eq!(fault.code, Code::Unavailable);
    server.abort();
}

#[tokio::test]
async fn a_frame_over_the_limit_ends_only_its_connection() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.sock");
    let server = Fake::new(temps_ipc::PROTOCOL).listen(&path);
    let mut hostile = tokio::net::UnixStream::connect(&path).await.unwrap();
    let length = u32::try_from(wire::MAX_FRAME + 1).unwrap();
    hostile.write_all(&length.to_be_bytes()).await.unwrap();
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(PATIENCE, hostile.read_to_end(&mut rest)).await;
    assert!(
        closed.is_ok(),
        "the connection is closed before the frame is read"
    );
    generation(&Link::new(&path), Repeat::Idempotent)
        .await
        .unwrap();
    server.abort();
}
