//! Output that some other program keeps, copied into our log file: each line once.
//!
//! Where the other program has names for places (the journal's cursors), the place of the last line
//! copied is a mark in the file, written together with that line ([`Writer::mark`]); what is behind it
//! was written in part before a crash, and is crossed off. No clock has a part in that.
//!
//! Where there are only moments, what is there already is compared by moment, stream and text, as a
//! multiset over the last moments of the file: a crash between two writes neither loses nor doubles a
//! line, also among many of the same millisecond. A clock that is set back hides what is printed until
//! it has caught up.
//!
//! [`Writer::mark`]: crate::logfile::Writer::mark

use crate::logfile::{Entry, Reader};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use temps_ipc::types::{LogStream, Timestamp};

/// How far back moments may go from one line to the next: container engines stamp both streams by
/// different threads.
const DISORDER_MILLIS: i64 = 2_000;

/// Lets one caller at a time work on a file, or on what a path stands for: two that copy would both find
/// a line missing.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<PathBuf, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// To be locked while working on it.
    pub(super) fn of(&self, file: &Path) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        let known = turns.get(file).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let turn = Arc::default();
            turns.insert(file.to_owned(), Arc::downgrade(&turn));
            turn
        })
    }
}

/// The lines that the file has of its last moments.
pub(super) struct Known {
    /// Nothing earlier is missing in the file.
    pub(super) since: Timestamp,
    lines: HashMap<Entry, u32>,
}

impl Known {
    pub(super) fn read(file: &Path) -> io::Result<Self> {
        let reader = Reader::new(file);
        let (tail, _) = reader.tail(usize::MAX)?;
        let Some(last) = printed(tail).map(|(at, ..)| at).max() else {
            return Ok(Self {
                since: Timestamp(0),
                lines: HashMap::new(),
            });
        };
        let since = Timestamp(last.0 - DISORDER_MILLIS);
        let lines = counted(reader.since(Timestamp(since.0 - DISORDER_MILLIS))?);
        Ok(Self { since, lines })
    }

    /// The mark of the last line copied, and what is known behind it; nothing if there is none yet.
    pub(super) fn marked(file: &Path) -> io::Result<Option<(String, Self)>> {
        let found = Reader::new(file).marked()?;
        Ok(found.map(|(mark, behind)| {
            let known = Self {
                since: Timestamp(i64::MIN),
                lines: counted(behind),
            };
            (mark, known)
        }))
    }

    /// Whether the file does not have the line; one that it has is crossed off.
    pub(super) fn is_new(&mut self, at: Timestamp, stream: LogStream, text: &str) -> bool {
        if at < self.since {
            return false;
        }
        match self.lines.get_mut(&(at, stream, text.to_owned())) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            _ => true,
        }
    }
}

/// Without what the platform says itself.
fn printed(lines: Vec<Entry>) -> impl Iterator<Item = Entry> {
    lines
        .into_iter()
        .filter(|(_, stream, _)| *stream != LogStream::Platform)
}

fn counted(lines: Vec<Entry>) -> HashMap<Entry, u32> {
    let mut counts = HashMap::new();
    for line in printed(lines) {
        *counts.entry(line).or_insert(0) += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logfile::Writer;

    #[test]
    fn lines_that_the_file_has_are_not_new_and_equal_ones_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        let at = Timestamp(1_000_000);
        {
            let mut writer = Writer::open(&file).unwrap();
            writer.push(at, LogStream::Stdout, b"tick");
            writer.push(at, LogStream::Stdout, b"tick");
            writer.line(LogStream::Platform, "much later");
        }
        let mut known = Known::read(&file).unwrap();
        let mut is_new = |at, text| known.is_new(at, LogStream::Stdout, text);
        assert!(!is_new(at, "tick"));
        assert!(!is_new(at, "tick"));
        assert!(is_new(at, "tick"), "the third is another one");
        assert!(is_new(Timestamp(1_000_001), "tick"));
        assert!(
            !is_new(Timestamp(900_000), "old"),
            "older than anything the file may miss"
        );
    }

    #[test]
    fn behind_a_mark_no_clock_decides_what_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        let mut writer = Writer::open(&file).unwrap();
        writer.push(Timestamp(9_000_000), LogStream::Stdout, b"an hour ahead");
        assert!(Known::marked(&file).unwrap().is_none());
        writer.mark("s=1;i=7");
        writer.flush();
        writer.line(LogStream::Platform, "told");
        // Written by one that was killed before it could set its mark.
        writer.push(Timestamp(1_000), LogStream::Stdout, b"tick");
        drop(writer);
        let (mark, mut known) = Known::marked(&file).unwrap().unwrap();
        assert_eq!(mark, "s=1;i=7");
        let mut is_new = |at| known.is_new(Timestamp(at), LogStream::Stdout, "tick");
        assert!(!is_new(1_000));
        assert!(is_new(1_000));
        assert!(is_new(-5));
    }
}
