//! What HTTP/1 clients may and may not do, and what passes through untouched.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use futures::FutureExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_two_readings_are_refused_and_never_forwarded() {
    let proxy = proxy().await;
    let app = says("ok").await;
    proxy
        .apply(vec![route("a.test", "/", &[&app.target])])
        .await
        .unwrap();
    let large = format!(
        "GET / HTTP/1.1\r\nHost: a.test\r\nX: {}\r\n\r\n",
        "x".repeat(40_000)
    );
    for (request, status) in [
        (
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
            400,
        ),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a.test\n\n", 400),
        ("GET /a b HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        (
            "GET / HTTP/1.1\r\nHost: a.test\r\nHost: a.test\r\n\r\n",
            400,
        ),
        ("GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x@a.test\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a.test\r\n folded: x\r\n\r\n", 400),
        ("CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\n\r\n", 405),
        ("GET / HTTP/3.0\r\nHost: a.test\r\n\r\n", 505),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\n", 400),
        (&large, 431),
    ] {
        let text = proxy.raw(request).await;
        let answer = Answer::parse(&text);
        let shown = &request[..request.len().min(80)];
        assert_eq!(answer.status, status, "{shown:?}: {text}");
        assert_eq!(answer.header("connection"), Some("close"), "{shown:?}");
        assert!(!text.to_ascii_lowercase().contains("pingora"), "{text}");
    }
    assert_eq!(app.requests.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_of_an_answer_is_ours() {
    let proxy = proxy().await;
    let app = writes("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    proxy
        .apply(vec![route("a.test", "/", &[&app.target])])
        .await
        .unwrap();
    let mut stream = proxy.connect().await;
    // The connection is kept, which an answer of HTTP/1.0 would forbid.
    for _ in 0..2 {
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
            .await
            .unwrap();
        let mut start = [0; 12];
        stream.peek(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
        assert_eq!(read_answer(&mut stream).await.unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_trickles_in_is_cut_off_by_the_clock() {
    let mut settings = settings();
    settings.timeouts.client_header = Duration::from_millis(300);
    let proxy = proxy_with(settings).await;
    let mut stream = proxy.connect().await;
    let trickle = async {
        for byte in b"GET / HTTP/1.1\r\nHost: a.test\r\nX: "
            .iter()
            .chain([b'x'].iter().cycle())
        {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mut answer = [0; 256];
            if let Some(Ok(read)) = stream.read(&mut answer).now_or_never() {
                return String::from_utf8_lossy(&answer[..read]).into_owned();
            }
        }
        String::new()
    };
    let answer = timeout(PATIENCE, trickle)
        .await
        .expect("the proxy does not wait for ever");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_after_its_time() {
    let mut settings = settings();
    settings.timeouts.client_idle = Duration::from_millis(100);
    let proxy = proxy_with(settings).await;
    let mut stream = proxy.connect().await;
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("closed")
        .unwrap();
    assert!(rest.is_empty());
}

/// Answers 101 and then sends everything back.
fn echoing() -> Handler {
    Arc::new(|head, mut stream| {
        async move {
            assert!(head.to_ascii_lowercase().contains("upgrade: websocket"), "{head}");
            let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.ok()?;
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
            None
        }
        .boxed()
    })
}

/// Opens a WebSocket to the app at `a.test`.
async fn websocket(proxy: &Proxy) -> TcpStream {
    let mut stream = proxy.connect().await;
    let request = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101 "),
        "{}",
        String::from_utf8_lossy(&head)
    );
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_passes_and_lives_through_a_swap() {
    let proxy = proxy().await;
    let (app, next) = (upstream(echoing()).await, says("next").await);
    proxy
        .apply(vec![route("a.test", "/", &[&app.target])])
        .await
        .unwrap();
    let mut stream = websocket(&proxy).await;
    for round in 0..3_u8 {
        let frame = [0x81, 5, b'h', b'e', b'l', b'l', round];
        stream.write_all(&frame).await.unwrap();
        let mut back = [0; 7];
        timeout(PATIENCE, stream.read_exact(&mut back))
            .await
            .expect("an echo")
            .unwrap();
        assert_eq!(back, frame);
        if round == 0 {
            proxy
                .apply(vec![route("a.test", "/", &[&next.target])])
                .await
                .unwrap();
            let drain = proxy
                .drained(&app.target.id, Duration::from_millis(10))
                .await;
            assert_eq!(drain.leases, 1, "an open WebSocket holds its target");
        }
    }
    drop(stream);
    assert_eq!(proxy.drained(&app.target.id, PATIENCE).await.leases, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_websocket_stays_open() {
    let mut settings = settings();
    // As long as a client that sends a body may pause, which this one does not.
    settings.timeouts.client_body = Duration::from_millis(100);
    let proxy = proxy_with(settings).await;
    let app = upstream(echoing()).await;
    proxy
        .apply(vec![route("a.test", "/", &[&app.target])])
        .await
        .unwrap();
    let mut stream = websocket(&proxy).await;
    let silence = Duration::from_millis(500);
    let end = timeout(silence, stream.read_u8()).await;
    assert!(end.is_err(), "it ended: {end:?}");
    stream.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    timeout(PATIENCE, stream.read_exact(&mut back))
        .await
        .expect("an echo")
        .unwrap();
    assert_eq!(&back, b"ping");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_that_is_cut_off_gets_no_page() {
    let mut settings = settings();
    settings.timeouts.stream = Duration::from_millis(100);
    let proxy = proxy_with(settings).await;
    let app = upstream(echoing()).await;
    proxy
        .apply(vec![route("a.test", "/", &[&app.target])])
        .await
        .unwrap();
    let mut stream = websocket(&proxy).await;
    let mut rest = Vec::new();
    // However it ends: what counts is what came before.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("it is cut off");
    assert_eq!(String::from_utf8_lossy(&rest), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_one_by_one_as_they_are_sent() {
    let proxy = proxy().await;
    let (go, wait) = tokio::sync::watch::channel(0);
    let app = upstream(Arc::new(move |_, mut stream| {
        let mut wait = wait.clone();
        async move {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).await.ok()?;
            for number in 1..=3 {
                wait.wait_for(|allowed| *allowed >= number).await.ok()?;
                let event = format!("data: {number}\n\n");
                stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await.ok()?;
            }
            stream.write_all(b"0\r\n\r\n").await.ok()?;
            None
        }
        .boxed()
    }))
    .await;
    proxy
        .apply(vec![route("a.test", "/", &[&app.target])])
        .await
        .unwrap();
    let mut stream = proxy.connect().await;
    let request = "GET /events HTTP/1.1\r\nHost: a.test\r\nAccept: text/event-stream\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    for number in 1..=3 {
        go.send_replace(number);
        let expected = format!("data: {number}\n\n");
        while !text.contains(&expected) {
            let mut part = [0; 512];
            let read = timeout(PATIENCE, stream.read(&mut part))
                .await
                .expect("an event before the next")
                .unwrap();
            assert!(read > 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&part[..read]));
        }
    }
}

/// Counts a chunked or sized body and answers with as many bytes.
fn mirror() -> Handler {
    Arc::new(|head, mut stream| {
        async move {
            let lower = head.to_ascii_lowercase();
            let length = lower
                .split("content-length: ")
                .nth(1)?
                .split("\r\n")
                .next()?
                .parse()
                .ok()?;
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.ok()?;
            stream
                .write_all(
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes(),
                )
                .await
                .ok()?;
            stream.write_all(&body).await.ok()?;
            Some(stream)
        }
        .boxed()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_both_ways_unchanged() {
    let proxy = proxy().await;
    let app = upstream(mirror()).await;
    proxy
        .apply(vec![route("a.test", "/", &[&app.target])])
        .await
        .unwrap();
    let body: Vec<u8> = (0..5_000_000_u32).map(|at| (at % 251) as u8).collect();
    let mut stream = proxy.connect().await;
    for _ in 0..2 {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let (mut from, mut to) = stream.split();
        let sending = async {
            to.write_all(head.as_bytes()).await.unwrap();
            to.write_all(&body).await.unwrap();
        };
        let receiving = async {
            let mut text = Vec::new();
            while !text.ends_with(b"\r\n\r\n") {
                text.push(from.read_u8().await.unwrap());
            }
            assert!(
                text.starts_with(b"HTTP/1.1 200"),
                "{}",
                String::from_utf8_lossy(&text)
            );
            let mut back = vec![0; body.len()];
            from.read_exact(&mut back).await.unwrap();
            back
        };
        let (_, back) = timeout(PATIENCE, async { tokio::join!(sending, receiving) })
            .await
            .expect("in time");
        assert!(back == body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_passes() {
    let proxy = proxy().await;
    let app = upstream(Arc::new(|head, mut stream| {
        async move {
            assert!(
                head.to_ascii_lowercase()
                    .contains("transfer-encoding: chunked"),
                "{head}"
            );
            let mut body = Vec::new();
            while !body.ends_with(b"0\r\n\r\n") {
                stream.read_buf(&mut body).await.ok()?;
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await
                .ok()?;
            Some(stream)
        }
        .boxed()
    }))
    .await;
    proxy
        .apply(vec![route("a.test", "/", &[&app.target])])
        .await
        .unwrap();
    let mut stream = proxy.connect().await;
    for _ in 0..2 {
        stream
            .write_all(b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.write_all(b"6\r\n world\r\n0\r\n\r\n").await.unwrap();
        assert_eq!(read_answer(&mut stream).await.unwrap().body, "ok");
    }
    // The next request comes in the same packet as the end of the body.
    let two =
        "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
            .repeat(2);
    stream.write_all(two.as_bytes()).await.unwrap();
    let mut text = String::new();
    while text.matches("\r\n\r\nok").count() < 2 {
        let mut part = [0; 1024];
        let read = timeout(PATIENCE, stream.read(&mut part))
            .await
            .expect("both answers")
            .unwrap();
        assert!(read > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&part[..read]));
    }
    let bad = "POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n";
    assert_eq!(Answer::parse(&proxy.raw(bad).await).status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_stay_without() {
    let proxy = proxy().await;
    let app = upstream(Arc::new(|head, mut stream| {
        async move {
            let answer = if head.starts_with("HEAD") {
                "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n"
            } else if head.contains("/204") {
                "HTTP/1.1 204 No Content\r\n\r\n"
            } else {
                "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n"
            };
            stream.write_all(answer.as_bytes()).await.ok()?;
            Some(stream)
        }
        .boxed()
    }))
    .await;
    proxy
        .apply(vec![route("a.test", "/", &[&app.target])])
        .await
        .unwrap();
    for (method, path, status) in [
        ("HEAD", "/", 200),
        ("GET", "/204", 204),
        ("GET", "/304", 304),
    ] {
        let answer = proxy.request(method, "a.test", path, "").await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (status, ""),
            "{method} {path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_the_target_closed_costs_no_request() {
    let proxy = proxy().await;
    // Says that it keeps the connection, and closes it.
    let app = writes("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    proxy
        .apply(vec![route("a.test", "/", &[&app.target])])
        .await
        .unwrap();
    for _ in 0..20 {
        assert_eq!(proxy.get("a.test", "/").await.body, "ok");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_of_a_request_has_no_query_and_no_secret() {
    let proxy = proxy().await;
    let app = says("hello").await;
    proxy
        .apply(vec![route("a.test", "/", &[&app.target])])
        .await
        .unwrap();
    let lines =
        "User-Agent: tester\r\nReferer: https://from.test/private?x=1\r\nCookie: id=secret\r\n";
    proxy
        .request("GET", "a.test", "/path?token=secret", lines)
        .await;
    proxy.get("b.test", "/none").await;
    let (_, state) = proxy.stop().await;
    let mut events = Vec::new();
    for entry in std::fs::read_dir(state.path().join("spool")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("secret"));
        let mut rest = &bytes[8..];
        while let Some((event, length)) = temps_proxy::spool::record::read(rest) {
            events.push(event);
            rest = &rest[length..];
        }
    }
    assert_eq!(events.len(), 2, "probes are left out: {events:?}");
    let event = &events[0];
    assert_eq!(
        (event.path.as_str(), event.status, event.bytes_out),
        ("/path", 200, 5)
    );
    assert_eq!(
        (event.user_agent.as_str(), event.referer_host.as_str()),
        ("tester", "from.test")
    );
    assert_eq!((event.app.as_deref(), event.tls), (Some("app"), false));
    assert_eq!((events[1].status, events[1].app.as_deref()), (404, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_before_the_body_was_sent_can_be_read() {
    let proxy = proxy().await;
    let root = tempfile::tempdir().unwrap();
    proxy
        .apply(vec![site("s.test", root.path().to_owned(), false)])
        .await
        .unwrap();
    for framing in ["Content-Length: 900000", "Transfer-Encoding: chunked"] {
        let mut stream = proxy.connect().await;
        let head = format!("POST / HTTP/1.1\r\nHost: s.test\r\n{framing}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut from, mut to) = stream.split();
        let sending = async {
            for _ in 0..90 {
                if to.write_all(&[b'x'; 10_000]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let receiving = async {
            let mut text = String::new();
            from.read_to_string(&mut text).await.map(|_| text)
        };
        let (_, text) = timeout(PATIENCE, async { tokio::join!(sending, receiving) })
            .await
            .expect("in time");
        let text = text.expect("no reset");
        assert!(text.starts_with("HTTP/1.1 405 "), "{framing}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_about_the_connection_to_the_target_stay_there() {
    let proxy = proxy().await;
    let app = writes(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nX-App: yes\r\n\r\nok",
    )
    .await;
    proxy
        .apply(vec![route("a.test", "/", &[&app.target])])
        .await
        .unwrap();
    let answer = proxy.get("a.test", "/").await;
    assert_eq!(answer.header("x-app"), Some("yes"));
    assert_eq!(
        (answer.header("keep-alive"), answer.header("upgrade")),
        (None, None)
    );
}
