//! What releases are made of goes with the last app that needs it.

use crate::support::{Host, Running, actor, started};
use std::time::Duration;
use temps_deployd::adapter::sim::Effect;
use temps_deployd::engine::paths::Paths;
use temps_deployd::port::Artifact;
use temps_ipc::id::ReleaseId;
use temps_ipc::types::{AppName, DeploymentView, Phase, Source};
use tokio::time::sleep;

/// The image that everything is deployed from.
const IMAGE: &str = "registry.example.org/web:1";

fn name(text: &str) -> AppName {
    text.parse().unwrap()
}

async fn deploy_image(running: &Running, app: &str) -> DeploymentView {
    let mut request = running.request("healthy");
    request.app = name(app);
    request.source = Source::Image {
        reference: IMAGE.to_owned(),
    };
    let queued = running.engine.deploy(request, 0).await.unwrap();
    let view = running.outcome(queued).await;
    assert_eq!((view.phase, view.reason.as_str()), (Phase::Live, ""));
    view
}

async fn destroy(running: &Running, app: &str) {
    let destroyed = running.engine.app_destroy(name(app), actor(), 0).await;
    destroyed.unwrap();
}

/// The images that were removed.
fn removed(host: &Host) -> Vec<String> {
    let effects = host.world.journal().into_iter();
    let mut images: Vec<String> = effects
        .filter_map(|effect| match effect {
            Effect::RemoveArtifact(Artifact::Image { id, .. }) => Some(id),
            _ => None,
        })
        .collect();
    images.dedup();
    images
}

fn image() -> Vec<String> {
    vec![format!("sha256:{IMAGE}")]
}

#[tokio::test(start_paused = true)]
async fn the_image_of_sibling_releases_goes_with_their_app() {
    let (host, running) = started();
    for _ in 0..2 {
        deploy_image(&running, "shop").await;
    }
    assert_eq!(removed(&host), [""; 0]);
    destroy(&running, "shop").await;
    assert_eq!(removed(&host), image());
    assert_eq!(host.present(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_another_app_is_made_of_stays_until_that_one_goes() {
    let (host, running) = started();
    for app in ["shop", "shop", "blog"] {
        deploy_image(&running, app).await;
    }
    destroy(&running, "shop").await;
    assert_eq!(removed(&host), [""; 0], "the blog needs it");
    host.serves_one();
    destroy(&running, "blog").await;
    assert_eq!(removed(&host), image());
}

#[tokio::test(start_paused = true)]
async fn tidying_an_old_release_leaves_the_image_to_its_younger_sibling() {
    let (host, running) = started();
    // More than are kept to go back to.
    let first = deploy_image(&running, "shop").await;
    let mut last = first.clone();
    for _ in 0..7 {
        last = deploy_image(&running, "shop").await;
    }
    running.until(last, Phase::Confirmed).await;
    // What was confirmed tidies next.
    sleep(Duration::from_secs(1)).await;
    let gone = running.roll_back(Some(&first.release)).await;
    assert!(gone.is_err(), "the oldest was tidied: {gone:?}");
    assert_eq!(removed(&host), [""; 0]);
    host.serves_one();
}

#[tokio::test(start_paused = true)]
async fn what_a_release_was_to_be_made_from_is_swept_once_nobody_needs_it() {
    let (host, running) = started();
    let refused = running.deploy("build-fails").await;
    let waiting = running.queue("slow-build:3600000").await;
    let paths = Paths::new(host.directory.path());
    let left = |release: &ReleaseId| {
        let path = paths.material(release);
        // As by a crash, some time ago.
        let file = std::fs::File::create(&path).unwrap();
        let made = std::time::SystemTime::now() - Duration::from_secs(3600);
        file.set_modified(made).unwrap();
        path
    };
    let (left, needed) = (left(&refused.release), left(&waiting.release));
    running.engine.reconcile().await.unwrap();
    assert!(!left.exists());
    assert!(needed.exists());
}
