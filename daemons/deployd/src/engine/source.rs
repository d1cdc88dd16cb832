//! What a release is made from: a caller's source, taken over so that nothing of it is lost.

use super::Engine;
use super::instance::seal_fault;
use super::step::storage;
use crate::port::Material;
use crate::store::app::App;
use crate::store::release;
use temps_ipc::Fault;
use temps_ipc::id::ReleaseId;
use temps_ipc::types::{RuntimeKind, Source};
use temps_ipc::wire::upload::UploadTicket;

impl Engine {
    /// What the release is made from, in words too, and the runtime it shall have.
    pub(super) async fn material(
        &self,
        app: &App,
        id: &ReleaseId,
        source: &Source,
        runtime: Option<RuntimeKind>,
    ) -> Result<(Material, String, Option<RuntimeKind>), Fault> {
        // An app keeps its runtime, unless what it is made from says otherwise.
        let kept = app
            .runtime
            .filter(|kind| matches!(kind, RuntimeKind::Docker | RuntimeKind::Process));
        Ok(match source {
            Source::Directory { upload, label } => {
                let path = self.take_upload(upload, id).await?;
                let source = format!("dir {label}");
                (
                    Material::Archive {
                        path,
                        label: label.clone(),
                    },
                    source,
                    runtime.or(kept),
                )
            }
            Source::Static { upload, label, spa } => {
                let path = self.take_upload(upload, id).await?;
                let source = format!("static {label}");
                (
                    Material::Static {
                        path,
                        label: label.clone(),
                        spa: *spa,
                    },
                    source,
                    runtime,
                )
            }
            Source::Image { reference } => {
                let source = format!("image {reference}");
                (
                    Material::Image {
                        reference: reference.clone(),
                    },
                    source,
                    runtime,
                )
            }
            Source::Git { url, reference } => {
                let shown = reference
                    .as_deref()
                    .map(|reference| format!("#{reference}"))
                    .unwrap_or_default();
                let plain = without_password(url);
                let source = format!("git {plain}{shown}");
                let sealed = (plain != *url)
                    .then(|| self.seal.seal_url(id.as_str(), url))
                    .transpose()
                    .map_err(|error| seal_fault(&error))?;
                let material = Material::Git {
                    url: plain,
                    reference: reference.clone(),
                    sealed,
                };
                (material, source, runtime.or(kept))
            }
            Source::Release { release } => {
                let wanted = release.clone();
                let from = self.store.read(move |db| release::get(db, &wanted)).await?;
                let (Some(artifact), Some(kind), true) =
                    (from.artifact, from.runtime, from.app == app.id)
                else {
                    return Err(Fault::not_found(format!(
                        "`{}` has no release {release} with its files",
                        app.name
                    )));
                };
                let material = Material::Artifact {
                    release: from.id,
                    artifact,
                    runtime: kind,
                };
                (material, from.source, Some(kind))
            }
        })
    }

    /// Moves a finished upload to where the release finds it.
    async fn take_upload(
        &self,
        ticket: &UploadTicket,
        release: &ReleaseId,
    ) -> Result<std::path::PathBuf, Fault> {
        let to = self.paths.material(release);
        let from = self.paths.uploads().join(ticket.as_str());
        match tokio::fs::rename(&from, &to).await {
            Ok(()) => {
                // The deployment's row will say that it is there, also after a power cut.
                let directory = tokio::fs::File::open(self.paths.materials()).await;
                let synced = match directory {
                    Ok(directory) => directory.sync_all().await,
                    Err(error) => Err(error),
                };
                synced.map_err(|error| storage("the upload cannot be kept", &error))?;
                Ok(to)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Fault::not_found(
                "the upload is not there: it was never finished, or is too old",
            )
            .hint("run the command again")),
            Err(error) => Err(storage("the upload cannot be taken", &error)),
        }
    }
}

/// A URL without the password that it may carry.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    // The last one: a password may have an `@` of its own.
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}{path}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        assert_eq!(
            without_password("https://u:p@example.org/a"),
            "https://example.org/a"
        );
        assert_eq!(
            without_password("https://u:p@ss@example.org/a"),
            "https://example.org/a"
        );
        assert_eq!(
            without_password("https://example.org/a@b"),
            "https://example.org/a@b"
        );
        assert_eq!(without_password("/srv/repo"), "/srv/repo");
    }
}
