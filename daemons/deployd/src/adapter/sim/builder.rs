//! The simulated builder.

use super::{Behaviour, Effect, Part, World};
use crate::logfile::Writer;
use crate::port::{Artifact, BuildJob, Builder, Built, Material};
use async_trait::async_trait;
use temps_ipc::Fault;
use temps_ipc::types::{AppName, LogStream, RuntimeKind};
use tokio::time::sleep;

/// Makes releases that behave as their source is called.
#[derive(Debug, Clone)]
pub struct SimBuilder(World);

impl SimBuilder {
    pub(super) fn new(world: World) -> Self {
        Self(world)
    }
}

#[async_trait]
impl Builder for SimBuilder {
    async fn build(&self, job: &BuildJob) -> Result<Built, Fault> {
        let behaviour = {
            let mut inner = self.0.inner();
            inner.answer(Part::Builder)?;
            inner.journal.push(Effect::Build(job.release.clone()));
            inner.kept.insert(job.app.clone());
            let behaviour = match &job.material {
                Material::Archive { label, .. } | Material::Static { label, .. } => {
                    Behaviour::parse(label)
                }
                Material::Image { reference } => Behaviour::parse(reference),
                Material::Git { reference, .. } => {
                    Behaviour::parse(reference.as_deref().unwrap_or_default())
                }
                Material::Artifact { release, .. } => inner.behaviour(release),
            };
            inner.behaviours.insert(job.release.clone(), behaviour);
            behaviour
        };
        let made = std::fs::create_dir_all(&job.directory).and_then(|()| Writer::open(&job.log));
        let mut log = made.map_err(|error| Fault::internal(error.to_string()))?;
        log.line(LogStream::Platform, "simulated build");
        match behaviour {
            Behaviour::SlowBuild(time) => sleep(time).await,
            Behaviour::BuildFails => {
                log.line(LogStream::Stderr, "simulated compiler: no such thing");
                return Err(Fault::invalid("the build failed: no such thing")
                    .hint("read the whole output with `temps logs --build`"));
            }
            _ => {}
        }
        Ok(built(job))
    }

    async fn forget(&self, app: &AppName) -> Result<(), Fault> {
        let mut inner = self.0.inner();
        inner.answer(Part::Builder)?;
        inner.kept.remove(app);
        Ok(())
    }

    async fn kept(&self) -> Result<Vec<AppName>, Fault> {
        Ok(self.0.kept())
    }
}

fn built(job: &BuildJob) -> Built {
    let runtime = job.runtime.unwrap_or(RuntimeKind::Process);
    let made = || match runtime {
        RuntimeKind::Process | RuntimeKind::Systemd => Artifact::Directory {
            root: job.directory.clone(),
            command: "./simulated".to_owned(),
        },
        RuntimeKind::Docker => Artifact::Image {
            id: format!("sha256:{}", job.release),
            port: 8080,
        },
        RuntimeKind::Static => Artifact::Files {
            root: job.directory.clone(),
            spa: false,
        },
    };
    match &job.material {
        Material::Archive { label, .. } => Built {
            artifact: made(),
            runtime,
            source: format!("dir {label}"),
        },
        Material::Static { label, spa, .. } => Built {
            artifact: Artifact::Files {
                root: job.directory.clone(),
                spa: *spa,
            },
            runtime: RuntimeKind::Static,
            source: format!("static {label}"),
        },
        Material::Image { reference } => Built {
            // The same for everybody who asks for it, as an engine has it.
            artifact: Artifact::Image {
                id: format!("sha256:{reference}"),
                port: 8080,
            },
            runtime: RuntimeKind::Docker,
            source: format!("image {reference}"),
        },
        Material::Git { url, reference, .. } => Built {
            artifact: made(),
            runtime,
            source: format!(
                "git {} {} (4f2c1d0)",
                // Without a password, as the real one says it.
                url.rsplit('@').next().unwrap_or_default(),
                reference.as_deref().unwrap_or("main")
            ),
        },
        Material::Artifact {
            release,
            artifact,
            runtime,
        } => Built {
            artifact: artifact.clone(),
            runtime: *runtime,
            source: format!("release {release}"),
        },
    }
}
