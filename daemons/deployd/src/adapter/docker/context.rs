//! Sends a source directory to the engine as a tar stream, as it is read: no copy of it is made.

use super::ignorefile::IgnoreFile;
use crate::archive::pack::append;
use bytes::Bytes;
use futures::Stream;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// How many pieces wait for the engine, and how large they are.
const PIECES: usize = 8;
const PIECE: usize = 64 * 1024;

/// Largest `.dockerignore` in bytes.
const MAX_IGNORE_FILE: u64 = 256 * 1024;

/// Reads the `.dockerignore` of a source; none is an empty one.
pub(super) fn read_ignore_file(root: &Path) -> Result<IgnoreFile, String> {
    let file = match File::open(root.join(".dockerignore")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(IgnoreFile::default()),
        Err(error) => return Err(format!(".dockerignore cannot be read: {error}")),
    };
    let mut text = String::new();
    file.take(MAX_IGNORE_FILE)
        .read_to_string(&mut text)
        .map_err(|error| format!(".dockerignore cannot be read: {error}"))?;
    IgnoreFile::parse(&text)
}

/// The directory as a stream of a tar archive. Ends early, with an error, if a file cannot be read;
/// nothing goes on when the stream is dropped.
pub(super) fn stream(
    root: PathBuf,
    ignore: IgnoreFile,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(PIECES);
    // It ends by itself when it is through, or when nobody takes its pieces any more.
    tokio::task::spawn_blocking(move || {
        let mut pieces = Pieces {
            sender,
            buffer: Vec::with_capacity(PIECE),
        };
        let result = pack(&root, &ignore, &mut pieces);
        if let Err(error) = result {
            let _ = pieces.sender.blocking_send(Err(error));
        }
    });
    futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    })
}

/// Hands on what is written to it in pieces.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(PIECE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..length]);
        if self.buffer.len() == PIECE {
            self.flush()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        self.sender
            .blocking_send(Ok(Bytes::from(piece)))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

fn pack(root: &Path, ignore: &IgnoreFile, to: &mut Pieces) -> io::Result<()> {
    let mut archive = tar::Builder::new(to);
    let mut waiting = vec![PathBuf::new()];
    while let Some(directory) = waiting.pop() {
        let mut names: Vec<PathBuf> = fs::read_dir(root.join(&directory))?
            .map(|entry| entry.map(|entry| directory.join(entry.file_name())))
            .collect::<io::Result<_>>()?;
        // The same source gives the same stream.
        names.sort();
        for name in names {
            let path = root.join(&name);
            let found = fs::symlink_metadata(&path)?;
            let ignored = ignore.ignores(&name, found.is_dir());
            if found.is_dir() && (!ignored || !ignore.is_plain()) {
                waiting.push(name.clone());
            }
            if !ignored {
                append(&mut archive, &name, &path, &found)?;
            }
        }
    }
    archive.into_inner()?.flush()
}
