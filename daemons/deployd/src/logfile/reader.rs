//! Reads lines from a place on, or the last ones, across one rotation.

use super::{decode, decode_mark, generation, rotated};
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use temps_ipc::types::{LogStream, Timestamp};

/// Most bytes that one call returns, and the furthest that [`Reader::tail`] looks back: a page must
/// fit a frame of 1 MiB with room for what else is in it.
const MAX_PAGE: u64 = 512 * 1024;

/// What is read of a file's end at first, in bytes.
const BLOCK: u64 = 64 * 1024;

/// A line: when, where, what.
pub type Entry = (Timestamp, LogStream, String);

/// A place between two lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    generation: u64,
    offset: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.generation, self.offset)
    }
}

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (generation, offset) = text.split_once('-')?;
            Some(Self {
                generation: generation.parse().ok()?,
                offset: offset.parse().ok()?,
            })
        };
        parse().ok_or_else(|| "not a cursor of a log".to_owned())
    }
}

/// Reads a log file. Keeps nothing open between calls.
#[derive(Debug, Clone)]
pub struct Reader {
    path: PathBuf,
}

struct Part {
    file: File,
    generation: u64,
    length: u64,
}

impl Reader {
    /// For the file, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// At most `limit` lines after the cursor (from the first on if there is none), and the place
    /// after the last of them. Lines that were rotated away twice are skipped silently.
    ///
    /// # Errors
    /// When a file exists and cannot be read.
    pub fn read(&self, after: Option<Cursor>, limit: usize) -> io::Result<(Vec<Entry>, Cursor)> {
        let mut lines = Vec::new();
        let mut cursor = after.unwrap_or_default();
        let mut bytes = 0;
        for part in self.parts()? {
            if after.is_some() && part.generation < cursor.generation {
                continue;
            }
            let start = match after {
                // A file that is shorter than it was is another one: from its start.
                Some(after)
                    if after.generation == part.generation && after.offset <= part.length =>
                {
                    after.offset
                }
                _ => 0,
            };
            cursor = Cursor {
                generation: part.generation,
                offset: start,
            };
            let mut file = part.file;
            file.seek(SeekFrom::Start(start))?;
            let mut reader = BufReader::new(file);
            let mut line = Vec::new();
            while lines.len() < limit && bytes < MAX_PAGE {
                line.clear();
                let length = reader
                    .by_ref()
                    .take(MAX_PAGE)
                    .read_until(b'\n', &mut line)? as u64;
                // A line without its end is still being written, unless it is longer than any.
                if line.last() != Some(&b'\n') && length < MAX_PAGE {
                    break;
                }
                cursor.offset += length;
                bytes += length;
                lines.extend(decode(line.strip_suffix(b"\n").unwrap_or(&line)));
            }
            if lines.len() >= limit || bytes >= MAX_PAGE {
                break;
            }
        }
        Ok((lines, cursor))
    }

    /// The last `count` lines, and the place after them.
    ///
    /// # Errors
    /// When a file exists and cannot be read.
    pub fn tail(&self, count: usize) -> io::Result<(Vec<Entry>, Cursor)> {
        let mut lines = Vec::new();
        let mut cursor = Cursor::default();
        let mut room = MAX_PAGE;
        for part in self.parts()?.into_iter().rev() {
            let length = part.length.min(room);
            let (block, end) = last_lines(part.file, part.length, length)?;
            if cursor == Cursor::default() {
                cursor = Cursor {
                    generation: part.generation,
                    offset: end,
                };
            }
            let mut earlier: Vec<Entry> = block
                .split(|&byte| byte == b'\n')
                .filter_map(decode)
                .collect();
            earlier.append(&mut lines);
            lines = earlier;
            room -= length;
            if lines.len() >= count || room == 0 {
                break;
            }
        }
        lines.drain(..lines.len().saturating_sub(count));
        Ok((lines, cursor))
    }

    /// Every line at or after the moment, if the file's moments never go back.
    ///
    /// # Errors
    /// When a file exists and cannot be read.
    pub fn since(&self, at: Timestamp) -> io::Result<Vec<Entry>> {
        let mut lines: Vec<Entry> = Vec::new();
        for part in self.parts()?.into_iter().rev() {
            let mut wanted = BLOCK.min(part.length);
            let block = loop {
                let (block, _) = last_lines(part.file.try_clone()?, part.length, wanted)?;
                let first = block.split(|&byte| byte == b'\n').find_map(decode);
                if wanted == part.length || first.is_some_and(|(first, ..)| first < at) {
                    break block;
                }
                wanted = (wanted * 4).min(part.length);
            };
            let found: Vec<Entry> = block
                .split(|&byte| byte == b'\n')
                .filter_map(decode)
                .collect();
            let goes_on = found.first().is_none_or(|(first, ..)| *first >= at);
            lines.splice(..0, found.into_iter().filter(|(when, ..)| *when >= at));
            if !goes_on {
                break;
            }
        }
        Ok(lines)
    }

    /// The last mark of whoever copies into the file, and the lines behind it: those that were written
    /// without one, by others or in part.
    ///
    /// # Errors
    /// When a file exists and cannot be read.
    pub fn marked(&self) -> io::Result<Option<(String, Vec<Entry>)>> {
        let mut behind: Vec<Entry> = Vec::new();
        for part in self.parts()?.into_iter().rev() {
            let mut wanted = BLOCK.min(part.length);
            loop {
                let (block, _) = last_lines(part.file.try_clone()?, part.length, wanted)?;
                let mut mark = None;
                let mut found = Vec::new();
                for line in block.split(|&byte| byte == b'\n') {
                    match decode_mark(line) {
                        Some(later) => {
                            mark = Some(later.to_owned());
                            found.clear();
                        }
                        None => found.extend(decode(line)),
                    }
                }
                if mark.is_some() || wanted == part.length {
                    behind.splice(..0, found);
                    match mark {
                        Some(mark) => return Ok(Some((mark, behind))),
                        None => break,
                    }
                }
                wanted = (wanted * 4).min(part.length);
            }
        }
        Ok(None)
    }

    /// The rotated file, if there is one, and the current one.
    fn parts(&self) -> io::Result<Vec<Part>> {
        // The current file first: if it is rotated between the two, it is found twice, not never.
        let current = part(&self.path)?;
        let mut parts: Vec<Part> = part(&rotated(&self.path))?.into_iter().collect();
        if let Some(current) = current {
            parts.retain(|old| old.generation < current.generation);
            parts.push(current);
        }
        Ok(parts)
    }
}

fn part(path: &Path) -> io::Result<Option<Part>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut head = [0; 64];
    let read = file.read(&mut head)?;
    let line = head[..read]
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    Ok(Some(Part {
        generation: generation(line),
        length: file.metadata()?.len(),
        file,
    }))
}

/// The complete lines among the last `wanted` of `length` bytes, and where they end.
fn last_lines(mut file: File, length: u64, wanted: u64) -> io::Result<(Vec<u8>, u64)> {
    let start = length - wanted;
    file.seek(SeekFrom::Start(start))?;
    let mut block = Vec::new();
    file.take(wanted).read_to_end(&mut block)?;
    let end = block
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    block.truncate(end);
    if start > 0 {
        let first = block
            .iter()
            .position(|&byte| byte == b'\n')
            .map_or(block.len(), |at| at + 1);
        block.drain(..first);
    }
    Ok((block, start + end as u64))
}
