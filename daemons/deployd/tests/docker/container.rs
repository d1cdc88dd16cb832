//! A container from its start to its end, and what it says.

use crate::support::{LIMIT, SERVE, World, docker, get_soon, lines};
use std::slice;
use std::time::Duration;
use temps_deployd::adapter::docker::DockerSettings;
use temps_deployd::logfile::Writer;
use temps_deployd::port::{Artifact, InstanceState, Runtime, RuntimeError};
use temps_ipc::types::{EnvVar, LogStream};
use tokio::time::timeout;

#[tokio::test]
async fn a_dockerfile_becomes_an_image_that_serves_on_its_own_address() {
    let Some(world) = World::new().await else {
        return;
    };
    let mut spec = world.spec(world.image(SERVE).await).await;
    spec.env = vec![EnvVar {
        name: "GREETING".parse().unwrap(),
        value: "a b'c\"$d\ne".parse().unwrap(),
    }];
    world.runtime.start(&spec).await.unwrap();
    let again = world.runtime.start(&spec).await;
    again.expect("starting what runs succeeds");
    assert!(get_soon(&spec).await.contains("hello"));
    assert_eq!(world.state(&spec).await, InstanceState::Running);
    assert_eq!(world.list().await, slice::from_ref(&spec.id));
    assert_eq!(world.runtime.listening(&spec.id).await, ["0.0.0.0:8080"]);

    let name = format!("temps-shop-{}", spec.id);
    let inspect = |format: &str| docker(&["inspect", "--format", format, &name]);
    for (field, expected) in [
        ("CapDrop", "[ALL]"),
        ("Privileged", "false"),
        ("SecurityOpt", "[no-new-privileges]"),
        ("Memory", "536870912"),
        ("PidsLimit", "512"),
        ("PortBindings", "map[]"),
        ("RestartPolicy.Name", "no"),
    ] {
        let found = inspect(&format!("{{{{.HostConfig.{field}}}}}"));
        assert_eq!(found, expected, "{field}");
    }
    let env: Vec<String> = serde_json::from_str(&inspect("{{json .Config.Env}}")).unwrap();
    for expected in ["GREETING=a b'c\"$d\ne", "PORT=8080", "TEMPS_APP=shop"] {
        assert!(env.contains(&expected.to_owned()), "{expected} {env:?}");
    }
    let log = world.build_log();
    assert!(log.contains("Step 1/"), "{log}");
    assert!(
        !world.dir.path().join("release").exists(),
        "the image holds all that is needed"
    );

    let ended = {
        let (runtime, id) = (world.runtime.clone(), spec.id.clone());
        tokio::spawn(async move { runtime.ended(&id).await })
    };
    world.stop(&spec).await;
    assert_eq!(lines(&spec.log), ["up"]);
    assert_ne!(
        timeout(LIMIT, ended).await.unwrap().unwrap().unwrap(),
        InstanceState::Running
    );
    assert_eq!(world.state(&spec).await, InstanceState::Absent);
    world.stop(&spec).await;
    let id = match &spec.artifact {
        Artifact::Image { id, .. } => id.clone(),
        other => panic!("{other:?}"),
    };
    world.end(&[&spec.artifact]).await;
    let filter = format!("reference={id}");
    let left = docker(&["image", "ls", "-q", "--no-trunc", "--filter", &filter]);
    assert_eq!(left, "");
}

#[tokio::test]
async fn how_a_container_ended_is_said_in_words_and_its_output_is_kept() {
    let Some(world) = World::new().await else {
        return;
    };
    let spec = world.start("echo one; echo two >&2; exit 3").await;
    let state = world.ended(&spec).await;
    let InstanceState::Exited { how, at } = &state else {
        panic!("{state:?}")
    };
    assert_eq!(how, "exited with status 3");
    assert!(at.is_some());
    world.stop(&spec).await;
    let mut found = lines(&spec.log);
    found.sort();
    assert_eq!(found, ["one", "two"]);
    world.end(&[&spec.artifact]).await;
}

#[tokio::test]
async fn a_container_that_takes_too_much_memory_is_said_to_have_done_so() {
    let settings = DockerSettings {
        memory: 16 * 1024 * 1024,
        ..Default::default()
    };
    let Some(world) = World::with(settings).await else {
        return;
    };
    let spec = world
        .start("x=0123456789abcdef; while :; do x=$x$x; done")
        .await;
    let state = world.ended(&spec).await;
    let InstanceState::Exited { how, .. } = &state else {
        panic!("{state:?}")
    };
    assert!(how.contains("memory limit of 16 MiB"), "{how}");
    world.end(&[&spec.artifact]).await;
}

#[tokio::test]
async fn an_app_that_ignores_the_polite_signal_is_killed_after_the_grace() {
    let Some(world) = World::new().await else {
        return;
    };
    let spec = world
        .start("trap '' TERM; echo up; while :; do busybox sleep 1; done")
        .await;
    world.wait_for_line(&spec, "up").await;
    let stop = world.stop_within(&spec, Duration::from_secs(1));
    timeout(LIMIT, stop).await.unwrap();
    assert_eq!(world.state(&spec).await, InstanceState::Absent);
    world.end(&[&spec.artifact]).await;
}

#[tokio::test]
async fn output_is_collected_once_however_often_it_is_asked_for() {
    let Some(world) = World::new().await else {
        return;
    };
    // Bursts, so that many lines have the same millisecond.
    // A collector at any moment, as someone who follows the log is.
    let spec = world
        .start("n=0; while [ $n -lt 3000 ]; do echo line $n; n=$((n+1)); [ $((n % 500)) = 0 ] && busybox usleep 100000; done; echo end; exec busybox sleep 60")
        .await;
    world.wait_for_line(&spec, "end").await;
    for _ in 0..3 {
        world.collect(&spec).await;
    }
    // What the platform says in between does not confuse it.
    let mut log = Writer::open(&spec.log).unwrap();
    log.line(LogStream::Platform, "said");
    world.stop_within(&spec, Duration::ZERO).await;
    let expected: Vec<String> = (0..3000)
        .map(|n| format!("line {n}"))
        .chain(["end".to_owned(), "said".to_owned()])
        .collect();
    let found = lines(&spec.log);
    assert_eq!(found.len(), expected.len());
    assert_eq!(found, expected);
    world.end(&[&spec.artifact]).await;
}

#[tokio::test]
async fn an_image_whose_command_is_missing_is_refused_and_leaves_no_container() {
    let Some(world) = World::new().await else {
        return;
    };
    let material = world.dockerfile("CMD [\"/nothing\"]\n", &[]);
    let artifact = world.make(material).await.unwrap().artifact;
    let spec = world.spec(artifact.clone()).await;
    let error = world.runtime.start(&spec).await;
    // With an init of its own the engine starts that, which then finds nothing to run.
    match error {
        Err(RuntimeError::Refused(_)) => assert_eq!(world.list().await, []),
        Ok(()) => {
            let state = world.ended(&spec).await;
            assert!(matches!(state, InstanceState::Exited { .. }), "{state:?}");
        }
        Err(error) => panic!("{error:?}"),
    }
    let gone = Artifact::Image {
        id: format!("sha256:{}", "0".repeat(64)),
        port: 80,
    };
    let spec = world.spec(gone).await;
    let error = world.runtime.start(&spec).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Refused(_)), "{error:?}");
    world.end(&[&artifact]).await;
}
