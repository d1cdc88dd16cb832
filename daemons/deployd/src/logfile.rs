//! Log files: what builds and instances print, in lines of `<unix-millis> <o|e|p> <text>`.
//!
//! - `o` is standard output, `e` standard error, `p` what the platform says about the app.
//! - A file that reaches [`MAX_FILE`] becomes `NAME.1` (replacing the one before) and a new file
//!   starts with the line `<unix-millis> g <generation>`. A file without that line is generation 0.
//!   So a [`Cursor`] (generation and offset) survives one rotation.
//! - Who copies from elsewhere writes how far it has come as `<unix-millis> c <mark> .`, in the same
//!   write as the lines up to there, so that the two never disagree. Nobody is shown that line.
//! - Text is cut at [`MAX_LINE`], invalid UTF-8 is replaced, and control characters are left out
//!   except tab and escape: colours stay, and it is for whoever prints the line to judge them.
//! - Several writers may share a file, also from different processes: each appends whole lines, and
//!   rotation happens under a lock.
//! - A full disk never reaches the app: lines are dropped and counted, and the count is said later.

mod reader;
mod split;
mod writer;

pub use reader::{Cursor, Entry, Reader};
pub use split::Splitter;
pub use writer::Writer;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use temps_ipc::types::{LogStream, Timestamp};

/// Longest text of a line in bytes, as `temps_ipc::types::LogLine` promises.
pub const MAX_LINE: usize = 16 * 1024;

/// Size at which a file is rotated. With one old file kept, an instance holds at most twice this.
pub const MAX_FILE: u64 = 8 * 1024 * 1024;

/// The letter of a line that carries the file's generation.
const GENERATION: u8 = b'g';

/// The letter of a line that says how far its writer has come, and how such a line ends: one that was
/// written in part says nothing.
const MARK: &[u8] = b" c ";
const MARK_END: &[u8] = b" .";

/// The name of the rotated file.
pub(crate) fn rotated(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".1");
    PathBuf::from(name)
}

/// The text as it is kept: valid, printable, at most [`MAX_LINE`] bytes.
pub fn clean(text: &[u8]) -> String {
    let text = &text[..text.len().min(MAX_LINE)];
    let mut kept: String = String::from_utf8_lossy(text)
        .chars()
        .filter(|&c| c == '\t' || c == '\u{1b}' || !c.is_control())
        .collect();
    if kept.len() > MAX_LINE {
        let mut end = MAX_LINE;
        while !kept.is_char_boundary(end) {
            end -= 1;
        }
        kept.truncate(end);
    }
    kept
}

fn letter(stream: LogStream) -> u8 {
    match stream {
        LogStream::Stdout => b'o',
        LogStream::Stderr => b'e',
        LogStream::Platform => b'p',
    }
}

/// Appends the line to `out`.
fn encode(out: &mut Vec<u8>, at: Timestamp, stream: LogStream, text: &[u8]) {
    out.extend_from_slice(at.0.to_string().as_bytes());
    out.extend_from_slice(&[b' ', letter(stream), b' ']);
    out.extend_from_slice(clean(text).as_bytes());
    out.push(b'\n');
}

/// The line without its end; `None` for a torn line or one that carries no text.
fn decode(line: &[u8]) -> Option<Entry> {
    let line = std::str::from_utf8(line).ok()?;
    let (millis, rest) = line.split_once(' ')?;
    let stream = match rest.as_bytes().get(..2)? {
        b"o " => LogStream::Stdout,
        b"e " => LogStream::Stderr,
        b"p " => LogStream::Platform,
        _ => return None,
    };
    Some((
        Timestamp(millis.parse().ok()?),
        stream,
        rest[2..].to_owned(),
    ))
}

/// Appends a line that says how far its writer has come.
fn encode_mark(out: &mut Vec<u8>, mark: &str) {
    out.extend_from_slice(Timestamp::now().0.to_string().as_bytes());
    out.extend_from_slice(MARK);
    out.extend_from_slice(clean(mark.as_bytes()).as_bytes());
    out.extend_from_slice(MARK_END);
    out.push(b'\n');
}

/// What such a line says, without its end.
fn decode_mark(line: &[u8]) -> Option<&str> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mark = line.get(digits..)?.strip_prefix(MARK)?;
    std::str::from_utf8(mark.strip_suffix(MARK_END)?).ok()
}

/// The generation that a file's first line states.
fn generation(line: &[u8]) -> u64 {
    let stated = || {
        let line = std::str::from_utf8(line).ok()?;
        let (_, rest) = line.split_once(' ')?;
        rest.strip_prefix("g ")?.parse().ok()
    };
    stated().unwrap_or(0)
}

#[cfg(test)]
mod tests;
