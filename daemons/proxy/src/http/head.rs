//! Strict reading of an HTTP/1 request head (RFC 9112), before the HTTP engine parses it.
//!
//! Whatever two parsers could read differently is refused: that is how requests are smuggled past a
//! proxy. What passes has one meaning, so the number of bytes that belong to the request is known and
//! the engine is given no byte more.

/// More header fields than any client sends. The HTTP engine's own limit is 256.
const MAX_FIELDS: usize = 128;

/// Longest method we pass on; the longest registered is 17 (`BASELINE-CONTROL` is 16).
const MAX_METHOD: usize = 32;

/// How many bytes after the head belong to the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// Exactly this many.
    Length(u64),
    /// The body says itself where it ends.
    Chunked,
    /// The connection is not HTTP any more after the head, if the target agrees.
    Upgrade,
}

/// Why a request head is refused: the status, and a word for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {why}")]
pub struct Refusal {
    /// HTTP status of the answer.
    pub status: u16,
    /// Short reason, shown to the client.
    pub why: &'static str,
}

const fn bad(why: &'static str) -> Refusal {
    Refusal { status: 400, why }
}

/// The head is larger than the limit.
pub const TOO_LARGE: Refusal = Refusal {
    status: 431,
    why: "the request header is too large",
};

/// Length of the head in `bytes`, its empty line included; nothing if it is not there yet.
///
/// `seen` bytes were looked at before. Bare line feeds do not end a line, so a head that uses them
/// never ends; [`check`] refuses them as soon as one is there.
pub fn end(bytes: &[u8], seen: usize) -> Option<usize> {
    let from = seen.saturating_sub(3);
    let found = bytes
        .get(from..)?
        .windows(4)
        .position(|four| four == b"\r\n\r\n")?;
    Some(from + found + 4)
}

/// Whether `bytes`, the beginning of a head, can still become a valid one: a line feed without its
/// carriage return cannot.
///
/// # Errors
/// The refusal to answer with.
pub fn plausible(bytes: &[u8]) -> Result<(), Refusal> {
    let mut previous = 0;
    for &byte in bytes {
        if byte == b'\n' && previous != b'\r' {
            return Err(bad("a line ends with a bare line feed"));
        }
        if byte == 0 {
            return Err(bad("the header contains a zero byte"));
        }
        previous = byte;
    }
    Ok(())
}

/// Reads a whole head, and says what follows it.
///
/// # Errors
/// The refusal to answer with.
pub fn check(head: &[u8]) -> Result<Body, Refusal> {
    plausible(head)?;
    let text = head
        .strip_suffix(b"\r\n\r\n")
        .ok_or(bad("the header does not end"))?;
    let mut lines = split_lines(text);
    let request = lines.next().unwrap_or_default();
    let (version, authority) = request_line(request)?;

    let mut fields = Fields::default();
    for (number, line) in lines.enumerate() {
        if number >= MAX_FIELDS {
            return Err(Refusal {
                status: 431,
                why: "there are too many header fields",
            });
        }
        field(line, &mut fields)?;
    }
    fields.host(version, authority)?;
    fields.framing(version)
}

/// Lines between CRLF pairs. A CR alone stays in its line and is refused there.
fn split_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let here = rest?;
        match here.windows(2).position(|two| two == b"\r\n") {
            Some(at) => {
                rest = Some(&here[at + 2..]);
                Some(&here[..at])
            }
            None => {
                rest = None;
                Some(here)
            }
        }
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

/// The version, and the authority of a target in absolute form.
fn request_line(line: &[u8]) -> Result<(Version, Option<&[u8]>), Refusal> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(bad("the request line has not three parts"));
    };
    if method.is_empty() || method.len() > MAX_METHOD || !method.iter().all(|byte| is_token(*byte))
    {
        return Err(bad("the method is malformed"));
    }
    if method == b"CONNECT" {
        return Err(Refusal {
            status: 405,
            why: "this is no forward proxy",
        });
    }
    let plain = |byte: &u8| (0x21..=0x7e).contains(byte) && *byte != b'#';
    let absolute = target
        .strip_prefix(b"http://")
        .or_else(|| target.strip_prefix(b"https://"));
    let authority = absolute.map(|rest| {
        let end = rest
            .iter()
            .position(|byte| matches!(byte, b'/' | b'?'))
            .unwrap_or(rest.len());
        &rest[..end]
    });
    let form =
        target.starts_with(b"/") || (target == b"*" && method == b"OPTIONS") || absolute.is_some();
    if !form || !target.iter().all(plain) {
        return Err(bad("the request target is malformed"));
    }
    match version {
        b"HTTP/1.1" => Ok((Version::Http11, authority)),
        b"HTTP/1.0" => Ok((Version::Http10, authority)),
        _ if version.starts_with(b"HTTP/") => Err(Refusal {
            status: 505,
            why: "this version of HTTP is not spoken here",
        }),
        _ => Err(bad("the request line names no version")),
    }
}

/// The fields that say where the request ends and who it is for.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    connection_upgrade: bool,
}

fn field<'a>(line: &'a [u8], fields: &mut Fields<'a>) -> Result<(), Refusal> {
    let colon = line
        .iter()
        .position(|byte| *byte == b':')
        .ok_or(bad("a header field has no colon"))?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        // Also a folded line, and whitespace before the colon.
        return Err(bad("a header field's name is malformed"));
    }
    if value
        .iter()
        .any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f)
    {
        return Err(bad("a header field's value contains a control character"));
    }
    let value = value.trim_ascii();
    if name.eq_ignore_ascii_case(b"host") {
        if fields.host.replace(value).is_some() {
            return Err(bad("there are two Host fields"));
        }
    } else if name.eq_ignore_ascii_case(b"content-length") {
        if fields.length.is_some() {
            return Err(bad("there are two Content-Length fields"));
        }
        fields.length = Some(length(value)?);
    } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
        if fields.chunked {
            return Err(bad("there are two Transfer-Encoding fields"));
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(bad("the only transfer encoding understood is chunked"));
        }
        fields.chunked = true;
    } else if name.eq_ignore_ascii_case(b"upgrade") {
        fields.upgrade = true;
    } else if name.eq_ignore_ascii_case(b"connection") {
        let mut options = value.split(|byte| *byte == b',');
        fields.connection_upgrade |=
            options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
    }
    Ok(())
}

fn length(value: &[u8]) -> Result<u64, Refusal> {
    let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
    if !digits {
        return Err(bad("the Content-Length is no number"));
    }
    Ok(value
        .iter()
        .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

impl Fields<'_> {
    fn host(&self, version: Version, authority: Option<&[u8]>) -> Result<(), Refusal> {
        let Some(host) = self.host else {
            // HTTP/1.0 knows no hosts, so it gets none of ours.
            let missing = version == Version::Http11 || authority.is_some();
            return if missing {
                Err(bad("the Host field is missing"))
            } else {
                Ok(())
            };
        };
        if !host
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte))
        {
            return Err(bad("the Host field is malformed"));
        }
        if authority.is_some_and(|authority| !authority.eq_ignore_ascii_case(host)) {
            return Err(bad(
                "the request target and the Host field name different hosts",
            ));
        }
        Ok(())
    }

    fn framing(&self, version: Version) -> Result<Body, Refusal> {
        if self.chunked && self.length.is_some() {
            return Err(bad(
                "Content-Length and Transfer-Encoding exclude each other",
            ));
        }
        if self.chunked && version == Version::Http10 {
            return Err(bad("HTTP/1.0 has no Transfer-Encoding"));
        }
        let upgrade = self.upgrade && self.connection_upgrade && version == Version::Http11;
        if upgrade && (self.chunked || self.length.is_some_and(|length| length > 0)) {
            // Where the body ends and the other protocol begins would be anybody's guess.
            return Err(bad("an upgrade has no body"));
        }
        if upgrade {
            return Ok(Body::Upgrade);
        }
        if self.chunked {
            return Ok(Body::Chunked);
        }
        Ok(Body::Length(self.length.unwrap_or(0)))
    }
}

/// `tchar` of RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
