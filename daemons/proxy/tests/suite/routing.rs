//! Requests find their target, and learn about the client; failures get a page of ours.

use crate::support::{Proxy, ask, dead, read_answer, route, says, says_after, target, writes};
use std::time::Duration;
use temps_ipc::Code;
use temps_ipc::types::Address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread")]
async fn host_and_longest_prefix_choose_the_target() {
    let proxy = Proxy::new().await;
    let (web, api) = (says("web").await, says("api").await);
    proxy
        .apply(vec![
            route("a.test", "/", &[&web.target]),
            route("a.test", "/api", &[&api.target]),
        ])
        .await
        .unwrap();
    for (host, path, expected) in [
        ("a.test", "/", "web"),
        ("A.Test:8080", "/apix", "web"),
        ("a.test.", "/api/x?y=1", "api"),
    ] {
        let answer = proxy.get(host, path).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, expected),
            "{host}{path}"
        );
    }
    let unknown = proxy.get("b.test", "/").await;
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.header("server"), None);
    assert!(unknown.header("x-request-id").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_snapshot_everything_is_answered_with_a_page() {
    let proxy = Proxy::new().await;
    let answer = proxy
        .request("GET", "a.test", "/", "Accept: text/html\r\n")
        .await;
    assert_eq!(answer.status, 404);
    assert!(answer.body.starts_with("<!doctype html>"), "{answer:?}");
    assert_eq!(proxy.status().await.generation, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_target_learns_who_the_client_is_and_no_claim_of_the_client() {
    let proxy = Proxy::new().await;
    let app = says("ok").await;
    proxy.serve([("a.test", &app.target)]).await;
    let spoofed = "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-proto: https\r\nForwarded: for=6.6.6.6\r\n\
                   X-Real-IP: 6.6.6.6\r\nX-Request-Id: mine\r\nKeep-Alive: 5\r\nTE: trailers\r\nX-Kept: yes\r\n";
    let path = "/p%20a/%2F?q=a%20b&&c=%%&[x]=1";
    let answer = proxy.request("GET", "a.test:1234", path, spoofed).await;
    assert_eq!(answer.status, 200);
    let head = app.head();
    assert!(
        head.starts_with(&format!("get {} http/1.1\r\n", path.to_ascii_lowercase())),
        "{head}"
    );
    for line in [
        "x-forwarded-for: 127.0.0.1\r\n",
        "x-forwarded-proto: http\r\n",
        "x-forwarded-host: a.test:1234\r\n",
        "x-forwarded-port: 1234\r\n",
        "host: a.test:1234\r\n",
        "x-kept: yes\r\n",
    ] {
        assert!(head.contains(line), "{line} in {head}");
    }
    for part in [
        "6.6.6.6",
        "mine",
        "keep-alive: 5",
        "te: trailers",
        "forwarded: for",
    ] {
        assert!(!head.contains(part), "{part} in {head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_is_a_target_like_any_other() {
    let proxy = Proxy::new().await;
    let path = proxy.state.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let server = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nunix")
                .await;
        }
    });
    let target = target(Address::Unix(path));
    proxy.serve([("a.test", &target)]).await;
    assert_eq!(proxy.get("a.test", "/").await.body, "unix");
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_fails_is_answered_for_with_a_page_of_ours() {
    let proxy = Proxy::with(|settings| settings.timeouts.read = Duration::from_millis(200)).await;
    let dead = dead().await;
    let slow = says_after(Duration::from_secs(60), "slow").await;
    let garbage = writes("nonsense\r\n\r\n").await;
    let empty = writes("").await;
    proxy
        .serve([
            ("dead.test", &dead),
            ("slow.test", &slow.target),
            ("garbage.test", &garbage.target),
            ("empty.test", &empty.target),
        ])
        .await;
    for (host, status) in [
        ("dead.test", 502),
        ("slow.test", 504),
        ("garbage.test", 502),
        ("empty.test", 502),
    ] {
        let answer = proxy.get(host, "/").await;
        assert_eq!(answer.status, status, "{host}: {answer:?}");
        assert_eq!(answer.header("server"), None, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_target_is_stepped_over_while_another_lives() {
    let proxy = Proxy::new().await;
    let (dead, live) = (dead().await, says("live").await);
    proxy
        .apply(vec![route("a.test", "/", &[&dead, &live.target])])
        .await
        .unwrap();
    for _ in 0..6 {
        assert_eq!(proxy.get("a.test", "/").await.body, "live");
        let post = proxy
            .request("POST", "a.test", "/", "Content-Length: 0\r\n")
            .await;
        assert_eq!(
            post.body, "live",
            "nothing was sent, so a POST may go elsewhere too"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_kept_over_requests_and_pipelined_ones_are_answered_in_order() {
    let proxy = Proxy::new().await;
    let (a, b) = (says("aa").await, says("b").await);
    proxy
        .serve([("a.test", &a.target), ("b.test", &b.target)])
        .await;
    let mut stream = proxy.connect().await;
    for _ in 0..3 {
        ask(&mut stream, "a.test").await;
        assert_eq!(read_answer(&mut stream).await.unwrap().body, "aa");
    }
    let both = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n\
                POST / HTTP/1.1\r\nHost: b.test\r\nContent-Length: 3\r\n\r\nxyz\
                GET / HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n";
    stream.write_all(both.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let bodies: Vec<&str> = text
        .split("\r\n\r\n")
        .skip(1)
        .map(|part| part.split("HTTP/1.1").next().unwrap())
        .collect();
    assert_eq!(bodies, ["aa", "b", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_snapshot_is_refused_whole_and_the_old_one_serves() {
    let proxy = Proxy::new().await;
    let app = says("old").await;
    let old = || route("a.test", "/", &[&app.target]);
    proxy.apply_as(5, vec![old()]).await.unwrap();
    let fault = proxy.apply_as(6, vec![old(), old()]).await.unwrap_err();
    assert_eq!(fault.code, Code::Invalid);
    let fault = proxy.apply_as(4, vec![]).await.unwrap_err();
    assert_eq!(fault.code, Code::Busy);
    assert!(fault.what.contains('5'), "{fault:?}");
    assert_eq!(proxy.get("a.test", "/").await.body, "old");
    let (_, state) = proxy.stop().await;
    let again = Proxy::over(state).await;
    assert_eq!(again.status().await.generation, 5);
    assert_eq!(again.get("a.test", "/").await.body, "old");
}
