//! The generator against servers that behave, and servers that do not.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::tls::testing;

const MILLI: Duration = Duration::from_millis(1);

/// Serves each connection with `serve`, which is told the connection's number.
async fn server<F, S>(serve: S) -> SocketAddr
where
    S: Fn(TcpStream, u64) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.expect("a connection");
            tokio::spawn(serve(stream, number));
        }
    });
    addr
}

fn answer(release: &str, status: u16) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header("x-release", release)
        .body(Full::new(Bytes::from_static(b"hello")))
        .expect("a response")
}

/// A server that answers every request with `respond(number of the request)`.
async fn hyper_server(
    respond: impl Fn(u64) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
) -> SocketAddr {
    let count = Arc::new(AtomicU64::new(0));
    server(move |stream, _| {
        let (count, respond) = (count.clone(), respond.clone());
        async move {
            let service = service_fn(move |_: Request<Incoming>| {
                let response = respond(count.fetch_add(1, Ordering::Relaxed));
                async move { Ok::<_, Infallible>(response) }
            });
            // A client that goes away is no failure of the server.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
    .await
}

/// Reads one request's head; false at the end of the connection.
async fn read_head(stream: &mut TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    true
}

async fn write(stream: &mut TcpStream, text: &str) {
    let _ = stream.write_all(text.as_bytes()).await;
}

const PLAIN: &str = "HTTP/1.1 200 OK\r\nX-Release: r\r\nContent-Length: 2\r\n\r\nok";
const LAST: &str =
    "HTTP/1.1 200 OK\r\nX-Release: r\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";

fn spec(addr: SocketAddr) -> LoadSpec {
    LoadSpec {
        timeout: 500 * MILLI,
        ..LoadSpec::new(addr, "app.localhost:8080")
    }
}

fn only_kept(addr: SocketAddr) -> LoadSpec {
    LoadSpec {
        new_conn_rps: 0,
        ..spec(addr)
    }
}

async fn run(spec: LoadSpec, millis: u32) -> Report {
    let load = Load::start(spec).expect("it starts");
    sleep(MILLI * millis).await;
    let report = load.stop().await;
    assert_eq!(report.sent, report.ok + report.failed_total, "{report}");
    report
}

fn kinds(report: &Report) -> Vec<FailureKind> {
    let mut kinds: Vec<_> = report.failed.iter().map(|failure| failure.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

#[tokio::test]
async fn every_answer_is_counted_under_its_release_and_the_rate_is_kept() {
    let addr = hyper_server(|_| answer("rel_1", 200)).await;
    let report = run(spec(addr), 1000).await;
    report.assert_no_failure();
    // 250 a second; a busy machine may shift the second, never lose half of it.
    assert!((150..=350).contains(&report.sent), "{report}");
    assert_eq!(report.answers_from("rel_1"), report.sent);
    assert_eq!(report.latencies.count(), report.ok);
    // About 50 of their own, and 20 that are kept.
    assert!((40..=110).contains(&report.connections), "{report}");
}

#[tokio::test]
async fn answers_are_told_apart_by_when_their_request_started() {
    let addr = hyper_server(|n| answer(if n < 50 { "old" } else { "new" }, 200)).await;
    let begun = Instant::now();
    let report = run(spec(addr), 600).await;
    let switched = report.by_release["new"].first_seen;
    assert_eq!(report.answers_from_after("old", begun), 50);
    assert_eq!(report.answers_from_after("old", switched), 0);
    assert!(report.answers_from_after("new", switched) > 0, "{report}");
    assert!(report.by_release["old"].last_start < switched);
    assert_eq!(report.answers_from_after("never seen", begun), 0);
}

#[tokio::test]
async fn a_close_after_the_request_was_written_is_a_failure() {
    let addr = server(|mut stream, number| async move {
        // Every other connection dies on its third request.
        let mut answered = 0;
        while read_head(&mut stream).await && (number % 2 == 0 || answered < 2) {
            write(&mut stream, PLAIN).await;
            answered += 1;
        }
    })
    .await;
    let report = run(only_kept(addr), 600).await;
    assert!(report.failed_total > 0 && report.ok > 0, "{report}");
    assert_eq!(kinds(&report), [FailureKind::Closed], "{report}");
    assert!(
        report
            .failed
            .iter()
            .all(|failure| failure.path == Path::KeepAlive)
    );
}

#[tokio::test]
async fn a_reset_is_a_failure() {
    let addr = server(|mut stream, _| async move {
        // Closing with unread bytes sends a reset.
        let _ = stream.read_u8().await;
    })
    .await;
    let report = run(spec(addr), 300).await;
    assert_eq!(
        (report.ok, kinds(&report)),
        (0, vec![FailureKind::Closed]),
        "{report}"
    );
}

#[tokio::test]
async fn an_announced_close_is_no_failure() {
    let addr = server(|mut stream, _| async move {
        for text in [PLAIN, PLAIN, LAST] {
            if read_head(&mut stream).await {
                write(&mut stream, text).await;
            }
        }
    })
    .await;
    let report = run(only_kept(addr), 600).await;
    report.assert_no_failure();
    assert!(report.announced_closes > 10, "{report}");
    assert_eq!(report.idle_closes, 0, "{report}");
}

#[tokio::test]
async fn an_idle_close_that_is_noticed_in_time_is_no_failure() {
    let addr = server(|mut stream, _| async move {
        // Its next turn comes a second later.
        read_head(&mut stream).await;
        write(&mut stream, PLAIN).await;
        sleep(20 * MILLI).await;
    })
    .await;
    let report = run(
        LoadSpec {
            keepalive_rps: 20,
            keepalive_conns: 20,
            ..only_kept(addr)
        },
        1500,
    )
    .await;
    report.assert_no_failure();
    assert!(report.idle_closes > 0, "{report}");
}

#[tokio::test]
async fn a_close_that_arrived_before_the_request_was_written_is_no_failure() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        // One request on each connection, and an end that nobody announced.
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(PLAIN.as_bytes());
            // Long enough for the client to see the connection idle first.
            std::thread::sleep(100 * MILLI);
        }
    });
    let report = Arc::new(Mutex::new(Report::new(Instant::now())));
    let client = Client::new(
        &LoadSpec {
            keepalive_conns: 1,
            ..spec(addr)
        },
        report,
    );
    let client = client.expect("a client");
    client.on_kept(&mut None).await.expect("an answer");
    // The close arrives while nothing runs here, as on a machine that is too busy.
    std::thread::sleep(300 * MILLI);
    client
        .on_kept(&mut None)
        .await
        .expect("an answer on another connection");
    let report = client.report();
    assert_eq!((report.idle_closes, report.connections), (1, 2), "{report}");
}

#[tokio::test]
async fn a_new_connection_closed_before_its_request_is_a_failure() {
    let addr = server(|_, _| async {}).await;
    let report = run(spec(addr), 300).await;
    assert_eq!(
        (report.ok, kinds(&report)),
        (0, vec![FailureKind::Closed]),
        "{report}"
    );
    assert_eq!(report.idle_closes, 0, "{report}");
}

#[tokio::test]
async fn a_silent_server_times_out_and_does_not_slow_the_load() {
    let addr = server(|mut stream, _| async move { while read_head(&mut stream).await {} }).await;
    let report = run(spec(addr), 1000).await;
    assert_eq!(
        (report.ok, kinds(&report)),
        (0, vec![FailureKind::Timeout]),
        "{report}"
    );
    assert!((150..=350).contains(&report.sent), "{report}");
    // Every request needed a connection of its own.
    assert_eq!(report.connections, report.sent, "{report}");
}

#[tokio::test]
async fn a_status_is_a_failure_and_still_an_answer_of_its_release() {
    let addr = hyper_server(|n| answer("rel_1", if n == 7 { 503 } else { 200 })).await;
    let report = run(spec(addr), 300).await;
    assert_eq!(report.failed_total, 1, "{report}");
    assert_eq!(report.failed[0].kind, FailureKind::Status(503));
    assert_eq!(report.failed[0].what, "hello");
    assert_eq!(report.answers_from("rel_1"), report.sent);
}

#[tokio::test]
async fn a_body_that_ends_early_is_a_failure() {
    let addr = server(|mut stream, _| async move {
        read_head(&mut stream).await;
        write(
            &mut stream,
            "HTTP/1.1 200 OK\r\nX-Release: r\r\nContent-Length: 9\r\n\r\nhalf",
        )
        .await;
    })
    .await;
    let report = run(spec(addr), 300).await;
    assert_eq!(
        (report.ok, kinds(&report)),
        (0, vec![FailureKind::Body]),
        "{report}"
    );
    assert_eq!(report.answers_from("r"), report.sent);
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_a_failure() {
    let addr = server(|mut stream, _| async move {
        read_head(&mut stream).await;
        write(&mut stream, "SSH-2.0-OpenSSH\r\n\r\n").await;
    })
    .await;
    assert_eq!(kinds(&run(spec(addr), 200).await), [FailureKind::Protocol]);
}

#[tokio::test]
async fn nobody_listening_is_a_failure() {
    let addr = TcpListener::bind("127.0.0.1:0")
        .await
        .and_then(|listener| listener.local_addr())
        .expect("a free port");
    assert_eq!(kinds(&run(spec(addr), 200).await), [FailureKind::Connect]);
}

#[tokio::test]
async fn tls_is_checked_against_the_ca_and_the_name() {
    let (config, ca) = testing::server("app.localhost");
    let addr = server(move |stream, _| {
        let acceptor = TlsAcceptor::from(config.clone());
        async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = service_fn(|_: Request<Incoming>| async {
                Ok::<_, Infallible>(answer("secure", 200))
            });
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
    .await;
    let trusting = LoadSpec {
        tls: Some(ca),
        timeout: 5000 * MILLI,
        ..spec(addr)
    };
    let report = run(trusting.clone(), 400).await;
    report.assert_no_failure();
    assert_eq!(report.answers_from("secure"), report.sent);

    let wrong_name = LoadSpec {
        host: "other.localhost".to_owned(),
        ..trusting
    };
    assert_eq!(kinds(&run(wrong_name, 200).await), [FailureKind::Tls]);
    let wrong_ca = LoadSpec {
        tls: Some(testing::server("x").1),
        ..spec(addr)
    };
    assert_eq!(kinds(&run(wrong_ca, 200).await), [FailureKind::Tls]);
}

#[tokio::test]
async fn what_happened_so_far_is_seen_while_it_runs() {
    let addr = hyper_server(|_| answer("rel_1", 200)).await;
    let load = Load::start(spec(addr)).expect("it starts");
    let end = Instant::now() + Duration::from_secs(10);
    while load.so_far().answers_from("rel_1") < 20 {
        assert!(Instant::now() < end, "{}", load.so_far());
        sleep(5 * MILLI).await;
    }
    load.stop().await.assert_no_failure();
}

#[test]
fn a_test_without_a_runtime_can_stop_it() {
    let load = Load::start(spec(([127, 0, 0, 1], 1).into())).expect("it starts");
    std::thread::sleep(50 * MILLI);
    let report = load.stop_blocking();
    assert!(report.failed_total > 0, "{report}");
}
