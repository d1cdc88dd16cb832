//! How much of what a client sends belongs to the request that the HTTP engine reads.
//!
//! Bytes of the next request can never be taken for part of this one: the engine gets what
//! [`Flow::take`] counts, and no byte more.

use crate::http::chunk::{BadChunk, Scanner};

/// What the engine may still read.
#[derive(Debug)]
pub enum Flow {
    /// So many bytes.
    Sized(u64),
    /// So many bytes of the head, then a body that says where it ends.
    Chunked(u64, Scanner),
    /// Everything.
    Open,
}

impl Flow {
    /// Whether the request is over.
    pub fn is_over(&self) -> bool {
        match self {
            Flow::Sized(left) => *left == 0,
            Flow::Chunked(head, body) => *head == 0 && body.is_done(),
            Flow::Open => false,
        }
    }

    /// How many of `bytes`, which come next, the engine may have; they are then taken.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        let sized = |left: &mut u64| {
            let count = usize::try_from(*left)
                .unwrap_or(usize::MAX)
                .min(bytes.len());
            *left -= count as u64;
            count
        };
        match self {
            Flow::Sized(left) => Ok(sized(left)),
            Flow::Chunked(head, _) if *head > 0 => Ok(sized(head)),
            Flow::Chunked(_, body) => body.take(bytes),
            Flow::Open => Ok(bytes.len()),
        }
    }
}
