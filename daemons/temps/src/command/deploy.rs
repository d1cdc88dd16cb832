//! `temps deploy`, `temps redeploy` and `temps rollback`.

use crate::archive::Rules;
use crate::cli::{ContentArgs, DeployArgs, RedeployArgs, RollbackArgs};
use crate::follow;
use crate::instance::{self, Instance, PATIENCE};
use crate::output::{Done, Out};
use crate::upload;
use std::path::{Path, PathBuf};
use temps_ipc::types::{AppName, DeployRequest, DeploymentView, Source, Timestamp};
use temps_ipc::wire::client::Repeat;
use temps_ipc::{Code, Fault};

/// The only environment there is yet.
const PRODUCTION: &str = "production";

/// Longest text that `release list` shows for a source.
const MAX_LABEL: usize = 100;

/// Puts a new release into service.
pub async fn deploy(instance: &Instance, args: DeployArgs, out: &Out) -> Done {
    if args.env != PRODUCTION {
        let what = format!(
            "the environment `{}` does not exist: there is only `{PRODUCTION}` yet",
            args.env
        );
        return Err(Fault::new(Code::Unsupported, what)
            .hint("leave --env out; deploy it as another app, such as `shop-staging`")
            .into());
    }
    let millis =
        |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let source = content(instance, args.content, args.label, args.spa, out).await?;
    let request = DeployRequest {
        app: args.app,
        source,
        runtime: args.runtime,
        domain: args.domain,
        health: args.health,
        health_timeout_ms: args.health_timeout.map(millis),
        watch_ms: args.watch.map(millis),
        actor: instance::actor(),
        socket_activated: args.socket_activated,
    };
    let view = ask(instance, request, out).await?;
    finish(instance, view, args.no_wait, true, out).await
}

/// Puts the content of a release into service anew.
pub async fn redeploy(instance: &Instance, args: RedeployArgs, out: &Out) -> Done {
    // An app is never made by this: one that is not there is told here.
    let present = instance
        .deployd
        .call(Repeat::Idempotent, PATIENCE, |client, context| {
            let app = args.app.clone();
            async move { client.app_show(context, app).await }
        })
        .await?;
    let release = args.release.or(present.release).ok_or_else(|| {
        Fault::not_found(format!("no release of `{}` serves", args.app))
            .hint("`temps release list` shows what there is; `temps deploy` makes one")
    })?;
    let request = DeployRequest {
        app: args.app,
        source: Source::Release { release },
        runtime: None,
        domain: None,
        health: None,
        health_timeout_ms: None,
        watch_ms: None,
        actor: instance::actor(),
        socket_activated: None,
    };
    let view = ask(instance, request, out).await?;
    finish(instance, view, args.no_wait, false, out).await
}

/// Asks for a deployment, once.
async fn ask(
    instance: &Instance,
    request: DeployRequest,
    out: &Out,
) -> Result<DeploymentView, Fault> {
    let app = request.app.clone();
    let since = Timestamp::now();
    let asked = instance
        .deployd
        .call(Repeat::Never, PATIENCE, |client, context| {
            let request = request.clone();
            async move { client.deploy(context, request).await }
        })
        .await;
    found(instance, &app, since, asked, out).await
}

/// Puts an earlier release back into service.
pub async fn rollback(instance: &Instance, args: RollbackArgs, out: &Out) -> Done {
    let since = Timestamp::now();
    let asked = instance
        .deployd
        .call(Repeat::Never, PATIENCE, |client, context| {
            let (app, release) = (args.app.clone(), args.release.clone());
            async move {
                client
                    .rollback(context, app, release, instance::actor())
                    .await
            }
        })
        .await;
    let view = found(instance, &args.app, since, asked, out).await?;
    finish(instance, view, args.no_wait, false, out).await
}

async fn finish(
    instance: &Instance,
    view: DeploymentView,
    no_wait: bool,
    builds: bool,
    out: &Out,
) -> Done {
    if no_wait {
        return follow::queued(&view, out);
    }
    follow::follow(instance, view, builds, out).await
}

/// The deployment that was asked for. If deployd went away before it could answer, it may have
/// been queued all the same: then the app has a deployment from after we asked.
async fn found(
    instance: &Instance,
    app: &AppName,
    since: Timestamp,
    asked: Result<DeploymentView, Fault>,
    out: &Out,
) -> Result<DeploymentView, Fault> {
    let fault = match asked {
        Err(fault) if fault.code == Code::Unavailable => fault,
        answered => return answered,
    };
    let shown = instance
        .deployd
        .call(Repeat::Idempotent, PATIENCE, |client, context| {
            let app = app.clone();
            async move { client.app_show(context, app).await }
        })
        .await;
    let deployment = shown.ok().and_then(|app| app.deployment);
    match deployment.filter(|view| view.created_at >= since) {
        Some(view) => {
            out.note("temps-deployd was restarted; the deployment goes on");
            Ok(view)
        }
        None => Err(fault),
    }
}

async fn content(
    instance: &Instance,
    content: ContentArgs,
    label: Option<String>,
    spa: bool,
    out: &Out,
) -> Result<Source, Fault> {
    if let Some(dir) = content.source {
        let label = label_of(label, &dir);
        let upload = upload::send(instance, &dir, Rules::Source, out).await?;
        return Ok(Source::Directory { upload, label });
    }
    if let Some(dir) = content.static_dir {
        let label = label_of(label, &dir);
        let upload = upload::send(instance, &dir, Rules::Files, out).await?;
        return Ok(Source::Static { upload, label, spa });
    }
    if let Some(reference) = content.image {
        return Ok(Source::Image { reference });
    }
    if let Some(text) = content.git {
        return git(&text);
    }
    Err(Fault::invalid("there is nothing to deploy")
        .hint("use --source, --image, --git or --static"))
}

/// What `release list` calls a directory: its own name, never the path that leads there.
fn label_of(label: Option<String>, dir: &Path) -> String {
    let name = || {
        let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
        dir.file_name().map_or_else(
            || "directory".to_owned(),
            |name| name.to_string_lossy().into_owned(),
        )
    };
    let label = label.unwrap_or_else(name);
    label
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_LABEL)
        .collect()
}

/// `URL[#REF]`. A relative path is relative to us, not to deployd.
fn git(text: &str) -> Result<Source, Fault> {
    let (url, reference) = match text.split_once('#') {
        Some((_, "")) => return Err(Fault::invalid(format!("`{text}` names no ref after `#`"))),
        Some((url, reference)) => (url, Some(reference.to_owned())),
        None => (text, None),
    };
    if url.is_empty() {
        return Err(
            Fault::invalid("--git names no repository").hint("write --git URL or --git URL#REF")
        );
    }
    let url = if is_remote(url) {
        url.to_owned()
    } else {
        let path = std::path::absolute(url)
            .and_then(|path| path.canonicalize())
            .map_err(|error| {
                Fault::invalid(format!("the repository `{url}` cannot be found: {error}"))
                    .hint("write a URL (https://…, file://…) or the path of a local repository")
            })?;
        path_text(path)?
    };
    Ok(Source::Git { url, reference })
}

/// Whether `url` is one, as git sees it: a scheme, or `host:path` without a slash before the colon.
fn is_remote(url: &str) -> bool {
    url.contains("://")
        || url
            .split_once(':')
            .is_some_and(|(host, _)| !host.contains('/') && !host.is_empty())
}

fn path_text(path: PathBuf) -> Result<String, Fault> {
    path.into_os_string()
        .into_string()
        .map_err(|path| Fault::invalid(format!("the path {} is not UTF-8", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, Option<String>) {
        match git(text).unwrap() {
            Source::Git { url, reference } => (url, reference),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_git_source_is_a_url_or_an_absolute_path_with_a_ref() {
        assert_eq!(
            parts("https://example.org/shop.git#v1.2"),
            ("https://example.org/shop.git".into(), Some("v1.2".into()))
        );
        assert_eq!(
            parts("git@example.org:shop.git"),
            ("git@example.org:shop.git".into(), None)
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().display().to_string();
        assert_eq!(
            parts(&format!("{path}/.#main")),
            (path, Some("main".into()))
        );
        let here = std::env::current_dir().unwrap().canonicalize().unwrap();
        assert_eq!(parts("."), (here.display().to_string(), None));
    }

    #[test]
    fn a_git_source_without_repository_or_ref_is_refused() {
        for text in ["", "#main", "https://example.org/x#", "./does/not/exist"] {
            assert!(git(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_label_is_the_directory_s_own_name() {
        let dir = tempfile::tempdir().unwrap();
        let shop = dir.path().join("shop");
        std::fs::create_dir(&shop).unwrap();
        assert_eq!(label_of(None, &shop.join(".")), "shop");
        assert_eq!(label_of(Some("a\nb".into()), &shop), "ab");
    }
}
