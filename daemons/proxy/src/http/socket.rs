//! A client's socket, plain or encrypted, and how it is left.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

/// A client that was answered before it had sent everything may still be sending. Closing at once
/// would reset the connection and lose the answer, so this much is read and forgotten, for this long.
const LINGER_BYTES: usize = 1024 * 1024;
/// See [`LINGER_BYTES`].
const LINGER_TIME: Duration = Duration::from_secs(2);

/// So many at the same time; further ones are closed at once, so that lingering is no way to hold
/// our descriptors.
static LINGERING: Semaphore = Semaphore::const_new(256);

/// The socket, plain or encrypted.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// The TCP connection.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Socket::Plain(tcp) => tcp,
            Socket::Tls(tls) => tls.get_ref().0,
        }
    }

    /// Lets the client finish sending after this socket is dropped, so that it can read our answer.
    pub fn linger(&self) {
        let (Ok(runtime), Ok(slot)) = (Handle::try_current(), LINGERING.try_acquire()) else {
            return;
        };
        let Ok(copy) = self.tcp().as_fd().try_clone_to_owned() else {
            return;
        };
        let copy = std::net::TcpStream::from(copy);
        // Bounded in time, bytes and number, and nothing depends on it: nobody supervises it.
        runtime.spawn(async move {
            if copy.shutdown(Shutdown::Write).is_ok() {
                let _ = timeout(LINGER_TIME, forget(copy)).await;
            }
            drop(slot);
        });
    }
}

/// Reads until the client ends, or has sent too much.
async fn forget(copy: std::net::TcpStream) -> io::Result<()> {
    let mut stream = TcpStream::from_std(copy)?;
    let mut sink = [0; 4096];
    let mut left = LINGER_BYTES;
    loop {
        match stream.read(&mut sink).await? {
            0 => return Ok(()),
            read if read >= left => return Ok(()),
            read => left -= read,
        }
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
