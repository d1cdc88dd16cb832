//! Build commands: what they get, what they leave, when they fail.

use super::{World, in_units};
use std::fs;
use std::path::Path;
use std::time::Duration;
use temps_deployd::archive::Limits;
use temps_deployd::port::Artifact;
use temps_ipc::Code;
use temps_ipc::types::EnvVar;

#[tokio::test]
async fn a_build_command_runs_in_the_source_with_the_apps_variables() {
    let mut world = World::new();
    world.env = vec![EnvVar {
        name: "GREETING".parse().unwrap(),
        value: "hello there".parse().unwrap(),
    }];
    let procfile = "build: mkdir bin && printf '%s' \"$GREETING from $TEMPS_APP\" > bin/made && ln -s /bin/sh bin/sh \
                    && echo made && echo warned >&2 && touch \"$HOME/kept\" \"$TMPDIR/gone\"\nweb: cat bin/made\n";
    let built = world.source(&[("Procfile", procfile)], None).await.unwrap();
    let Artifact::Directory { root, command } = &built.artifact else {
        panic!("{built:?}");
    };
    assert_eq!(command, "cat bin/made");
    assert_eq!(
        fs::read_to_string(root.join("bin/made")).unwrap(),
        "hello there from shop"
    );
    assert_eq!(
        fs::read_link(root.join("bin/sh")).unwrap(),
        Path::new("/bin/sh")
    );
    let log = world.log();
    for text in ["made\n", "warned\n", "build runs `mkdir"] {
        assert!(log.contains(text), "{log}");
    }
    assert!(!log.contains("ignored"), "{log}");
    // The next build finds what this one kept.
    let again = "build: test -e \"$HOME/kept\"\nweb: x\n";
    world.source(&[("Procfile", again)], None).await.unwrap();
    world.forget().await;
    let fault = world
        .source(&[("Procfile", again)], None)
        .await
        .unwrap_err();
    assert!(fault.what.contains("ended with status 1"), "{fault:?}");
}

#[tokio::test]
async fn a_build_command_that_fails_or_takes_too_long_refuses_the_release() {
    let mut world = World::new();
    let failing = "build: echo no such module; exit 3\nweb: x\n";
    let fault = world
        .source(&[("Procfile", failing)], None)
        .await
        .unwrap_err();
    assert_eq!(fault.code, Code::Invalid);
    let text =
        "the build command `echo no such module; exit 3` ended with status 3: no such module";
    assert_eq!(fault.what, text);
    assert!(fault.hint.contains("--build"), "{fault:?}");
    assert!(!world.path("release").exists());
    world.settings.build_limit = Duration::from_secs(1);
    let slow = "build: sleep 600\nweb: x\n";
    let fault = world.source(&[("Procfile", slow)], None).await.unwrap_err();
    let text = if in_units() {
        "more than 1 s"
    } else {
        "within 1 s"
    };
    assert!(fault.what.contains(text), "{fault:?}");
    assert!(!world.path("release").exists());
}

#[tokio::test]
async fn a_build_that_makes_too_much_is_refused() {
    let mut world = World::new();
    world.settings.limits = Limits {
        bytes: 10_000,
        ..Limits::default()
    };
    let large = "build: head -c 30000 /dev/zero > large\nweb: x\n";
    let fault = world
        .source(&[("Procfile", large)], None)
        .await
        .unwrap_err();
    assert_eq!(fault.code, Code::NoSpace, "{fault:?}");
    assert!(!world.path("release").exists());
}
