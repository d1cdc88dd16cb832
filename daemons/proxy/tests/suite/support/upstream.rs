//! Small servers to stand behind a proxy.

use futures::future::BoxFuture;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use temps_ipc::id::InstanceId;
use temps_ipc::types::{Address, HealthCheck, Target};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

/// What an upstream does with a request: the head it was sent, and the connection to answer on.
pub type Handler =
    Arc<dyn Fn(String, TcpStream) -> BoxFuture<'static, Option<TcpStream>> + Send + Sync>;

/// A server that ends with its value.
pub struct Upstream {
    pub target: Target,
    pub address: SocketAddr,
    /// The heads of the requests that have begun, without probes.
    heads: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Upstream {
    /// How many requests have begun.
    pub fn asked(&self) -> usize {
        self.heads.lock().unwrap().len()
    }

    /// The head of the first request, in lower case.
    pub fn head(&self) -> String {
        self.heads.lock().unwrap()[0].to_ascii_lowercase()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An upstream whose `handler` answers each request.
pub async fn upstream(handler: Handler) -> Upstream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = heads.clone();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (handler, kept) = (handler.clone(), kept.clone());
            connections.spawn(async move {
                let mut stream = stream;
                while let Some(head) = read_head(&mut stream).await {
                    if !head.contains("temps-probe") {
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
        target: target(Address::Tcp(address)),
        address,
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
            sleep(delay).await;
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

/// A target that nobody listens at any more.
pub async fn dead() -> Target {
    let gone = says("gone").await;
    gone.target.clone()
}

/// A new instance at `address`, healthy while something listens there.
pub fn target(address: Address) -> Target {
    let check = match address {
        Address::Tcp(_) => HealthCheck::Tcp,
        Address::Unix(_) => HealthCheck::Any,
    };
    Target {
        id: InstanceId::fresh(),
        address,
        check,
    }
}
