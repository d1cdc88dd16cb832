//! Reading logs by cursor: one build log, or the instances of an app one after the other in the
//! order of their start, so that a follower goes on over a redeployment.

use super::Engine;
use crate::logfile::{Cursor, Entry, Reader};
use crate::store::instance::{self, Instance, State};
use crate::store::{app, release};
use std::path::{Path, PathBuf};
use std::time::Duration;
use temps_ipc::Fault;
use temps_ipc::id::{InstanceId, ReleaseId};
use temps_ipc::types::{LogKind, LogLine, LogPage, LogQuery, Phase, ReleaseStatus};

/// Most lines of a page.
const MAX_LINES: u32 = 1000;

/// Text after which a page takes no further log. One log alone gives at most 512 KiB, so that a page
/// always fits a frame of 1 MiB; and one that gave less than this was read to its end.
const FULL: usize = 256 * 1024;

/// Longest wait of a caller for a line.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Pause between two looks while a caller waits: short enough to feel live.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How long an engine may take to hand over new lines.
const COLLECT_TIME: Duration = Duration::from_secs(5);

/// A log that lines come from.
struct LogSource {
    /// Names it in the cursor.
    key: String,
    path: PathBuf,
    release: ReleaseId,
    instance: Option<Instance>,
    /// Nothing is written to it any more.
    closed: bool,
}

/// The logs that a query is about.
struct Sources {
    /// Oldest first.
    logs: Vec<LogSource>,
    /// None will be added.
    complete: bool,
}

impl Engine {
    /// Log lines after a cursor.
    ///
    /// # Errors
    /// `NotFound` for an unknown app or release; `Invalid` for a cursor that is none.
    pub async fn logs(&self, query: LogQuery) -> Result<LogPage, Fault> {
        let deadline =
            tokio::time::Instant::now() + Duration::from_millis(query.wait_ms).min(LONGEST_WAIT);
        // The cursor of a page on which there was no log yet is empty.
        let after = query.after.as_deref().filter(|after| !after.is_empty());
        let mut position = after.map(Position::parse).transpose()?;
        loop {
            let sources = self.log_sources(&query).await?;
            for source in &sources.logs {
                self.collect(source).await;
            }
            let limit = query.limit.clamp(1, MAX_LINES) as usize;
            let (page, next) = tokio::task::spawn_blocking({
                let tail = query.tail;
                let position = position.clone();
                move || read(&sources, position.as_ref(), tail, limit)
            })
            .await
            .map_err(|_| Fault::internal("reading the log failed"))??;
            if !page.lines.is_empty() || page.ended {
                return Ok(page);
            }
            position = next;
            if tokio::time::Instant::now() + LOOK_AGAIN > deadline || self.stopping.is_cancelled() {
                return Ok(page);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Brings a running instance's log up to date.
    async fn collect(&self, source: &LogSource) {
        let Some(instance) = source.instance.as_ref().filter(|_| !source.closed) else {
            return;
        };
        let Some(runtime) = self.runtimes.get(instance.runtime) else {
            return;
        };
        let collected = runtime.collect_log(&instance.id, &instance.release, &source.path);
        match tokio::time::timeout(COLLECT_TIME, collected).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(instance = %instance.id, %error, "its log cannot be collected now")
            }
            Err(_) => tracing::debug!(instance = %instance.id, "its log was not collected in time"),
        }
    }

    /// The logs that the query is about, oldest first.
    async fn log_sources(&self, query: &LogQuery) -> Result<Sources, Fault> {
        let (name, wanted, kind) = (query.app.clone(), query.release.clone(), query.kind);
        let paths = self.paths.clone();
        let sources = self
            .store
            .read(move |db| {
                let app = app::get(db, &name)?;
                if let Some(wanted) = &wanted
                    && release::get(db, wanted)?.app != app.id
                {
                    return Err(crate::store::RowError::Missing(format!(
                        "`{name}` has no release {wanted}"
                    )));
                }
                if kind == LogKind::Build {
                    let release = match &wanted {
                        Some(wanted) => Some(release::get(db, wanted)?),
                        None => release::list(db, &app.id, None, 1)?.into_iter().next(),
                    };
                    let building = crate::store::deployment::open(db, &app.id)?;
                    let logs = release
                        .into_iter()
                        .map(|release| LogSource {
                            key: release.id.to_string(),
                            path: paths.build_log(&release.id),
                            closed: !building.iter().any(|deployment| {
                                deployment.release == release.id
                                    && matches!(deployment.phase, Phase::Queued | Phase::Preparing)
                            }),
                            release: release.id,
                            instance: None,
                        })
                        .collect();
                    return Ok(Sources {
                        logs,
                        complete: true,
                    });
                }
                // An app may always be deployed again.
                let complete = match &wanted {
                    Some(wanted) => release::get(db, wanted)?.status != ReleaseStatus::Pending,
                    None => false,
                };
                let logs = instance::of_app(db, &app.id, wanted.as_ref())?
                    .into_iter()
                    .map(|instance| LogSource {
                        key: instance.id.to_string(),
                        path: paths.instance_log(&instance.release, &instance.id),
                        release: instance.release.clone(),
                        closed: instance.state == State::Gone,
                        instance: Some(instance),
                    })
                    .collect();
                Ok(Sources { logs, complete })
            })
            .await?;
        Ok(sources)
    }
}

/// A place in the sequence of logs: which one, and where in it.
#[derive(Debug, Clone)]
struct Position {
    key: String,
    cursor: Option<Cursor>,
}

impl Position {
    fn parse(text: &str) -> Result<Self, Fault> {
        let bad = || Fault::invalid("that is no cursor of a log");
        if text.len() > 200 {
            return Err(bad());
        }
        let (key, cursor) = text.split_once(':').ok_or_else(bad)?;
        let cursor = match cursor {
            "" => None,
            cursor => Some(cursor.parse().map_err(|_| bad())?),
        };
        Ok(Self {
            key: key.to_owned(),
            cursor,
        })
    }

    fn text(&self) -> String {
        match &self.cursor {
            Some(cursor) => format!("{}:{cursor}", self.key),
            None => format!("{}:", self.key),
        }
    }
}

/// One page from the sources, and where it ends.
fn read(
    sources: &Sources,
    after: Option<&Position>,
    tail: Option<u32>,
    limit: usize,
) -> Result<(LogPage, Option<Position>), Fault> {
    let unreadable =
        |error: std::io::Error| Fault::internal(format!("the log cannot be read: {error}"));
    let mut lines: Vec<LogLine> = Vec::new();
    let mut bytes = 0;
    let mut position = after.cloned();
    match (after, tail) {
        (None, Some(tail)) => {
            // From the last source backwards, until there are enough lines.
            let mut wanted = (tail as usize).min(limit);
            for source in sources.logs.iter().rev() {
                let (entries, cursor) =
                    Reader::new(&source.path).tail(wanted).map_err(unreadable)?;
                if position.is_none() {
                    position = Some(Position {
                        key: source.key.clone(),
                        cursor: Some(cursor),
                    });
                }
                wanted = wanted.saturating_sub(entries.len());
                bytes += size(&entries);
                lines.splice(0..0, entries.into_iter().map(|entry| line(source, entry)));
                if wanted == 0 || bytes >= FULL {
                    break;
                }
            }
        }
        _ => {
            // Sources that were removed meanwhile are skipped: identifiers sort by time.
            let rest = sources
                .logs
                .iter()
                .filter(|source| after.is_none_or(|at| source.key >= at.key));
            for source in rest {
                let cursor = after
                    .filter(|at| at.key == source.key)
                    .and_then(|at| at.cursor);
                let (entries, cursor) = Reader::new(&source.path)
                    .read(cursor, limit - lines.len())
                    .map_err(unreadable)?;
                bytes += size(&entries);
                lines.extend(entries.into_iter().map(|entry| line(source, entry)));
                position = Some(Position {
                    key: source.key.clone(),
                    cursor: Some(cursor),
                });
                if lines.len() >= limit || bytes >= FULL {
                    break;
                }
            }
        }
    }
    let closed = sources.complete && sources.logs.iter().all(|source| source.closed);
    let page = LogPage {
        ended: lines.is_empty() && closed,
        cursor: position.as_ref().map_or_else(String::new, Position::text),
        lines,
    };
    Ok((page, position))
}

/// Bytes of text.
fn size(entries: &[Entry]) -> usize {
    entries.iter().map(|(_, _, text)| text.len()).sum()
}

fn line(source: &LogSource, (at, stream, text): Entry) -> LogLine {
    LogLine {
        at,
        release: source.release.clone(),
        instance: source
            .instance
            .as_ref()
            .map(|instance: &Instance| -> InstanceId { instance.id.clone() }),
        stream,
        text,
    }
}

/// The last lines of a log, for a reason. Empty if there is none.
pub(super) async fn last_lines(log: &Path, count: usize) -> Vec<String> {
    let log = log.to_owned();
    tokio::task::spawn_blocking(move || Reader::new(log).tail(count))
        .await
        .ok()
        .and_then(Result::ok)
        .map(|(entries, _)| entries.into_iter().map(|(_, _, text)| text).collect())
        .unwrap_or_default()
}
