//! A client connection as the HTTP engine sees it.
//!
//! Between requests we read the head ourselves ([`Connection::next_head`]): with a deadline, a size
//! limit and [`head::check`]. Then the engine gets the same bytes, and of the body no more than
//! belongs to this request, so bytes of the next one can never be taken for part of it.
//!
//! ```text
//!            next_head                engine reads             engine done
//! Waiting -------------> Bounded(n) -------------> Bounded(0) -------------> Waiting
//!                \-----> Open (chunked, upgraded, HTTP/2): everything goes through
//! ```
//!
//! Writes are gathered up to [`WRITE_BUFFER`] until the engine flushes, so that head and small body
//! leave in one packet; the buffer exists only while it is needed.

use crate::http::head::{self, Body, Refusal};
use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use http::Version;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::ALPN;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use pingora_http::ResponseHeader;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::server::TlsStream;

/// Most bytes gathered before they are written: a head and a small body.
const WRITE_BUFFER: usize = 4096;

/// How many bytes are read at a time while a head is awaited: most fit.
const READ_STEP: usize = 2048;

/// Most body bytes read at once where a limit applies: a TLS record.
const READ_PART: usize = 16 * 1024;

/// Empty lines tolerated before a request line (RFC 9112 section 2.2).
const MAX_EMPTY_LINES: usize = 4;

/// How long a close may wait for what was written to leave.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// After a refusal the client may still be sending; closing at once would reset the connection and
/// lose our answer. So we read and forget this much, for this long.
const LINGER_BYTES: usize = 256 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// The socket, plain or encrypted.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

/// What a request may want to know about its connection.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The client.
    pub client: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// Present with TLS: the name that the certificate was chosen by.
    pub tls: Option<String>,
}

/// Limits while a head is awaited.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From the first byte to the end of the head.
    pub head: Duration,
    /// Bytes of the head.
    pub bytes: usize,
}

/// What came instead of a next request.
#[derive(Debug)]
pub enum NoHead {
    /// The client closed, or was silent too long between requests: nothing to say.
    Gone,
    /// An answer is due, then the end.
    Refused(Refusal),
}

/// A client connection.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    /// Bytes read and not yet handed to the engine.
    inbox: BytesMut,
    /// Bytes written by the engine and not yet sent.
    outbox: BytesMut,
    /// Bytes the engine may still read; everything if absent.
    allowance: Option<u64>,
    http2: bool,
    proxy_digest: Arc<ProxyDigest>,
    socket_digest: Arc<SocketDigest>,
}

impl Connection {
    /// A connection from `origin`. With `http2` nothing is held back from the engine.
    pub fn new(socket: Socket, origin: Arc<Origin>, http2: bool) -> io::Result<Self> {
        let fd = match &socket {
            Socket::Plain(tcp) => tcp.as_raw_fd(),
            Socket::Tls(tls) => tls.get_ref().0.as_raw_fd(),
        };
        let socket_digest = SocketDigest::from_raw_fd(fd);
        // Fails only if it is set already.
        let _ = socket_digest.peer_addr.set(Some(origin.client.into()));
        // The engine has no better place for data about a connection than this.
        let carrier = ResponseHeader::build(200, Some(0)).map_err(io::Error::other)?;
        Ok(Self {
            socket,
            inbox: BytesMut::new(),
            outbox: BytesMut::new(),
            allowance: if http2 { None } else { Some(0) },
            http2,
            proxy_digest: Arc::new(ProxyDigest::new(Box::new(carrier), Some(Box::new(origin)))),
            socket_digest: Arc::new(socket_digest),
        })
    }

    /// Waits for the first byte of the next request; whether there is one. Safe to cancel.
    pub async fn wait(&mut self, idle: Duration) -> bool {
        if !self.inbox.is_empty() {
            return true;
        }
        // An idle connection costs no buffer.
        self.inbox = BytesMut::new();
        if self.outbox.is_empty() {
            self.outbox = BytesMut::new();
        }
        self.allowance = Some(0);
        let arrived = std::future::poll_fn(|cx| self.poll_arrival(cx));
        matches!(timeout(idle, arrived).await, Ok(Ok(true)))
    }

    /// Reads some bytes into the inbox, without holding a buffer while there are none.
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut some = [0; READ_STEP];
        let mut buffer = ReadBuf::new(&mut some);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
        self.inbox.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(!self.inbox.is_empty()))
    }

    /// Ends a connection that waits for a request.
    pub async fn close(mut self) {
        let _ = timeout(CLOSE_TIME, AsyncWriteExt::shutdown(&mut self)).await;
    }

    /// Whether HTTP/2 was agreed on.
    pub fn is_http2(&self) -> bool {
        self.http2
    }

    /// Reads the next request head, checks it, and makes the engine see it and its body.
    pub async fn next_head(&mut self, patience: Patience) -> Result<(), NoHead> {
        let deadline = Instant::now() + patience.head;
        let mut seen = 0;
        let mut empty_lines = 0;
        loop {
            while self.inbox.starts_with(b"\r\n") && empty_lines < MAX_EMPTY_LINES {
                self.inbox.advance(2);
                empty_lines += 1;
                seen = 0;
            }
            if let Some(length) = head::end(&self.inbox, seen) {
                if length > patience.bytes {
                    return Err(NoHead::Refused(head::TOO_LARGE));
                }
                let body = head::check(&self.inbox[..length]).map_err(NoHead::Refused)?;
                self.allowance = match body {
                    Body::Length(bytes) => Some(length as u64 + bytes),
                    Body::Open => None,
                };
                return Ok(());
            }
            head::plausible(&self.inbox).map_err(NoHead::Refused)?;
            if self.inbox.len() > patience.bytes {
                return Err(NoHead::Refused(head::TOO_LARGE));
            }
            seen = self.inbox.len();
            self.inbox.reserve(READ_STEP);
            match timeout_at(deadline, self.socket.read_buf(&mut self.inbox)).await {
                Ok(Ok(0)) | Ok(Err(_)) => return Err(NoHead::Gone),
                Ok(Ok(_)) => {}
                Err(_) => {
                    return Err(NoHead::Refused(Refusal {
                        status: 408,
                        why: "the request header took too long",
                    }));
                }
            }
        }
    }

    /// Sends `answer` and ends the connection such that the client can read it.
    pub async fn refuse(mut self, answer: &[u8]) {
        let _ = timeout(CLOSE_TIME, async {
            self.write_all(answer).await?;
            AsyncWriteExt::shutdown(&mut self).await
        })
        .await;
        let mut sink = [0; 4096];
        let _ = timeout(LINGER_TIME, async {
            let mut left = LINGER_BYTES;
            while left > 0 {
                match self.socket.read(&mut sink).await {
                    Ok(0) | Err(_) => break,
                    Ok(read) => left = left.saturating_sub(read),
                }
            }
        })
        .await;
    }

    fn poll_drain_outbox(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.is_empty() {
            let sent = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.outbox))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outbox.advance(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// The request is over: only the end of the connection is of interest, and anything else is
    /// kept for the next request.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.inbox.is_empty() {
            // The client is there and has sent its next request; no wake-up is needed for that.
            return Poll::Pending;
        }
        if ready!(self.poll_arrival(cx))? {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.allowance == Some(0) {
            return this.poll_end(cx);
        }
        let Some(left) = this.allowance else {
            if this.inbox.is_empty() {
                return Pin::new(&mut this.socket).poll_read(cx, buf);
            }
            let read = buf.remaining().min(this.inbox.len());
            buf.put_slice(&this.inbox[..read]);
            this.inbox.advance(read);
            return Poll::Ready(Ok(()));
        };
        let most = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buf.remaining());
        let read = if this.inbox.is_empty() {
            let room = buf.initialize_unfilled_to(most.min(READ_PART));
            let mut part = ReadBuf::new(room);
            ready!(Pin::new(&mut this.socket).poll_read(cx, &mut part))?;
            let read = part.filled().len();
            buf.advance(read);
            read
        } else {
            let read = most.min(this.inbox.len());
            buf.put_slice(&this.inbox[..read]);
            this.inbox.advance(read);
            read
        };
        this.allowance = Some(left - read as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.outbox.len() + bytes.len() > WRITE_BUFFER {
            ready!(this.poll_drain_outbox(cx))?;
        }
        if bytes.len() >= WRITE_BUFFER {
            return Pin::new(&mut this.socket).poll_write(cx, bytes);
        }
        this.outbox.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain_outbox(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain_outbox(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = match self.get_mut() {
            Socket::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Socket::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        };
        match read {
            // A client that closes without the TLS farewell has closed all the same; the framing of
            // HTTP tells whether something is missing.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Poll::Ready(Ok(()))
            }
            other => other,
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Socket::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Socket::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Socket::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

#[async_trait]
impl Shutdown for Connection {
    async fn shutdown(&mut self) {
        // A client that does not read must not hold the task.
        let _ = timeout(CLOSE_TIME, AsyncWriteExt::shutdown(self)).await;
    }
}

impl UniqueID for Connection {
    fn id(&self) -> UniqueIDType {
        match &self.socket {
            Socket::Plain(tcp) => tcp.as_raw_fd(),
            Socket::Tls(tls) => tls.get_ref().0.as_raw_fd(),
        }
    }
}

impl Ssl for Connection {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.http2.then_some(ALPN::H2)
    }
}

impl GetTimingDigest for Connection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Connection {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.proxy_digest))
    }
}

impl GetSocketDigest for Connection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.socket_digest))
    }
}

#[async_trait]
impl Peek for Connection {}

/// How a protocol is called in the record of a request.
pub fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "h2",
        Version::HTTP_10 => "http/1.0",
        _ => "http/1.1",
    }
}
