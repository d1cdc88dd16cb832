//! The manager's private socket, `/run/systemd/private`: D-Bus without a bus, for root alone.
//!
//! The manager names itself there by a well-known name where D-Bus asks for a unique one, which zbus
//! takes for a broken message. So messages are read whole here, and that field is overwritten by a
//! name of the same length: nothing depends on it, since there is only one who can send.

use async_trait::async_trait;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use zbus::connection::socket::{ReadHalf, Socket, Split, WriteHalf};
use zbus::{Connection, connection};

/// Longest line of the greeting in bytes.
const MAX_GREETING: u64 = 512;

/// Longest message in bytes; the list of all units of a large machine is some hundred kilobytes.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// The fixed part of a message's header, up to and with the length of its fields.
const FIXED: usize = 16;

/// The code of the field that names the sender (D-Bus specification, "Header Fields").
const SENDER: u8 = 7;

/// A connection to the manager without any bus.
pub(super) async fn connect(path: &Path) -> zbus::Result<Connection> {
    let stream = UnixStream::connect(path).await?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    // As ourselves: the kernel tells the other side who that is (SASL EXTERNAL without a name).
    writer
        .write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n")
        .await?;
    let guid = greeting(&mut reader).await?;
    let socket = Private {
        reader: Reader {
            stream: reader,
            message: Vec::new(),
            given: 0,
        },
        writer: Writer(writer),
    };
    connection::Builder::authenticated_socket(socket, guid.as_str())
        .p2p()
        .build()
        .await
}

/// Reads the answers to the authentication, and returns the identity of the other side.
async fn greeting(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<String> {
    let refused = || io::Error::other("the service manager does not let us in");
    let mut guid = None;
    // `DATA`, which asks for a name, `OK`, and that descriptors may be passed.
    for _ in 0..3 {
        let mut line = Vec::new();
        let mut limited = (&mut *reader).take(MAX_GREETING);
        limited.read_until(b'\n', &mut line).await?;
        let text = std::str::from_utf8(&line).map_err(|_| refused())?.trim();
        match text.split_once(' ') {
            Some(("OK", identity)) => guid = Some(identity.to_owned()),
            _ if text == "DATA" => {}
            _ if text == "AGREE_UNIX_FD" => return guid.ok_or_else(refused),
            _ => break,
        }
    }
    Err(refused())
}

struct Private {
    reader: Reader,
    writer: Writer,
}

impl Socket for Private {
    type ReadHalf = Reader;
    type WriteHalf = Writer;

    fn split(self) -> Split<Reader, Writer> {
        Split::new(self.reader, self.writer)
    }
}

/// Gives out whole messages, piece by piece.
#[derive(Debug)]
struct Reader {
    stream: BufReader<OwnedReadHalf>,
    message: Vec<u8>,
    given: usize,
}

#[async_trait]
impl ReadHalf for Reader {
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        if self.given == self.message.len() {
            self.given = 0;
            self.message.clear();
            self.message.resize(FIXED, 0);
            match self.stream.read_exact(&mut self.message).await {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    self.message.clear();
                    return Ok((0, Vec::new()));
                }
                result => result?,
            };
            let header = Header::read(&self.message)?;
            self.message.resize(header.total, 0);
            self.stream.read_exact(&mut self.message[FIXED..]).await?;
            header.rename_sender(&mut self.message);
        }
        let left = &self.message[self.given..];
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.given += count;
        // Nothing that is asked of the manager is answered by a descriptor.
        Ok((count, Vec::new()))
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct Writer(OwnedWriteHalf);

#[async_trait]
impl WriteHalf for Writer {
    async fn sendmsg(&mut self, buffer: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        if fds.is_empty() {
            return self.0.write(buffer).await;
        }
        let stream: &UnixStream = self.0.as_ref();
        let fds: Vec<i32> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        loop {
            stream.writable().await?;
            let sent = stream.try_io(Interest::WRITABLE, || {
                let data = [IoSlice::new(buffer)];
                let passed = [ControlMessage::ScmRights(&fds)];
                let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
                Ok(sendmsg::<()>(
                    stream.as_raw_fd(),
                    &data,
                    &passed,
                    flags,
                    None,
                )?)
            });
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                sent => return sent,
            }
        }
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }

    async fn close(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}

/// Where things are in a message (D-Bus specification, "Message Format").
struct Header {
    little: bool,
    /// Where the fields end.
    fields: usize,
    /// The whole message.
    total: usize,
}

impl Header {
    fn read(fixed: &[u8]) -> io::Result<Self> {
        let broken = || io::Error::other("the service manager sent something that is no message");
        let little = match fixed.first() {
            Some(b'l') => true,
            Some(b'B') => false,
            _ => return Err(broken()),
        };
        let body = number(fixed, 4, little).ok_or_else(broken)?;
        let fields = FIXED + number(fixed, 12, little).ok_or_else(broken)?;
        let total = fields.next_multiple_of(8) + body;
        if total > MAX_MESSAGE {
            return Err(broken());
        }
        Ok(Self {
            little,
            fields,
            total,
        })
    }

    /// Overwrites the sender's name by a unique one. A message that is not understood stays as it is:
    /// zbus judges it.
    fn rename_sender(&self, message: &mut [u8]) {
        if let Some(name) = self.sender(message) {
            for (place, byte) in message[name].iter_mut().enumerate() {
                *byte = *b":1.".get(place).unwrap_or(&b'0');
            }
        }
    }

    /// Where the sender's name is.
    fn sender(&self, message: &[u8]) -> Option<std::ops::Range<usize>> {
        let mut at = FIXED;
        while at < self.fields {
            at = at.next_multiple_of(8);
            let code = *message.get(at)?;
            // Each of one of these simple types.
            let kind = match message.get(at + 1..at + 4)? {
                [1, kind, 0] => *kind,
                _ => return None,
            };
            at += 4;
            let text = match kind {
                b's' | b'o' => at + 4..at + 4 + number(message, at, self.little)?,
                b'g' => at + 1..at + 1 + usize::from(*message.get(at)?),
                b'u' => {
                    at += 4;
                    continue;
                }
                _ => return None,
            };
            if text.end >= self.fields.min(message.len()) {
                return None;
            }
            if code == SENDER {
                // No unique name is shorter.
                return (text.len() >= 4).then_some(text);
            }
            at = text.end + 1;
        }
        None
    }
}

fn number(message: &[u8], at: usize, little: bool) -> Option<usize> {
    let bytes: [u8; 4] = message.get(at..at + 4)?.try_into().ok()?;
    let number = if little {
        u32::from_le_bytes(bytes)
    } else {
        u32::from_be_bytes(bytes)
    };
    usize::try_from(number)
        .ok()
        .filter(|&number| number <= MAX_MESSAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A signal with these fields in this order, as the manager sends it.
    fn message(fields: &[(u8, u8, &str)]) -> Vec<u8> {
        let mut bytes = vec![b'l', 4, 1, 1];
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend(9_u32.to_le_bytes());
        bytes.extend([0; 4]);
        for (code, kind, text) in fields {
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            bytes.extend([*code, 1, *kind, 0]);
            if *kind == b'g' {
                bytes.push(text.len() as u8);
            } else {
                bytes.extend((text.len() as u32).to_le_bytes());
            }
            bytes.extend(text.bytes());
            bytes.push(0);
        }
        let length = (bytes.len() - FIXED) as u32;
        bytes[12..16].copy_from_slice(&length.to_le_bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    const FIELDS: [(u8, u8, &str); 5] = [
        (1, b'o', "/org/freedesktop/systemd1"),
        (8, b'g', "uoss"),
        (SENDER, b's', "org.freedesktop.systemd1"),
        (2, b's', "org.freedesktop.systemd1.Manager"),
        (3, b's', "JobRemoved"),
    ];

    #[test]
    fn the_senders_name_alone_is_made_unique() {
        let mut found = message(&FIELDS);
        let header = Header::read(&found[..FIXED]).unwrap();
        assert_eq!(header.total, found.len());
        header.rename_sender(&mut found);
        let mut wanted = FIELDS;
        wanted[2].2 = ":1.000000000000000000000";
        assert_eq!(found, message(&wanted));
    }

    #[test]
    fn what_is_no_message_is_left_alone_or_refused() {
        let whole = message(&FIELDS);
        let header = Header::read(&whole[..FIXED]).unwrap();
        for end in FIXED..whole.len() {
            let mut cut = whole[..end].to_vec();
            header.rename_sender(&mut cut);
        }
        for place in 0..whole.len() {
            let mut bad = whole.clone();
            bad[place] = 0xff;
            header.rename_sender(&mut bad);
        }
        assert!(Header::read(b"HTTP/1.1 400 Bad").is_err());
        assert!(
            Header::read(&[b'l', 4, 1, 1, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]).is_err()
        );
    }
}
