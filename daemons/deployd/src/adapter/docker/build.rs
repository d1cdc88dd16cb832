//! Builds a Dockerfile through the engine's classic builder, which every engine has.

use super::context;
use super::engine::CallError;
use super::images::{Images, TAG_PREFIX, artifact};
use crate::logfile::{Splitter, Writer};
use crate::port::Artifact;
use bollard::body_try_stream;
use bollard::query_parameters::BuildImageOptionsBuilder;
use futures::StreamExt;
use std::collections::VecDeque;
use std::path::Path;
use temps_ipc::Fault;
use temps_ipc::id::ReleaseId;
use temps_ipc::types::{AppName, LogStream};
use tokio::time::{Instant, timeout_at};

/// The period over which the engine counts CPU time, in microseconds; its default.
const CPU_PERIOD: i32 = 100_000;

/// How many of the last lines are in the message of a failed build.
const TAIL: usize = 5;

/// How often a build is tried that the engine breaks by itself.
const TRIES: u32 = 3;

impl Images {
    /// Builds the Dockerfile in `root`. Dropping it ends the build.
    ///
    /// # Errors
    /// `Invalid` with the step that failed and the last lines; `Unavailable`.
    pub async fn build(
        &self,
        app: &AppName,
        release: &ReleaseId,
        root: &Path,
        log: &mut Writer,
    ) -> Result<Artifact, Fault> {
        let deadline = Instant::now() + self.engine.settings.build_limit;
        for _ in 1..TRIES {
            match self.try_build(app, release, root, log, deadline).await {
                Err(fault) if lost_its_cache(&fault) => {
                    log.line(
                        LogStream::Platform,
                        "the engine lost a cached step meanwhile: again",
                    );
                }
                result => return result,
            }
        }
        self.try_build(app, release, root, log, deadline).await
    }

    async fn try_build(
        &self,
        app: &AppName,
        release: &ReleaseId,
        root: &Path,
        log: &mut Writer,
        deadline: Instant,
    ) -> Result<Artifact, Fault> {
        let settings = &self.engine.settings;
        let tag = format!("{TAG_PREFIX}{app}:{release}");
        let memory = i32::try_from(settings.build_memory).unwrap_or(i32::MAX);
        let options = BuildImageOptionsBuilder::new()
            .dockerfile("Dockerfile")
            .t(&tag)
            .rm(true)
            .forcerm(true)
            .memory(memory)
            .memswap(memory)
            .cpuperiod(CPU_PERIOD)
            .cpuquota(CPU_PERIOD / 100 * settings.build_cpu_percent)
            .labels(&self.engine.labels())
            .build();
        let ignore = context::read_ignore_file(root).map_err(Fault::invalid)?;
        let body = body_try_stream(context::stream(root.to_owned(), ignore));
        let docker = self.engine.patient_docker().await?;
        let mut output = docker.build_image(options, None, Some(body));
        let mut said = Said::default();
        loop {
            let next = timeout_at(deadline, output.next()).await.map_err(|_| {
                Fault::invalid(format!(
                    "the build took more than {} s; {}",
                    settings.build_limit.as_secs(),
                    said.step
                ))
            })?;
            match next {
                None => break,
                Some(Ok(step)) => {
                    for text in [step.stream, step.status.map(|status| status + "\n")]
                        .into_iter()
                        .flatten()
                    {
                        said.take(&text, log);
                    }
                }
                Some(Err(error)) => {
                    let error = self.engine.explain(error);
                    said.finish(log);
                    return Err(said.fault(error));
                }
            }
        }
        said.finish(log);
        let found = self.inspect(&tag).await?.ok_or_else(|| {
            Fault::unavailable("the engine ended the build without an image and without an error")
        })?;
        artifact(found, log)
    }
}

/// The classic builder takes a cached step that is removed with another image at the same moment.
fn lost_its_cache(fault: &Fault) -> bool {
    [
        "unknown parent image ID",
        "failed to set parent",
        "failed to get digest",
    ]
    .iter()
    .any(|text| fault.what.contains(text))
}

/// What the build printed, as far as the message of its failure needs it.
struct Said {
    lines: Splitter,
    partial: String,
    step: String,
    tail: VecDeque<String>,
}

impl Default for Said {
    fn default() -> Self {
        Self {
            lines: Splitter::new(LogStream::Stdout),
            partial: String::new(),
            step: "no step was reached".to_owned(),
            tail: VecDeque::new(),
        }
    }
}

impl Said {
    fn take(&mut self, text: &str, log: &mut Writer) {
        self.lines.feed(text.as_bytes(), log);
        log.flush();
        for piece in text.split_inclusive('\n') {
            if self.partial.len() < 1_000 {
                self.partial.push_str(piece.trim_end());
            }
            if piece.ends_with('\n') {
                let line = std::mem::take(&mut self.partial);
                self.keep(line);
            }
        }
    }

    fn keep(&mut self, line: String) {
        // `Step 3/7 : RUN make`
        if line.starts_with("Step ") && line.contains(" : ") {
            self.step.clone_from(&line);
            self.tail.clear();
        } else if !line.is_empty()
            && !line.starts_with(" ---> ")
            && !line.starts_with("Removing intermediate")
        {
            self.tail.push_back(line.chars().take(500).collect());
            if self.tail.len() > TAIL {
                self.tail.pop_front();
            }
        }
    }

    fn finish(&mut self, log: &mut Writer) {
        self.lines.finish(log);
        log.flush();
        let line = std::mem::take(&mut self.partial);
        self.keep(line);
    }

    fn fault(&self, error: CallError) -> Fault {
        let why = error.to_string();
        match error {
            CallError::Refused(_) | CallError::NotFound(_) => {
                let tail: String = self.tail.iter().map(|line| format!("\n  {line}")).collect();
                Fault::invalid(format!("the build failed in `{}`: {why}{tail}", self.step))
                    .hint("the whole output is in the build log (`temps logs APP --build`)")
            }
            error => error.into_fault(),
        }
    }
}
