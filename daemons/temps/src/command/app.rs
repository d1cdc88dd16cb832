//! `temps app`.

use crate::cli::AppCommand;
use crate::instance::{self, Instance, PATIENCE};
use crate::output::{Done, Out, Style};
use crate::prompt;
use crate::table::Table;
use serde::Serialize;
use temps_ipc::Fault;
use temps_ipc::types::{AppName, AppView, DeploymentView, Timestamp};
use temps_ipc::wire::client::Repeat;

/// The state of an app of which every release was refused.
const NEVER_SERVED: &str = "never-served";

/// How long removing an app may take: its instances are given time to stop.
const DESTROY: std::time::Duration = std::time::Duration::from_secs(180);

/// An app in a list, for programs.
#[derive(Debug, Serialize)]
pub struct Listed<'a> {
    app: &'a str,
    url: &'a str,
    runtime: Option<&'static str>,
    release: Option<&'a str>,
    state: &'a str,
    restarts: u32,
    restart_at: Option<String>,
}

impl<'a> From<&'a AppView> for Listed<'a> {
    fn from(view: &'a AppView) -> Self {
        Self {
            app: view.name.as_str(),
            url: &view.url,
            runtime: view.runtime.map(|runtime| runtime.name()),
            release: view.release.as_ref().map(|release| release.as_str()),
            state: &view.state,
            restarts: view.restarts,
            restart_at: view.restart_at.map(Timestamp::rfc3339),
        }
    }
}

/// Carries out `temps app …`.
pub async fn run(instance: &Instance, command: AppCommand, out: &Out) -> Done {
    match command {
        AppCommand::List(_) => list(instance, out).await,
        AppCommand::Show(args) => show(instance, args.app, out).await,
        AppCommand::Destroy(args) => {
            confirm(&args.app, args.yes)?;
            destroy(instance, args.app, out).await
        }
    }
}

/// Every app, page by page.
///
/// # Errors
/// What deployd says.
pub async fn all(instance: &Instance) -> Result<Vec<AppView>, Fault> {
    let mut apps: Vec<AppView> = Vec::new();
    loop {
        let after = apps.last().map(|app| app.name.clone());
        let page = instance
            .deployd
            .call(Repeat::Idempotent, PATIENCE, |client, context| {
                let after = after.clone();
                async move { client.app_list(context, after).await }
            })
            .await?;
        // Names only grow; anything else would ask for the same page for ever.
        let grows = page
            .first()
            .is_some_and(|first| after.as_ref().is_none_or(|after| first.name > *after));
        if !grows {
            return Ok(apps);
        }
        apps.extend(page);
    }
}

/// Apps as a table.
pub fn table(apps: &[AppView]) -> Table {
    let mut table = Table::new(&["APP", "STATE", "RUNTIME", "RELEASE", "URL"]);
    for app in apps {
        table.row([
            app.name.to_string(),
            app.state.clone(),
            app.runtime
                .map_or_else(String::new, |runtime| runtime.to_string()),
            app.release
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
            if app.state == NEVER_SERVED {
                // Nothing answers there.
                String::new()
            } else {
                app.url.clone()
            },
        ]);
    }
    table
}

/// What is to be said of an app whose instance dies again and again.
pub fn dying(view: &AppView) -> Option<String> {
    let restarts = view.restarts;
    let at = view.restart_at?.rfc3339();
    Some(format!(
        "{}: its instance keeps dying (restarts in the last 15 minutes: {restarts}); next attempt at {at}",
        view.name
    ))
}

async fn list(instance: &Instance, out: &Out) -> Done {
    let apps = all(instance).await?;
    if out.json {
        let listed: Vec<Listed<'_>> = apps.iter().map(Listed::from).collect();
        return out.object(&listed);
    }
    if apps.is_empty() {
        out.note("there are no apps yet: `temps deploy APP --source DIR` makes one");
        return Ok(());
    }
    table(&apps).print(out)?;
    if let Some(note) = never_served(&apps) {
        out.note(note);
    }
    Ok(())
}

/// What there is to do about apps of which no release has ever served.
fn never_served(apps: &[AppView]) -> Option<String> {
    let mut names = apps
        .iter()
        .filter(|app| app.state == NEVER_SERVED)
        .map(|app| app.name.as_str());
    let first = names.next()?;
    let others = match names.count() {
        0 => String::new(),
        count => format!(" (and {count} more)"),
    };
    Some(format!(
        "no release of {first}{others} has ever served: `temps release list {first}` says why, `temps app destroy {first}` removes it"
    ))
}

async fn show(instance: &Instance, app: AppName, out: &Out) -> Done {
    let view = instance
        .deployd
        .call(Repeat::Idempotent, PATIENCE, |client, context| {
            let app = app.clone();
            async move { client.app_show(context, app).await }
        })
        .await?;
    if out.json {
        return out.object(&detailed(&view));
    }
    let listed = Listed::from(&view);
    out.line(format!(
        "{} {}",
        out.styled(Style::Bold, listed.app),
        listed.state
    ))?;
    let activated = if view.socket_activated {
        ", started by requests (socket-activated)"
    } else {
        ""
    };
    out.line(format!(
        "  runtime   {}{activated}",
        listed.runtime.unwrap_or("-")
    ))?;
    out.line(format!("  release   {}", listed.release.unwrap_or("-")))?;
    out.line(format!("  url       {}", listed.url))?;
    for host in &view.hosts {
        out.line(format!("  host      {host}"))?;
    }
    for instance in &view.instances {
        let started = instance.started_at.rfc3339();
        out.line(format!(
            "  instance  {} at {} since {started}",
            instance.id, instance.address
        ))?;
    }
    if let Some(deployment) = &view.deployment {
        let (id, release, phase) = (&deployment.id, &deployment.release, deployment.phase.name());
        out.line(format!(
            "  deploying {id} of {release}: {phase}{}",
            watched(deployment)
        ))?;
    }
    if view.restarts > 0 {
        let next = view.restart_at.map(Timestamp::rfc3339);
        let next = next.map_or_else(String::new, |at| format!(", next attempt at {at}"));
        out.line(format!(
            "  restarts  {} in the last 15 minutes{next}",
            view.restarts
        ))?;
    }
    out.line(format!("  created   {}", view.created_at.rfc3339()))
}

fn watched(deployment: &DeploymentView) -> String {
    let until = deployment.watch_until.map(Timestamp::rfc3339);
    until.map_or_else(String::new, |until| format!(", watched until {until}"))
}

fn detailed(view: &AppView) -> serde_json::Value {
    let instances: Vec<_> = view
        .instances
        .iter()
        .map(|instance| {
            serde_json::json!({
                "instance": instance.id,
                "release": instance.release,
                "address": instance.address,
                "started_at": instance.started_at.rfc3339(),
            })
        })
        .collect();
    let deployment = view.deployment.as_ref().map(|deployment| {
        serde_json::json!({
            "deployment": deployment.id,
            "release": deployment.release,
            "phase": deployment.phase.name(),
            "reason": deployment.reason,
            "created_at": deployment.created_at.rfc3339(),
            "watch_until": deployment.watch_until.map(Timestamp::rfc3339),
        })
    });
    serde_json::json!({
        "app": view.name,
        "url": view.url,
        "runtime": view.runtime.map(|runtime| runtime.name()),
        "release": view.release,
        "state": view.state,
        "hosts": view.hosts,
        "instances": instances,
        "deployment": deployment,
        "created_at": view.created_at.rfc3339(),
        "restarts": view.restarts,
        "restart_at": view.restart_at.map(Timestamp::rfc3339),
        "socket_activated": view.socket_activated,
    })
}

/// Makes sure that the user means this app.
fn confirm(app: &AppName, yes: bool) -> Result<(), Fault> {
    if yes {
        return Ok(());
    }
    if !prompt::possible() {
        return Err(Fault::invalid(format!(
            "removing {app} needs a confirmation, and there is no terminal to ask on"
        ))
        .hint("pass --yes"));
    }
    let question = format!(
        "This removes {app} with its releases, variables and logs. Type its name to go on: "
    );
    if prompt::ask(&question)? == app.as_str() {
        return Ok(());
    }
    Err(Fault::invalid(format!(
        "{app} was not removed: the name did not match"
    )))
}

async fn destroy(instance: &Instance, app: AppName, out: &Out) -> Done {
    instance
        .deployd
        .call(Repeat::Never, DESTROY, |client, context| {
            let app = app.clone();
            async move { client.app_destroy(context, app, instance::actor()).await }
        })
        .await?;
    if out.json {
        return out.object(&serde_json::json!({ "app": app, "destroyed": true }));
    }
    out.line(format!("{app} is removed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use temps_ipc::types::RuntimeKind;

    fn view() -> AppView {
        AppView {
            name: "shop".parse().unwrap(),
            url: "http://shop.localhost:8080".into(),
            runtime: Some(RuntimeKind::Process),
            release: None,
            state: "empty".into(),
            hosts: Vec::new(),
            instances: Vec::new(),
            deployment: None,
            created_at: Timestamp(0),
            restarts: 0,
            restart_at: None,
            socket_activated: true,
        }
    }

    #[test]
    fn the_list_has_the_fields_that_scripts_rely_on() {
        let json = serde_json::to_string(&Listed::from(&view())).unwrap();
        let expected = r#"{"app":"shop","url":"http://shop.localhost:8080","runtime":"process","release":null,"state":"empty","restarts":0,"restart_at":null}"#;
        assert_eq!(json, expected);
    }

    #[test]
    fn an_app_that_never_served_is_listed_as_that_without_a_url() {
        let mut apps = [view(), view()];
        assert_eq!(never_served(&apps), None);
        apps[0].state = NEVER_SERVED.into();
        let note = never_served(&apps).unwrap();
        assert!(note.contains("temps app destroy shop"), "{note}");
        let lines = table(&apps[..1]).lines();
        assert!(!lines.iter().any(|line| line.contains("http")), "{lines:?}");
        apps[1].state = NEVER_SERVED.into();
        let note = never_served(&apps).unwrap();
        assert!(note.contains("shop (and 1 more)"), "{note}");
    }

    #[test]
    fn details_say_more_than_the_list() {
        let json = detailed(&view());
        assert_eq!(json["created_at"], "1970-01-01T00:00:00Z");
        assert_eq!(json["deployment"], serde_json::Value::Null);
        assert_eq!(json["socket_activated"], true);
    }

    #[test]
    fn an_instance_that_waits_for_its_next_start_is_told() {
        let mut view = view();
        view.restarts = 4;
        assert_eq!(dying(&view), None, "it runs");
        view.restart_at = Some(Timestamp(60_000));
        let told = dying(&view).unwrap();
        assert!(
            told.contains("minutes: 4)") && told.contains("1970-01-01T00:01:00Z"),
            "{told}"
        );
        assert_eq!(detailed(&view)["restart_at"], "1970-01-01T00:01:00Z");
    }

    #[test]
    fn removing_without_a_terminal_needs_yes() {
        let app = "shop".parse().unwrap();
        assert!(confirm(&app, true).is_ok());
        if !prompt::possible() {
            assert!(confirm(&app, false).unwrap_err().hint.contains("--yes"));
        }
    }
}
