//! TLS: whose certificate, which protocol, and who is turned away.

use crate::support::{Answer, PATIENCE, Proxy, ask, read_answer, says, says_after, tls, until};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::time::Duration;
use temps_unit::exit::Exit;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn each_routed_host_has_a_certificate_of_the_local_authority() {
    let proxy = Proxy::new().await;
    let (a, b) = (says("a").await, says("b").await);
    proxy
        .serve([("a.test", &a.target), ("b.test", &b.target)])
        .await;
    for host in ["a.test", "b.test"] {
        let mut stream = tls(&proxy, host, &["http/1.1"]).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text).await;
        assert_eq!(Answer::parse(&text).body, host[..1]);
    }
    let head = a.head();
    assert!(
        head.contains("x-forwarded-proto: https\r\n") && head.contains("x-forwarded-port: 443\r\n"),
        "{head}"
    );
    let kept = || std::fs::read_dir(proxy.state.path().join("certificates")).unwrap();
    until(|| kept().count() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_routed_gets_no_handshake() {
    let proxy = Proxy::new().await;
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
    let proxy = Proxy::new().await;
    let (a, b) = (says("a").await, says("b").await);
    proxy
        .serve([("a.test", &a.target), ("b.test", &b.target)])
        .await;
    let mut stream = tls(&proxy, "a.test", &[]).await.unwrap();
    ask(&mut stream, "b.test").await;
    assert_eq!(read_answer(&mut stream).await.unwrap().status, 421);
    ask(&mut stream, "a.test").await;
    assert_eq!(read_answer(&mut stream).await.unwrap().body, "a");
    assert_eq!(b.asked(), 0);
}

type Sender = http2::SendRequest<Full<Bytes>>;

/// An HTTP/2 connection to `a.test`, agreed on out of `protocols`, and the task that drives it.
async fn http2(proxy: &Proxy, protocols: &[&str]) -> (Sender, JoinHandle<hyper::Result<()>>) {
    let stream = tls(proxy, "a.test", protocols).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    (sender, tokio::spawn(connection))
}

/// The status and the body of the answer.
fn send(
    sender: &Sender,
    request: Request<Full<Bytes>>,
) -> impl Future<Output = (u16, String)> + use<> {
    let mut sender = sender.clone();
    async move {
        let answer = sender.send_request(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_carries_many_requests_over_one_connection_and_a_swap() {
    let proxy = Proxy::new().await;
    let (old, new) = (says("old").await, says("new").await);
    proxy.serve([("a.test", &old.target)]).await;
    let (sender, driver) = http2(&proxy, &["h2", "http/1.1"]).await;
    let get = |path: &str| {
        let request = Request::get(format!("https://a.test{path}"));
        send(&sender, request.body(Full::default()).unwrap())
    };
    let answers = futures::future::join_all((0..20).map(|_| get("/x?y=%20"))).await;
    assert_eq!(answers, vec![(200, "old".to_owned()); 20]);
    let head = old.head();
    assert!(
        head.starts_with("get /x?y=%20 http/1.1\r\n") && head.contains("host: a.test\r\n"),
        "{head}"
    );
    proxy.serve([("a.test", &new.target)]).await;
    assert_eq!(get("/").await, (200, "new".to_owned()));
    assert_eq!(proxy.drained(&old.target.id, PATIENCE).await.leases, 0);
    driver.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_answers_the_http2_request_in_flight() {
    let proxy = Proxy::new().await;
    let slow = says_after(Duration::from_millis(700), "slow").await;
    proxy.serve([("a.test", &slow.target)]).await;
    let (sender, driver) = http2(&proxy, &["h2"]).await;
    let request = Request::post("https://a.test/").body("body".into());
    let answer = tokio::spawn(send(&sender, request.unwrap()));
    until(|| slow.asked() == 1).await;
    let (exit, _) = proxy.stop().await;
    assert_eq!(exit, Exit::Success);
    assert_eq!(answer.await.unwrap(), (200, "slow".to_owned()));
    driver.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_never_comes_is_cut_off() {
    let proxy =
        Proxy::with(|settings| settings.timeouts.handshake = Duration::from_millis(150)).await;
    let mut stream = TcpStream::connect(proxy.https).await.unwrap();
    let mut rest = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    assert!(end.is_ok() && rest.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_http2_connection_is_closed_but_not_one_with_a_slow_request() {
    let proxy =
        Proxy::with(|settings| settings.timeouts.client_idle = Duration::from_millis(100)).await;
    let slow = says_after(Duration::from_millis(700), "slow").await;
    proxy.serve([("a.test", &slow.target)]).await;
    let (sender, driver) = http2(&proxy, &["h2"]).await;
    let request = Request::get("https://a.test/").body(Full::default());
    let answer = send(&sender, request.unwrap()).await;
    assert_eq!(answer, (200, "slow".to_owned()));
    let end = timeout(PATIENCE, driver).await;
    assert!(end.is_ok(), "the proxy closes it");
}
