//! TLS: whose certificate, which protocol, and who is turned away.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread")]
async fn each_routed_host_has_a_certificate_of_the_local_authority() {
    let proxy = proxy().await;
    let (a, b) = (says("a").await, says("b").await);
    proxy
        .apply(vec![
            route("a.test", "/", &[&a.target]),
            route("b.test", "/", &[&b.target]),
        ])
        .await
        .unwrap();
    for host in ["a.test", "b.test"] {
        let mut stream = tls(&proxy, host, &["http/1.1"]).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await;
        assert_eq!(Answer::parse(&text).body, host[..1]);
    }
    let head = a.heads.lock().unwrap()[0].to_ascii_lowercase();
    assert!(
        head.contains("x-forwarded-proto: https\r\n") && head.contains("x-forwarded-port: 443\r\n"),
        "{head}"
    );
    until(|| {
        std::fs::read_dir(proxy.state.path().join("certificates"))
            .unwrap()
            .count()
            == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_routed_gets_no_handshake() {
    let proxy = proxy().await;
    assert!(tls(&proxy, "unknown.test", &[]).await.is_err());
    assert!(
        tls(&proxy, "localhost", &[]).await.is_ok(),
        "the default certificate"
    );
    // An address is no name: the client sends none, and the default certificate does not fit it.
    assert!(tls(&proxy, "127.0.0.1", &[]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_for_one_host_is_not_used_for_another() {
    let proxy = proxy().await;
    let (a, b) = (says("a").await, says("b").await);
    proxy
        .apply(vec![
            route("a.test", "/", &[&a.target]),
            route("b.test", "/", &[&b.target]),
        ])
        .await
        .unwrap();
    let mut stream = tls(&proxy, "a.test", &[]).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: b.test\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(read_answer(&mut stream).await.unwrap().status, 421);
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(read_answer(&mut stream).await.unwrap().body, "a");
    assert_eq!(b.requests.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_carries_many_requests_over_one_connection_and_a_swap() {
    let proxy = proxy().await;
    let (old, new) = (says("old").await, says("new").await);
    proxy
        .apply(vec![route("a.test", "/", &[&old.target])])
        .await
        .unwrap();
    let stream = tls(&proxy, "a.test", &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) =
        http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let driver = tokio::spawn(connection);
    let ask = |path: &str| {
        let request = http::Request::get(format!("https://a.test{path}"))
            .body(Empty::new())
            .unwrap();
        let mut sender = sender.clone();
        async move {
            let answer = sender.send_request(request).await.unwrap();
            let status = answer.status().as_u16();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        }
    };
    let answers = futures::future::join_all((0..20).map(|_| ask("/x?y=%20"))).await;
    assert!(
        answers
            .iter()
            .all(|answer| *answer == (200, "old".to_owned())),
        "{answers:?}"
    );
    let head = old.heads.lock().unwrap()[0].to_ascii_lowercase();
    assert!(
        head.starts_with("get /x?y=%20 http/1.1\r\n") && head.contains("host: a.test\r\n"),
        "{head}"
    );
    proxy
        .apply(vec![route("a.test", "/", &[&new.target])])
        .await
        .unwrap();
    assert_eq!(ask("/").await, (200, "new".to_owned()));
    assert_eq!(proxy.drained(&old.target.id, PATIENCE).await.leases, 0);
    driver.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_answers_the_http2_request_in_flight() {
    let proxy = proxy().await;
    let slow = says_after(Duration::from_millis(700), "slow").await;
    proxy
        .apply(vec![route("a.test", "/", &[&slow.target])])
        .await
        .unwrap();
    let stream = tls(&proxy, "a.test", &["h2"]).await.unwrap();
    let (mut sender, connection) =
        http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let driver = tokio::spawn(connection);
    let request = http::Request::post("https://a.test/")
        .body(Full::new(Bytes::from_static(b"body")))
        .unwrap();
    let answer = tokio::spawn(async move {
        let answer = sender.send_request(request).await.unwrap();
        answer.into_body().collect().await.unwrap().to_bytes()
    });
    until(|| slow.requests.load(Ordering::SeqCst) == 1).await;
    let (exit, _) = proxy.stop().await;
    assert_eq!(exit, temps_unit::exit::Exit::Success);
    assert_eq!(answer.await.unwrap(), "slow");
    driver.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_never_comes_is_cut_off() {
    let mut settings = settings();
    settings.timeouts.handshake = Duration::from_millis(150);
    let proxy = proxy_with(settings).await;
    let mut stream = tokio::net::TcpStream::connect(proxy.https).await.unwrap();
    let mut rest = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    assert!(end.is_ok() && rest.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_http2_connection_is_closed_but_not_one_with_a_slow_request() {
    let mut settings = settings();
    settings.timeouts.client_idle = Duration::from_millis(100);
    let proxy = proxy_with(settings).await;
    let slow = says_after(Duration::from_millis(700), "slow").await;
    proxy
        .apply(vec![route("a.test", "/", &[&slow.target])])
        .await
        .unwrap();
    let stream = tls(&proxy, "a.test", &["h2"]).await.unwrap();
    let (mut sender, connection) =
        http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let driver = tokio::spawn(connection);
    let request = http::Request::get("https://a.test/")
        .body(Empty::new())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(
        answer.into_body().collect().await.unwrap().to_bytes(),
        "slow"
    );
    let end = tokio::time::timeout(PATIENCE, driver).await;
    assert!(end.is_ok(), "the proxy closes it");
}
