//! The connection to a target for a request that asks for another protocol (a WebSocket).
//!
//! The engine hears of the end of the request (which has no body) and of the target's answer at two
//! places of one loop, in any order. If a quick target's 101 is read first, the end of the request is
//! then taken for the end of the stream, and what was just opened is closed. So here the first read
//! after a write waits for the loop's next turn, by which the end of the request was heard.

use async_trait::async_trait;
use pingora_core::connectors::l4::Connect;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora_core::{Error, ErrorType, Result};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// Connects within this time.
#[derive(Debug)]
pub struct InTurn(pub Duration);

#[async_trait]
impl Connect for InTurn {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let connected = timeout(self.0, open(address)).await;
        let socket = match connected {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => {
                let kind = match error.kind() {
                    io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
                    _ => ErrorType::ConnectError,
                };
                return Error::e_because(kind, "connecting to a target", error);
            }
            Err(late) => {
                return Error::e_because(
                    ErrorType::ConnectTimedout,
                    "connecting to a target",
                    late,
                );
            }
        };
        let turns = Turns {
            socket,
            wrote: false,
        };
        Ok(VirtualSocketStream::new(Box::new(turns)).into())
    }
}

async fn open(address: &SocketAddr) -> io::Result<Socket> {
    match address {
        SocketAddr::Inet(address) => {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            Ok(Socket::Tcp(socket))
        }
        SocketAddr::Unix(address) => {
            let path = address.as_pathname().ok_or(io::ErrorKind::InvalidInput)?;
            Ok(Socket::Unix(UnixStream::connect(path).await?))
        }
    }
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A socket on which a read does not come in the turn of a write.
#[derive(Debug)]
struct Turns {
    socket: Socket,
    /// Nothing was read since.
    wrote: bool,
}

impl VirtualSocket for Turns {
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        // Set when it was connected.
        Ok(())
    }
}

impl AsyncRead for Turns {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.wrote) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Socket::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Turns {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.wrote = true;
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Socket::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Socket::Unix(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Socket::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
