//! Waits for the app, its output and signals, in one thread.

use crate::adapter::process::directory::{ExitRecord, pause};
use crate::adapter::procfs;
use crate::logfile::{Splitter, Writer};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Child;
use std::time::Duration;
use temps_ipc::types::{LogStream, Timestamp};

/// How often the app's group is looked at after its main process ended and others still finish.
const GROUP_POLL: u16 = 20;

/// How long is waited for killed processes; one that is stuck in the kernel is not waited for.
const REAP_ROUNDS: u32 = 2_000;
const REAP_PAUSE: Duration = Duration::from_millis(5);

/// What is read at once from a pipe: its default capacity.
const CHUNK: usize = 64 * 1024;

/// Most that is read from a pipe after everything of the app has ended.
const MAX_REST: usize = 1024 * 1024;

/// The signals we answer to, blocked and readable.
pub(super) fn signals() -> io::Result<SignalFd> {
    let mut mask = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGQUIT,
        // A terminal that goes away is none of our business.
        Signal::SIGHUP,
        Signal::SIGPIPE,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ] {
        mask.add(signal);
    }
    mask.thread_block()?;
    Ok(SignalFd::with_flags(
        &mask,
        SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC,
    )?)
}

/// One of the app's output streams.
struct Output {
    pipe: Option<File>,
    lines: Splitter,
}

impl Output {
    fn new(pipe: Option<OwnedFd>, stream: LogStream) -> Self {
        Self {
            pipe: pipe.map(File::from),
            lines: Splitter::new(stream),
        }
    }

    /// Copies what one read returns; how many bytes that was.
    fn copy(&mut self, log: &mut Writer) -> usize {
        let Some(pipe) = &mut self.pipe else { return 0 };
        let mut bytes = [0; CHUNK];
        match pipe.read(&mut bytes) {
            Ok(length) if length > 0 => {
                self.lines.feed(&bytes[..length], log);
                log.flush();
                length
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            _ => {
                self.pipe = None;
                0
            }
        }
    }
}

/// The app and what is waited for.
pub(super) struct Supervisor {
    app: Pid,
    outputs: [Output; 2],
    log: Writer,
    signals: SignalFd,
    /// How the main process ended, once it has: status and signal.
    ended: Option<(Option<i32>, Option<i32>)>,
    asked: bool,
    now: bool,
}

impl Supervisor {
    pub(super) fn new(mut app: Child, log: Writer, signals: SignalFd) -> Self {
        let outputs = [
            Output::new(app.stdout.take().map(OwnedFd::from), LogStream::Stdout),
            Output::new(app.stderr.take().map(OwnedFd::from), LogStream::Stderr),
        ];
        Self {
            app: Pid::from_raw(app.id() as i32),
            outputs,
            log,
            signals,
            ended: None,
            asked: false,
            now: false,
        }
    }

    /// Returns when nothing of the app is left.
    pub(super) fn run(mut self) -> ExitRecord {
        while !self.is_over() {
            self.wait();
        }
        let at = Timestamp::now();
        self.kill_everything();
        for output in &mut self.outputs {
            let mut rest = 0;
            while rest < MAX_REST && is_readable(output) {
                rest += output.copy(&mut self.log).max(1);
            }
            output.lines.finish(&mut self.log);
        }
        self.log.flush();
        let (status, signal) = self.ended.unwrap_or_default();
        ExitRecord {
            status,
            signal,
            asked: self.asked,
            at,
        }
    }

    fn is_over(&self) -> bool {
        let group_lives = || killpg(self.app, None).is_ok();
        // Asked to stop, a main process may end before its workers have answered their last
        // request: whoever got the polite signal may finish.
        self.ended.is_some() && (!self.asked || self.now || !group_lives())
    }

    fn wait(&mut self) {
        let timeout = match self.ended {
            Some(_) => PollTimeout::from(GROUP_POLL),
            None => PollTimeout::NONE,
        };
        let (signals, readable) = {
            let mut wanted = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            let pipes = self
                .outputs
                .iter()
                .filter_map(|output| output.pipe.as_ref());
            wanted.extend(pipes.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
            if poll(&mut wanted, timeout).is_err() {
                return;
            }
            let ready: Vec<bool> = wanted.iter().map(|fd| fd.any().unwrap_or(true)).collect();
            (ready[0], ready[1..].to_vec())
        };
        let open = self
            .outputs
            .iter_mut()
            .filter(|output| output.pipe.is_some());
        for (output, is_ready) in open.zip(readable) {
            if is_ready {
                output.copy(&mut self.log);
            }
        }
        if signals {
            self.answer_signals();
        }
    }

    fn answer_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match Signal::try_from(info.ssi_signo as i32) {
                Ok(Signal::SIGTERM | Signal::SIGINT) => {
                    self.asked = true;
                    let _ = killpg(self.app, Signal::SIGTERM);
                }
                Ok(Signal::SIGQUIT) => {
                    self.asked = true;
                    self.now = true;
                    self.kill_descendants();
                }
                // Several ends may be announced by one signal.
                Ok(Signal::SIGCHLD) => while self.reap().is_some_and(|found| found) {},
                _ => {}
            }
        }
    }

    /// Collects one child that ended; false if there is none now, `None` if there is no child.
    fn reap(&mut self) -> Option<bool> {
        let (pid, how) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) => (pid, (Some(status), None)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, (None, Some(signal as i32))),
            Ok(WaitStatus::StillAlive) => return Some(false),
            Ok(_) | Err(Errno::EINTR) => return Some(true),
            Err(_) => return None,
        };
        if pid == self.app {
            self.ended = Some(how);
        }
        Some(true)
    }

    fn kill_descendants(&self) {
        for pid in procfs::descendants(getpid().as_raw()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// As a subreaper we have a child as long as any descendant lives.
    fn kill_everything(&mut self) {
        for _ in 0..REAP_ROUNDS {
            match self.reap() {
                None => return,
                Some(true) => {}
                Some(false) => {
                    self.kill_descendants();
                    pause(REAP_PAUSE);
                }
            }
        }
    }
}

fn is_readable(output: &Output) -> bool {
    let Some(pipe) = &output.pipe else {
        return false;
    };
    let mut wanted = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    poll(&mut wanted, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
