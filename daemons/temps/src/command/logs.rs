//! `temps logs`.

use crate::cli::LogsArgs;
use crate::instance::{Instance, PATIENCE};
use crate::output::{Done, Out, Style};
use serde::Serialize;
use std::time::{Duration, Instant};
use temps_ipc::Fault;
use temps_ipc::id::ReleaseId;
use temps_ipc::types::{LogKind, LogLine, LogPage, LogQuery, LogStream};
use temps_ipc::wire::client::Repeat;

/// Lines that `--follow` begins with.
const FOLLOW_LINES: u32 = 100;

/// Lines asked for at a time.
const PAGE: u32 = 1_000;

/// How long deployd may hold a question for new lines. Below its own limit.
const WAIT: Duration = Duration::from_secs(15);

/// Pause after an empty answer that came at once: a daemon that does not wait is not asked in a
/// tight loop.
const PAUSE: Duration = Duration::from_millis(200);

/// A line, for programs.
#[derive(Debug, Serialize)]
struct Line<'a> {
    at: String,
    release: &'a str,
    instance: Option<&'a str>,
    stream: LogStream,
    text: &'a str,
}

/// Shows what an app or its build printed.
pub async fn run(instance: &Instance, args: LogsArgs, out: &Out) -> Done {
    let follow = args.follow;
    let tail = args.lines.or(follow.then_some(FOLLOW_LINES));
    let query = LogQuery {
        app: args.app,
        release: args.release,
        kind: if args.build {
            LogKind::Build
        } else {
            LogKind::Runtime
        },
        after: None,
        tail,
        limit: PAGE,
        wait_ms: 0,
    };
    if !follow {
        return all(instance, query, out).await;
    }
    tokio::select! {
        done = following(instance, query, out) => done,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

async fn all(instance: &Instance, mut query: LogQuery, out: &Out) -> Done {
    let mut printer = Printer::new(out);
    loop {
        let page = ask(instance, &query).await?;
        printer.print(&page)?;
        if page.lines.is_empty() || page.ended && page.lines.len() < PAGE as usize {
            return Ok(());
        }
        query.after = Some(page.cursor);
    }
}

async fn following(instance: &Instance, mut query: LogQuery, out: &Out) -> Done {
    let mut printer = Printer::new(out);
    loop {
        let asked = Instant::now();
        let page = ask(instance, &query).await?;
        printer.print(&page)?;
        if page.ended && page.lines.is_empty() {
            return Ok(());
        }
        if page.lines.is_empty() && query.wait_ms > 0 && asked.elapsed() < PAUSE {
            tokio::time::sleep(PAUSE).await;
        }
        query.after = Some(page.cursor);
        query.wait_ms = WAIT.as_millis() as u64;
    }
}

async fn ask(instance: &Instance, query: &LogQuery) -> Result<LogPage, Fault> {
    instance
        .deployd
        .call(Repeat::Idempotent, PATIENCE + WAIT, |client, context| {
            let query = query.clone();
            async move { client.logs(context, query).await }
        })
        .await
}

/// Prints lines, and says where one release ends and the next begins.
struct Printer<'a> {
    out: &'a Out,
    release: Option<ReleaseId>,
}

impl<'a> Printer<'a> {
    fn new(out: &'a Out) -> Self {
        Self { out, release: None }
    }

    fn print(&mut self, page: &LogPage) -> Done {
        for line in &page.lines {
            if self.out.json {
                self.out.object(&for_programs(line))?;
                continue;
            }
            if self.release.as_ref() != Some(&line.release) {
                let text = format!("-- {} --", line.release);
                self.out.note(self.out.styled_note(Style::Dim, &text));
                self.release = Some(line.release.clone());
            }
            let at = self.out.styled(Style::Dim, &line.at.rfc3339());
            let text = match line.stream {
                LogStream::Platform => self
                    .out
                    .styled(Style::Bold, &format!("temps: {}", line.text)),
                LogStream::Stdout | LogStream::Stderr => line.text.clone(),
            };
            self.out.line(format!("{at} {text}"))?;
        }
        Ok(())
    }
}

fn for_programs(line: &LogLine) -> Line<'_> {
    Line {
        at: line.at.rfc3339(),
        release: line.release.as_str(),
        instance: line.instance.as_ref().map(|instance| instance.as_str()),
        stream: line.stream,
        text: &line.text,
    }
}
