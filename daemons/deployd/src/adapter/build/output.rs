//! What programs of a build print, on its way into the build's log.

use crate::logfile::{MAX_LINE, Writer, clean};
use std::collections::VecDeque;
use std::io;
use temps_ipc::types::{LogStream, Timestamp};
use tokio::io::{AsyncRead, AsyncReadExt};

/// How many of the last lines are kept for the message of a failure.
const TAIL: usize = 20;

/// Longest line kept for it.
const MAX_TAIL_LINE: usize = 1_000;

/// Read at once.
const CHUNK: usize = 16 * 1024;

/// Where a build says something: the log, or whoever writes it there.
pub(super) trait Log: Send {
    /// Keeps a line for the next flush.
    fn push(&mut self, stream: LogStream, text: &str);

    /// Hands on the lines that were kept.
    fn flush(&mut self);
}

impl Log for Writer {
    fn push(&mut self, stream: LogStream, text: &str) {
        Writer::push(self, Timestamp::now(), stream, text.as_bytes());
    }

    fn flush(&mut self) {
        Writer::flush(self);
    }
}

/// Says something about the build in its log.
pub(super) fn say(log: &mut dyn Log, text: &str) {
    text.lines()
        .for_each(|line| log.push(LogStream::Platform, line));
    log.flush();
}

/// Changes a line before anybody sees it.
pub(super) type Redact<'a> = &'a (dyn Fn(&str) -> String + Sync);

/// Both outputs of a program.
pub(super) struct Outputs {
    partial: [Vec<u8>; 2],
    tail: VecDeque<String>,
}

impl Outputs {
    pub(super) fn new() -> Self {
        Self {
            partial: [Vec::new(), Vec::new()],
            tail: VecDeque::new(),
        }
    }

    /// Copies both until their ends.
    pub(super) async fn copy(
        &mut self,
        stdout: Option<impl AsyncRead + Unpin>,
        stderr: Option<impl AsyncRead + Unpin>,
        log: &mut dyn Log,
        redact: Redact<'_>,
    ) -> io::Result<()> {
        let (mut stdout, mut stderr) = (stdout, stderr);
        let mut chunks = (vec![0; CHUNK], vec![0; CHUNK]);
        while stdout.is_some() || stderr.is_some() {
            tokio::select! {
                read = read(&mut stdout, &mut chunks.0) => self.take(0, &chunks.0[..read?], log, redact),
                read = read(&mut stderr, &mut chunks.1) => self.take(1, &chunks.1[..read?], log, redact),
            }
        }
        for output in 0..2 {
            self.finish_line(output, log, redact);
        }
        log.flush();
        Ok(())
    }

    /// The last lines of both.
    pub(super) fn tail(self) -> VecDeque<String> {
        self.tail
    }

    fn take(&mut self, output: usize, bytes: &[u8], log: &mut dyn Log, redact: Redact<'_>) {
        for &byte in bytes {
            // Progress that draws over itself is one line per state.
            if byte == b'\n' || byte == b'\r' {
                self.finish_line(output, log, redact);
            } else if self.partial[output].len() < MAX_LINE {
                self.partial[output].push(byte);
            }
        }
        log.flush();
    }

    fn finish_line(&mut self, output: usize, log: &mut dyn Log, redact: Redact<'_>) {
        if self.partial[output].is_empty() {
            return;
        }
        let line = redact(&clean(&self.partial[output]));
        self.partial[output].clear();
        let stream = if output == 0 {
            LogStream::Stdout
        } else {
            LogStream::Stderr
        };
        log.push(stream, &line);
        self.tail
            .push_back(line.chars().take(MAX_TAIL_LINE).collect());
        if self.tail.len() > TAIL {
            self.tail.pop_front();
        }
    }
}

/// Reads what there is; at the end the stream is taken away, and nothing is ever read again.
async fn read(from: &mut Option<impl AsyncRead + Unpin>, into: &mut [u8]) -> io::Result<usize> {
    let Some(stream) = from else {
        return std::future::pending().await;
    };
    let length = stream.read(into).await?;
    if length == 0 {
        *from = None;
    }
    Ok(length)
}
