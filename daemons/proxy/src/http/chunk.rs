//! Where a chunked body ends (RFC 9112 section 7.1), without taking it apart: the HTTP engine does
//! that. Strict, so that the two cannot disagree.
//!
//! ```text
//!    +--------------------------- CRLF ----------------------------+
//!    v                                                             |
//! Size -[;ext]- CRLF -> Data(n) ------------------------------> DataEnd
//!    \- size 0, CRLF -> Trailer -- field CRLF --> Trailer -- CRLF --> Done
//! ```

/// Longest line of a chunk's size with its extensions; nobody uses the latter.
const MAX_LINE: u32 = 256;

/// All trailer fields together.
const MAX_TRAILER: u32 = 8 * 1024;

/// Digits of a size: 2^60 bytes are enough.
const MAX_DIGITS: u32 = 15;

/// The body is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunked body is malformed")]
pub struct BadChunk;

/// Follows a chunked body byte by byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanner {
    state: State,
    size: u64,
    digits: u32,
    /// Bytes of the current line, or of the trailer.
    seen: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a line of the trailer.
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// At the start of a body.
    pub const fn new() -> Self {
        Self {
            state: State::Size,
            size: 0,
            digits: 0,
            seen: 0,
        }
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// How many of `bytes` belong to the body.
    ///
    /// # Errors
    /// [`BadChunk`] if they cannot.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Done {
            if self.state == State::Data {
                let left = bytes.len() - at;
                let skip = usize::try_from(self.size).unwrap_or(usize::MAX).min(left);
                self.size -= skip as u64;
                at += skip;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.state = self.step(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<State, BadChunk> {
        self.seen += 1;
        let limit = match self.state {
            State::TrailerStart | State::Trailer | State::TrailerLf | State::EndLf => MAX_TRAILER,
            _ => MAX_LINE,
        };
        if self.seen > limit {
            return Err(BadChunk);
        }
        let text = byte == b'\t' || (0x20..0x7f).contains(&byte) || byte >= 0x80;
        match (self.state, byte) {
            (State::Size, byte) if byte.is_ascii_hexdigit() && self.digits < MAX_DIGITS => {
                let digit = char::from(byte).to_digit(16).ok_or(BadChunk)?;
                self.size = self.size * 16 + u64::from(digit);
                self.digits += 1;
                Ok(State::Size)
            }
            (State::Size, b';') if self.digits > 0 => Ok(State::Extension),
            (State::Size, b'\r') if self.digits > 0 => Ok(State::SizeLf),
            (State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Extension, _) if text => Ok(State::Extension),
            (State::SizeLf, b'\n') => {
                self.digits = 0;
                self.seen = 0;
                Ok(if self.size == 0 {
                    State::TrailerStart
                } else {
                    State::Data
                })
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => {
                self.seen = 0;
                Ok(State::Size)
            }
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::Trailer, b'\r') => Ok(State::TrailerLf),
            (State::TrailerStart | State::Trailer, _) if text => Ok(State::Trailer),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::EndLf, b'\n') => Ok(State::Done),
            _ => Err(BadChunk),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `body` in pieces of `size`; how many bytes belonged to it.
    fn take(body: &[u8], size: usize) -> Result<usize, BadChunk> {
        let mut scanner = Scanner::new();
        let mut taken = 0;
        for piece in body.chunks(size) {
            let count = scanner.take(piece)?;
            taken += count;
            if count < piece.len() {
                break;
            }
        }
        if scanner.is_done() {
            Ok(taken)
        } else {
            Err(BadChunk)
        }
    }

    #[test]
    fn a_body_ends_where_it_says_however_it_arrives() {
        for body in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "5;a=b\r\nhello\r\n00\r\nX: y\r\nZ: w\r\n\r\n",
            "A\r\n0\r\n\r\n0\r\n\r\n\r\n000\r\n\r\n",
        ] {
            let followed = format!("{body}GET / HTTP/1.1\r\n");
            for size in 1..followed.len() {
                assert_eq!(
                    take(followed.as_bytes(), size),
                    Ok(body.len()),
                    "{body:?} by {size}"
                );
            }
        }
    }

    #[test]
    fn anything_else_is_malformed() {
        for body in [
            "\r\n\r\n",
            "5\nhello\r\n0\r\n\r\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "-1\r\n\r\n",
            "0x5\r\nhello\r\n0\r\n\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            "FFFFFFFFFFFFFFFFF\r\n",
            "0\r\nX: y\n\r\n",
            "0\r\n\n",
        ] {
            assert_eq!(take(body.as_bytes(), 3), Err(BadChunk), "{body:?}");
        }
        let long = format!("5;{}\r\n", "x".repeat(1000));
        assert_eq!(take(long.as_bytes(), 64), Err(BadChunk));
        let trailer = format!("0\r\n{}", "X: y\r\n".repeat(5000));
        assert_eq!(take(trailer.as_bytes(), 64), Err(BadChunk));
    }
}
