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
mod tests;
