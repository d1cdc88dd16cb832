//! The work of a build as an installed system does it: each piece in a transient unit that can do this
//! piece and nothing else. deployd is root; it never unpacks, fetches or builds itself.
//!
//! ```text
//! archive ------------------------------+
//! fetch (a user of its own, network) ---+--archive--> unpack (root without capabilities, sees and
//! build (the app's build user, network) +             writes the release's directory alone, no network)
//!    ^-- archive of the source, packed by deployd, which only reads
//! ```
//!
//! So what a release is made of is always written by our own unpacking, by its rules and limits, as
//! root's files: no user of a build owns anything of it, no set-id bit, device or owner of an archive
//! gets in, and deployd can remove it with the rights it has as their owner.
//!
//! A job of one release has one unit of each kind at a time, so its name says what it does. Whoever
//! drops the future stops the unit with all its processes; a deployd that is killed takes them with it
//! (`BindsTo=`), and the next one stops what was left before it builds anything.

pub mod end;
pub mod launch;
mod property;
mod repository;
pub mod unit;

use super::job::frame;
use super::job::{BuildRequest, Ended, FetchRequest, Fetched, UnpackRequest};
use super::output::{Log, Outputs, say};
use super::workshop::{Workshop, source};
use super::{BuildSettings, CACHES, blocking, command, prepare, remove, space, system};
use crate::adapter::collected::Turns;
use crate::archive::pack::pack;
use crate::archive::{Links, Summary};
use crate::port::BuildJob;
use async_trait::async_trait;
use end::End;
use launch::{Launcher, Streams};
use repository::Repository;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use temps_ipc::types::AppName;
use temps_ipc::{Code, Fault};
use tokio::net::unix::pipe;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use unit::{JobUnits, Unit};

/// How long the rest of an output may take to arrive after the end of its unit.
const REST: Duration = Duration::from_secs(5);

/// Works in transient units.
#[derive(Debug)]
pub(super) struct Units {
    settings: BuildSettings,
    launcher: Arc<dyn Launcher>,
    swept: OnceCell<()>,
    /// Whose turn it is with the directories of an app's builds.
    turns: Turns,
}

/// How a unit ended, and what it printed last.
struct Finished {
    end: End,
    limits: unit::Limits,
    tail: VecDeque<String>,
}

impl Units {
    pub(super) fn new(settings: BuildSettings, launcher: Arc<dyn Launcher>) -> Self {
        Self {
            settings,
            launcher,
            swept: OnceCell::new(),
            turns: Turns::default(),
        }
    }

    /// Stops what an earlier deployd left, once.
    pub(super) async fn sweep(&self) -> Result<(), Fault> {
        self.swept
            .get_or_try_init(|| self.launcher.sweep())
            .await
            .map(|_| ())
    }

    /// Runs a unit to its end with its output in the log. Drop-safe.
    async fn run(&self, unit: Unit, stdin: OwnedFd, log: &mut dyn Log) -> Result<Finished, Fault> {
        self.sweep().await?;
        let (stdout, from_stdout) = pipe()?;
        let (stderr, from_stderr) = pipe()?;
        let mut outputs = Outputs::new();
        let streams = Streams {
            stdin,
            stdout,
            stderr,
        };
        let limits = unit.limits;
        let end = {
            let copying = outputs.copy(Some(from_stdout), Some(from_stderr), log, &str::to_owned);
            ended(self.launcher.run(unit, streams), copying).await
        };
        Ok(Finished {
            end: end?,
            limits,
            tail: outputs.tail(),
        })
    }

    /// Unpacks what `stdin` gives into `directory`.
    async fn unpack_into(
        &self,
        job: &BuildJob,
        what: &str,
        directory: PathBuf,
        stdin: OwnedFd,
        request: UnpackRequest,
    ) -> Result<Summary, Fault> {
        open_to_readers(&directory)?;
        let unit = JobUnits(&self.settings, job).unpack(what, directory, request);
        let limits = unit.limits;
        self.sweep().await?;
        let (report, stdout) = io::pipe().map_err(|error| system(&error))?;
        let (stderr, errors) = pipe()?;
        let streams = Streams {
            stdin,
            stdout: stdout.into(),
            stderr,
        };
        let mut said = Outputs::new();
        let mut quiet = Quiet;
        let (end, report) = {
            let copying = said.copy(
                None::<pipe::Receiver>,
                Some(errors),
                &mut quiet,
                &str::to_owned,
            );
            tokio::join!(
                ended(self.launcher.run(unit, streams), copying),
                blocking(move |_| Ok(read_report(report))),
            )
        };
        match report? {
            Ok(result) => cleaned(result),
            // It gave none, so its end says why.
            Err(_) => {
                end?.judge(&limits)?;
                let last = said.tail().pop_back().unwrap_or_default();
                Err(Fault::internal(format!(
                    "unpacking ended without a result: {last}"
                )))
            }
        }
    }

    /// Talks with a unit over its standard input, and unpacks what it hands on.
    async fn make<T: Send + 'static>(
        &self,
        job: &BuildJob,
        unit: Unit,
        request: UnpackRequest,
        log: &mut dyn Log,
        talk: impl FnOnce(&mut UnixStream) -> io::Result<Said<T>> + Send + 'static,
    ) -> Result<Made<T>, Fault> {
        let (ours, theirs) = UnixStream::pair().map_err(|error| system(&error))?;
        let what = unit.what;
        let running = self.run(unit, theirs.into(), log);
        let taking = async {
            let (said, ours) = blocking(move |_| {
                let mut ours = ours;
                let said = talk(&mut ours);
                Ok((said, ours))
            })
            .await?;
            // An error means that it ended early: its end says why.
            let Ok(said) = said else {
                return Ok::<_, Fault>(None);
            };
            let said = match said? {
                Ok(said) => said,
                Err(ended) => return Ok(Some(Err(ended))),
            };
            let directory = job.directory.join(what);
            fs::create_dir_all(&directory).map_err(|error| system(&error))?;
            self.unpack_into(job, what, directory, ours.into(), request)
                .await?;
            Ok(Some(Ok(said)))
        };
        let full = space::exhausted(self.settings.watched(&job.directory));
        let (finished, taken) = tokio::select! {
            both = async { tokio::join!(running, taking) } => both,
            full = full => return Err(full),
        };
        let Finished { end, limits, tail } = finished?;
        // Who was killed may have been killed while it handed something on; who failed by itself may
        // have failed since what it handed on was not taken.
        let killed = end.was_killed();
        let judged = end.judge(&limits);
        if killed {
            judged.clone()?;
        }
        let taken = taken?;
        judged?;
        match taken {
            Some(Ok(said)) => Ok(Made::Whole(said)),
            Some(Err(ended)) => Ok(Made::Not(ended, tail)),
            None => Err(Fault::internal(format!(
                "the {what} ended without a result: {}",
                tail.back().map_or("it said nothing", String::as_str)
            ))),
        }
    }

    /// Puts what was made in the place of the source.
    async fn replace(&self, job: &BuildJob, what: &str) -> Result<(), Fault> {
        let (made, source) = (job.directory.join(what), source(job));
        remove(source.clone()).await?;
        fs::rename(made, source).map_err(|error| system(&error))
    }
}

/// What a unit says: what it hands on, or how its command ended without anything.
type Said<T> = Result<Result<T, Ended>, Fault>;

/// What a unit that was talked to made.
enum Made<T> {
    /// It was taken over.
    Whole(T),
    /// Nothing: its command failed, and printed this last.
    Not(Ended, VecDeque<String>),
}

/// Drops what is only kept as the last lines.
struct Quiet;

impl Log for Quiet {
    fn push(&mut self, _: temps_ipc::types::LogStream, _: &str) {}
    fn flush(&mut self) {}
}

#[async_trait]
impl Workshop for Units {
    async fn unpack(
        &self,
        archive: &Path,
        job: &BuildJob,
        _: &mut dyn Log,
    ) -> Result<Summary, Fault> {
        let root = prepare(&job.directory)?;
        let archive = File::open(archive).map_err(|error| system(&error))?;
        let request = UnpackRequest {
            limits: self.settings.limits,
            links: Links::Within,
        };
        let unpacking = self.unpack_into(job, "unpack", root, archive.into(), request);
        tokio::select! {
            unpacked = unpacking => unpacked,
            full = space::exhausted(self.settings.watched(&job.directory)) => Err(full),
        }
    }

    async fn fetch(
        &self,
        url: &str,
        reference: Option<&str>,
        job: &BuildJob,
        log: &mut dyn Log,
    ) -> Result<String, Fault> {
        // Held until it was fetched from.
        let (unit, repository) = JobUnits(&self.settings, job).fetch(url)?;
        let request = FetchRequest {
            url: url.to_owned(),
            reference: reference.map(str::to_owned),
            limit_seconds: self.settings.git_limit.as_secs(),
            place: repository.as_ref().map(Repository::place),
        };
        let talk = move |socket: &mut UnixStream| {
            frame::write(socket, &request)?;
            socket.shutdown(Shutdown::Write)?;
            let said = frame::read::<Result<Fetched, Fault>>(socket)?;
            Ok(cleaned(said).map(Ok))
        };
        let request = UnpackRequest {
            limits: self.settings.limits,
            links: Links::Within,
        };
        let made = self.make(job, unit, request, log, talk).await?;
        let Made::Whole(Fetched { source }) = made else {
            return Err(Fault::internal("fetching has no command that could fail"));
        };
        self.replace(job, "fetch").await?;
        Ok(clean_text(&source))
    }

    async fn build(&self, command: &str, job: &BuildJob, log: &mut dyn Log) -> Result<(), Fault> {
        let turn = self.turns.of(Path::new(job.app.as_str()));
        let _turn = turn.lock().await;
        let unit = JobUnits(&self.settings, job).build();
        let request = BuildRequest {
            command: command.to_owned(),
            env: job.variables().collect(),
            limits: self.settings.limits,
        };
        let root = source(job);
        let talk = move |socket: &mut UnixStream| {
            frame::write(socket, &request)?;
            drop(request);
            let handed = pack(&root, BufWriter::new(&*socket))
                .and_then(|()| socket.shutdown(Shutdown::Write));
            // Who did not take all of it may have said why.
            let ended = match (handed, frame::read::<Ended>(socket)) {
                (Ok(()), Ok(ended)) => ended,
                (Err(_), Ok(ended)) if ended.full.is_some() => ended,
                (Err(error), _) | (Ok(()), Err(error)) => return Err(error),
            };
            Ok(Ok(match ended.status {
                Some(0) => Ok(()),
                _ => Err(ended),
            }))
        };
        let request = UnpackRequest {
            limits: self.settings.built_limits(),
            links: Links::Anywhere,
        };
        let made = self.make(job, unit, request, log, talk).await;
        match made {
            Ok(Made::Whole(())) => self.replace(job, "build").await,
            Ok(Made::Not(ended, tail)) => Err(match ended.full {
                Some(full) => cleaned_fault(full),
                None => command::failed(command, &command::how(ended.status, ended.signal), &tail),
            }),
            Err(fault) => {
                say(log, "the build was stopped");
                Err(fault)
            }
        }
    }

    async fn forget(&self, app: &AppName) -> Result<(), Fault> {
        // An app of the same name may be building already.
        let turn = self.turns.of(Path::new(app.as_str()));
        let _turn = turn.lock().await;
        let null = File::open("/dev/null").map_err(|error| system(&error))?;
        let unit = unit::forget(&self.settings, app);
        let finished = self.run(unit, null.into(), &mut Quiet).await?;
        finished.end.judge(&finished.limits)
    }

    async fn kept(&self) -> Result<Vec<AppName>, Fault> {
        blocking(|_| unit::kept(Path::new(CACHES)).map_err(|error| system(&error))).await
    }

    async fn recover(&self) -> Result<(), Fault> {
        self.sweep().await
    }
}

/// A pipe whose writing end blocks, as a program expects it, and whose reading end does not.
fn pipe() -> Result<(OwnedFd, pipe::Receiver), Fault> {
    let made = || {
        let (reader, writer) = io::pipe()?;
        let reader = pipe::Receiver::from_owned_fd(reader.into())?;
        Ok((OwnedFd::from(writer), reader))
    };
    made().map_err(|error: io::Error| system(&error))
}

/// Waits for the end of a unit and of its output. An output that stays open although nobody is left who
/// could write is not waited for.
async fn ended(
    running: impl Future<Output = Result<End, Fault>>,
    copying: impl Future<Output = io::Result<()>>,
) -> Result<End, Fault> {
    tokio::pin!(running, copying);
    tokio::select! {
        end = &mut running => {
            if let Ok(Err(error)) = timeout(REST, copying).await {
                return Err(system(&error));
            }
            end
        }
        copied = &mut copying => {
            copied.map_err(|error| system(&error))?;
            running.await
        }
    }
}

/// Reads the one message of an unpack job.
fn read_report(mut from: io::PipeReader) -> io::Result<Result<Summary, Fault>> {
    frame::read(&mut from)
}

/// The release's own directory, which the user of its app may read and nobody but root may change.
fn open_to_readers(directory: &Path) -> Result<(), Fault> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))
        .map_err(|error| system(&error))
}

/// What a job says, which may be in the hands of a stranger, as text for people.
fn cleaned<T>(said: Result<T, Fault>) -> Result<T, Fault> {
    said.map_err(cleaned_fault)
}

fn cleaned_fault(fault: Fault) -> Fault {
    // What only we can know it cannot say.
    let code = match fault.code {
        Code::Invalid | Code::Unavailable | Code::NoSpace => fault.code,
        _ => Code::Internal,
    };
    Fault::new(code, clean_text(&fault.what)).hint(clean_text(&fault.hint))
}

fn clean_text(text: &str) -> String {
    /// More than any message of ours has.
    const MAX: usize = 2_000;
    text.chars().filter(|c| !c.is_control()).take(MAX).collect()
}
