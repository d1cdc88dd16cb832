//! What the proxy refuses for one app's sake is nobody else's fault: a snapshot holds the routes of
//! all apps, and is refused as a whole.

use crate::support::{Running, actor, shop, started};
use futures::future::join_all;
use std::time::Duration;
use temps_deployd::adapter::sim::{Behaviour, World};
use temps_ipc::types::{AppName, DeploymentView, Host, Phase};
use tokio::time::sleep;

/// Long enough that everybody else has recorded what they are about to publish.
const SLOW: Duration = Duration::from_secs(1);

/// Apps that switch at the same time.
const NEIGHBOURS: [&str; 4] = ["ant", "bee", "cat", "dog"];

async fn deploy(running: &Running, app: &AppName, behaviour: &str) -> DeploymentView {
    let mut request = running.request(behaviour);
    request.app = app.clone();
    let queued = running.engine.deploy(request, 0).await.unwrap();
    running.outcome(queued).await
}

fn names() -> Vec<AppName> {
    NEIGHBOURS
        .iter()
        .map(|name| name.parse().unwrap())
        .collect()
}

fn hosts(world: &World) -> Vec<String> {
    let routes = world.snapshot().routes;
    routes.iter().map(|route| route.host.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_refused_switch_refuses_no_switch_of_another_app() {
    let (host, running) = started();
    let apps = names();
    join_all(apps.iter().map(|app| deploy(&running, app, "healthy"))).await;
    let first = running.deploy("healthy").await;
    // Whose turn comes first differs from round to round.
    for round in 0..5 {
        host.world.refuse(Some(shop()));
        host.world.apply_in(SLOW);
        let mut at_once: Vec<&AppName> = apps.iter().collect();
        let shop = shop();
        at_once.insert(round % (apps.len() + 1), &shop);
        let outcomes = join_all(at_once.iter().map(|app| deploy(&running, app, "healthy"))).await;
        for (app, view) in at_once.into_iter().zip(outcomes) {
            if *app == shop {
                assert_eq!(view.phase, Phase::Refused);
                assert!(view.reason.contains("does not like it"), "{}", view.reason);
            } else {
                assert_eq!(
                    (view.phase, view.reason.as_str()),
                    (Phase::Live, ""),
                    "{app}"
                );
            }
        }
        assert_eq!(
            running.app().await.unwrap().release,
            Some(first.release.clone())
        );
    }
    host.world.refuse(None);
    assert_eq!(running.deploy("healthy").await.phase, Phase::Live);
    assert_eq!(host.world.serving().map(|serving| serving.len()), Ok(5));
    host.well();
}

#[tokio::test(start_paused = true)]
async fn a_refused_host_is_taken_back_and_refuses_nothing_later() {
    let (host, running) = started();
    running.deploy("healthy").await;
    let kept = "shop.example.org".parse().unwrap();
    let added = running.engine.domain_add(shop(), kept, actor(), 0).await;
    added.unwrap();
    let before = hosts(&host.world);
    host.world.refuse(Some(shop()));
    let refused = "www.example.org".parse().unwrap();
    let fault = running
        .engine
        .domain_add(shop(), refused, actor(), 0)
        .await
        .unwrap_err();
    assert!(fault.what.contains("does not like it"), "{fault:?}");
    assert_eq!(hosts(&host.world), before);
    let listed = running.engine.domain_list(shop()).await.unwrap();
    let listed: Vec<String> = listed.iter().map(ToString::to_string).collect();
    assert_eq!(listed, before);
    // Nothing of it is left in what the next app publishes.
    let bee = "bee".parse().unwrap();
    assert_eq!(deploy(&running, &bee, "healthy").await.phase, Phase::Live);
    host.well();
}

#[tokio::test(start_paused = true)]
async fn a_refused_host_is_never_written() {
    let (host, running) = started();
    running.deploy("healthy").await;
    // Whatever else goes wrong from now on, it cannot be removed any more.
    let database = host.directory.path().join("deployd.db");
    let other = rusqlite::Connection::open(database).unwrap();
    let stays =
        "CREATE TRIGGER stays BEFORE DELETE ON domain BEGIN SELECT RAISE(ABORT, 'it stays'); END";
    other.execute_batch(stays).unwrap();
    host.world.refuse(Some(shop()));
    let refused = "www.example.org".parse().unwrap();
    let fault = running
        .engine
        .domain_add(shop(), refused, actor(), 0)
        .await
        .unwrap_err();
    assert!(fault.what.contains("does not like it"), "{fault:?}");
    let listed = running.engine.domain_list(shop()).await.unwrap();
    assert_eq!(listed.len(), 1, "{listed:?}");
    let bee = "bee".parse().unwrap();
    assert_eq!(deploy(&running, &bee, "healthy").await.phase, Phase::Live);
    host.well();
}

#[tokio::test(start_paused = true)]
async fn a_refused_rollback_refuses_no_switch_of_another_app() {
    let (host, running) = started();
    let apps = names();
    join_all(apps.iter().map(|app| deploy(&running, app, "healthy"))).await;
    let good = running.deploy("healthy").await;
    running.until(good, Phase::Confirmed).await;
    let bad = running.deploy("dies:30000").await;
    host.world.refuse(Some(shop()));
    host.world.apply_in(SLOW);
    // Before the switches of the others, and while each of them has its turn.
    let rolling_back = running.until(bad, Phase::RollingBack).await;
    let outcomes = join_all(apps.iter().map(|app| deploy(&running, app, "healthy"))).await;
    for (app, view) in apps.iter().zip(outcomes) {
        let seen = (view.phase, view.reason.as_str());
        assert_eq!(seen, (Phase::Live, ""), "{app}");
    }
    // The release stays, and says why.
    let stays = running.until(rolling_back, Phase::Confirmed).await;
    assert!(
        stays.reason.contains("does not like it"),
        "{}",
        stays.reason
    );
    let serving = running.app().await.unwrap().release;
    assert_eq!(serving, Some(stays.release.clone()));
    // As soon as the proxy takes routes of it again, it is started afresh.
    host.world.behave(&stays.release, Behaviour::Healthy);
    host.world.refuse(None);
    while host.world.serving().map(|serving| serving.len()) != Ok(5) {
        sleep(SLOW).await;
    }
    host.well();
}

#[tokio::test(start_paused = true)]
async fn what_changes_the_routes_is_recorded_in_its_own_turn() {
    let (host, running) = started();
    running.deploy("healthy").await;
    let added: Host = "shop.example.org".parse().unwrap();
    let adding = running.engine.domain_add(shop(), added.clone(), actor(), 0);
    adding.await.unwrap();
    // Somebody else has the turn, and the proxy takes its time.
    host.world.apply_in(SLOW);
    let bee: AppName = "bee".parse().unwrap();
    let queued = {
        let mut request = running.request("healthy");
        request.app = bee;
        running.engine.deploy(request, 0).await.unwrap()
    };
    running.until(queued, Phase::Switching).await;
    sleep(SLOW / 4).await;
    let engine = running.engine.clone();
    let removal = tokio::spawn(async move {
        engine.domain_remove(shop(), added, actor(), 0).await?;
        engine.app_destroy(shop(), actor(), 0).await
    });
    sleep(SLOW / 4).await;
    assert_eq!(running.engine.domain_list(shop()).await.unwrap().len(), 2);
    sleep(SLOW).await;
    // Now the host is being removed, and the app waits for its turn.
    assert_eq!(running.engine.domain_list(shop()).await.unwrap().len(), 1);
    assert_eq!(running.engine.app_list(None).await.unwrap().len(), 2);
    removal.await.unwrap().unwrap();
    assert_eq!(hosts(&host.world), ["bee.localhost"]);
    host.well();
}
