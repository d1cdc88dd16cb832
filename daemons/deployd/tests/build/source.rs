//! What is taken for a source, and what is refused.

use super::{World, command};
use std::fs;
use temps_deployd::archive::Limits;
use temps_deployd::port::Artifact;
use temps_deployd::port::Material;
use temps_ipc::Code;
use temps_ipc::id::ReleaseId;
use temps_ipc::types::RuntimeKind;

#[tokio::test]
async fn a_source_with_a_procfile_becomes_a_directory_that_runs_its_web_command() {
    let world = World::new();
    let built = world
        .source(
            &[
                ("Procfile", "web: python3 app.py\nworker: x\n"),
                ("app.py", ""),
            ],
            None,
        )
        .await
        .unwrap();
    assert_eq!(built.runtime, RuntimeKind::Process);
    assert_eq!(built.source, "dir shop");
    assert_eq!(command(&built), "python3 app.py");
    let Artifact::Directory { root, .. } = &built.artifact else {
        unreachable!()
    };
    assert!(root.join("app.py").is_file() && root.starts_with(world.path("release")));
    assert!(world.log().contains("ignored: worker"), "{}", world.log());
}

#[tokio::test]
async fn what_a_source_lacks_is_named_with_what_to_do() {
    let web = ("Procfile", "web: ./x\n");
    let docker = ("Dockerfile", "FROM scratch\n");
    let (process, static_, systemd) = (
        Some(RuntimeKind::Process),
        Some(RuntimeKind::Static),
        Some(RuntimeKind::Systemd),
    );
    let table = [
        (
            vec![("a", "")],
            None,
            Code::Invalid,
            "neither a Dockerfile nor a Procfile",
        ),
        (vec![("index.html", "")], None, Code::Invalid, "--static"),
        (
            vec![("Procfile", "worker: x\n")],
            None,
            Code::Invalid,
            "no process type `web`",
        ),
        (vec![("Procfile", "web x\n")], None, Code::Invalid, "line 1"),
        (vec![docker], process, Code::Invalid, "has no Procfile"),
        (vec![docker], process, Code::Invalid, "--runtime docker"),
        (vec![docker], None, Code::Unavailable, "no container engine"),
        (
            vec![web],
            Some(RuntimeKind::Docker),
            Code::Invalid,
            "no Dockerfile",
        ),
        (vec![web], systemd, Code::Unsupported, "no systemd runtime"),
        (vec![], static_, Code::Invalid, "empty"),
    ];
    for (files, runtime, code, text) in table {
        let world = World::new();
        let fault = world.source(&files, runtime).await.unwrap_err();
        assert_eq!(fault.code, code, "{fault:?}");
        let whole = format!("{} / {}", fault.what, fault.hint);
        assert!(whole.contains(text), "{whole}");
        assert!(!fault.hint.is_empty(), "{fault:?}");
        assert!(!world.path("release").exists(), "nothing is left");
        assert!(world.log().contains(&fault.what), "{}", world.log());
    }
}

#[tokio::test]
async fn without_the_process_runtime_a_procfile_is_not_enough() {
    let mut world = World::new();
    world.settings.directories = None;
    for (runtime, text) in [
        (None, "has no runtime for it"),
        (Some(RuntimeKind::Process), "only under `temps up`"),
    ] {
        let fault = world
            .source(&[("Procfile", "web: ./x\n")], runtime)
            .await
            .unwrap_err();
        assert!(fault.what.contains(text), "{fault:?}");
    }
}

#[tokio::test]
async fn files_to_serve_need_a_file_and_for_an_spa_an_index() {
    let world = World::new();
    let material = |files: &[(&str, &str)], spa| Material::Static {
        path: world.archive(files),
        label: "site".to_owned(),
        spa,
    };
    let built = world
        .build(material(&[("index.html", "x")], true), None)
        .await
        .unwrap();
    assert_eq!(built.runtime, RuntimeKind::Static);
    assert!(matches!(built.artifact, Artifact::Files { spa: true, .. }));
    world
        .build(material(&[("a.html", "x")], false), None)
        .await
        .unwrap();
    assert!(world.log().contains("no index.html"));
    assert!(
        world
            .build(material(&[("a.html", "x")], true), None)
            .await
            .is_err()
    );
    let wrong = world
        .build(
            material(&[("a.html", "x")], false),
            Some(RuntimeKind::Docker),
        )
        .await;
    assert!(
        wrong
            .unwrap_err()
            .what
            .contains("docker runtime cannot be used")
    );
}

#[tokio::test]
async fn a_source_that_is_too_large_leaves_nothing() {
    let mut world = World::new();
    world.settings.limits = Limits {
        bytes: 100,
        ..Limits::default()
    };
    let big = "x".repeat(200);
    let fault = world
        .source(&[("Procfile", "web: x"), ("big", &big)], None)
        .await
        .unwrap_err();
    assert_eq!(fault.code, Code::NoSpace);
    assert!(!world.path("release").exists());
}

#[tokio::test]
async fn a_build_that_is_done_again_starts_from_nothing() {
    let world = World::new();
    fs::create_dir_all(world.path("release/root")).unwrap();
    fs::write(world.path("release/root/stale"), "").unwrap();
    world
        .source(&[("Procfile", "web: ./x\n")], None)
        .await
        .unwrap();
    assert!(!world.path("release/root/stale").exists());
}

#[tokio::test]
async fn an_earlier_artifact_is_passed_on_if_it_is_still_there() {
    let world = World::new();
    let root = world.path("earlier");
    let material = || Material::Artifact {
        release: ReleaseId::fresh(),
        artifact: Artifact::Directory {
            root: root.clone(),
            command: "./x".to_owned(),
        },
        runtime: RuntimeKind::Process,
    };
    assert!(
        world
            .build(material(), None)
            .await
            .unwrap_err()
            .what
            .contains("are gone")
    );
    fs::create_dir_all(&root).unwrap();
    let built = world.build(material(), None).await.unwrap();
    assert_eq!(command(&built), "./x");
}

#[tokio::test]
async fn an_image_without_an_engine_is_unavailable_with_advice() {
    let world = World::new();
    let fault = world
        .build(
            Material::Image {
                reference: "shop:3".to_owned(),
            },
            None,
        )
        .await
        .unwrap_err();
    assert_eq!(fault.code, Code::Unavailable);
    assert!(fault.hint.contains("docker.io"));
}
