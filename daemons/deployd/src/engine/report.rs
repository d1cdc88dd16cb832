//! Figures and findings for `temps status` and `temps doctor`.

use super::Engine;
use crate::checks::check;
use crate::store::deployment;
use std::time::Duration;
use temps_ipc::types::{Check, CheckLevel, RuntimeKind, Timestamp};
use temps_ipc::{Code, Fault};

/// How long an engine may take to say what it is.
const CHECK_TIME: Duration = Duration::from_secs(5);

impl Engine {
    /// When this engine was made.
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// Apps; deployments waiting or under way, and in their watch window.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn counts(&self) -> Result<(u32, (u32, u32)), Fault> {
        Ok(self
            .store
            .read(|db| {
                let apps = db.query_row("SELECT count(*) FROM app", [], |row| row.get(0))?;
                Ok((apps, deployment::count_open(db)?))
            })
            .await?)
    }

    /// Which runtimes can be used, and why not.
    pub async fn runtime_checks(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        for runtime in self.runtimes.iter() {
            let name = runtime.kind().name();
            let found = tokio::time::timeout(CHECK_TIME, runtime.check())
                .await
                .unwrap_or_else(|_| {
                    Err(Fault::unavailable(format!(
                        "the {name} runtime does not answer"
                    )))
                });
            if let Some(fault) = runtime.lacking()
                && self.uses(runtime.kind()).await
            {
                checks.push(check(name, CheckLevel::Warning, &fault.what, &fault.hint));
            }
            checks.push(match found {
                Ok(what) => check(name, CheckLevel::Ok, &what, ""),
                // Only apps that are containers need it.
                Err(fault)
                    if runtime.kind() == RuntimeKind::Docker
                        && !self.uses(RuntimeKind::Docker).await =>
                {
                    check(name, CheckLevel::Warning, &fault.what, &fault.hint)
                }
                Err(fault) => check(name, CheckLevel::Failed, &fault.what, &fault.hint),
            });
        }
        checks
    }

    /// Whether an app runs on this runtime. Unknown counts as yes.
    pub(super) async fn uses(&self, kind: RuntimeKind) -> bool {
        self.store
            .read(move |db| {
                let apps: i64 = db.query_row(
                    "SELECT count(*) FROM app WHERE runtime = ?1",
                    [kind.name()],
                    |row| row.get(0),
                )?;
                Ok(apps > 0)
            })
            .await
            .unwrap_or(true)
    }

    /// Whether the proxy serves what it was told last.
    ///
    /// # Errors
    /// In words for people.
    pub async fn proxy_check(&self) -> Result<(), Fault> {
        let told = self.generation().await?;
        let served = self.proxy.generation().await?;
        if told == served {
            return Ok(());
        }
        Err(Fault::new(
            Code::Unavailable,
            format!("temps-proxy serves routes {served}, the present ones are {told}"),
        )
        .hint("see the log of temps-proxy; a reconciliation gives it the routes again"))
    }
}
