//! What programs of a build print, on its way into the build's log.

use crate::logfile::{MAX_LINE, Writer, clean};
use std::collections::VecDeque;
use std::io;
use std::time::Duration;
use temps_ipc::types::{LogStream, Timestamp};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

/// How many of the last lines are kept for the message of a failure.
const TAIL: usize = 20;

/// Longest line kept for it.
const MAX_TAIL_LINE: usize = 1_000;

/// Read at once.
const CHUNK: usize = 16 * 1024;

/// Bytes that are taken as fast as they come: as much as one file of the log holds, and more than an
/// ordinary build prints in all.
const BURST: u64 = 8 << 20;

/// Bytes per second that are taken of what is printed beyond: nobody reads it, only the last of it is
/// kept, and the work that it makes is not the build's but the platform's.
const RATE: u64 = 1 << 20;

/// How long is waited before more is taken: long enough that waking up is no work either.
const PAUSE: Duration = Duration::from_millis(100);

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

    /// Copies both until their ends. Who prints without end is held back by the full pipe.
    pub(super) async fn copy(
        &mut self,
        stdout: Option<impl AsyncRead + Unpin>,
        stderr: Option<impl AsyncRead + Unpin>,
        log: &mut dyn Log,
        redact: Redact<'_>,
    ) -> io::Result<()> {
        let (mut stdout, mut stderr) = (stdout, stderr);
        let mut chunks = (vec![0; CHUNK], vec![0; CHUNK]);
        let mut pace = Pace::new();
        while stdout.is_some() || stderr.is_some() {
            pace.turn(log).await;
            let (output, length) = tokio::select! {
                read = read(&mut stdout, &mut chunks.0) => (0, read?),
                read = read(&mut stderr, &mut chunks.1) => (1, read?),
            };
            pace.took(length);
            let bytes = if output == 0 { &chunks.0 } else { &chunks.1 };
            self.take(output, &bytes[..length], log, redact);
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

/// How fast outputs are taken: [`BURST`] at once, which comes back at [`RATE`].
struct Pace {
    left: u64,
    since: Instant,
    said: bool,
}

impl Pace {
    fn new() -> Self {
        Self {
            left: BURST,
            since: Instant::now(),
            said: false,
        }
    }

    /// Waits until more may be taken.
    async fn turn(&mut self, log: &mut dyn Log) {
        self.refill();
        while self.left < CHUNK as u64 {
            if !self.said {
                self.said = true;
                let shown = format!(
                    "this prints so much that only {} MiB per second are taken from here on",
                    RATE >> 20
                );
                say(log, &shown);
            }
            tokio::time::sleep(PAUSE).await;
            self.refill();
        }
    }

    fn took(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes as u64);
    }

    fn refill(&mut self) {
        let micros = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        let back = micros.saturating_mul(RATE) / 1_000_000;
        self.left = self.left.saturating_add(back).min(BURST);
        self.since = Instant::now();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts what it is given.
    #[derive(Default)]
    struct Counted {
        bytes: u64,
        said: Vec<String>,
    }

    impl Log for Counted {
        fn push(&mut self, stream: LogStream, text: &str) {
            match stream {
                LogStream::Platform => self.said.push(text.to_owned()),
                _ => self.bytes += text.len() as u64,
            }
        }

        fn flush(&mut self) {}
    }

    /// Prints lines as fast as somebody takes them, until so much was taken.
    struct Chatty(u64);

    impl AsyncRead for Chatty {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            into: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            let length = into.remaining().min(usize::try_from(self.0).unwrap());
            let mut line = vec![b'y'; length];
            if let Some(last) = line.last_mut() {
                *last = b'\n';
            }
            into.put_slice(&line);
            self.0 -= length as u64;
            std::task::Poll::Ready(Ok(()))
        }
    }

    async fn copy(bytes: u64, log: &mut Counted) {
        let outputs = (Some(Chatty(bytes)), None::<Chatty>);
        let mut copied = Outputs::new();
        copied
            .copy(outputs.0, outputs.1, log, &str::to_owned)
            .await
            .unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_prints_without_end_is_held_back() {
        let mut log = Counted::default();
        let endless = copy(u64::MAX, &mut log);
        let time = Duration::from_secs(4);
        assert!(tokio::time::timeout(time, endless).await.is_err());
        let most = BURST + RATE * time.as_secs();
        assert!(log.bytes > BURST && log.bytes <= most, "{}", log.bytes);
        assert_eq!(log.said.len(), 1, "{:?}", log.said);
    }

    #[tokio::test(start_paused = true)]
    async fn an_ordinary_output_is_taken_as_it_comes_and_whole() {
        let (mut log, start) = (Counted::default(), Instant::now());
        copy(BURST - CHUNK as u64, &mut log).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert!(log.said.is_empty());
        assert!(log.bytes > BURST - 2 * CHUNK as u64);
    }
}
