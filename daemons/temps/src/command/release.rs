//! `temps release`.

use crate::cli::{CancelArgs, ReleaseCommand};
use crate::follow;
use crate::instance::{self, Instance, PATIENCE};
use crate::output::{Done, Out};
use crate::table::Table;
use serde::Serialize;
use temps_ipc::Fault;
use temps_ipc::types::{AppName, ReleaseView};
use temps_ipc::wire::client::Repeat;

/// A release in a list, for programs.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    release: &'a str,
    status: &'static str,
    created_at: String,
    source: &'a str,
    reason: &'a str,
    runtime: Option<&'static str>,
    actor: &'a str,
    socket_activated: bool,
}

impl<'a> From<&'a ReleaseView> for Listed<'a> {
    fn from(view: &'a ReleaseView) -> Self {
        Self {
            release: view.id.as_str(),
            status: view.status.name(),
            created_at: view.created_at.rfc3339(),
            source: &view.source,
            reason: &view.reason,
            runtime: view.runtime.map(|runtime| runtime.name()),
            actor: &view.actor,
            socket_activated: view.socket_activated,
        }
    }
}

/// Carries out `temps release …`.
pub async fn run(instance: &Instance, command: ReleaseCommand, out: &Out) -> Done {
    match command {
        ReleaseCommand::List(args) => list(instance, args.app, out).await,
        ReleaseCommand::Cancel(args) => cancel(instance, args, out).await,
    }
}

/// Cancels a deployment, and waits until nothing of it is left.
async fn cancel(instance: &Instance, args: CancelArgs, out: &Out) -> Done {
    let view = instance
        .deployd
        .call(Repeat::Never, PATIENCE, |client, context| {
            let (app, release) = (args.app.clone(), args.release.clone());
            async move {
                client
                    .cancel(context, app, release, instance::actor())
                    .await
            }
        })
        .await?;
    follow::cancelled(instance, view, out).await
}

async fn list(instance: &Instance, app: AppName, out: &Out) -> Done {
    let releases = all(instance, app).await?;
    if out.json {
        let listed: Vec<Listed<'_>> = releases.iter().map(Listed::from).collect();
        return out.object(&listed);
    }
    let mut table = Table::new(&["RELEASE", "STATUS", "CREATED", "SOURCE", "BY", "REASON"]);
    for release in &releases {
        table.row([
            release.id.to_string(),
            release.status.name().to_owned(),
            release.created_at.rfc3339(),
            release.source.clone(),
            release.actor.clone(),
            release.reason.clone(),
        ]);
    }
    table.print(out)
}

/// Every release of an app, latest first, page by page.
async fn all(instance: &Instance, app: AppName) -> Result<Vec<ReleaseView>, Fault> {
    let mut releases: Vec<ReleaseView> = Vec::new();
    loop {
        let before = releases.last().map(|release| release.id.clone());
        let page = instance
            .deployd
            .call(Repeat::Idempotent, PATIENCE, |client, context| {
                let (app, before) = (app.clone(), before.clone());
                async move { client.release_list(context, app, before).await }
            })
            .await?;
        // Each page is older; anything else would ask for the same page for ever.
        let older = page
            .first()
            .is_some_and(|first| before.as_ref().is_none_or(|before| first.id < *before));
        if !older {
            return Ok(releases);
        }
        releases.extend(page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use temps_ipc::id::ReleaseId;
    use temps_ipc::types::{ReleaseStatus, Timestamp};

    #[test]
    fn the_list_has_the_fields_that_scripts_rely_on() {
        let view = ReleaseView {
            id: ReleaseId::fresh(),
            status: ReleaseStatus::RolledBack,
            runtime: None,
            created_at: Timestamp(1_000),
            source: "dir shop".into(),
            reason: "it answers 500".into(),
            actor: "ann".into(),
            socket_activated: false,
        };
        let json = serde_json::to_value(Listed::from(&view)).unwrap();
        assert_eq!(json["status"], "rolled_back");
        assert_eq!(json["created_at"], "1970-01-01T00:00:01Z");
        assert_eq!(json["socket_activated"], false);
        for field in ["release", "source", "reason"] {
            assert!(json[field].is_string(), "{field}");
        }
    }
}
