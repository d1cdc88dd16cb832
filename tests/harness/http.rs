//! One request at a time, HTTP/1.1 or HTTP/2, plain or TLS, without retries and redirects.
//!
//! Each call runs on a thread and runtime of its own, so that it blocks in any test, async or not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{HOST, HeaderMap};
use hyper::{Method, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tls;

/// More than any sample app sends in a test.
const BODY_LIMIT: usize = 256 << 20;
/// For a whole exchange, unless [`Call::timeout`] says otherwise.
const LIMIT: Duration = Duration::from_secs(10);

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that name; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The release that answered; empty if the answer does not say.
    pub fn release(&self) -> &str {
        self.header("x-release")
    }

    /// The body as text, whatever it holds.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// It is not.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }
}

/// `GET path` over plain HTTP/1.1.
///
/// # Errors
/// No answer within 10 seconds, or not a whole one. A status is no error.
pub fn get(addr: SocketAddr, host: &str, path: &str) -> Result<Response> {
    Call::get(addr, host, path).send()
}

/// A request to be sent.
#[derive(Debug, Clone)]
pub struct Call {
    addr: SocketAddr,
    host: String,
    path: String,
    method: Method,
    headers: Vec<(String, String)>,
    body: Bytes,
    ca: Option<Vec<u8>>,
    is_h2: bool,
    timeout: Duration,
}

impl Call {
    /// A GET; `host` is the `Host` header (with its port) or `:authority`.
    pub fn get(addr: SocketAddr, host: &str, path: &str) -> Self {
        Self {
            addr,
            host: host.to_owned(),
            path: path.to_owned(),
            method: Method::GET,
            headers: Vec::new(),
            body: Bytes::new(),
            ca: None,
            is_h2: false,
            timeout: LIMIT,
        }
    }

    /// A POST with a body.
    pub fn post(addr: SocketAddr, host: &str, path: &str, body: impl Into<Bytes>) -> Self {
        Self {
            method: Method::POST,
            body: body.into(),
            ..Self::get(addr, host, path)
        }
    }

    #[must_use]
    pub fn method(self, method: Method) -> Self {
        Self { method, ..self }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Over TLS, trusting `ca` (PEM); the name asked for is the host without its port.
    #[must_use]
    pub fn tls(self, ca: &[u8]) -> Self {
        Self {
            ca: Some(ca.to_owned()),
            ..self
        }
    }

    /// As HTTP/2: chosen by ALPN over TLS, by prior knowledge without.
    #[must_use]
    pub fn h2(self) -> Self {
        Self {
            is_h2: true,
            ..self
        }
    }

    /// For the whole exchange.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sends it and waits for the whole answer.
    ///
    /// # Errors
    /// No connection, no trust, no answer in time, or not a whole one.
    pub fn send(self) -> Result<Response> {
        self.start()
            .join()
            .map_err(|_| anyhow!("the client panicked"))?
    }

    /// Sends it meanwhile; `join` the handle for the answer.
    pub fn start(self) -> JoinHandle<Result<Response>> {
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("runtime")?;
            let timeout = self.timeout;
            let what = format!("{} http://{}{}", self.method, self.host, self.path);
            runtime
                .block_on(async { tokio::time::timeout(timeout, self.exchange()).await })
                .unwrap_or_else(|_| bail!("no whole answer within {timeout:?}"))
                .context(what)
        })
    }

    async fn exchange(self) -> Result<Response> {
        let stream = TcpStream::connect(self.addr).await.context("connect")?;
        stream.set_nodelay(true).context("nodelay")?;
        let Some(ca) = &self.ca else {
            return self.over(stream).await;
        };
        let protocol = if self.is_h2 { "h2" } else { "http/1.1" };
        let connector = TlsConnector::from(tls::client(ca, protocol)?);
        let name = tls::server_name(&self.host)?;
        let stream = connector.connect(name, stream).await.context("TLS")?;
        let chosen = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        if self.is_h2 && chosen.as_deref() != Some(b"h2") {
            bail!("the server chose {chosen:?}, not h2");
        }
        self.over(stream).await
    }

    async fn over<S>(self, stream: S) -> Result<Response>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(stream);
        let request = self.request()?;
        if self.is_h2 {
            let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), stream)
                .await
                .context("handshake")?;
            tokio::spawn(connection);
            let response = sender.send_request(request).await.context("send")?;
            collect(response, sender).await
        } else {
            let (mut sender, connection) =
                conn::http1::handshake(stream).await.context("handshake")?;
            tokio::spawn(connection);
            let response = sender.send_request(request).await.context("send")?;
            collect(response, sender).await
        }
    }

    fn request(&self) -> Result<hyper::Request<Full<Bytes>>> {
        let mut request = hyper::Request::builder().method(&self.method);
        if self.is_h2 {
            let scheme = if self.ca.is_some() { "https" } else { "http" };
            request = request.uri(format!("{scheme}://{}{}", self.host, self.path));
        } else {
            request = request.uri(&self.path).header(HOST, &self.host);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request
            .body(Full::new(self.body.clone()))
            .context("request")
    }
}

/// The whole answer. `sender` keeps the connection open meanwhile.
async fn collect<T>(
    response: hyper::Response<hyper::body::Incoming>,
    sender: T,
) -> Result<Response> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, BODY_LIMIT).collect().await;
    drop(sender);
    let body = body.map_err(|error| anyhow!("the body of a {}: {error}", head.status))?;
    Ok(Response {
        status: head.status.as_u16(),
        headers: head.headers,
        body: body.to_bytes().to_vec(),
    })
}

/// Sends bytes as they are and reads until the server closes or falls silent for `limit`: for what
/// no client would send. A reset ends the answer like a close.
///
/// # Errors
/// No connection, or not even the request could be sent.
pub fn raw(addr: SocketAddr, request: &[u8], limit: Duration) -> Result<Vec<u8>> {
    let mut stream = StdTcpStream::connect_timeout(&addr, limit).context("connect")?;
    stream.set_read_timeout(Some(limit)).context("limit")?;
    stream.set_write_timeout(Some(limit)).context("limit")?;
    stream.write_all(request).context("send")?;
    let end = Instant::now() + limit;
    let mut answer = Vec::new();
    let mut part = [0; 65536];
    while Instant::now() < end && answer.len() < BODY_LIMIT {
        match stream.read(&mut part) {
            Ok(0) | Err(_) => break,
            Ok(n) => answer.extend_from_slice(&part[..n]),
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
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
}
