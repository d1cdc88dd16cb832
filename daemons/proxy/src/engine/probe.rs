//! Health checks, made from outside the instance: one attempt, and attempts until healthy.
//!
//! An HTTP check is one `GET` over a new connection with `Host: localhost`, the name that
//! development and production settings of most frameworks allow. Redirects are not followed: the
//! answer itself is the verdict.

use crate::engine::table::UNHEALTHY_AFTER;
use bytes::Bytes;
use futures::future::join_all;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::io;
use std::time::Duration;
use temps_ipc::types::{Address, HealthCheck, ProbeFailure, ProbeOutcome, Target};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep, timeout};

/// How an instance recognises a probe in its log.
pub const AGENT: &str = concat!("temps-probe/", env!("CARGO_PKG_VERSION"));

/// An app that needs longer to answer its health check cannot serve people either.
const ATTEMPT_TIME: Duration = Duration::from_secs(5);

/// A connection on this machine is made at once, or a second later if the first packet was dropped
/// from a full queue.
const CONNECT_TIME: Duration = Duration::from_secs(2);

/// Longest answer head we read, in bytes: far above any, and bounded.
const MAX_HEAD: usize = 64 * 1024;

/// Longest path of a check.
const MAX_PATH: usize = 2048;

/// Longest reason passed on, in characters.
const MAX_REASON: usize = 200;

const _: () = assert!(UNHEALTHY_AFTER > 1, "one lost packet must not wake anybody");

/// Whether `check` has a path that can be sent.
///
/// # Errors
/// What is wrong with it.
pub fn check_path(check: &HealthCheck) -> Result<(), String> {
    let HealthCheck::Http { path } = check else {
        return Ok(());
    };
    let sendable = path.starts_with('/')
        && path.len() <= MAX_PATH
        && path
            .bytes()
            .all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'#')
        && path.parse::<Uri>().is_ok();
    if sendable {
        return Ok(());
    }
    let shown: String = path.chars().filter(|c| !c.is_control()).take(80).collect();
    Err(format!(
        "the health check needs an absolute path such as /health, not `{shown}`"
    ))
}

/// Probes all `targets` every `interval` until each is healthy, or the time is over.
pub async fn until_healthy(
    targets: &[Target],
    limit: Duration,
    interval: Duration,
) -> Vec<ProbeOutcome> {
    let deadline = Instant::now() + limit;
    let probes = targets.iter().map(|target| async move {
        ProbeOutcome {
            target: target.id.clone(),
            failure: repeat(&target.address, &target.check, deadline, interval).await,
        }
    });
    join_all(probes).await
}

async fn repeat(
    address: &Address,
    check: &HealthCheck,
    deadline: Instant,
    interval: Duration,
) -> Option<ProbeFailure> {
    let mut last = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let cut_short = left < ATTEMPT_TIME;
        let failure = attempt(address, check, left.min(ATTEMPT_TIME)).await?;
        // An attempt that had less than its time says less than the one before it.
        if !(cut_short && failure == ProbeFailure::TimedOut && last.is_some()) {
            last = Some(failure);
        }
        if Instant::now() + interval >= deadline {
            return last;
        }
        sleep(interval).await;
    }
}

/// One attempt with the usual time; nothing if the target is healthy.
pub async fn once(address: &Address, check: &HealthCheck) -> Option<ProbeFailure> {
    attempt(address, check, ATTEMPT_TIME).await
}

/// Why nobody can be at `address`; nothing if a connection is made, and nothing if that cannot be
/// told: what we lack ourselves (descriptors, ports) is no fault of the target.
///
/// On this host, silence is a full queue. A container that ended is silent as well: the bridge still
/// sends to where it was, for up to a minute.
pub(super) async fn absence(address: &Address) -> Option<ProbeFailure> {
    let connected = async {
        match address {
            Address::Tcp(address) => TcpStream::connect(address).await.map(drop),
            Address::Unix(path) => UnixStream::connect(path).await.map(drop),
        }
    };
    let is_elsewhere = matches!(address, Address::Tcp(address) if !address.ip().is_loopback());
    let Ok(connected) = timeout(CONNECT_TIME, connected).await else {
        return is_elsewhere.then_some(ProbeFailure::TimedOut);
    };
    let error = connected.err()?;
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Some(ProbeFailure::Refused),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Some(broken(&error)),
        _ => None,
    }
}

async fn attempt(address: &Address, check: &HealthCheck, limit: Duration) -> Option<ProbeFailure> {
    let verdict = async {
        match address {
            Address::Tcp(address) => check_over(TcpStream::connect(address).await, check).await,
            Address::Unix(path) => check_over(UnixStream::connect(path).await, check).await,
        }
    };
    match timeout(limit, verdict).await {
        Ok(verdict) => verdict.err(),
        Err(_) => Some(ProbeFailure::TimedOut),
    }
}

async fn check_over<S>(stream: io::Result<S>, check: &HealthCheck) -> Result<(), ProbeFailure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = stream.map_err(|error| match error.kind() {
        // A socket that is not there yet is as a port that nobody listens on.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => ProbeFailure::Refused,
        io::ErrorKind::TimedOut => ProbeFailure::TimedOut,
        _ => broken(&error),
    })?;
    let (path, healthy): (&str, fn(StatusCode) -> bool) = match check {
        HealthCheck::Tcp | HealthCheck::Passive => return Ok(()),
        HealthCheck::Any => ("/", |status| status.as_u16() < 500),
        HealthCheck::Http { path } => (path, |status| (200..400).contains(&status.as_u16())),
    };
    let status = get(stream, path).await?;
    if healthy(status) {
        Ok(())
    } else {
        Err(ProbeFailure::Status(status.as_u16()))
    }
}

async fn get<S>(stream: S, path: &str) -> Result<StatusCode, ProbeFailure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(|error| broken(&error))?;
    let request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(HOST, "localhost")
        .header(USER_AGENT, AGENT)
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| broken(&error))?;
    // Driven here rather than in a task of its own: dropped together, nothing is left behind. The
    // body is not read.
    tokio::pin!(connection);
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => answer.map(|answer| answer.status()).map_err(|error| broken(&error)),
        end = &mut connection => {
            // The answer may have come with the end of the connection.
            match futures::FutureExt::now_or_never(answer) {
                Some(Ok(answer)) => Ok(answer.status()),
                _ => Err(end.err().map_or_else(
                    || ProbeFailure::Broken("closed without an answer".to_owned()),
                    |error| broken(&error),
                )),
            }
        }
    }
}

fn broken(error: &(dyn std::error::Error + 'static)) -> ProbeFailure {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    ProbeFailure::Broken(
        text.chars()
            .filter(|c| !c.is_control())
            .take(MAX_REASON)
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use temps_ipc::id::InstanceId;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, UnixListener};

    /// Answers every connection with `answer` after its request head.
    async fn server(answer: &'static str) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut head = [0; 2048];
                    let length = stream.read(&mut head).await.unwrap();
                    let head = String::from_utf8_lossy(&head[..length]).into_owned();
                    assert!(head.is_empty() || head.contains(AGENT), "{head}");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                });
            }
        });
        Address::Tcp(address)
    }

    async fn refusing() -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Address::Tcp(listener.local_addr().unwrap())
    }

    fn http(path: &str) -> HealthCheck {
        HealthCheck::Http {
            path: path.to_owned(),
        }
    }

    #[tokio::test]
    async fn each_way_to_fail_has_its_class() {
        let ok = server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        let missing = server("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
        let error = server("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n").await;
        let moved = server("HTTP/1.1 301 Moved\r\nLocation: https://elsewhere/\r\n\r\n").await;
        let garbage = server("220 smtp ready\r\n").await;
        let closes = server("").await;
        for (address, check, expected) in [
            (&ok, http("/up"), None),
            (&ok, HealthCheck::Any, None),
            (&ok, HealthCheck::Tcp, None),
            (&missing, http("/up"), Some(ProbeFailure::Status(404))),
            (&missing, HealthCheck::Any, None),
            (&moved, http("/up"), None),
            (&error, HealthCheck::Any, Some(ProbeFailure::Status(500))),
            (&error, HealthCheck::Tcp, None),
        ] {
            assert_eq!(once(address, &check).await, expected, "{address} {check:?}");
        }
        for address in [&garbage, &closes] {
            let failure = once(address, &HealthCheck::Any).await;
            assert!(
                matches!(failure, Some(ProbeFailure::Broken(_))),
                "{failure:?}"
            );
        }
        assert_eq!(
            once(&refusing().await, &HealthCheck::Tcp).await,
            Some(ProbeFailure::Refused)
        );
        let nowhere = Address::Unix("/nonexistent/socket".into());
        assert_eq!(
            once(&nowhere, &HealthCheck::Any).await,
            Some(ProbeFailure::Refused)
        );
    }

    /// Somebody whose queue is full, so that a connection is neither made nor refused.
    async fn full() -> (Address, Vec<TcpStream>, tokio::net::TcpListener) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        let soon = Duration::from_millis(300);
        while let Ok(Ok(stream)) = timeout(soon, TcpStream::connect(address)).await {
            waiting.push(stream);
        }
        (Address::Tcp(address), waiting, listener)
    }

    #[tokio::test]
    async fn only_a_definite_no_means_that_nobody_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().join("here.sock");
        let _listener = UnixListener::bind(&here).unwrap();
        let left = dir.path().join("left.sock");
        drop(UnixListener::bind(&left).unwrap());
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let full = full().await;
        for (address, expected) in [
            (refusing().await, Some(ProbeFailure::Refused)),
            (Address::Unix(left), Some(ProbeFailure::Refused)),
            (
                Address::Unix(dir.path().join("none.sock")),
                Some(ProbeFailure::Refused),
            ),
            (Address::Unix(here), None),
            (Address::Tcp(silent.local_addr().unwrap()), None),
            (Address::Unix("/etc/passwd/x".into()), None),
            (full.0, None),
        ] {
            assert_eq!(absence(&address).await, expected, "{address}");
        }
        // Of documentation (RFC 5737): there is no route, or nobody answers.
        let nowhere = Address::Tcp("192.0.2.1:80".parse().unwrap());
        assert!(absence(&nowhere).await.is_some());
    }

    #[tokio::test]
    async fn silence_is_a_time_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        let failure = attempt(&address, &HealthCheck::Any, Duration::from_millis(80)).await;
        assert_eq!(failure, Some(ProbeFailure::TimedOut));
    }

    #[tokio::test]
    async fn a_target_that_comes_up_late_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.sock");
        let target = Target {
            id: InstanceId::fresh(),
            address: Address::Unix(path.clone()),
            check: http("/health"),
        };
        let late = tokio::spawn(async move {
            sleep(Duration::from_millis(120)).await;
            let listener = UnixListener::bind(path).unwrap();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
            }
        });
        let interval = Duration::from_millis(20);
        let outcome = until_healthy(
            std::slice::from_ref(&target),
            Duration::from_secs(10),
            interval,
        )
        .await;
        assert_eq!(
            outcome,
            [ProbeOutcome {
                target: target.id,
                failure: None
            }]
        );
        late.abort();
    }

    #[tokio::test]
    async fn the_last_failure_is_reported_when_the_time_is_over() {
        let target = Target {
            id: InstanceId::fresh(),
            address: refusing().await,
            check: HealthCheck::Any,
        };
        let limit = Duration::from_millis(60);
        let outcome = until_healthy(&[target], limit, Duration::from_millis(10)).await;
        assert_eq!(outcome[0].failure, Some(ProbeFailure::Refused));
    }

    #[test]
    fn paths_that_cannot_be_sent_are_refused() {
        assert!(check_path(&http("/health?deep=1")).is_ok());
        for path in ["", "health", "/a b", "/a\r\nX: y", "/é", "/#x", "http://x/"] {
            assert!(check_path(&http(path)).is_err(), "{path:?}");
        }
    }
}
