//! A client connection as the HTTP engine sees it.
//!
//! Between requests we read the head ourselves ([`Connection::next_head`]): with a deadline, a size
//! limit and [`head::check`]. Then the engine gets the same bytes, and of the body no more than
//! belongs to this request, so bytes of the next one can never be taken for part of it.
//!
//! ```text
//!            next_head                engine reads             engine done
//! Waiting -------------> Sized(n) ---------------> Sized(0) ---------------> Waiting
//!                \-----> Chunked ------------------^
//!                \-----> Open (upgraded, HTTP/2): everything goes through
//! ```
//!
//! Writes are gathered up to [`WRITE_BUFFER`] until the engine flushes, so that head and small body
//! leave in one packet; the buffer exists only while it is needed.

mod engine;

use crate::http::chunk::Scanner;
use crate::http::flow::Flow;
use crate::http::head::{self, Body, Refusal};
use crate::http::origin::Origin;
use crate::http::socket::Socket;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::SocketDigest;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_http::ResponseHeader;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};

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
    /// The client has ended its side.
    ended: bool,
    /// Bytes read and not yet handed to the engine.
    inbox: BytesMut,
    /// Bytes written by the engine and not yet sent.
    outbox: BytesMut,
    flow: Flow,
    http2: bool,
    proxy_digest: Arc<ProxyDigest>,
    socket_digest: Arc<SocketDigest>,
}

impl Connection {
    /// A connection from `origin`. With `http2` nothing is held back from the engine.
    pub fn new(socket: Socket, origin: Arc<Origin>, http2: bool) -> io::Result<Self> {
        let socket_digest = SocketDigest::from_raw_fd(socket.tcp().as_raw_fd());
        // Fails only if it is set already.
        let _ = socket_digest.peer_addr.set(Some(origin.client.into()));
        // The engine has no better place for data about a connection than this.
        let carrier = ResponseHeader::build(200, Some(0)).map_err(io::Error::other)?;
        Ok(Self {
            socket,
            ended: false,
            inbox: BytesMut::new(),
            outbox: BytesMut::new(),
            flow: if http2 { Flow::Open } else { Flow::Sized(0) },
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
        self.flow = Flow::Sized(0);
        let arrived = std::future::poll_fn(|cx| self.poll_arrival(cx));
        matches!(timeout(idle, arrived).await, Ok(Ok(true)))
    }

    /// Reads some bytes into the inbox, without holding a buffer while there are none.
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut some = [0; READ_STEP];
        let mut buffer = ReadBuf::new(&mut some);
        ready!(self.poll_socket(cx, &mut buffer))?;
        self.inbox.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(!buffer.filled().is_empty()))
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
                self.flow = match body {
                    Body::Length(bytes) => Flow::Sized(length as u64 + bytes),
                    Body::Chunked => Flow::Chunked(length as u64, Scanner::new()),
                    Body::Upgrade => Flow::Open,
                };
                return Ok(());
            }
            head::plausible(&self.inbox).map_err(NoHead::Refused)?;
            if self.inbox.len() > patience.bytes {
                return Err(NoHead::Refused(head::TOO_LARGE));
            }
            seen = self.inbox.len();
            let arrived = std::future::poll_fn(|cx| self.poll_arrival(cx));
            match timeout_at(deadline, arrived).await {
                Ok(Ok(false) | Err(_)) => return Err(NoHead::Gone),
                Ok(Ok(true)) => {}
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
        // Whatever the client still sends is not for anybody.
        self.flow = Flow::Open;
    }

    /// Reads from the socket, and remembers its end.
    fn poll_socket(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        self.ended |= buf.filled().len() == before && buf.remaining() > 0;
        Poll::Ready(Ok(()))
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

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.flow.is_over() && !self.ended && !self.http2 {
            self.socket.linger();
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
        if this.flow.is_over() {
            return this.poll_end(cx);
        }
        if this.inbox.is_empty() {
            match &mut this.flow {
                Flow::Open => return this.poll_socket(cx, buf),
                // The bulk of a large body goes past the inbox.
                Flow::Sized(left) => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX).min(READ_PART);
                    let room = buf.initialize_unfilled_to(most.min(buf.remaining()));
                    let mut part = ReadBuf::new(room);
                    ready!(this.poll_socket(cx, &mut part))?;
                    let read = part.filled().len();
                    buf.advance(read);
                    let counted = this.flow.take(&buf.filled()[buf.filled().len() - read..]);
                    debug_assert_eq!(counted, Ok(read));
                    return Poll::Ready(Ok(()));
                }
                Flow::Chunked(..) => {
                    if !ready!(this.poll_arrival(cx))? {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
        let room = buf.remaining().min(this.inbox.len());
        let read = this.flow.take(&this.inbox[..room]);
        let read = read.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        buf.put_slice(&this.inbox[..read]);
        this.inbox.advance(read);
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
