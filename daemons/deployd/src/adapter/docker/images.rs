//! Images: found or pulled by reference, kept by content id, removed if they are ours.

use super::engine::{CallError, Engine};
use crate::logfile::Writer;
use crate::port::Artifact;
use bollard::models::ImageInspect;
use bollard::query_parameters::{CreateImageOptionsBuilder, RemoveImageOptionsBuilder};
use futures::StreamExt;
use std::sync::Arc;
use temps_ipc::Fault;
use temps_ipc::types::LogStream;
use tokio::time::{Instant, timeout_at};

/// The start of the tags of images that we built.
pub(super) const TAG_PREFIX: &str = "temps/";

/// Where an app listens that does not say where.
const DEFAULT_PORT: u16 = 8080;

/// Longest image reference in bytes; registries take 255 for the name and 128 for the tag.
const MAX_REFERENCE: usize = 512;

/// Makes and keeps images.
#[derive(Debug)]
pub struct Images {
    pub(super) engine: Arc<Engine>,
}

impl Images {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }

    /// The image that the reference names: the engine's own, or else pulled.
    ///
    /// # Errors
    /// `Invalid` if there is no such image; `Unavailable`.
    pub async fn resolve(&self, reference: &str, log: &mut Writer) -> Result<Artifact, Fault> {
        check_reference(reference)?;
        let found = match self.inspect(reference).await? {
            Some(found) => {
                log.line(
                    LogStream::Platform,
                    &format!("the engine has {reference} already"),
                );
                found
            }
            None => {
                self.pull(reference, log).await?;
                self.inspect(reference).await?.ok_or_else(|| {
                    Fault::unavailable(format!(
                        "{reference} was pulled, and the engine does not have it"
                    ))
                })?
            }
        };
        artifact(found, log)
    }

    /// Whether the image with this content id still exists.
    ///
    /// # Errors
    /// `Invalid` if not; `Unavailable`.
    pub async fn check(&self, id: &str) -> Result<(), Fault> {
        match self.inspect(id).await? {
            Some(_) => Ok(()),
            None => Err(
                Fault::invalid(format!("the image {id} was removed from the engine"))
                    .hint("deploy its source again"),
            ),
        }
    }

    pub(super) async fn inspect(&self, reference: &str) -> Result<Option<ImageInspect>, CallError> {
        let docker = self.engine.docker().await?;
        match self.engine.call(docker.inspect_image(reference)).await {
            Ok(found) => Ok(Some(found)),
            Err(CallError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn pull(&self, reference: &str, log: &mut Writer) -> Result<(), Fault> {
        let limit = self.engine.settings.pull_limit;
        let deadline = Instant::now() + limit;
        log.line(LogStream::Platform, &format!("pulling {reference}"));
        let mut options = CreateImageOptionsBuilder::new().from_image(reference);
        if !names_a_version(reference) {
            // Without a tag the engine would pull all there are.
            options = options.tag("latest");
        }
        let docker = self.engine.patient_docker().await?;
        let mut progress = docker.create_image(Some(options.build()), None, None);
        loop {
            let next = timeout_at(deadline, progress.next()).await.map_err(|_| {
                Fault::unavailable(format!(
                    "pulling {reference} took more than {} s",
                    limit.as_secs()
                ))
            })?;
            match next {
                None => return Ok(()),
                Some(Ok(step)) => {
                    let is_bar = step
                        .progress_detail
                        .is_some_and(|detail| detail.current.is_some());
                    if let Some(status) = step.status.filter(|_| !is_bar) {
                        let id = step.id.map(|id| format!("{id}: ")).unwrap_or_default();
                        log.line(LogStream::Stdout, &format!("{id}{status}"));
                    }
                }
                Some(Err(error)) => return Err(pull_fault(reference, self.engine.explain(error))),
            }
        }
    }

    /// Removes the image if it is ours; otherwise whoever has it keeps it.
    pub(super) async fn remove(&self, id: &str) -> Result<(), CallError> {
        let Some(found) = self.inspect(id).await? else {
            return Ok(());
        };
        let labels = found
            .config
            .as_ref()
            .and_then(|config| config.labels.as_ref());
        if !self.engine.owns(labels) {
            return Ok(());
        }
        let tags = found.repo_tags.unwrap_or_default();
        let (ours, others): (Vec<_>, Vec<_>) = tags
            .into_iter()
            .partition(|tag| tag.starts_with(TAG_PREFIX));
        for tag in ours {
            self.remove_by(&tag).await?;
        }
        // An image without a tag of its own stays after its last tag is gone.
        if others.is_empty() {
            self.remove_by(id).await
        } else {
            Ok(())
        }
    }

    async fn remove_by(&self, name: &str) -> Result<(), CallError> {
        let options = RemoveImageOptionsBuilder::new().build();
        let docker = self.engine.docker().await?;
        let removed = self
            .engine
            .call(docker.remove_image(name, Some(options), None))
            .await;
        removed.map(|_| ()).or_else(CallError::gone_is_fine)
    }
}

fn pull_fault(reference: &str, error: CallError) -> Fault {
    let why = error.to_string();
    match error {
        CallError::NotFound(_) | CallError::Refused(_) => {
            Fault::invalid(format!("the image {reference} cannot be pulled: {why}"))
                .hint("check its name; log in with `docker login` and pull it with `docker pull` if it is private")
        }
        // The engine says 500 if the registry cannot be reached or wants authentication.
        CallError::Failed(_) => Fault::unavailable(format!("the image {reference} cannot be pulled: {why}"))
            .hint("check that the registry can be reached; a private image can be pulled before with `docker pull`"),
        error => error.into_fault(),
    }
}

/// The artifact for an image, with the port that it says.
pub(super) fn artifact(found: ImageInspect, log: &mut Writer) -> Result<Artifact, Fault> {
    let id = found
        .id
        .ok_or_else(|| Fault::unavailable("the engine does not say the image's id"))?;
    let exposed = found
        .config
        .and_then(|config| config.exposed_ports)
        .unwrap_or_default();
    let ports = tcp_ports(&exposed);
    let port = ports.first().copied().unwrap_or(DEFAULT_PORT);
    let how = match ports.len() {
        0 => format!("the image exposes no port: it shall listen on {port} (the variable PORT)"),
        1 => format!("the image exposes port {port}"),
        _ => format!("the image exposes several ports: taking the lowest, {port}"),
    };
    log.line(LogStream::Platform, &how);
    Ok(Artifact::Image { id, port })
}

/// The TCP ports among `8080/tcp`, `53/udp`, sorted.
fn tcp_ports(exposed: &[String]) -> Vec<u16> {
    let mut ports: Vec<u16> = exposed
        .iter()
        .filter_map(|port| {
            let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
            number
                .parse()
                .ok()
                .filter(|&number| protocol == "tcp" && number > 0)
        })
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// Whether the reference has a tag or a digest.
fn names_a_version(reference: &str) -> bool {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    last.contains([':', '@'])
}

fn check_reference(reference: &str) -> Result<(), Fault> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"./:@_-".contains(&byte);
    let first = reference.bytes().next();
    let is_valid = first.is_some_and(|byte| byte.is_ascii_alphanumeric())
        && reference.len() <= MAX_REFERENCE
        && reference.bytes().all(plain)
        && !reference.contains("..")
        && !reference.contains("//");
    if is_valid {
        return Ok(());
    }
    let shown: String = reference.chars().take(80).collect();
    Err(
        Fault::invalid(format!("{shown:?} is not an image reference"))
            .hint("such as `shop:3` or `registry.example.org/team/shop:3`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_tcp_port_is_taken() {
        let ports = |exposed: &[&str]| {
            tcp_ports(
                &exposed
                    .iter()
                    .map(|port| (*port).to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(ports(&["9000/tcp", "8080/tcp", "53/udp"]), [8080, 9000]);
        assert_eq!(ports(&["53/udp", "0/tcp", "x"]), [0_u16; 0]);
    }

    #[test]
    fn references_are_names_and_nothing_else() {
        for reference in [
            "shop",
            "shop:3",
            "registry.example.org:5000/a/b:c",
            "a@sha256:0123",
        ] {
            assert!(check_reference(reference).is_ok(), "{reference}");
        }
        for reference in [
            "", "-a", "a b", "a?b=c", "../a", "a/../b", "a\n", "a//b", "a%2fb",
        ] {
            assert!(check_reference(reference).is_err(), "{reference}");
        }
        assert!(names_a_version("host:5000/a:1"));
        assert!(!names_a_version("host:5000/a"));
    }
}
