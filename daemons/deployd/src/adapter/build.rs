//! Makes releases: fetches or unpacks the source, finds out what it is, and builds it.
//!
//! | material | becomes |
//! |---|---|
//! | files to serve | [`Artifact::Files`] |
//! | source with a `Dockerfile` | an image, built by the engine ([`crate::adapter::docker`]) |
//! | source with a `Procfile` | [`Artifact::Directory`], after its `build` command if it has one |
//! | an image reference | that image by its content id |
//! | an earlier release's artifact | itself, if it still exists |
//!
//! What a stranger's content decides about is done in a [`workshop`]: under `temps up` in this process
//! and its children, on an installed system in transient units that can do nothing else.
//!
//! Everything is said in the build log, last the fault if there is one. A build that fails leaves
//! nothing of its directory; one that is cancelled leaves what the next start of it removes.

mod choose;
mod command;
mod git;
mod here;
pub mod job;
mod output;
mod procfile;
mod publish;
mod space;
pub mod units;
mod workshop;

use crate::adapter::docker::Images;
use crate::archive::{Limits, Summary};
use crate::logfile::Writer;
use crate::port::{Artifact, BuildJob, Builder, Built, Material};
use async_trait::async_trait;
use choose::Plan;
use here::Here;
use output::{Log, say};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use temps_ipc::types::{AppName, RuntimeKind};
use temps_ipc::{Code, Fault};
use units::Units;
use units::launch::Launcher;
use workshop::{Workshop, source};

/// How much larger than a source its build may make it: a large `node_modules` has 200,000 files.
const BUILT: u64 = 2;

/// Where the units of builds have their directories.
const CACHES: &str = "/var/cache";

/// What the builder may do and use.
#[derive(Debug, Clone)]
pub struct BuildSettings {
    /// What a source may hold.
    pub limits: Limits,
    /// How long fetching from git may take.
    pub git_limit: Duration,
    /// How long a source's build command may take.
    pub build_limit: Duration,
    /// What a build in a unit of its own may use: memory in bytes,
    pub memory: u64,
    /// processor time in percent of one processor,
    pub cpu_percent: u32,
    /// processes and threads.
    pub tasks: u64,
    /// Where each app has the directory that its builds keep (`HOME`, with their caches).
    pub homes: PathBuf,
    /// The runtime that runs a Procfile's command here, if there is one.
    pub directories: Option<RuntimeKind>,
}

impl BuildSettings {
    /// What a job may fill: the disk of the release, and that of what builds keep.
    fn watched(&self, directory: &Path) -> Vec<PathBuf> {
        vec![directory.to_owned(), PathBuf::from(CACHES)]
    }

    /// What a source may have become by its build command, which adds what it depends on.
    fn built_limits(&self) -> Limits {
        Limits {
            bytes: self.limits.bytes.saturating_mul(BUILT),
            entries: self.limits.entries.saturating_mul(BUILT),
            ..self.limits
        }
    }
}

impl Default for BuildSettings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            git_limit: Duration::from_secs(600),
            build_limit: Duration::from_secs(30 * 60),
            memory: 2 << 30,
            cpu_percent: 100,
            tasks: 1024,
            homes: std::env::temp_dir().join("temps-build-homes"),
            directories: None,
        }
    }
}

/// Makes releases for real.
#[derive(Debug, Clone)]
pub struct SourceBuilder {
    settings: BuildSettings,
    images: Option<Arc<Images>>,
    workshop: Arc<dyn Workshop>,
}

impl SourceBuilder {
    /// A builder that works in this process; without `images` this installation has no docker runtime.
    pub fn new(settings: BuildSettings, images: Option<Arc<Images>>) -> Self {
        Self {
            workshop: Arc::new(Here(settings.clone())),
            settings,
            images,
        }
    }

    /// A builder that works in units of their own.
    pub fn in_units(
        settings: BuildSettings,
        images: Option<Arc<Images>>,
        launcher: Arc<dyn Launcher>,
    ) -> Self {
        Self {
            workshop: Arc::new(Units::new(settings.clone(), launcher)),
            settings,
            images,
        }
    }

    async fn make(&self, job: &BuildJob, log: &mut Writer) -> Result<Built, Fault> {
        if let Some(asked) = job.runtime
            && matches!(asked, RuntimeKind::Process | RuntimeKind::Systemd)
            && self.settings.directories != Some(asked)
        {
            return Err(choose::no_such_runtime(asked));
        }
        match &job.material {
            Material::Archive { path, label } => {
                self.unpack(path, job, log).await?;
                self.make_source(job, format!("dir {label}"), log).await
            }
            Material::Static { path, label, spa } => {
                only(
                    job,
                    RuntimeKind::Static,
                    "files are served by the proxy itself",
                )?;
                self.unpack(path, job, log).await?;
                files(source(job), *spa, format!("static {label}"), log)
            }
            Material::Git { url, reference, .. } => {
                space::check(&job.directory)?;
                let source = self
                    .workshop
                    .fetch(url, reference.as_deref(), job, log)
                    .await?;
                self.make_source(job, source, log).await
            }
            Material::Image { reference } => {
                only(
                    job,
                    RuntimeKind::Docker,
                    "an image needs a container engine",
                )?;
                let images = self.images()?;
                let artifact = images.resolve(reference, log).await?;
                Ok(Built {
                    artifact,
                    runtime: RuntimeKind::Docker,
                    source: format!("image {reference}"),
                })
            }
            Material::Artifact {
                release,
                artifact,
                runtime,
            } => {
                self.check_artifact(artifact).await?;
                Ok(Built {
                    artifact: artifact.clone(),
                    runtime: *runtime,
                    source: format!("release {release}"),
                })
            }
        }
    }

    async fn unpack(&self, path: &Path, job: &BuildJob, log: &mut Writer) -> Result<(), Fault> {
        space::check(&job.directory)?;
        let Summary { files, bytes } = self.workshop.unpack(path, job, log).await?;
        say(log, &format!("unpacked {files} files, {bytes} bytes"));
        Ok(())
    }

    /// Makes what the source asks for; it came from `origin`.
    async fn make_source(
        &self,
        job: &BuildJob,
        origin: String,
        log: &mut Writer,
    ) -> Result<Built, Fault> {
        let root = source(job);
        let plan = choose::plan(
            &root,
            job.runtime,
            self.images.is_some(),
            self.settings.directories,
        )?;
        match plan {
            Plan::Files => files(root, false, origin, log),
            Plan::Procfile {
                command,
                build,
                runtime,
                ignored,
            } => {
                if let Some(build) = build {
                    say(log, &format!("Procfile: build runs `{build}`"));
                    self.workshop.build(&build, job, log).await?;
                }
                say(log, &format!("Procfile: web runs `{command}`"));
                if !ignored.is_empty() {
                    let names = ignored.join(", ");
                    say(
                        log,
                        &format!("Procfile: only web is run yet, ignored: {names}"),
                    );
                }
                Ok(Built {
                    artifact: Artifact::Directory { root, command },
                    runtime,
                    source: origin,
                })
            }
            Plan::Dockerfile => {
                let images = self.images()?;
                say(log, "building the Dockerfile");
                let artifact = images.build(&job.app, &job.release, &root, log).await?;
                // The image holds all that is needed.
                remove(job.directory.clone()).await?;
                Ok(Built {
                    artifact,
                    runtime: RuntimeKind::Docker,
                    source: origin,
                })
            }
        }
    }

    async fn check_artifact(&self, artifact: &Artifact) -> Result<(), Fault> {
        match artifact {
            Artifact::Image { id, .. } => self.images()?.check(id).await,
            Artifact::Directory { root, .. } | Artifact::Files { root, .. } if root.is_dir() => {
                Ok(())
            }
            Artifact::Directory { root, .. } | Artifact::Files { root, .. } => Err(Fault::invalid(
                format!("the release's files in {} are gone", root.display()),
            )
            .hint("deploy its source again")),
        }
    }

    fn images(&self) -> Result<&Images, Fault> {
        self.images.as_deref().ok_or_else(|| {
            Fault::unavailable("this installation has no container engine")
                .hint("install one (`apt-get install docker.io`) and restart Temps")
        })
    }
}

#[async_trait]
impl Builder for SourceBuilder {
    async fn build(&self, job: &BuildJob) -> Result<Built, Fault> {
        let mut log = Writer::open(&job.log).map_err(|error| system(&error))?;
        // What a crash left of an earlier try.
        remove(job.directory.clone()).await?;
        let result = match self.make(job, &mut log).await {
            Ok(built) => match publish(&built.artifact, &job.directory).await {
                Ok(()) => durable(&built.artifact).await.map(|()| built),
                Err(fault) => Err(fault),
            },
            Err(fault) => Err(fault),
        };
        if let Err(fault) = &result {
            say(&mut log, &format!("failed: {}", fault.what));
            if !fault.hint.is_empty() {
                say(&mut log, &fault.hint);
            }
            remove(job.directory.clone()).await?;
        }
        result
    }

    async fn forget(&self, app: &AppName) -> Result<(), Fault> {
        self.workshop.forget(app).await
    }

    async fn kept(&self) -> Result<Vec<AppName>, Fault> {
        self.workshop.kept().await
    }

    async fn recover(&self) -> Result<(), Fault> {
        self.workshop.recover().await
    }
}

/// Opens files that the proxy is to serve, or an app to run. An earlier release's were opened when it
/// was made.
async fn publish(artifact: &Artifact, directory: &Path) -> Result<(), Fault> {
    match artifact {
        Artifact::Files { root, .. } if root.starts_with(directory) => {
            let directory = directory.to_owned();
            blocking(move |_| publish::open(&directory).map_err(|error| system(&error))).await
        }
        Artifact::Directory { root, .. } if root.starts_with(directory) => {
            let directory = directory.to_owned();
            blocking(move |_| publish::open_below(&directory).map_err(|error| system(&error))).await
        }
        _ => Ok(()),
    }
}

/// Puts a release's files on the disk before its row says that it was made: after a power cut they
/// would be empty. The whole file system at once, which is cheaper than thousands of files each.
async fn durable(artifact: &Artifact) -> Result<(), Fault> {
    let (Artifact::Directory { root, .. } | Artifact::Files { root, .. }) = artifact else {
        return Ok(());
    };
    let root = root.clone();
    blocking(move |_| {
        let root = fs::File::open(root).map_err(|error| system(&error))?;
        nix::unistd::syncfs(&root).map_err(|error| system(&error.into()))
    })
    .await
}

/// The release of files to serve.
fn files(root: PathBuf, spa: bool, source: String, log: &mut dyn Log) -> Result<Built, Fault> {
    if !has_file(&root).map_err(|error| system(&error))? {
        return Err(Fault::invalid("there is no file to serve")
            .hint("deploy the directory that holds the built site (`dist`, `public`, `_site`)"));
    }
    if !root.join("index.html").is_file() {
        let severity = "there is no index.html at the top: `/` will answer 404";
        if spa {
            return Err(Fault::invalid(
                "a single-page application needs an index.html at the top",
            ));
        }
        say(log, severity);
    }
    Ok(Built {
        artifact: Artifact::Files { root, spa },
        runtime: RuntimeKind::Static,
        source,
    })
}

fn has_file(directory: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if !kind.is_dir() || has_file(&entry.path())? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Refuses another runtime than the only one that fits the material.
fn only(job: &BuildJob, fits: RuntimeKind, why: &str) -> Result<(), Fault> {
    match job.runtime {
        Some(asked) if asked != fits => Err(Fault::invalid(format!(
            "the {asked} runtime cannot be used here: {why}"
        ))
        .hint(format!("leave out `--runtime`, or say `--runtime {fits}`"))),
        _ => Ok(()),
    }
}

/// Makes the release's directory and the one in it that holds the source.
fn prepare(directory: &Path) -> Result<PathBuf, Fault> {
    let root = directory.join("root");
    fs::create_dir_all(&root).map_err(|error| system(&error))?;
    Ok(root)
}

async fn remove(directory: PathBuf) -> Result<(), Fault> {
    blocking(move |_| match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(system(&error)),
        _ => Ok(()),
    })
    .await
}

/// Runs work that blocks; it is told when nobody waits for it any more.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce(&AtomicBool) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    struct CancelOnDrop(Arc<AtomicBool>);
    impl Drop for CancelOnDrop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let cancelled = Arc::new(AtomicBool::new(false));
    let guard = CancelOnDrop(Arc::clone(&cancelled));
    let result = tokio::task::spawn_blocking(move || work(&cancelled)).await;
    drop(guard);
    result.map_err(|error| Fault::internal(format!("the build ended unexpectedly: {error}")))?
}

/// A failure of the system in words.
fn system(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Fault::new(
            Code::NoSpace,
            format!("no space is left for the build: {error}"),
        )
        .hint("free some space on the file system of the state directory"),
        _ => Fault::internal(format!("the build failed: {error}")),
    }
}
