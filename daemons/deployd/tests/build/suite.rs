//! What the builder makes of sources.

use crate::children::Children;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use temps_deployd::adapter::build::{BuildSettings, SourceBuilder};
use temps_deployd::archive::Limits;
use temps_deployd::logfile::Reader;
use temps_deployd::port::{Artifact, BuildJob, Builder, Built, Material};
use temps_ipc::id::ReleaseId;
use temps_ipc::types::{EnvVar, RuntimeKind};
use temps_ipc::{Code, Fault};

/// This suite is there twice.
fn in_units() -> bool {
    module_path!().ends_with("units")
}

struct World {
    dir: tempfile::TempDir,
    settings: BuildSettings,
    env: Vec<EnvVar>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Those who fetch are other users than the one who has the repository.
        fs::set_permissions(dir.path(), open_to_all()).unwrap();
        let settings = BuildSettings {
            directories: Some(RuntimeKind::Process),
            homes: dir.path().join("homes"),
            ..Default::default()
        };
        Self {
            dir,
            settings,
            env: Vec::new(),
        }
    }

    fn builder(&self) -> SourceBuilder {
        if in_units() {
            let launcher = Arc::new(Children(self.path("cache")));
            SourceBuilder::in_units(self.settings.clone(), None, launcher)
        } else {
            SourceBuilder::new(self.settings.clone(), None)
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn archive(&self, files: &[(&str, &str)]) -> PathBuf {
        let path = self.path("upload.tar");
        let mut archive = tar::Builder::new(fs::File::create(&path).unwrap());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            archive
                .append_data(&mut header, name, content.as_bytes())
                .unwrap();
        }
        archive.finish().unwrap();
        path
    }

    async fn build(
        &self,
        material: Material,
        runtime: Option<RuntimeKind>,
    ) -> Result<Built, Fault> {
        let job = BuildJob {
            app: "shop".parse().unwrap(),
            release: ReleaseId::fresh(),
            material,
            runtime,
            env: self.env.clone(),
            directory: self.path("release"),
            log: self.path("build.log"),
        };
        self.builder().build(&job).await
    }

    async fn forget(&self) {
        self.builder()
            .forget(&"shop".parse().unwrap())
            .await
            .unwrap();
    }

    async fn source(
        &self,
        files: &[(&str, &str)],
        runtime: Option<RuntimeKind>,
    ) -> Result<Built, Fault> {
        let material = Material::Archive {
            path: self.archive(files),
            label: "shop".to_owned(),
        };
        self.build(material, runtime).await
    }

    async fn git(&self, url: &str, reference: Option<&str>) -> Result<Built, Fault> {
        let material = Material::Git {
            url: url.to_owned(),
            reference: reference.map(str::to_owned),
            sealed: None,
        };
        self.build(material, None).await
    }

    fn log(&self) -> String {
        let (lines, _) = Reader::new(self.path("build.log"))
            .read(None, 1000)
            .unwrap();
        lines.into_iter().map(|(.., text)| text + "\n").collect()
    }

    /// A repository with two commits on `main`, a branch, a tag, and the ids of the commits.
    fn repository(&self) -> (String, String, String) {
        let repo = self.path("repo");
        fs::create_dir_all(&repo).unwrap();
        let git = |arguments: &[&str]| run_git(&repo, arguments);
        git(&["init", "-q", "-b", "main"]);
        fs::write(repo.join("Procfile"), "web: ./one\n").unwrap();
        git(&["add", "."]);
        git(&["commit", "-q", "-m", "one"]);
        let one = git(&["rev-parse", "HEAD"]);
        git(&["tag", "v1"]);
        git(&["branch", "old"]);
        fs::write(repo.join("Procfile"), "web: ./two\n").unwrap();
        git(&["commit", "-q", "-am", "two"]);
        let two = git(&["rev-parse", "HEAD"]);
        (repo.display().to_string(), one, two)
    }
}

fn open_to_all() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o755)
}

fn run_git(repo: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.org"])
        .args(arguments)
        .current_dir(repo)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn command(built: &Built) -> &str {
    let Artifact::Directory { command, .. } = &built.artifact else {
        panic!("{built:?}");
    };
    command
}

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
