//! Repositories: what of them is fetched, and what in them is not run.

use super::{World, command, run_git};
use std::fs;
use std::path::Path;
use temps_deployd::port::Artifact;

#[tokio::test]
async fn branches_tags_and_commits_are_checked_out() {
    let world = World::new();
    let (url, one, two) = world.repository();
    let file_url = format!("file://{url}");
    for (url, reference, runs, commit) in [
        (&url, None, "./two", &two),
        (&file_url, Some("main"), "./two", &two),
        (&url, Some("old"), "./one", &one),
        (&url, Some("v1"), "./one", &one),
        (&url, Some(one.as_str()), "./one", &one),
        (&file_url, Some(&one[..7]), "./one", &one),
    ] {
        let built = world
            .git(url, reference)
            .await
            .unwrap_or_else(|fault| panic!("{reference:?}: {fault:?}"));
        assert_eq!(command(&built), runs, "{reference:?}");
        let Artifact::Directory { root, .. } = &built.artifact else {
            unreachable!()
        };
        assert!(!root.join(".git").exists());
        assert!(!world.path("release/gitconfig").exists());
        assert_eq!(
            built.source,
            format!(
                "git {url} {} ({})",
                reference.unwrap_or("HEAD"),
                &commit[..7]
            )
        );
    }
}

#[tokio::test]
async fn what_git_cannot_find_is_said_in_our_words() {
    let world = World::new();
    let (url, ..) = world.repository();
    for (url, reference, text) in [
        (
            url.as_str(),
            Some("nope"),
            "no branch, tag or commit `nope`",
        ),
        (&url, Some("deadbee"), "no branch, tag or commit `deadbee`"),
        (&url, Some("-x"), "cannot be the name"),
        ("/nowhere/at/all", None, "no git repository at"),
        ("ext::sh -c false", None, "not a git URL"),
        ("https://127.0.0.1:1/x.git", None, "does not answer"),
    ] {
        let fault = world.git(url, reference).await.unwrap_err();
        assert!(fault.what.contains(text), "{fault:?}\n{}", world.log());
        assert!(!world.path("release").exists());
    }
}

#[tokio::test]
async fn hooks_and_settings_of_a_repository_are_not_run() {
    let world = World::new();
    let (url, ..) = world.repository();
    let marker = world.path("marker");
    for hook in ["post-checkout", "post-upload-pack", "reference-transaction"] {
        let path = Path::new(&url).join(".git/hooks").join(hook);
        fs::write(&path, format!("#!/bin/sh\ntouch {}\n", marker.display())).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&path, mode).unwrap();
    }
    world.git(&url, None).await.unwrap();
    assert!(!marker.exists());
}

#[tokio::test]
async fn a_link_out_of_a_repository_is_refused() {
    let world = World::new();
    let (url, ..) = world.repository();
    std::os::unix::fs::symlink("../../../../etc/passwd", Path::new(&url).join("leak")).unwrap();
    run_git(Path::new(&url), &["add", "."]);
    run_git(Path::new(&url), &["commit", "-q", "-m", "leak"]);
    let fault = world.git(&url, None).await.unwrap_err();
    assert!(fault.what.contains("leads out"), "{fault:?}");
}

#[tokio::test]
async fn submodules_are_mentioned() {
    let world = World::new();
    let (url, ..) = world.repository();
    fs::write(Path::new(&url).join(".gitmodules"), "").unwrap();
    run_git(Path::new(&url), &["add", "."]);
    run_git(Path::new(&url), &["commit", "-q", "-m", "modules"]);
    world.git(&url, None).await.unwrap();
    assert!(world.log().contains("submodules"));
}
