//! Access events, kept until analytics takes them. Best effort by design: a request never waits for
//! it, and what is lost is counted.
//!
//! ```text
//! state/spool/NNNNNNNNNNNNNNNNNNNN.seg     20 digits, rising; read in this order
//! "TEMPSSP1" | record | record | …         see [`record`]; the last may be cut short by a crash
//! ```
//!
//! Requests put events into a bounded channel; one task writes what came within [`EVERY`] in one
//! write. A segment is closed at [`SEGMENT`] bytes, and the oldest are removed while all together
//! exceed the configured size. A new process begins a new segment; at a restart two write for a
//! while, each a segment of its own. Who writes a segment holds a lock on it (flock(2)): a reader
//! removes one that it has taken and could lock.

pub mod record;
mod ring;

use crate::event;
use record::AccessEvent;
use ring::Ring;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// How long events are gathered; as much may be lost in a crash.
const EVERY: Duration = Duration::from_millis(100);

/// Events that may wait for the writer: 80,000 a second, some 4 MB.
const WAITING: usize = 8192;

/// A segment is closed at this size, so that little is removed at a time.
const SEGMENT: u64 = 4 * 1024 * 1024;

/// The requests' end. Clones are one spool.
#[derive(Debug, Clone)]
pub struct Spool {
    events: Option<mpsc::Sender<AccessEvent>>,
    lost: Arc<AtomicU64>,
}

/// The writer's end.
#[derive(Debug)]
pub struct Writer {
    events: mpsc::Receiver<AccessEvent>,
    lost: Arc<AtomicU64>,
    ring: Ring,
}

impl Spool {
    /// A spool that keeps nothing.
    pub fn none() -> Self {
        Self {
            events: None,
            lost: Arc::default(),
        }
    }

    /// A spool in `directory` of at most `bytes`, and the task that writes it.
    pub fn new(directory: PathBuf, bytes: u64) -> (Self, Writer) {
        let (sender, events) = mpsc::channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            events,
            lost: Arc::clone(&lost),
            ring: Ring::new(directory, bytes, SEGMENT),
        };
        (
            Self {
                events: Some(sender),
                lost,
            },
            writer,
        )
    }

    /// Adds an event, or counts it as lost. Never waits.
    pub fn push(&self, event: impl FnOnce() -> AccessEvent) {
        let Some(events) = &self.events else {
            return;
        };
        match events.try_reserve() {
            Ok(room) => room.send(event()),
            Err(_) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Events lost since the start.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Writer {
    /// Writes until `stop`, then what is left. Sleeps while no request comes.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut reported = 0;
        while let Some(first) = tokio::select! {
            biased;
            first = self.events.recv() => first,
            () = stop.cancelled() => None,
        } {
            let _ = stop.run_until_cancelled(sleep(EVERY)).await;
            self = self.write(first).await;
            let lost = self.lost.load(Ordering::Relaxed);
            if lost > reported {
                temps_unit::event!(warn, event::SPOOL_LOSSES, lost, "access events were lost");
                // Said again only when it has become much more, lest the journal fills instead.
                reported = lost.saturating_mul(2);
            }
        }
    }

    async fn write(mut self, first: AccessEvent) -> Self {
        let mut bytes = Vec::new();
        let mut count = 1;
        first.write(&mut bytes);
        while let Ok(event) = self.events.try_recv() {
            event.write(&mut bytes);
            count += 1;
        }
        let mut ring = self.ring;
        // The disk may block; the requests' threads may not.
        let written = tokio::task::spawn_blocking(move || {
            let result = ring.append(&bytes);
            (ring, result)
        });
        match written.await {
            Ok((ring, Ok(()))) => self.ring = ring,
            Ok((ring, Err(error))) => {
                tracing::debug!(%error, "access events cannot be written");
                self.ring = ring;
                self.lost.fetch_add(count, Ordering::Relaxed);
            }
            Err(error) => {
                // Blocking work is not cancelled, so it panicked; the runtime is going down.
                tracing::error!(%error, "the writer of access events ended");
                self.events.close();
                self.ring = Ring::new(PathBuf::new(), 0, SEGMENT);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use record::tests::event;

    fn stored(directory: &std::path::Path) -> Vec<AccessEvent> {
        let mut files: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        files.sort();
        let mut events = Vec::new();
        for file in files {
            let bytes = std::fs::read(file).unwrap();
            let mut rest = bytes.strip_prefix(ring::MAGIC).unwrap();
            while let Some((event, length)) = record::read(rest) {
                events.push(event);
                rest = &rest[length..];
            }
        }
        events
    }

    #[tokio::test]
    async fn events_are_on_disk_after_the_stop() {
        let dir = tempfile::tempdir().unwrap();
        let (spool, writer) = Spool::new(dir.path().to_owned(), 1 << 20);
        let stop = CancellationToken::new();
        let task = tokio::spawn(writer.run(stop.clone()));
        for index in 0..50 {
            spool.push(|| event(&format!("/{index}")));
        }
        tokio::task::yield_now().await;
        stop.cancel();
        task.await.unwrap();
        let paths: Vec<String> = stored(dir.path())
            .into_iter()
            .map(|event| event.path)
            .collect();
        let expected: Vec<String> = (0..50).map(|index| format!("/{index}")).collect();
        assert_eq!(paths, expected);
    }

    #[tokio::test]
    async fn events_beyond_the_room_are_counted_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (spool, _writer) = Spool::new(dir.path().to_owned(), 1 << 20);
        for _ in 0..WAITING + 7 {
            spool.push(|| event("/"));
        }
        assert_eq!(spool.lost(), 7);
    }

    #[tokio::test]
    async fn a_full_disk_costs_events_not_the_writer() {
        let (spool, writer) = Spool::new("/proc/no/such/place".into(), 1 << 20);
        let stop = CancellationToken::new();
        let task = tokio::spawn(writer.run(stop.clone()));
        spool.push(|| event("/"));
        while spool.lost() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!task.is_finished());
        stop.cancel();
        task.await.unwrap();
    }
}
