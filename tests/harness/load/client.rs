//! One request over HTTP/1.1, without any retry.
//!
//! The one delicate rule: a kept connection may be closed by the server at any time. If the close is
//! noticed while it is idle, or hyper hands the request back unwritten, the request goes on another
//! connection; if it was written, or the connection is new, it failed.

use std::collections::VecDeque;
use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::tls;
use anyhow::{Context, Result};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::LoadSpec;
use super::report::{FailureKind, Report};

type Failed = (FailureKind, String);

/// Where the requests go, and the connections kept to it.
pub(super) struct Client {
    addr: SocketAddr,
    host: HeaderValue,
    uri: Uri,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// So many connections are kept.
    wanted: usize,
    open: Arc<AtomicUsize>,
    idle: Mutex<VecDeque<Connection>>,
    report: Arc<Mutex<Report>>,
}

/// An open connection; `open` counts those that are kept.
struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    is_used: bool,
    counted: Option<Arc<AtomicUsize>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(open) = &self.counted {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What came back so far, kept outside the future that a timeout drops.
pub(super) type Answered = Option<(String, Instant)>;

impl Client {
    pub(super) fn new(spec: &LoadSpec, report: Arc<Mutex<Report>>) -> Result<Self> {
        let tls = match &spec.tls {
            None => None,
            Some(ca) => {
                let connector = TlsConnector::from(tls::client(ca, "http/1.1")?);
                Some((connector, tls::server_name(&spec.host)?))
            }
        };
        Ok(Self {
            addr: spec.addr,
            host: HeaderValue::from_str(&spec.host).context("host")?,
            uri: spec.path.parse().context("path")?,
            tls,
            wanted: spec.keepalive_conns,
            open: Arc::default(),
            idle: Mutex::default(),
            report,
        })
    }

    /// A request on a kept connection, which is kept again if it can be.
    pub(super) async fn on_kept(&self, answered: &mut Answered) -> Result<(), Failed> {
        loop {
            // A turn of the (one-threaded) runtime: sockets are polled and hyper sees the closes
            // that arrived, also when this process had to wait for its processor.
            tokio::task::yield_now().await;
            let mut connection = match self.take() {
                Some(connection) => connection,
                None => self.connect(true).await?,
            };
            let Some(response) = self.send(&mut connection).await? else {
                self.report().idle_closes += 1;
                continue;
            };
            let is_last = is_close(response.headers());
            receive(response, answered).await?;
            if is_last {
                self.report().announced_closes += 1;
            } else {
                self.give_back(connection).await;
            }
            return Ok(());
        }
    }

    /// A request on a connection of its own.
    pub(super) async fn on_new(&self, answered: &mut Answered) -> Result<(), Failed> {
        let mut connection = self.connect(false).await?;
        match self.send(&mut connection).await? {
            Some(response) => receive(response, answered).await,
            None => Err((
                FailureKind::Closed,
                "closed before the first request".to_owned(),
            )),
        }
    }

    /// The connection that was idle longest; `None` if another one is to be opened.
    fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let before = idle.len();
        idle.retain(|connection| !connection.sender.is_closed());
        self.report().idle_closes += (before - idle.len()) as u64;
        if self.open.load(Ordering::Relaxed) < self.wanted {
            return None;
        }
        idle.pop_front()
    }

    async fn give_back(&self, mut connection: Connection) {
        if connection.sender.ready().await.is_err() {
            self.report().idle_closes += 1;
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.wanted {
            connection.is_used = true;
            idle.push_back(connection);
        }
    }

    async fn connect(&self, is_kept: bool) -> Result<Connection, Failed> {
        let stream = TcpStream::connect(self.addr)
            .await
            .map_err(|error| (FailureKind::Connect, error.to_string()))?;
        self.report().connections += 1;
        // Only a delay would follow from a failure.
        let _ = stream.set_nodelay(true);
        let sender = match &self.tls {
            None => handshake(stream).await?,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await;
                handshake(stream.map_err(|error| (FailureKind::Tls, error.to_string()))?).await?
            }
        };
        let counted = is_kept.then(|| self.open.clone());
        if let Some(open) = &counted {
            open.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Connection {
            sender,
            is_used: false,
            counted,
        })
    }

    /// `None` if a used connection turned out closed before the request was written.
    async fn send(
        &self,
        connection: &mut Connection,
    ) -> Result<Option<Response<Incoming>>, Failed> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().insert(HOST, self.host.clone());
        match connection.sender.try_send_request(request).await {
            Ok(response) => Ok(Some(response)),
            Err(mut error) => match error.take_message() {
                Some(_unwritten) if connection.is_used => Ok(None),
                _ => Err(failed(&error.into_error())),
            },
        }
    }

    pub(super) fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Empty<Bytes>>, Failed>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    // Its end is noticed through the sender.
    tokio::spawn(connection);
    Ok(sender)
}

async fn receive(response: Response<Incoming>, answered: &mut Answered) -> Result<(), Failed> {
    let release = response
        .headers()
        .get("x-release")
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    *answered = Some((
        String::from_utf8_lossy(release).into_owned(),
        Instant::now(),
    ));
    let status = response.status();
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| (FailureKind::Body, described(&error)))?;
        if let (false, Some(data)) = (status.is_success(), frame.data_ref()) {
            // Enough to see whose error page it is.
            text.extend_from_slice(&data[..data.len().min(200 - text.len())]);
        }
    }
    if status.is_success() {
        return Ok(());
    }
    Err((
        FailureKind::Status(status.as_u16()),
        String::from_utf8_lossy(&text).into_owned(),
    ))
}

fn is_close(headers: &HeaderMap) -> bool {
    let mut tokens = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    tokens.any(|token| token.trim().eq_ignore_ascii_case("close"))
}

fn failed(error: &hyper::Error) -> Failed {
    let kind = if error.is_parse() {
        FailureKind::Protocol
    } else {
        FailureKind::Closed
    };
    (kind, described(error))
}

fn described(error: &hyper::Error) -> String {
    let cause = error
        .source()
        .map_or_else(String::new, |cause| format!(": {cause}"));
    format!("{error}{cause}")
}
