//! Follows a deployment to its outcome: phases and build output on stderr, the result on stdout.
//!
//! Deployd may be restarted meanwhile; the deployment goes on by itself, and so does following it,
//! as long as deployd comes back within [`PATIENCE`].

use crate::instance::{Instance, PATIENCE};
use crate::output::{Done, Out, Stop, Style};
use serde::Serialize;
use std::time::{Duration, Instant};
use temps_ipc::Fault;
use temps_ipc::types::{DeploymentView, LogKind, LogQuery, LogStream, Outcome, Phase, Timestamp};
use temps_ipc::wire::client::Repeat;
use temps_unit::duration;

/// How long deployd may hold a question for what changed. Below its own limit.
const WAIT: Duration = Duration::from_secs(15);

/// Pause after an answer without news that came at once: a daemon that does not wait is not asked
/// in a tight loop.
const PAUSE: Duration = Duration::from_millis(200);

/// Build lines asked for at a time.
const LINES: u32 = 500;

/// Exit status after an interrupt, as shells have it: 128 and the signal's number.
const INTERRUPTED: u8 = 130;

/// The result of a deployment, for programs.
#[derive(Debug, Serialize)]
struct Report<'a> {
    app: &'a str,
    release: &'a str,
    url: &'a str,
    status: &'a str,
    reason: &'a str,
}

impl<'a> Report<'a> {
    fn new(view: &'a DeploymentView, status: &'a str) -> Self {
        Self {
            app: view.app.as_str(),
            release: view.release.as_str(),
            url: &view.url,
            status,
            reason: &view.reason,
        }
    }
}

/// Says that a deployment is queued, for `--no-wait`.
pub fn queued(view: &DeploymentView, out: &Out) -> Done {
    if out.json {
        return out.object(&Report::new(view, "queued"));
    }
    out.line(format!("{}: {} is queued", view.app, view.release))
}

/// Waits until nothing is left of a deployment that was cancelled, and says so.
pub async fn cancelled(instance: &Instance, view: DeploymentView, out: &Out) -> Done {
    let (view, outcome) = wait(instance, view, false, out).await?;
    if out.json {
        return out.object(&Report::new(&view, outcome.name()));
    }
    out.line(format!(
        "{}: {} is {}",
        view.app,
        view.release,
        ended(&view)
    ))
}

/// What became of a cancelled deployment: it may have been refused for a reason of its own just before.
fn ended(view: &DeploymentView) -> String {
    if view.reason.starts_with("cancelled by ") {
        return view.reason.clone();
    }
    format!("refused: {}", view.reason)
}

/// Follows a deployment until it ended, or until the user interrupts. `builds`: it makes its
/// release, so that there is a build to show.
pub async fn follow(instance: &Instance, view: DeploymentView, builds: bool, out: &Out) -> Done {
    let app = view.app.clone();
    let interrupt = tokio::signal::ctrl_c();
    let outcome = tokio::select! {
        outcome = wait(instance, view, builds, out) => outcome?,
        _ = interrupt => {
            out.note(format!(
                "interrupted: the deployment goes on; follow it with `temps logs {app} --build --follow` and `temps app show {app}`"
            ));
            return Err(Stop::Status(INTERRUPTED));
        }
    };
    report(&outcome.0, outcome.1, out)
}

async fn wait(
    instance: &Instance,
    mut view: DeploymentView,
    builds: bool,
    out: &Out,
) -> Result<(DeploymentView, Outcome), Stop> {
    let mut log = BuildLog::new(&view, builds);
    let mut shown = None;
    loop {
        if shown != Some(view.phase) {
            shown = Some(view.phase);
            announce(&view, out);
        }
        if let Some(outcome) = view.phase.outcome() {
            // What the build printed last.
            while !log.ended && log.page(instance, Duration::ZERO, out).await {}
            return Ok((view, outcome));
        }
        let asked = Instant::now();
        let newer = {
            let mut next = std::pin::pin!(next(instance, &view));
            loop {
                tokio::select! {
                    biased;
                    newer = &mut next => break newer?,
                    _ = log.page(instance, WAIT, out), if !log.ended => {}
                }
            }
        };
        if newer.revision == view.revision && asked.elapsed() < PAUSE {
            tokio::time::sleep(PAUSE).await;
        }
        view = newer;
    }
}

async fn next(instance: &Instance, view: &DeploymentView) -> Result<DeploymentView, Fault> {
    let (id, seen) = (&view.id, view.revision);
    instance
        .deployd
        .call(Repeat::Idempotent, PATIENCE + WAIT, |client, context| {
            let id = id.clone();
            async move {
                client
                    .deployment(context, id, seen, WAIT.as_millis() as u64)
                    .await
            }
        })
        .await
}

fn announce(view: &DeploymentView, out: &Out) {
    let text = match view.phase {
        Phase::Queued => "waiting for its turn",
        Phase::Preparing => "preparing the release",
        Phase::Starting => "starting the new instance",
        Phase::Probing => "waiting until it is healthy",
        Phase::Switching => "sending requests to it",
        Phase::Draining => "waiting for the old instance's last requests",
        Phase::Retiring => "stopping the old instance",
        Phase::Refusing => "removing what was started",
        Phase::RollingBack => "bringing back the last good release",
        Phase::Live | Phase::Confirmed | Phase::Refused | Phase::RolledBack => return,
    };
    let head = out.styled_note(Style::Dim, &format!("{}:", view.release));
    out.note(format!("{head} {text}"));
}

fn report(view: &DeploymentView, outcome: Outcome, out: &Out) -> Done {
    if outcome != Outcome::Live {
        let verb = if outcome == Outcome::Refused {
            "refused"
        } else {
            "rolled back"
        };
        let reason = if view.reason.is_empty() {
            "no reason was given"
        } else {
            &view.reason
        };
        let hint = format!(
            "`temps logs {} --release {}` shows all it printed (--build: its build)",
            view.app, view.release
        );
        out.error(&format!("{} was {verb}: {reason}", view.release), &hint);
        if !view.last_lines.is_empty() {
            out.note(out.styled_note(Style::Bold, "its last lines:"));
            for line in &view.last_lines {
                out.note(format!("  {line}"));
            }
        }
    }
    if out.json {
        out.object(&Report::new(view, outcome.name()))?;
    } else if outcome == Outcome::Live {
        out.line(live(view, Timestamp::now()))?;
    }
    if outcome == Outcome::Live {
        Ok(())
    } else {
        Err(Stop::Status(1))
    }
}

fn live(view: &DeploymentView, now: Timestamp) -> String {
    let mut text = format!("{}: {} is live at {}", view.app, view.release, view.url);
    let left = view
        .watch_until
        .map_or(0, |until| until.0.saturating_sub(now.0));
    // Rounded, since some of the window is over already.
    let seconds = u64::try_from(left).unwrap_or(0).div_ceil(1_000);
    if seconds > 0 {
        text.push_str(&format!(
            " (watched for {})",
            duration::show(Duration::from_secs(seconds))
        ));
    }
    text
}

/// The build output of a release, read by cursor.
struct BuildLog {
    query: LogQuery,
    ended: bool,
}

impl BuildLog {
    fn new(view: &DeploymentView, builds: bool) -> Self {
        Self {
            query: LogQuery {
                app: view.app.clone(),
                release: Some(view.release.clone()),
                kind: LogKind::Build,
                after: None,
                tail: None,
                limit: LINES,
                wait_ms: 0,
            },
            ended: !builds,
        }
    }

    /// Prints the next lines; whether there were any. Cancel-safe: lines that were not printed are
    /// asked for again. Without its log a deployment is followed all the same.
    async fn page(&mut self, instance: &Instance, wait: Duration, out: &Out) -> bool {
        let asked = Instant::now();
        let mut query = self.query.clone();
        query.wait_ms = wait.as_millis() as u64;
        let page = instance
            .deployd
            .call(Repeat::Idempotent, PATIENCE + wait, |client, context| {
                let query = query.clone();
                async move { client.logs(context, query).await }
            })
            .await;
        let Ok(page) = page else {
            if !wait.is_zero() {
                tokio::time::sleep(PAUSE).await;
            }
            return false;
        };
        if page.lines.is_empty() && !page.ended && !wait.is_zero() && asked.elapsed() < PAUSE {
            tokio::time::sleep(PAUSE).await;
        }
        for line in &page.lines {
            let style = if line.stream == LogStream::Platform {
                Style::Bold
            } else {
                Style::Dim
            };
            out.note(out.styled_note(style, &format!("  {}", line.text)));
        }
        self.query.after = Some(page.cursor);
        self.ended = page.ended;
        !page.lines.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use temps_ipc::id::{DeploymentId, ReleaseId};

    #[test]
    fn a_cancelled_deployment_says_by_whom_unless_something_else_ended_it_first() {
        let because = |reason: &str| DeploymentView {
            reason: reason.to_owned(),
            phase: Phase::Refused,
            ..view(None)
        };
        let text = ended(&because("cancelled by ada"));
        assert_eq!(text, "cancelled by ada");
        let text = ended(&because("it exited with status 3"));
        assert_eq!(text, "refused: it exited with status 3");
    }

    fn view(watch_until: Option<Timestamp>) -> DeploymentView {
        DeploymentView {
            id: DeploymentId::fresh(),
            app: "shop".parse().unwrap(),
            release: ReleaseId::fresh(),
            phase: Phase::Live,
            reason: String::new(),
            last_lines: Vec::new(),
            url: "http://shop.localhost:8080".into(),
            created_at: Timestamp(0),
            watch_until,
            revision: 7,
        }
    }

    #[test]
    fn a_live_release_says_where_and_how_long_it_is_watched() {
        let view = view(Some(Timestamp(120_000)));
        let expected = format!(
            "shop: {} is live at http://shop.localhost:8080 (watched for 2m)",
            view.release
        );
        assert_eq!(live(&view, Timestamp(400)), expected);
        assert!(live(&view, Timestamp(200_000)).ends_with(":8080"));
    }

    #[test]
    fn the_report_has_the_fields_that_scripts_rely_on() {
        let view = view(None);
        let json = serde_json::to_value(Report::new(&view, Outcome::RolledBack.name())).unwrap();
        assert_eq!(json["status"], "rolled_back");
        let fields: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        assert_eq!(fields, ["app", "reason", "release", "status", "url"]);
    }
}
