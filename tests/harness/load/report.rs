//! What a load saw. Everything is bounded: a run of days must not fill the machine.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use super::histogram::Histogram;

/// The first failures tell the story; the rest are counted.
const FAILURES_KEPT: usize = 1000;
/// At 250 requests a second, the last four and a half hours.
const STARTS_KEPT: usize = 4 << 20;
/// More names than a test deploys means that something else answers; the rest share the last.
const RELEASES_KEPT: usize = 10_000;

/// Which way a request went out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// On a connection that is kept.
    KeepAlive,
    /// On a connection of its own.
    NewConnection,
}

/// Why a request counts as failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureKind {
    /// No TCP connection.
    Connect,
    /// No TLS session, or a certificate that is not trusted.
    Tls,
    /// Closed or reset after the request was written, before an answer; on a new connection also
    /// before it could be written.
    Closed,
    /// Not answered to the end within the limit.
    Timeout,
    /// Answered, but not with 2xx.
    Status(u16),
    /// The body ended early.
    Body,
    /// The answer was no HTTP.
    Protocol,
}

/// One request that failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When the request was started.
    pub when: Instant,
    /// The same, since the start of the load.
    pub at: Duration,
    pub path: Path,
    pub kind: FailureKind,
    /// What the client said.
    pub what: String,
}

/// The answers of one release.
#[derive(Debug, Clone)]
pub struct Answers {
    pub count: u64,
    /// When the first answer's head arrived.
    pub first_seen: Instant,
    /// When the latest of the requests it answered was started.
    pub last_start: Instant,
    starts: VecDeque<Instant>,
}

/// What a load saw, whole.
#[derive(Debug, Clone)]
pub struct Report {
    /// Requests that ended, well or not. While the load runs, others are in flight.
    pub sent: u64,
    pub ok: u64,
    /// The first failures, with their stories; [`Report::failed_total`] counts all.
    pub failed: Vec<Failure>,
    pub failed_total: u64,
    /// From the moment a request was due, so a late start counts too. Only answers with 2xx.
    pub latencies: Histogram,
    /// By `X-Release`, whatever the status; an answer without one is under the empty name.
    pub by_release: BTreeMap<String, Answers>,
    /// Connections made.
    pub connections: u64,
    /// Kept connections that the server closed after announcing it (`Connection: close`).
    pub announced_closes: u64,
    /// Kept connections that the server closed unannounced, noticed before a request was written.
    pub idle_closes: u64,
    /// The most that a request started after it was due: a large value means that this machine,
    /// not the server, was too busy.
    pub latest_start: Duration,
    begun: Instant,
    /// How long the load has run.
    pub duration: Duration,
}

/// One request that ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub due: Instant,
    pub started: Instant,
    pub path: Path,
    /// `X-Release` and the arrival of the answer's head, if there was one.
    pub answered: Option<(String, Instant)>,
    pub failure: Option<(FailureKind, String)>,
}

impl Report {
    pub(super) fn new(begun: Instant) -> Self {
        Self {
            sent: 0,
            ok: 0,
            failed: Vec::new(),
            failed_total: 0,
            latencies: Histogram::default(),
            by_release: BTreeMap::new(),
            connections: 0,
            announced_closes: 0,
            idle_closes: 0,
            latest_start: Duration::ZERO,
            begun,
            duration: Duration::ZERO,
        }
    }

    /// How many requests started after `instant` were answered by `release`.
    pub fn answers_from_after(&self, release: &str, instant: Instant) -> usize {
        self.by_release.get(release).map_or(0, |answers| {
            answers
                .starts
                .iter()
                .filter(|start| **start > instant)
                .count()
        })
    }

    /// How many answers `release` gave.
    pub fn answers_from(&self, release: &str) -> u64 {
        self.by_release
            .get(release)
            .map_or(0, |answers| answers.count)
    }

    /// Panics with the whole story unless requests were sent and none failed.
    #[track_caller]
    pub fn assert_no_failure(&self) {
        assert!(self.sent > 0, "the load sent nothing");
        assert!(self.failed_total == 0, "{self}");
    }

    pub(super) fn record(&mut self, ended: Ended) {
        self.sent += 1;
        self.latest_start = self
            .latest_start
            .max(ended.started.saturating_duration_since(ended.due));
        if let Some((release, seen)) = ended.answered {
            self.answered(release, seen, ended.started);
        }
        match ended.failure {
            None => {
                self.ok += 1;
                self.latencies.add(ended.due.elapsed());
            }
            Some((kind, what)) => {
                self.failed_total += 1;
                if self.failed.len() < FAILURES_KEPT {
                    self.failed.push(Failure {
                        when: ended.started,
                        at: ended.started.saturating_duration_since(self.begun),
                        path: ended.path,
                        kind,
                        what,
                    });
                }
            }
        }
    }

    pub(super) fn timed(mut self) -> Self {
        self.duration = self.begun.elapsed();
        self
    }

    fn answered(&mut self, mut release: String, seen: Instant, started: Instant) {
        if self.by_release.len() >= RELEASES_KEPT && !self.by_release.contains_key(&release) {
            release = "(too many releases)".to_owned();
        }
        let answers = self.by_release.entry(release).or_insert_with(|| Answers {
            count: 0,
            first_seen: seen,
            last_start: started,
            starts: VecDeque::new(),
        });
        answers.count += 1;
        answers.first_seen = answers.first_seen.min(seen);
        answers.last_start = answers.last_start.max(started);
        if answers.starts.len() == STARTS_KEPT {
            answers.starts.pop_front();
        }
        answers.starts.push_back(started);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} requests in {:.1?}: {} ok, {} failed; p50 {:.1?}, p99 {:.1?}, max {:.1?}; \
             {} connections, {} closes announced, {} noticed idle, latest start {:.1?}",
            self.sent,
            self.duration,
            self.ok,
            self.failed_total,
            self.latencies.p50(),
            self.latencies.p99(),
            self.latencies.max(),
            self.connections,
            self.announced_closes,
            self.idle_closes,
            self.latest_start,
        )?;
        for (release, answers) in &self.by_release {
            let name = if release.is_empty() {
                "(no X-Release)"
            } else {
                release
            };
            let since = |instant: Instant| instant.saturating_duration_since(self.begun);
            let (first, last) = (since(answers.first_seen), since(answers.last_start));
            writeln!(
                f,
                "  {name}: {} answers, {first:.3?} to {last:.3?}",
                answers.count
            )?;
        }
        for failure in self.failed.iter().take(20) {
            let Failure {
                at,
                path,
                kind,
                what,
                ..
            } = failure;
            writeln!(f, "  failed at {at:.3?} ({path:?}) {kind:?}: {what}")?;
        }
        Ok(())
    }
}
