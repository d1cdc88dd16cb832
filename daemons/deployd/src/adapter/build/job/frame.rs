//! One message of a conversation with a job: its length in four bytes, most significant first, then
//! JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};
use zeroize::Zeroizing;

/// Longest message in bytes: the variables of an app, which are the longest thing that is said, have
/// 512 KiB at most, and JSON writes some of their characters in six.
const MAX: u32 = 8 * 1024 * 1024;

/// Writes a message.
pub(crate) fn write(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    // It may hold secrets.
    let text = Zeroizing::new(serde_json::to_vec(message)?);
    let length = u32::try_from(text.len())
        .ok()
        .filter(|length| *length <= MAX)
        .ok_or_else(|| io::Error::other("a message to or of a job is too long"))?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(&text)?;
    to.flush()
}

/// Reads a message, and no byte more.
pub(crate) fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > MAX {
        return Err(io::Error::other("a message to or of a job is too long"));
    }
    let mut text = Zeroizing::new(Vec::new());
    from.take(u64::from(length)).read_to_end(&mut text)?;
    if text.len() < length as usize {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // Not what is wrong with it: an error of the parser may quote a secret.
    serde_json::from_slice(&text)
        .map_err(|_| io::Error::other("a message to or of a job is not as it should be"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_alone() {
        let mut bytes = Vec::new();
        write(&mut bytes, &("a\n\"b\"", 7)).unwrap();
        bytes.extend_from_slice(b"rest");
        let mut from = &bytes[..];
        let (text, number): (String, u8) = read(&mut from).unwrap();
        assert_eq!((text.as_str(), number), ("a\n\"b\"", 7));
        assert_eq!(from, b"rest");
    }

    #[test]
    fn what_is_no_message_is_an_error_and_takes_no_memory() {
        for bytes in [
            &b""[..],
            b"\xff\xff\xff\xff{}",
            b"\0\0\0\x09{}",
            b"\0\0\0\x02[[",
        ] {
            assert!(read::<(String,)>(&mut &*bytes).is_err(), "{bytes:?}");
        }
    }
}
