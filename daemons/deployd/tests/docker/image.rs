//! Builds, and images that are there already.

use crate::support::{LIMIT, World, docker};
use std::fs;
use std::time::Duration;
use temps_deployd::port::{Artifact, Material, Runtime};
use temps_ipc::id::ReleaseId;
use temps_ipc::types::RuntimeKind;
use tokio::time::{sleep, timeout};

#[tokio::test]
async fn a_build_that_fails_names_the_step_and_what_it_said() {
    let Some(world) = World::new().await else {
        return;
    };
    let step = "RUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo about to fail; exit 7\"]\n";
    let fault = world.make(world.dockerfile(step, &[])).await.unwrap_err();
    assert!(fault.what.contains(": RUN"), "{fault:?}");
    assert!(
        fault.what.contains("about to fail") && fault.what.contains("7"),
        "{fault:?}"
    );
    let typo = world.archive(&[("Dockerfile", "FRM scratch\n")]);
    let fault = world.make(typo).await.unwrap_err();
    assert!(fault.what.to_lowercase().contains("frm"), "{fault:?}");
    world.end(&[]).await;
}

#[tokio::test]
async fn what_the_dockerignore_names_is_not_sent() {
    let Some(world) = World::new().await else {
        return;
    };
    let steps = "COPY . /all\nRUN [\"/bin/busybox\", \"find\", \"/all\"]\n";
    let files = [
        (".dockerignore", "secret\n*.log\n!keep.log\n"),
        ("secret/key", "x"),
        ("a.log", "x"),
        ("keep.log", "x"),
    ];
    let built = world.make(world.dockerfile(steps, &files)).await.unwrap();
    let log = world.build_log();
    assert!(
        log.contains("/all/keep.log") && log.contains("/all/Dockerfile"),
        "{log}"
    );
    assert!(
        !log.contains("/all/secret") && !log.contains("/all/a.log"),
        "{log}"
    );
    world.end(&[&built.artifact]).await;
}

#[tokio::test]
async fn a_build_ends_when_nobody_waits_for_it_any_more() {
    let Some(world) = World::new().await else {
        return;
    };
    let mark = format!("{}", 100_000 + std::process::id());
    let step = format!("RUN [\"/bin/busybox\", \"sleep\", \"{mark}\"]\n");
    let material = world.dockerfile(&step, &[]);
    let until = async |is_there: bool| {
        while sleeps(&mark) != is_there {
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        built = world.make(material) => panic!("{built:?}"),
        () = until(true) => {}
    }
    let stopped = timeout(LIMIT, until(false)).await;
    stopped.expect("the engine ends the step");
    world.end(&[]).await;
}

/// Whether a process sleeps for `mark` seconds, a number that nobody else sleeps for.
fn sleeps(mark: &str) -> bool {
    let wanted = format!("sleep\0{mark}\0");
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).ends_with(&wanted))
    })
}

#[tokio::test]
async fn an_image_is_taken_by_reference_and_kept_by_content() {
    let Some(world) = World::new().await else {
        return;
    };
    let Artifact::Image { id, .. } = world.image("echo x").await else {
        panic!()
    };
    let name = format!("temps-test-{}:1", std::process::id());
    docker(&["tag", &id, &name]);
    let reference = name.clone();
    let built = world.make(Material::Image { reference }).await.unwrap();
    assert_eq!(built.artifact, Artifact::Image { id, port: 8080 });
    assert_eq!(
        (built.runtime, built.source),
        (RuntimeKind::Docker, format!("image {name}"))
    );
    docker(&["rmi", &name]);

    let release = ReleaseId::fresh();
    let again = || Material::Artifact {
        release: release.clone(),
        artifact: built.artifact.clone(),
        runtime: RuntimeKind::Docker,
    };
    world.make(again()).await.unwrap();
    let removed = world.runtime.remove_artifact(&built.artifact).await;
    removed.unwrap();
    let fault = world.make(again()).await.unwrap_err();
    assert!(fault.what.contains("was removed"), "{fault:?}");

    let reference = "127.0.0.1:1/nothing/there:1".to_owned();
    let fault = world.make(Material::Image { reference }).await.unwrap_err();
    assert!(fault.what.contains("cannot be pulled"), "{fault:?}");
    world.end(&[]).await;
}
