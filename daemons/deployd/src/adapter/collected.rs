//! Output that some other program keeps, copied into our log file: each line once.
//!
//! What is there already is compared by moment, stream and text, as a multiset over the last
//! moments of the file: no place has to be remembered, so a crash between two writes neither loses
//! nor doubles a line, also among many of the same millisecond.

use crate::logfile::{Entry, Reader};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use temps_ipc::types::{LogStream, Timestamp};

/// How far back moments may go from one line to the next: container engines stamp both streams by
/// different threads.
const DISORDER_MILLIS: i64 = 2_000;

/// Lets one caller at a time copy into a file: two would both find a line missing.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<PathBuf, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// To be locked while copying into the file.
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
    lines: HashMap<(Timestamp, LogStream, String), u32>,
}

impl Known {
    pub(super) fn read(file: &Path) -> io::Result<Self> {
        let reader = Reader::new(file);
        let printed = |lines: Vec<Entry>| {
            lines
                .into_iter()
                .filter(|(_, stream, _)| *stream != LogStream::Platform)
        };
        let (tail, _) = reader.tail(usize::MAX)?;
        let Some(last) = printed(tail).map(|(at, ..)| at).max() else {
            return Ok(Self {
                since: Timestamp(0),
                lines: HashMap::new(),
            });
        };
        let since = Timestamp(last.0 - DISORDER_MILLIS);
        let mut lines = HashMap::new();
        for line in printed(reader.since(Timestamp(since.0 - DISORDER_MILLIS))?) {
            *lines.entry(line).or_insert(0) += 1;
        }
        Ok(Self { since, lines })
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
}
