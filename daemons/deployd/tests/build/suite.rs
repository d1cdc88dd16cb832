//! What the builder makes of sources: the world that the cases build in.

mod command;
mod git;
mod source;

use crate::children::Children;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use temps_deployd::adapter::build::{BuildSettings, SourceBuilder};
use temps_deployd::logfile::Reader;
use temps_deployd::port::{Artifact, BuildJob, Builder, Built, Material};
use temps_ipc::Fault;
use temps_ipc::id::ReleaseId;
use temps_ipc::types::{EnvVar, RuntimeKind};

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
