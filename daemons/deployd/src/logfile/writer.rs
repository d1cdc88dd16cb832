//! Appends lines, rotates, and survives a full disk.

use super::{GENERATION, MAX_FILE, encode, encode_mark, generation, rotated};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use temps_ipc::types::{LogStream, Timestamp};

/// Appends lines to a log file.
///
/// Nothing it does fails after it was opened: a line that cannot be written is counted, and the
/// next one that can be written is preceded by a line that says how many are missing.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    buffered: u64,
    lost: u64,
    /// The file may end within a line: ours was written in part, or a writer was killed.
    torn: bool,
    max_file: u64,
}

impl Writer {
    /// Opens the file, which is made if it does not exist, as is its directory.
    ///
    /// # Errors
    /// When the directory or the file cannot be made or opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut file = append_to(path)?;
        Ok(Self {
            torn: ends_within_a_line(&mut file)?,
            path: path.to_owned(),
            file,
            buffer: Vec::new(),
            buffered: 0,
            lost: 0,
            max_file: MAX_FILE,
        })
    }

    /// The same with another size at which the file is rotated.
    #[cfg(test)]
    pub(super) fn with_max_file(mut self, bytes: u64) -> Self {
        self.max_file = bytes;
        self
    }

    /// Appends a line that was printed now.
    pub fn line(&mut self, stream: LogStream, text: &str) {
        self.push(Timestamp::now(), stream, text.as_bytes());
        self.flush();
    }

    /// Keeps a line for the next [`Writer::flush`].
    pub fn push(&mut self, at: Timestamp, stream: LogStream, text: &[u8]) {
        encode(&mut self.buffer, at, stream, text);
        self.buffered += 1;
    }

    /// Keeps a line that says how far whoever copies into the file has come: behind the lines up to
    /// there, and written with them or not at all. See [`Reader::marked`](super::Reader::marked).
    pub fn mark(&mut self, mark: &str) {
        encode_mark(&mut self.buffer, mark);
    }

    /// Writes the lines that were kept.
    pub fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        match self.write_out() {
            Ok(()) => self.lost = 0,
            Err(_) => {
                self.lost += self.buffered;
                self.torn = true;
            }
        }
        self.buffer.clear();
        self.buffered = 0;
        // One burst must not keep its memory for the life of an instance.
        self.buffer.shrink_to(64 * 1024);
    }

    fn write_out(&mut self) -> io::Result<()> {
        self.follow()?;
        if self.torn || self.lost > 0 {
            let mut prefix = Vec::new();
            if self.torn {
                prefix.push(b'\n');
            }
            if self.lost > 0 {
                let text = format!(
                    "{} lines are missing here: the log could not be written",
                    self.lost
                );
                encode(
                    &mut prefix,
                    Timestamp::now(),
                    LogStream::Platform,
                    text.as_bytes(),
                );
            }
            self.file.write_all(&prefix)?;
            self.lost = 0;
            self.torn = false;
        }
        // One call, so that lines of several writers do not mix.
        self.file.write_all(&self.buffer)
    }

    /// Goes on in the new file if another writer rotated, and rotates a full one.
    fn follow(&mut self) -> io::Result<()> {
        if !self.is_current()? {
            self.file = append_to(&self.path)?;
            self.torn = false;
        }
        if self.file.metadata()?.len() < self.max_file {
            return Ok(());
        }
        self.file.lock()?;
        if self.is_current()? {
            self.rotate()?;
        }
        // Closing the old file gives its lock back.
        self.file = append_to(&self.path)?;
        self.torn = false;
        Ok(())
    }

    /// Whether the path still names the file that is open.
    fn is_current(&self) -> io::Result<bool> {
        let open = self.file.metadata()?;
        match fs::metadata(&self.path) {
            Ok(named) => Ok(named.ino() == open.ino() && named.dev() == open.dev()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts a new file in place of the full one; the path names a file at every moment.
    fn rotate(&self) -> io::Result<()> {
        let mut head = vec![0; 64];
        let mut full = File::open(&self.path)?;
        let length = full.read(&mut head)?;
        head.truncate(length);
        let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let next = generation(line) + 1;

        let mut name = OsString::from(&self.path);
        name.push(".new");
        let fresh = PathBuf::from(name);
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        let now = Timestamp::now().0;
        writeln!(file, "{now} {} {next}", char::from(GENERATION))?;
        let old = rotated(&self.path);
        match fs::remove_file(&old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::hard_link(&self.path, &old)?;
        fs::rename(&fresh, &self.path)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.flush();
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    // Output may hold secrets: nobody else reads it.
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

fn ends_within_a_line(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}
