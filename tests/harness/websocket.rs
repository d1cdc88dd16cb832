//! A WebSocket client (RFC 6455) over blocking sockets, enough to hold one open through a
//! deployment and to see how it ends.

use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::tls;

/// For each read and write.
const LIMIT: Duration = Duration::from_secs(10);
const HEAD_LIMIT: usize = 64 << 10;
const FRAME_LIMIT: u64 = 16 << 20;
/// The nonce of RFC 6455 section 1.3 with its answer: a test needs no random one.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Masking hides nothing in a test; a fixed mask is as good.
const MASK: [u8; 4] = [0x1A, 0x2B, 0x3C, 0x4D];

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// An open WebSocket.
pub struct WebSocket {
    stream: Box<dyn Stream>,
    head: String,
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket")
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}

/// What the other side sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Text or binary, whole or a part.
    Data(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// With its code, if it has one: 1000 normal, 1001 going away.
    Close(Option<u16>),
}

impl WebSocket {
    /// Opens one over plain HTTP/1.1.
    ///
    /// # Errors
    /// No connection, or the server does not switch protocols.
    pub fn open(addr: SocketAddr, host: &str, path: &str) -> Result<Self> {
        Self::handshake(Box::new(connect(addr)?), host, path)
    }

    /// Opens one over TLS, trusting `ca` (PEM).
    ///
    /// # Errors
    /// As [`WebSocket::open`], or no trust.
    pub fn open_tls(addr: SocketAddr, host: &str, path: &str, ca: &[u8]) -> Result<Self> {
        let session =
            rustls::ClientConnection::new(tls::client(ca, "http/1.1")?, tls::server_name(host)?)
                .context("TLS")?;
        let stream = rustls::StreamOwned::new(session, connect(addr)?);
        Self::handshake(Box::new(stream), host, path)
    }

    /// A header of the answer that opened it; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value.trim())
    }

    /// Sends a text message and waits for the next data frame.
    ///
    /// # Errors
    /// It was closed, or nothing comes for 10 seconds.
    pub fn echo(&mut self, text: &str) -> Result<String> {
        self.send(0x1, text.as_bytes())?;
        loop {
            match self.receive()? {
                Frame::Data(data) => return String::from_utf8(data).context("text"),
                Frame::Close(code) => bail!("closed with {code:?}"),
                Frame::Ping(data) => self.send(0xA, &data)?,
                Frame::Pong(_) => {}
            }
        }
    }

    /// The next frame.
    ///
    /// # Errors
    /// The connection ended without a close frame, or nothing comes for 10 seconds.
    pub fn receive(&mut self) -> Result<Frame> {
        let [first, second] = self.array()?;
        let length = match second & 0x7F {
            126 => u64::from(u16::from_be_bytes(self.array()?)),
            127 => u64::from_be_bytes(self.array()?),
            length => u64::from(length),
        };
        anyhow::ensure!(second & 0x80 == 0, "a server must not mask");
        anyhow::ensure!(length <= FRAME_LIMIT, "a frame of {length} bytes");
        let mut data = vec![0; usize::try_from(length).context("length")?];
        self.stream.read_exact(&mut data).context("read a frame")?;
        Ok(match first & 0x0F {
            0x0..=0x2 => Frame::Data(data),
            0x8 => Frame::Close(data.first_chunk().map(|code| u16::from_be_bytes(*code))),
            0x9 => Frame::Ping(data),
            0xA => Frame::Pong(data),
            opcode => bail!("opcode {opcode}"),
        })
    }

    /// Closes it from our side and waits for the answer.
    ///
    /// # Errors
    /// The other side does not answer with a close frame.
    pub fn close(mut self) -> Result<()> {
        self.send(0x8, &1000_u16.to_be_bytes())?;
        while !matches!(self.receive()?, Frame::Close(_)) {}
        Ok(())
    }

    fn handshake(mut stream: Box<dyn Stream>, host: &str, path: &str) -> Result<Self> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).context("send")?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).context("read the handshake")?;
            head.extend(byte);
            anyhow::ensure!(head.len() < HEAD_LIMIT, "an endless head");
        }
        let opened = Self {
            stream,
            head: String::from_utf8(head).context("head")?,
        };
        if !opened.head.starts_with("HTTP/1.1 101 ")
            || opened.header("sec-websocket-accept") != ACCEPT
        {
            bail!("no WebSocket: {}", opened.head);
        }
        Ok(opened)
    }

    fn send(&mut self, opcode: u8, data: &[u8]) -> Result<()> {
        let mut frame = vec![0x80 | opcode];
        match u16::try_from(data.len()) {
            Ok(length) if length < 126 => frame.push(0x80 | length as u8),
            Ok(length) => {
                frame.push(0x80 | 126);
                frame.extend(length.to_be_bytes());
            }
            Err(_) => {
                frame.push(0x80 | 127);
                frame.extend((data.len() as u64).to_be_bytes());
            }
        }
        frame.extend(MASK);
        frame.extend(
            data.iter()
                .zip(MASK.iter().cycle())
                .map(|(byte, mask)| byte ^ mask),
        );
        self.stream.write_all(&frame).context("send a frame")?;
        self.stream.flush().context("send a frame")
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).context("read a frame")?;
        Ok(bytes)
    }
}

fn connect(addr: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr, LIMIT).context("connect")?;
    stream.set_read_timeout(Some(LIMIT)).context("limit")?;
    stream.set_write_timeout(Some(LIMIT)).context("limit")?;
    stream.set_nodelay(true).context("nodelay")?;
    Ok(stream)
}
