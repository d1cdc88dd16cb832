//! What is kept: the artifacts of the releases one may go back to, the logs of some more, and
//! nothing that no row knows of.

use super::Engine;
use crate::port::Artifact;
use crate::store::app::App;
use crate::store::release::{self, Release};
use crate::store::{RowError, StoreError, deployment, instance, to_json};
use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, SystemTime};
use temps_ipc::types::{ReleaseStatus, RuntimeKind};
use tracing::warn;

/// Releases of an app whose rows and logs are kept.
const KEPT_LOGS: usize = 50;

/// Instances of one release whose rows and logs are kept after they are gone: one that dies again
/// and again is replaced for ever.
const KEPT_INSTANCES: u32 = 10;

/// Ended deployments of an app whose rows are kept beside those that kept instances belong to.
const KEPT_DEPLOYMENTS: u32 = 200;

/// Releases looked at per app; older ones were tidied before.
const LOOK: u32 = 200;

/// How long an upload may wait for its deployment.
pub(crate) const UPLOAD_AGE: Duration = Duration::from_secs(600);

impl Engine {
    /// Removes what the app's old releases hold.
    pub(super) async fn tidy(&self, app: &App) {
        if let Err(error) = self.tidied(app).await {
            warn!(app = %app.name, %error, "old releases cannot be tidied now");
        }
    }

    async fn tidied(&self, app: &App) -> Result<(), StoreError> {
        let id = app.id.clone();
        let (releases, needed) = self
            .store
            .read(move |db| {
                // What serves, and what a deployment that waits is going to serve.
                let serving = crate::store::app::by_id(db, &id)?.and_then(|app| app.release);
                let open = crate::store::deployment::open(db, &id)?;
                let needed: Vec<_> = open
                    .into_iter()
                    .flat_map(|open| [Some(open.release), open.previous, open.fallback])
                    .chain([serving])
                    .flatten()
                    .collect();
                Ok((release::list(db, &id, None, LOOK)?, needed))
            })
            .await?;
        let mut served: Vec<&Release> = releases
            .iter()
            .filter(|release| release.artifact.is_some() && release.served_at.is_some())
            .collect();
        served.sort_by_key(|release| std::cmp::Reverse(release.served_at));
        let keep: HashSet<_> = served
            .iter()
            .take(self.settings.keep_releases)
            .map(|release| &release.id)
            .chain(&needed)
            .collect();
        for old in &releases {
            let done = old.status != ReleaseStatus::Pending;
            if done && old.artifact.is_some() && !keep.contains(&old.id) {
                self.remove_artifact(old).await;
                let id = old.id.clone();
                self.store
                    .write(move |tx| release::forget_artifact(tx, &id))
                    .await?;
            }
        }
        for old in releases
            .iter()
            .skip(KEPT_LOGS)
            .filter(|old| !keep.contains(&old.id))
        {
            if old.status == ReleaseStatus::Pending {
                continue;
            }
            let _ = tokio::fs::remove_dir_all(self.paths.logs(&old.id)).await;
            let id = old.id.clone();
            self.store
                .write(move |tx| {
                    for table in ["instance", "deployment"] {
                        tx.execute(
                            &format!("DELETE FROM {table} WHERE release = ?1"),
                            [id.as_str()],
                        )?;
                    }
                    tx.execute("DELETE FROM release WHERE id = ?1", [id.as_str()])?;
                    Ok(())
                })
                .await?;
        }
        self.tidy_instances(app).await
    }

    /// Removes what instances left that were replaced long ago.
    async fn tidy_instances(&self, app: &App) -> Result<(), StoreError> {
        let id = app.id.clone();
        let surplus = self
            .store
            .read(move |db| instance::surplus(db, &id, KEPT_INSTANCES))
            .await?;
        for (instance, release) in &surplus {
            let log = self.paths.instance_log(release, instance);
            for path in [crate::logfile::rotated(&log), log] {
                let _ = tokio::fs::remove_file(path).await;
            }
        }
        let id = app.id.clone();
        self.store
            .write(move |tx| {
                for (gone, _) in &surplus {
                    instance::remove(tx, gone)?;
                }
                deployment::remove_old(tx, &id, KEPT_DEPLOYMENTS)
            })
            .await
    }

    /// Removes a release's files or image, unless another release is made of the same.
    pub(super) async fn remove_artifact(&self, release: &Release) {
        let Some(artifact) = release.artifact.clone() else {
            // An interrupted build may have left its directory.
            let _ = tokio::fs::remove_dir_all(self.paths.release(&release.id)).await;
            return;
        };
        match self.is_shared(release, &artifact).await {
            Ok(false) => {}
            Ok(true) => return,
            Err(error) => {
                warn!(release = %release.id, %error, "cannot tell whether its files are in use");
                return;
            }
        }
        match &artifact {
            Artifact::Image { .. } => {
                if let Some(runtime) = self
                    .runtimes
                    .get(release.runtime.unwrap_or(RuntimeKind::Docker))
                    && let Err(error) = runtime.remove_artifact(&artifact).await
                {
                    warn!(release = %release.id, %error, "its image cannot be removed now");
                }
                let _ = tokio::fs::remove_dir_all(self.paths.release(&release.id)).await;
            }
            Artifact::Directory { root, .. } | Artifact::Files { root, .. } => {
                // Only what we made: a directory below ours.
                if let Ok(below) = root.strip_prefix(self.paths.releases())
                    && let Some(first) = below.components().next()
                {
                    let _ = tokio::fs::remove_dir_all(self.paths.releases().join(first)).await;
                }
            }
        }
    }

    async fn is_shared(&self, release: &Release, artifact: &Artifact) -> Result<bool, StoreError> {
        let id = release.id.clone();
        let text = to_json("release", artifact);
        let others: i64 = self
            .store
            .read(move |db| {
                let count: Result<i64, RowError> = Ok(db.query_row(
                    "SELECT count(*) FROM release JOIN app ON app.id = release.app
                     WHERE release.artifact = ?1 AND release.id <> ?2 AND app.destroying = 0",
                    [text?.as_str(), id.as_str()],
                    |row| row.get(0),
                )?);
                count
            })
            .await?;
        Ok(others > 0)
    }

    /// Removes files that no row knows of: what a crash left, and uploads that nobody took.
    pub(super) async fn sweep_files(&self) {
        let known = self
            .store
            .read(|db| {
                let ids = |condition: &str| {
                    let mut statement =
                        db.prepare(&format!("SELECT id FROM release WHERE {condition}"))?;
                    let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
                    rows.collect::<Result<HashSet<_>, _>>()
                };
                // What a release is made from is needed only until it is made, or refused.
                Ok((ids("true")?, ids("status = 'pending'")?))
            })
            .await;
        let (known, pending) = match known {
            Ok(known) => known,
            Err(error) => {
                warn!(%error, "cannot tell which files are in use");
                return;
            }
        };
        let paths = self.paths.clone();
        let swept = tokio::task::spawn_blocking(move || {
            sweep(&paths.uploads(), |_| false);
            sweep(&paths.materials(), |name| {
                pending.contains(name.trim_end_matches(".tar"))
            });
            sweep(&paths.releases(), |name| known.contains(name));
            sweep(&paths.all_logs(), |name| {
                known.contains(name) || name == "stray.log"
            });
        });
        if let Err(error) = swept.await {
            warn!(%error, "sweeping files failed");
        }
    }
}

/// Removes the old entries of `directory` that are not wanted.
fn sweep(directory: &Path, wanted: impl Fn(&str) -> bool) {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if wanted(&name.to_string_lossy()) {
            continue;
        }
        // What is young may belong to a call that is just being made.
        let age = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
            .and_then(|modified| SystemTime::now().duration_since(modified).ok());
        if age.is_none_or(|age| age < UPLOAD_AGE) {
            continue;
        }
        let path = entry.path();
        let removed = if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        if let Err(error) = removed {
            warn!(path = %path.display(), %error, "a left-over file cannot be removed");
        }
    }
}
