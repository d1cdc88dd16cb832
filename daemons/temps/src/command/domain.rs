//! `temps domain`.

use crate::cli::DomainCommand;
use crate::instance::{self, Instance, PATIENCE};
use crate::output::{Done, Out};
use temps_ipc::Fault;
use temps_ipc::types::{AppName, Host};
use temps_ipc::wire::client::Repeat;

/// Carries out `temps domain …`.
pub async fn run(instance: &Instance, command: DomainCommand, out: &Out) -> Done {
    match command {
        DomainCommand::Add(args) => {
            for host in &args.hosts {
                add(instance, &args.app, host).await?;
                said(&args.app, host, "added", out)?;
            }
            Ok(())
        }
        DomainCommand::Remove(args) => {
            for host in &args.hosts {
                remove(instance, &args.app, host).await?;
                said(&args.app, host, "removed", out)?;
            }
            Ok(())
        }
        DomainCommand::List(args) => list(instance, args.app, out).await,
    }
}

async fn add(instance: &Instance, app: &AppName, host: &Host) -> Result<(), Fault> {
    instance
        .deployd
        .call(Repeat::Never, PATIENCE, |client, context| {
            let (app, host) = (app.clone(), host.clone());
            async move {
                client
                    .domain_add(context, app, host, instance::actor())
                    .await
            }
        })
        .await
}

async fn remove(instance: &Instance, app: &AppName, host: &Host) -> Result<(), Fault> {
    instance
        .deployd
        .call(Repeat::Never, PATIENCE, |client, context| {
            let (app, host) = (app.clone(), host.clone());
            async move {
                client
                    .domain_remove(context, app, host, instance::actor())
                    .await
            }
        })
        .await
}

/// One line per host, at once: the next one may fail.
fn said(app: &AppName, host: &Host, verb: &str, out: &Out) -> Done {
    if out.json {
        return out.object(&serde_json::json!({ "app": app, verb: host }));
    }
    out.line(format!("{app}: {verb} {host}"))
}

async fn list(instance: &Instance, app: AppName, out: &Out) -> Done {
    let hosts = instance
        .deployd
        .call(Repeat::Idempotent, PATIENCE, |client, context| {
            let app = app.clone();
            async move { client.domain_list(context, app).await }
        })
        .await?;
    if out.json {
        return out.object(&hosts);
    }
    for host in &hosts {
        out.line(host.as_str())?;
    }
    Ok(())
}
