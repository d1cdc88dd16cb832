//! One access event, and how it lies in a segment.
//!
//! ```text
//! length u32 LE | CRC-32 (IEEE) of the payload, u32 LE | payload: postcard of AccessEvent
//! ```

use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use temps_ipc::types::Timestamp;

/// Longest path, user agent and host that is kept, in bytes.
const MAX_TEXT: usize = 1024;

/// Largest payload a reader needs to expect.
pub const MAX_PAYLOAD: usize = 8 * 1024;

/// A request that was answered. No query, no cookie, no other header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessEvent {
    /// When it began.
    pub at: Timestamp,
    /// The app, if a route was found.
    pub app: Option<String>,
    /// Its release.
    pub release: Option<String>,
    /// The host asked for, in lower case.
    pub host: String,
    /// The method.
    pub method: String,
    /// The path without the query.
    pub path: String,
    /// The status; 499 if the client went away before it.
    pub status: u16,
    /// Body bytes of the request.
    pub bytes_in: u64,
    /// Body bytes of the answer.
    pub bytes_out: u64,
    /// From the request to the head of the target's answer, in microseconds.
    pub first_byte_us: Option<u64>,
    /// From the request to the end of the answer, in microseconds.
    pub total_us: u64,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// Its User-Agent.
    pub user_agent: String,
    /// The host of its Referer.
    pub referer_host: String,
    /// `http/1.0`, `http/1.1` or `h2`.
    pub protocol: String,
    /// Over TLS.
    pub tls: bool,
}

impl AccessEvent {
    /// Appends the record to `out`.
    pub fn write(mut self, out: &mut Vec<u8>) {
        for text in [
            &mut self.host,
            &mut self.method,
            &mut self.path,
            &mut self.user_agent,
            &mut self.referer_host,
        ] {
            cut(text);
        }
        let Ok(payload) = postcard::to_allocvec(&self) else {
            return;
        };
        let Ok(length) = u32::try_from(payload.len()) else {
            return;
        };
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&crc32(&payload).to_le_bytes());
        out.extend_from_slice(&payload);
    }
}

fn cut(text: &mut String) {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT)
            .rev()
            .find(|end| text.is_char_boundary(*end))
            .unwrap_or(0);
        text.truncate(end);
    }
}

/// The record at the start of `bytes`, and how many bytes it takes; nothing if it is not whole.
pub fn read(bytes: &[u8]) -> Option<(AccessEvent, usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_PAYLOAD {
        return None;
    }
    let payload = rest.get(..length)?;
    if crc32(payload) != u32::from_le_bytes(*sum) {
        return None;
    }
    Some((postcard::from_bytes(payload).ok()?, 8 + length))
}

/// CRC-32 as in IEEE 802.3, gzip and PNG.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 {
                    0xedb8_8320 ^ (value >> 1)
                } else {
                    value >> 1
                };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |sum, byte| {
        TABLE[((sum ^ u32::from(*byte)) & 0xff) as usize] ^ (sum >> 8)
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn event(path: &str) -> AccessEvent {
        AccessEvent {
            at: Timestamp(1),
            app: Some("shop".into()),
            release: None,
            host: "shop.test".into(),
            method: "GET".into(),
            path: path.into(),
            status: 200,
            bytes_in: 0,
            bytes_out: 5,
            first_byte_us: Some(10),
            total_us: 20,
            client: Some([127, 0, 0, 1].into()),
            user_agent: String::new(),
            referer_host: String::new(),
            protocol: "h2".into(),
            tls: true,
        }
    }

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn records_are_read_back_and_damage_is_seen() {
        let mut bytes = Vec::new();
        event("/a").write(&mut bytes);
        let first = bytes.len();
        event(&"é".repeat(4000)).write(&mut bytes);
        let (one, length) = read(&bytes).unwrap();
        assert_eq!((one, length), (event("/a"), first));
        let (two, _) = read(&bytes[first..]).unwrap();
        assert!(two.path.len() <= MAX_TEXT && two.path.ends_with('é'));
        for at in 0..first {
            let mut damaged = bytes[..first].to_vec();
            damaged[at] ^= 0x55;
            assert_eq!(read(&damaged), None, "byte {at}");
            assert_eq!(read(&bytes[..at]), None, "cut at {at}");
        }
    }
}
