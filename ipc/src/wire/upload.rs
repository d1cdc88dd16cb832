//! Uploads: a second stream, since a frame is small and an archive is not.
//!
//! ```text
//! client -> daemon   length (u32 BE) + ticket          at most 64 bytes
//!                    length (u32 BE) + bytes           as often as needed, at most 256 KiB each
//!                    length 0                          the end: without it nothing is kept
//! daemon -> client   length (u32 BE) + postcard Result<Receipt, Fault>
//! ```
//! The daemon may answer early (too large, disk full) and close; the client then stops sending.

use crate::Fault;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::str::FromStr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Largest chunk in bytes.
pub const MAX_CHUNK: usize = 256 * 1024;

/// Largest answer in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Random bytes in a ticket; it cannot be guessed, so it also says whose upload this is.
const TICKET_BYTES: usize = 16;

/// Names an upload: 32 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct UploadTicket(String);

impl UploadTicket {
    /// A new one.
    pub fn fresh() -> Self {
        let mut bytes = [0_u8; TICKET_BYTES];
        getrandom::fill(&mut bytes).expect("the kernel's random source always answers");
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The digits; also the name of the file it becomes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for UploadTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UploadTicket(..)")
    }
}

impl FromStr for UploadTicket {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if digits && text.len() == 2 * TICKET_BYTES {
            Ok(Self(text.to_owned()))
        } else {
            Err("not an upload ticket")
        }
    }
}

impl<'de> Deserialize<'de> for UploadTicket {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// What arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Bytes received.
    pub bytes: u64,
}

/// Sends the ticket; chunks follow.
///
/// # Errors
/// What the stream says.
pub async fn send_ticket<W: AsyncWrite + Unpin>(
    to: &mut W,
    ticket: &UploadTicket,
) -> io::Result<()> {
    send_chunk(to, ticket.as_str().as_bytes()).await
}

/// Sends one chunk of at most [`MAX_CHUNK`] bytes; an empty one is the end.
///
/// # Errors
/// What the stream says; `InvalidInput` for a chunk that is too large.
pub async fn send_chunk<W: AsyncWrite + Unpin>(to: &mut W, chunk: &[u8]) -> io::Result<()> {
    if chunk.len() > MAX_CHUNK {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the chunk is too large",
        ));
    }
    to.write_all(&(chunk.len() as u32).to_be_bytes()).await?;
    to.write_all(chunk).await
}

/// Receives the ticket.
///
/// # Errors
/// `InvalidData` if it is none; what the stream says.
pub async fn receive_ticket<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<UploadTicket> {
    let bytes = receive(from, 2 * TICKET_BYTES).await?;
    std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an upload ticket"))
}

/// Receives one chunk; empty at the end.
///
/// # Errors
/// `InvalidData` for a chunk that is too large; what the stream says.
pub async fn receive_chunk<R: AsyncRead + Unpin>(from: &mut R) -> io::Result<Vec<u8>> {
    receive(from, MAX_CHUNK).await
}

async fn receive<R: AsyncRead + Unpin>(from: &mut R, limit: usize) -> io::Result<Vec<u8>> {
    let mut length = [0_u8; 4];
    from.read_exact(&mut length).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{length} bytes announced where at most {limit} may come"),
        ));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    Ok(bytes)
}

/// Answers an upload.
///
/// # Errors
/// What the stream says.
pub async fn send_answer<W: AsyncWrite + Unpin>(
    to: &mut W,
    answer: &Result<Receipt, Fault>,
) -> io::Result<()> {
    let bytes = postcard::to_allocvec(answer).map_err(io::Error::other)?;
    send_chunk(to, &bytes).await?;
    to.flush().await
}

/// Receives the answer to an upload.
///
/// # Errors
/// What the stream says; `InvalidData` if it is no answer.
pub async fn receive_answer<R: AsyncRead + Unpin>(
    from: &mut R,
) -> io::Result<Result<Receipt, Fault>> {
    let bytes = receive(from, MAX_ANSWER).await?;
    postcard::from_bytes(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_upload_crosses_and_is_answered() {
        let (mut client, mut daemon) = tokio::io::duplex(1024 * 1024);
        let ticket = UploadTicket::fresh();
        send_ticket(&mut client, &ticket).await.unwrap();
        send_chunk(&mut client, b"abc").await.unwrap();
        send_chunk(&mut client, b"").await.unwrap();
        assert_eq!(receive_ticket(&mut daemon).await.unwrap(), ticket);
        assert_eq!(receive_chunk(&mut daemon).await.unwrap(), b"abc");
        assert!(receive_chunk(&mut daemon).await.unwrap().is_empty());
        send_answer(&mut daemon, &Ok(Receipt { bytes: 3 }))
            .await
            .unwrap();
        assert_eq!(
            receive_answer(&mut client).await.unwrap(),
            Ok(Receipt { bytes: 3 })
        );
    }

    #[tokio::test]
    async fn an_oversize_chunk_is_refused_before_it_is_read() {
        let (mut client, mut daemon) = tokio::io::duplex(64);
        client.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        let error = receive_chunk(&mut daemon).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_ticket_that_could_be_a_path_is_refused() {
        assert!("../../../../etc/passwd".parse::<UploadTicket>().is_err());
        assert!(
            UploadTicket::fresh()
                .as_str()
                .parse::<UploadTicket>()
                .is_ok()
        );
    }
}
