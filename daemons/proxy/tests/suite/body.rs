//! Bodies of requests and answers pass unchanged, as they come.

use crate::support::{Answer, Handler, PATIENCE, Proxy, read_answer, site, upstream};
use futures::FutureExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_one_by_one_as_they_are_sent() {
    let proxy = Proxy::new().await;
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
    proxy.serve([("a.test", &app.target)]).await;
    let mut stream = proxy.connect().await;
    let request = "GET /events HTTP/1.1\r\nHost: a.test\r\nAccept: text/event-stream\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    for number in 1..=3 {
        go.send_replace(number);
        let expected = format!("data: {number}\n\n");
        while !text.contains(&expected) {
            let mut part = [0; 512];
            let read = timeout(PATIENCE, stream.read(&mut part)).await;
            let read = read.expect("an event before the next").unwrap();
            assert!(read > 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&part[..read]));
        }
    }
}

/// Answers with the body that it was sent.
fn mirror() -> Handler {
    Arc::new(|head, mut stream| {
        async move {
            let lower = head.to_ascii_lowercase();
            let length = lower.split("content-length: ").nth(1)?;
            let length = length.split("\r\n").next()?.parse().ok()?;
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await.ok()?;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.ok()?;
            stream.write_all(&body).await.ok()?;
            Some(stream)
        }
        .boxed()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_both_ways_unchanged() {
    let proxy = Proxy::new().await;
    let app = upstream(mirror()).await;
    proxy.serve([("a.test", &app.target)]).await;
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
    let proxy = Proxy::new().await;
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
    proxy.serve([("a.test", &app.target)]).await;
    let mut stream = proxy.connect().await;
    for _ in 0..2 {
        stream
            .write_all(b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            .await
            .unwrap();
        sleep(Duration::from_millis(20)).await;
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
    let proxy = Proxy::new().await;
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
    proxy.serve([("a.test", &app.target)]).await;
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
async fn an_answer_that_comes_before_the_body_was_sent_can_be_read() {
    let proxy = Proxy::new().await;
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
                sleep(Duration::from_millis(1)).await;
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
