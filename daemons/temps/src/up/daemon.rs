//! One daemon under supervision.
//!
//! ```text
//!           (on demand: somebody connects)
//! waiting ──────────────────────────────────> starting ──READY=1──> up
//!    ^  ^                                      │    │               │ │
//!    │  └───────── exit 0, on demand ──────────┼────┼───────────────┘ │
//!    │                                         │    │ too slow: stop  │ hangs: abort
//!    └── pause, doubled with each failure <────┴────┴── any other end ┘
//! ```
//! A daemon that is always needed does not wait. One that ends with a status by which it says that
//! starting again is of no use (64, 77, 78) is started again with the longest pause only: a person
//! may mend its configuration meanwhile.

use super::children::{Child, Children, Ended};
use super::connection;
use super::log;
use super::sockets::Named;
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use temps_ipc::{Code, Fault};
use temps_unit::exit::Exit;
use temps_unit::listen::pass::{self, Program};
use temps_unit::notify::NotifyMessage;
use tokio::sync::watch;

/// First pause after a failure; doubled with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Longest pause after a failure: somebody waits for the daemon.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A daemon that was up for so long has recovered: the next failure is the first again. One that is
/// killed now and then is needed again at once; one that fails by itself does so sooner.
const RECOVERED: Duration = Duration::from_secs(2);

/// How long a daemon may take to be ready, as systemd's `DefaultTimeoutStartSec=`. It may ask for
/// more (`EXTEND_TIMEOUT_USEC=`).
const START: Duration = Duration::from_secs(90);

/// How long a daemon may go without proof that its tasks are alive (`WATCHDOG=1`). It proves it twice
/// as often; twice a minute costs nothing, and a busy machine does not miss two in a row.
const WATCHDOG: Duration = Duration::from_secs(60);

/// How long a daemon that hangs may take to end after SIGABRT.
const ABORT: Duration = Duration::from_secs(5);

/// How long a daemon may take to end after SIGTERM where nobody said otherwise.
const STOP: Duration = Duration::from_secs(20);

/// Variables of our own environment that mean something else to a daemon.
const OURS: [&str; 7] = [
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "CREDENTIALS_DIRECTORY",
];

/// When a daemon runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// As long as the platform does.
    Always,
    /// From the first connection until it ends by itself.
    OnDemand,
}

/// What is started, and how.
#[derive(Debug)]
pub struct Daemon {
    /// The applet's name.
    pub name: &'static str,
    /// A link of that name to the binary.
    pub path: PathBuf,
    /// When it runs.
    pub policy: Policy,
    /// What it listens on.
    pub sockets: Vec<Named>,
    /// Where callers read why it does not start, as long as it does not.
    pub notice: PathBuf,
    /// Variables beside those it inherits.
    pub environment: Vec<(&'static str, OsString)>,
}

/// How a daemon does.
#[derive(Debug, Clone, Default)]
pub struct Health {
    /// It serves now.
    pub ready: bool,
    /// Failures since it last recovered.
    pub failures: u32,
    /// Why starting it again is of no use, by what it says itself.
    pub hopeless: Option<Fault>,
}

/// How one run of a daemon ended.
enum Run {
    /// We were told to stop, and it ended.
    Stopped,
    /// By itself, and what it said of it.
    Ended(Ended, Option<String>),
    /// It was never there.
    NotStarted(Fault),
}

/// Keeps a daemon going until `stop` says how long it may take to end. Returns when it ended, with
/// what it would say if nobody had asked.
pub async fn supervise(
    daemon: Daemon,
    children: Arc<Children>,
    mut stop: watch::Receiver<Option<Duration>>,
    report: watch::Sender<Health>,
) -> Fault {
    let over = Fault::internal(format!("the supervision of {} ended", daemon.name));
    let mut wait = daemon.policy == Policy::OnDemand;
    loop {
        if wait {
            tokio::select! {
                _ = stopping(&mut stop) => return over,
                wanted = connection::waiting(&daemon.sockets) => if let Err(error) = wanted {
                    return Fault::internal(format!("the sockets of {} cannot be watched: {error}", daemon.name));
                },
            }
        }
        let mut ready = None;
        let run = run(&daemon, &children, &mut stop, &report, &mut ready).await;
        // One that only took long to fail has not recovered.
        if ready.is_some_and(|since: Instant| since.elapsed() >= RECOVERED) {
            report.send_modify(|health| health.failures = 0);
        }
        let fault = match run {
            Run::Stopped => return over,
            Run::Ended(Ended::Status(0), _) if daemon.policy == Policy::OnDemand => {
                report.send_modify(|health| *health = Health::default());
                wait = true;
                continue;
            }
            Run::Ended(ended, why) => failure(daemon.name, ended, why.as_deref()),
            Run::NotStarted(fault) => fault,
        };
        let pause = failed(&report, &fault);
        if report.borrow().hopeless.is_some() {
            notice(&daemon.notice, &fault);
        }
        log::say(&format!("{fault}; it is started again in {pause:.1?}"));
        // Its callers wait at the sockets, so one that failed is not left until the next one comes.
        wait = false;
        tokio::select! {
            _ = stopping(&mut stop) => return over,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Notes a failure; how long to wait before the next start.
fn failed(report: &watch::Sender<Health>, fault: &Fault) -> Duration {
    let hopeless = matches!(fault.code, Code::Invalid | Code::Denied | Code::Config);
    let mut failures = 0;
    report.send_modify(|health| {
        health.ready = false;
        health.failures = health.failures.saturating_add(1);
        health.hopeless = hopeless.then(|| fault.clone());
        failures = health.failures;
    });
    if hopeless {
        return LONGEST_PAUSE;
    }
    let doublings = failures.saturating_sub(1).min(16);
    FIRST_PAUSE
        .saturating_mul(1 << doublings)
        .min(LONGEST_PAUSE)
}

/// Leaves word for callers, who would otherwise wait at the sockets to no end.
fn notice(path: &Path, fault: &Fault) {
    let advice = "mend it; `temps up` tries again every ten seconds";
    let text = serde_json::to_vec(&fault.clone().hint(advice)).unwrap_or_default();
    if let Err(error) = std::fs::write(path, text) {
        log::say(&format!("{} cannot be written: {error}", path.display()));
    }
}

/// An end that nobody asked for, as a fault.
fn failure(name: &str, ended: Ended, why: Option<&str>) -> Fault {
    let is = |exit: Exit| ended == Ended::Status(i32::from(exit.status()));
    let code = if is(Exit::Usage) {
        Code::Invalid
    } else if is(Exit::Denied) {
        Code::Denied
    } else if is(Exit::Config) {
        Code::Config
    } else {
        Code::Unavailable
    };
    match why {
        Some(why) => Fault::new(code, format!("{name} {ended}: {why}")),
        None => Fault::new(code, format!("{name} {ended}")).hint("its last lines above say why"),
    }
}

/// Starts the daemon and stays with it to its end; notes when it was first ready.
async fn run(
    daemon: &Daemon,
    children: &Children,
    stop: &mut watch::Receiver<Option<Duration>>,
    report: &watch::Sender<Health>,
    ready: &mut Option<Instant>,
) -> Run {
    let mut child = match start(daemon, children) {
        Ok(child) => child,
        Err(error) => {
            return Run::NotStarted(Fault::unavailable(format!(
                "{} cannot be started: {error}",
                daemon.name
            )));
        }
    };
    let mut why = None;
    let mut serves = false;
    let mut deadline = tokio::time::Instant::now() + START;
    loop {
        tokio::select! {
            patience = stopping(stop) => {
                end(children, &mut child, Signal::SIGTERM, patience).await;
                return Run::Stopped;
            }
            ended = &mut child.ended => {
                while let Ok(note) = child.notes.try_recv() {
                    last_words(note, &mut why);
                }
                return Run::Ended(ended.unwrap_or(Ended::Status(-1)), why);
            }
            Some(note) = child.notes.recv() => match note {
                NotifyMessage::Ready => {
                    serves = true;
                    ready.get_or_insert_with(Instant::now);
                    deadline = tokio::time::Instant::now() + WATCHDOG;
                    // Usually there is none.
                    let _ = std::fs::remove_file(&daemon.notice);
                    report.send_modify(|health| {
                        health.ready = true;
                        health.hopeless = None;
                    });
                }
                NotifyMessage::ExtendTimeout(time) if !serves => {
                    deadline = tokio::time::Instant::now() + time.min(START);
                }
                NotifyMessage::Watchdog if serves => deadline = tokio::time::Instant::now() + WATCHDOG,
                NotifyMessage::Status(line) => {
                    log::say(&format!("{}: {line}", daemon.name));
                    last_words(NotifyMessage::Status(line), &mut why);
                }
                NotifyMessage::Stopping => report.send_modify(|health| health.ready = false),
                NotifyMessage::Reloading | NotifyMessage::Watchdog | NotifyMessage::ExtendTimeout(_) => {}
            },
            () = tokio::time::sleep_until(deadline) => {
                let ended = too_late(daemon.name, serves, children, &mut child).await;
                // Whatever it says now, it failed.
                return match ended {
                    Ended::Status(0) => Run::NotStarted(Fault::unavailable(format!("{} did not become ready", daemon.name))),
                    ended => Run::Ended(ended, None),
                };
            }
        }
    }
}

/// Ends a daemon that did not become ready, or hangs.
async fn too_late(name: &str, serves: bool, children: &Children, child: &mut Child) -> Ended {
    if serves {
        log::say(&format!(
            "{name} hangs: no proof of life for {WATCHDOG:?}; it is aborted"
        ));
        return end(children, child, Signal::SIGABRT, ABORT).await;
    }
    log::say(&format!(
        "{name} was not ready after {START:?} and is stopped"
    ));
    end(children, child, Signal::SIGTERM, STOP).await
}

/// Keeps the reason that a daemon gives for its end (`STATUS=failed: …`).
fn last_words(note: NotifyMessage, why: &mut Option<String>) {
    if let NotifyMessage::Status(line) = note {
        *why = line.strip_prefix("failed: ").map(str::to_owned);
    }
}

/// Asks the daemon to end, and kills it after `patience`.
async fn end(children: &Children, child: &mut Child, signal: Signal, patience: Duration) -> Ended {
    children.signal(child.pid, signal);
    if let Ok(ended) = tokio::time::timeout(patience, &mut child.ended).await {
        return ended.unwrap_or(Ended::Status(-1));
    }
    log::say(&format!(
        "process {} did not end within {patience:?} and is killed",
        child.pid
    ));
    children.signal(child.pid, Signal::SIGKILL);
    (&mut child.ended).await.unwrap_or(Ended::Status(-1))
}

fn start(daemon: &Daemon, children: &Children) -> io::Result<Child> {
    let program = Program {
        path: daemon.path.clone(),
        name: daemon.name.into(),
        args: Vec::new(),
    };
    let sockets: Vec<(String, BorrowedFd<'_>)> = daemon
        .sockets
        .iter()
        .map(|(name, socket)| ((*name).to_owned(), socket.as_fd()))
        .collect();
    let mut command =
        pass::command("/proc/self/exe", &program, &sockets).map_err(io::Error::other)?;
    for name in OURS {
        command.env_remove(name);
    }
    // Our stdout carries one line and no more: what daemons print goes where they log.
    let output = io::stderr().as_fd().try_clone_to_owned()?;
    command
        .envs(daemon.environment.iter().map(|(name, value)| (name, value)))
        .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::from(output))
        // An interrupt at the terminal is for us: we stop the daemons, in order.
        .process_group(0);
    children.start(&mut command)
}

/// Waits until told to stop; how long that may take.
async fn stopping(stop: &mut watch::Receiver<Option<Duration>>) -> Duration {
    match stop.wait_for(Option::is_some).await {
        Ok(patience) => patience.unwrap_or(STOP),
        // Whoever could tell us is gone.
        Err(_) => STOP,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let (report, health) = watch::channel(Health::default());
        let fault = failure("x", Ended::Signal(Signal::SIGKILL), None);
        let pauses: Vec<_> = (0..8)
            .map(|_| failed(&report, &fault).as_millis())
            .collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(health.borrow().failures, 8);
        assert!(health.borrow().hopeless.is_none());
    }

    #[test]
    fn a_daemon_that_says_it_is_no_use_is_believed() {
        let (report, health) = watch::channel(Health::default());
        let fault = failure("x", Ended::Status(78), Some("x.toml:1: unknown field"));
        assert_eq!(
            fault.what,
            "x exited with status 78: x.toml:1: unknown field"
        );
        assert_eq!(failed(&report, &fault), LONGEST_PAUSE);
        assert_eq!(
            health.borrow().hopeless.as_ref().map(|fault| fault.code),
            Some(Code::Config)
        );
    }
}
