//! What HTTP/1 clients may and may not do, and what of it is recorded.

use crate::support::{Answer, PATIENCE, Proxy, ask, read_answer, says, writes};
use futures::FutureExt;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_two_readings_are_refused_and_never_forwarded() {
    let proxy = Proxy::new().await;
    let app = says("ok").await;
    proxy.serve([("a.test", &app.target)]).await;
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
    assert_eq!(app.asked(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_version_of_an_answer_is_ours() {
    let proxy = Proxy::new().await;
    let app = writes("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    proxy.serve([("a.test", &app.target)]).await;
    let mut stream = proxy.connect().await;
    // The connection is kept, which an answer of HTTP/1.0 would forbid.
    for _ in 0..2 {
        ask(&mut stream, "a.test").await;
        let mut start = [0; 12];
        stream.peek(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
        assert_eq!(read_answer(&mut stream).await.unwrap().status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_about_the_connection_to_the_target_stay_there() {
    let proxy = Proxy::new().await;
    let app = writes(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nX-App: yes\r\n\r\nok",
    )
    .await;
    proxy.serve([("a.test", &app.target)]).await;
    let answer = proxy.get("a.test", "/").await;
    assert_eq!(answer.header("x-app"), Some("yes"));
    assert_eq!(
        (answer.header("keep-alive"), answer.header("upgrade")),
        (None, None)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_trickles_in_is_cut_off_by_the_clock() {
    let proxy =
        Proxy::with(|settings| settings.timeouts.client_header = Duration::from_millis(300)).await;
    let mut stream = proxy.connect().await;
    let trickle = async {
        for byte in b"GET / HTTP/1.1\r\nHost: a.test\r\nX: "
            .iter()
            .chain([b'x'].iter().cycle())
        {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
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
    let proxy =
        Proxy::with(|settings| settings.timeouts.client_idle = Duration::from_millis(100)).await;
    let mut stream = proxy.connect().await;
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("closed")
        .unwrap();
    assert!(rest.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_that_the_target_closed_costs_no_request() {
    let proxy = Proxy::new().await;
    // Says that it keeps the connection, and closes it.
    let app = writes("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    proxy.serve([("a.test", &app.target)]).await;
    for _ in 0..20 {
        assert_eq!(proxy.get("a.test", "/").await.body, "ok");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_record_of_a_request_has_no_query_and_no_secret() {
    let proxy = Proxy::new().await;
    let app = says("hello").await;
    proxy.serve([("a.test", &app.target)]).await;
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
