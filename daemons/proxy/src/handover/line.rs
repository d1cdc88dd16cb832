//! Short lines over a Unix socket, each bounded.

use super::sockets::Sockets;
use std::io;
use std::path::Path;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;

/// Longer than any word or answer, shorter than anything that hurts.
pub(super) const MAX_LINE: u64 = 128;

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Line(BufReader<UnixStream>);

impl Line {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self(BufReader::with_capacity(MAX_LINE as usize, stream))
    }

    pub(super) async fn connect(path: &Path) -> io::Result<Self> {
        UnixStream::connect(path).await.map(Self::new)
    }

    pub(super) async fn send(&mut self, text: &str) -> io::Result<()> {
        self.0.write_all(format!("{text}\n").as_bytes()).await
    }

    /// Says [`super::Word::Stay`], and passes `sockets` along.
    pub(super) async fn pass(&mut self, sockets: &Sockets) -> io::Result<()> {
        let stream = self.0.get_ref();
        stream
            .async_io(Interest::WRITABLE, || sockets.send(stream))
            .await
    }

    /// The next line without its end; nothing at the end of the connection.
    pub(super) async fn next(&mut self) -> io::Result<Option<String>> {
        let mut bytes = Vec::new();
        let read = (&mut self.0)
            .take(MAX_LINE)
            .read_until(b'\n', &mut bytes)
            .await?;
        if read == 0 {
            return Ok(None);
        }
        let line = bytes.strip_suffix(b"\n").map(<[u8]>::to_vec);
        line.and_then(|line| String::from_utf8(line).ok())
            .map(Some)
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Waits until the other end is gone, whatever it says before.
    pub(super) async fn ended(&mut self) {
        while let Ok(Some(_)) = self.next().await {}
    }
}
