//! Copies a container's output from the engine into our log file, each line once
//! ([`crate::adapter::collected`]).

use super::engine::{CallError, Engine};
use crate::adapter::collected::{Known, Turns};
use crate::logfile::{Writer, clean};
use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use futures::StreamExt;
use std::io;
use std::path::Path;
use temps_ipc::Fault;
use temps_ipc::types::{LogStream, Timestamp};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Lets one caller at a time copy into a file.
#[derive(Debug, Default)]
pub(super) struct Collectors(Turns);

impl Collectors {
    /// Brings the file up to date with the container's output.
    pub(super) async fn collect(
        &self,
        engine: &Engine,
        container: &str,
        file: &Path,
    ) -> Result<(), CallError> {
        let turn = self.0.of(file);
        let _turn = turn.lock().await;
        collect(engine, container, file).await
    }
}

async fn collect(engine: &Engine, container: &str, file: &Path) -> Result<(), CallError> {
    let mut known = Known::read(file).map_err(failed)?;
    let options = LogsOptionsBuilder::new()
        .stdout(true)
        .stderr(true)
        .timestamps(true)
        // In seconds; what comes too early for us is known, or older than the file.
        .since(i32::try_from(known.since.0 / 1_000).unwrap_or(i32::MAX))
        .build();
    let docker = engine.docker().await?;
    let mut output = docker.logs(container, Some(options));
    let mut writer: Option<Writer> = None;
    let mut cutter = Cutter::default();
    let mut pending = 0;
    loop {
        // The engine sends what it has and ends: a pause means that it is stuck.
        let next = engine.call(async { Ok(output.next().await) }).await?;
        let (stream, bytes) = match next {
            None => break,
            Some(Err(error)) => return engine_error(engine, error),
            Some(Ok(LogOutput::StdErr { message })) => (LogStream::Stderr, message),
            Some(Ok(LogOutput::StdOut { message } | LogOutput::Console { message })) => {
                (LogStream::Stdout, message)
            }
            Some(Ok(LogOutput::StdIn { .. })) => continue,
        };
        for (at, text) in cutter.cut(&bytes) {
            if !known.is_new(at, stream, &clean(text.as_bytes())) {
                continue;
            }
            let writer = match &mut writer {
                Some(writer) => writer,
                none => none.insert(Writer::open(file).map_err(failed)?),
            };
            writer.push(at, stream, text.as_bytes());
            pending += text.len();
            if pending > 64 * 1024 {
                writer.flush();
                pending = 0;
            }
        }
    }
    if let Some(writer) = &mut writer {
        writer.flush();
    }
    Ok(())
}

fn engine_error(engine: &Engine, error: bollard::errors::Error) -> Result<(), CallError> {
    // A container that was removed meanwhile has no output any more.
    engine.explain(error).gone_is_fine()
}

fn failed(error: io::Error) -> CallError {
    CallError::Own(Fault::internal(format!(
        "the instance's log cannot be read or written: {error}"
    )))
}

/// Cuts the engine's lines into moment and text. A line longer than the engine's buffer comes in
/// pieces, of which only the first has a moment of its own; the others keep the one before.
#[derive(Default)]
struct Cutter {
    last: Option<Timestamp>,
}

impl Cutter {
    fn cut(&mut self, bytes: &[u8]) -> Vec<(Timestamp, String)> {
        let text = String::from_utf8_lossy(bytes);
        let lines = text.strip_suffix('\n').unwrap_or(&text).split('\n');
        lines.map(|line| self.line(line)).collect()
    }

    fn line(&mut self, line: &str) -> (Timestamp, String) {
        let stamped = line.split_once(' ').and_then(|(stamp, text)| {
            let moment = OffsetDateTime::parse(stamp, &Rfc3339).ok()?;
            let millis = i64::try_from(moment.unix_timestamp_nanos() / 1_000_000).ok()?;
            Some((Timestamp(millis), text))
        });
        let (at, text) =
            stamped.unwrap_or_else(|| (self.last.unwrap_or_else(Timestamp::now), line));
        self.last = Some(at);
        (at, text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_cut_off() {
        let mut cutter = Cutter::default();
        let cut = cutter.cut(b"1970-01-01T00:00:01.002345678Z a line\n");
        assert_eq!(cut, [(Timestamp(1_002), "a line".to_owned())]);
        assert_eq!(cutter.cut(b"the rest of it\n")[0].0, Timestamp(1_002));
        assert_eq!(
            cutter.cut(b"1970-01-01T00:00:02Z \n"),
            [(Timestamp(2_000), String::new())]
        );
    }
}
