//! What belongs to an app: its hosts, its variables, its secrets, and the end of it all.

use crate::support::{Host, Running, actor, shop, started};
use std::fs;
use temps_deployd::adapter::sim::Part;
use temps_ipc::types::{AppName, EnvVar, Phase, Source};
use temps_ipc::{Code, Fault};

#[tokio::test(start_paused = true)]
async fn a_build_is_given_up_with_its_app() {
    let (host, running) = started();
    running.deploy("healthy").await;
    let hanging = running.queue("slow-build:100000000").await;
    running.until(hanging, Phase::Preparing).await;
    running.destroy().await;
    assert_eq!(host.present(), 0);
    assert_eq!(running.deploy("healthy").await.phase, Phase::Live);
}

#[tokio::test(start_paused = true)]
async fn an_app_is_destroyed_with_all_that_belongs_to_it() {
    let (host, running) = started();
    running.deploy("healthy").await;
    running.deploy("healthy").await;
    set(&running, vec![]).await;
    running.destroy().await;
    assert_eq!(host.present(), 0);
    assert_eq!(host.world.snapshot().routes, []);
    assert_eq!(running.app().await.unwrap_err().code, Code::NotFound);
    for directory in ["releases", "logs", "material", "uploads"] {
        let left = fs::read_dir(host.directory.path().join(directory)).unwrap();
        assert_eq!(left.count(), 0, "{directory}");
    }
    // The name is free again.
    assert_eq!(running.deploy("healthy").await.phase, Phase::Live);
    host.well();
}

#[tokio::test(start_paused = true)]
async fn what_builds_kept_goes_with_their_app_or_with_the_next_reconciliation() {
    let (host, running) = started();
    running.deploy("healthy").await;
    assert_eq!(host.world.kept(), [shop()]);
    running.engine.reconcile().await.unwrap();
    assert_eq!(host.world.kept(), [shop()], "the app is there");
    host.world.silence(Part::Builder, 2);
    running.destroy().await;
    let failed = running.engine.reconcile().await.unwrap().failed;
    assert!(failed[0].contains("cannot be removed"), "{failed:?}");
    assert_eq!(host.world.kept(), [shop()]);
    let mended = running.engine.reconcile().await.unwrap().mended;
    assert!(
        mended[0].contains("builds of this removed app"),
        "{mended:?}"
    );
    assert!(host.world.kept().is_empty());
    let again = running.engine.reconcile().await.unwrap();
    assert!(again.mended.is_empty(), "{again:?}");
    host.well();
}

async fn add(running: &Running, app: &AppName, host: &str) -> Result<(), Fault> {
    let (engine, host) = (&running.engine, host.parse().unwrap());
    engine.domain_add(app.clone(), host, actor(), 0).await
}

async fn remove(running: &Running, host: &str) -> Result<(), Fault> {
    let (engine, host) = (&running.engine, host.parse().unwrap());
    engine.domain_remove(shop(), host, actor(), 0).await
}

#[tokio::test(start_paused = true)]
async fn hosts_belong_to_one_app() {
    let (host, running) = started();
    running.deploy("healthy").await;
    add(&running, &shop(), "shop.example.org").await.unwrap();
    let routes = host.world.snapshot().routes;
    let hosts: Vec<String> = routes.iter().map(|route| route.host.to_string()).collect();
    assert_eq!(hosts, ["shop.localhost", "shop.example.org"]);
    let other: AppName = "other".parse().unwrap();
    let mut request = running.request("healthy");
    request.app = other.clone();
    let view = running.engine.deploy(request, 0).await.unwrap();
    running.outcome(view).await;
    for taken in ["shop.example.org", "shop.localhost"] {
        let fault = add(&running, &other, taken).await.unwrap_err();
        assert_eq!(fault.code, Code::Exists, "{taken}: {fault}");
    }
    remove(&running, "shop.example.org").await.unwrap();
    for (kept, code) in [
        ("shop.example.org", Code::NotFound),
        ("shop.localhost", Code::Invalid),
    ] {
        let fault = remove(&running, kept).await.unwrap_err();
        assert_eq!(fault.code, code, "{kept}: {fault}");
    }
}

async fn set(running: &Running, variables: Vec<EnvVar>) {
    let set = running.engine.env_set(shop(), variables, actor(), 0).await;
    set.unwrap();
}

/// The secret is not in the database as it is.
#[track_caller]
fn assert_not_stored(host: &Host, secret: &str) {
    let database = fs::read(host.directory.path().join("deployd.db")).unwrap();
    let log = fs::read(host.directory.path().join("deployd.db-wal")).unwrap_or_default();
    for file in [database, log] {
        let mut parts = file.windows(secret.len());
        assert!(!parts.any(|part| part == secret.as_bytes()), "{secret}");
    }
}

#[tokio::test(start_paused = true)]
async fn variables_are_given_to_the_next_release_and_stay_with_it() {
    let (host, running) = started();
    let variable = |value: &str| EnvVar {
        name: "TOKEN".parse().unwrap(),
        value: value.parse().unwrap(),
    };
    set(&running, vec![variable("one two\n$3")]).await;
    running.deploy("healthy").await;
    set(&running, vec![variable("changed")]).await;
    let env = running.engine.env_list(shop()).await.unwrap();
    assert_eq!(env[0].value.reveal(), "changed");
    assert_not_stored(&host, "changed");
    let names = ["TOKEN", "OTHER"].map(|name| name.parse().unwrap());
    let unset = running.engine.env_unset(shop(), names.into(), actor(), 0);
    let fault = unset.await.unwrap_err();
    assert!(fault.what.contains("OTHER"), "{fault}");
    let env = running.engine.env_list(shop()).await.unwrap();
    assert_eq!(env.len(), 1, "nothing was changed");
}

#[tokio::test(start_paused = true)]
async fn the_password_of_a_repository_is_not_in_the_database() {
    let (host, running) = started();
    let mut request = running.request("healthy");
    request.source = Source::Git {
        url: "https://ada:geheim@example.org/shop".into(),
        reference: Some("healthy".into()),
    };
    let queued = running.engine.deploy(request, 0).await.unwrap();
    let view = running.outcome(queued).await;
    assert_eq!(view.phase, Phase::Live, "{}", view.reason);
    assert_not_stored(&host, "geheim");
}

#[tokio::test(start_paused = true)]
async fn an_app_whose_first_release_is_refused_is_one_that_never_served() {
    let (host, running) = started();
    let refused = running.deploy("crash").await;
    assert_eq!(refused.phase, Phase::Refused);
    let app = running.app().await.unwrap();
    assert_eq!((app.release, app.state.as_str()), (None, "never-served"));
    // Nothing of it is there but its logs, which the refusal refers to.
    assert_eq!(host.present(), 0);
    let kept = |directory: &str| {
        let entries = fs::read_dir(host.directory.path().join(directory)).unwrap();
        entries.count()
    };
    assert_eq!(
        (kept("releases"), kept("material"), kept("logs")),
        (0, 0, 1)
    );
    running.destroy().await;
    assert_eq!(kept("logs"), 0);
    assert_eq!(running.app().await.unwrap_err().code, Code::NotFound);
    // One that is only known by its variables was never refused.
    set(&running, vec![]).await;
    assert_eq!(running.app().await.unwrap().state, "empty");
    let served = running.deploy("healthy").await;
    running.until(served, Phase::Confirmed).await;
    running.deploy("crash").await;
    assert_eq!(running.app().await.unwrap().state, "live");
    host.well();
}
