//! The client against a server that tells what it was asked.

use super::*;
use crate::tls::testing;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

/// Answers with method, version and body of the request; on a thread that ends with the test.
fn echo_server(tls: Option<Arc<rustls::ServerConfig>>) -> SocketAddr {
    let (send, receive) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
                .await
                .expect("a port");
            send.send(listener.local_addr().expect("an address"))
                .expect("the test waits");
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let tls = tls.clone();
                tokio::spawn(async move {
                    let service = service_fn(echo);
                    let builder = auto::Builder::new(TokioExecutor::new());
                    if let Some(config) = tls {
                        let stream = TlsAcceptor::from(config).accept(stream).await;
                        let Ok(stream) = stream else { return };
                        let _ = builder
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    } else {
                        let _ = builder
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    }
                });
            }
        });
    });
    receive.recv().expect("the server started")
}

async fn echo(
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let head = format!(
        "{} {:?} {}\n",
        request.method(),
        request.version(),
        request.uri()
    );
    let sent = request.headers().get("x-sent").cloned();
    let body = request
        .into_body()
        .collect()
        .await
        .map(|body| body.to_bytes());
    let text = [head.as_bytes(), &body.unwrap_or_default()].concat();
    let mut response = hyper::Response::new(Full::new(Bytes::from(text)));
    if let Some(sent) = sent {
        response.headers_mut().insert("x-release", sent);
    }
    Ok(response)
}

#[test]
fn a_get_brings_status_headers_and_body() {
    let addr = echo_server(None);
    let response = Call::get(addr, "a.localhost:80", "/x?y")
        .header("x-sent", "rel_9")
        .send()
        .expect("an answer");
    assert_eq!((response.status, response.release()), (200, "rel_9"));
    assert_eq!(response.text(), "GET HTTP/1.1 /x?y\n");
    assert!(get(addr, "a.localhost", "/").is_ok());
}

#[test]
fn http2_goes_plain_and_over_tls() {
    let plain = Call::post(echo_server(None), "a.localhost:80", "/p", "body")
        .h2()
        .send();
    assert_eq!(
        plain.expect("an answer").text(),
        "POST HTTP/2.0 http://a.localhost:80/p\nbody"
    );
    let (config, ca) = testing::server("a.localhost");
    let addr = echo_server(Some(config));
    let secure = Call::get(addr, "a.localhost:443", "/s").tls(&ca);
    let over_h2 = secure.clone().h2().send().expect("an answer").text();
    assert_eq!(over_h2, "GET HTTP/2.0 https://a.localhost:443/s\n");
    assert_eq!(
        secure.send().expect("an answer").text(),
        "GET HTTP/1.1 /s\n"
    );
    let error = Call::get(addr, "b.localhost", "/")
        .tls(&ca)
        .send()
        .expect_err("another name");
    assert!(format!("{error:#}").contains("TLS"), "{error:#}");
}

#[tokio::test]
async fn a_call_blocks_inside_a_runtime_too() {
    assert_eq!(
        get(echo_server(None), "a", "/").expect("an answer").status,
        200
    );
}

#[test]
fn a_server_that_says_nothing_is_left_in_time() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("its address");
    let limit = Duration::from_millis(200);
    let begun = Instant::now();
    assert!(Call::get(addr, "a", "/").timeout(limit).send().is_err());
    assert_eq!(
        raw(addr, b"GET / HTTP/1.1\r\n\r\n", limit).expect("it connects"),
        b""
    );
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn raw_bytes_go_out_as_they_are() {
    let answer = raw(
        echo_server(None),
        b"nonsense\r\n\r\n",
        Duration::from_secs(5),
    );
    let answer = String::from_utf8_lossy(&answer.expect("it connects")).into_owned();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}
