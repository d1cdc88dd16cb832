//! What the proxy refuses for one app's sake is nobody else's fault: a snapshot holds the routes of
//! all apps, and is refused as a whole.

use crate::support::{Running, actor, shop, started};
use futures::future::join_all;
use std::time::Duration;
use temps_deployd::adapter::sim::World;
use temps_ipc::types::{AppName, DeploymentView, Phase};

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
