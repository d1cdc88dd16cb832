//! What the units of a build are: their names, users, directories and limits.

use crate::adapter::build::BuildSettings;
use crate::adapter::build::git::{local_path, refuse_ssh};
use crate::adapter::build::job::UnpackRequest;
use crate::port::BuildJob;
use sha2::{Digest, Sha256};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use temps_ipc::Fault;
use temps_ipc::types::AppName;

/// The program that does the work, as it is installed.
pub const PROGRAM: &str = "/usr/libexec/temps/temps-job";

/// Every unit of ours.
pub const PATTERN: &str = "temps-job-*";

/// The directory of what builds keep, below `/var/cache`.
const CACHE: &str = "temps-builds";

/// Unpacking streams: it needs little, however large the archive is.
const UNPACK_MEMORY: u64 = 256 << 20;
const UNPACK_TIME: Duration = Duration::from_secs(15 * 60);

/// What a home of builds may have grown to, in KiB. It is emptied when it is larger, and filled again
/// by the next build.
const HOME_KIB: u32 = 2 << 20;

/// Empties directories, whatever a build made of their modes. The first argument are KiB that may stay;
/// then come the directories, which may be somebody else's. `find` follows no link and has no limit of
/// depth.
const EMPTY: &str = "keep=$1; shift; for d; do \
     [ \"$keep\" -gt 0 ] && [ \"$(du -sk \"$d\" | cut -f1)\" -le \"$keep\" ] && continue; \
     find \"$d\" -mindepth 1 -maxdepth 1 ! -type l -exec chmod -R u+rwX {} +; \
     find \"$d\" -mindepth 1 -delete; done";

/// What a unit may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// What it does, for people.
    pub what: &'static str,
    /// In bytes.
    pub memory: u64,
    /// Of one processor.
    pub cpu_percent: u32,
    /// Processes and threads.
    pub tasks: u64,
    /// From its start to its end.
    pub time: Duration,
}

/// As whom a unit runs, and what it may write.
#[derive(Debug, Clone)]
pub enum Identity {
    /// Root without capabilities: the owner of root's files and nothing more. It works in the directory,
    /// and sees of the machine only that and the system's programs.
    Owner {
        /// The host's directory.
        directory: PathBuf,
    },
    /// A user that exists only as long as the unit runs, with directories of its own below `/var/cache`
    /// (`CacheDirectory=`), which nobody else gets to.
    Stranger {
        /// The user's name.
        user: String,
        /// Where it works; emptied before and after.
        work: String,
        /// For temporary files; emptied before and after.
        temporary: String,
        /// What stays from one build to the next.
        home: Option<String>,
    },
}

/// A unit to run.
#[derive(Debug, Clone)]
pub struct Unit {
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// What it makes, as a name of a directory.
    pub what: &'static str,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// As whom.
    pub identity: Identity,
    /// Whether it has a network of its own, from which it reaches the outside; otherwise it has none.
    pub network: bool,
    /// Whether it may make code at run time, as interpreters do.
    pub generates_code: bool,
    /// What of the host it may read beside the system.
    pub readable: Option<PathBuf>,
    /// What it may use.
    pub limits: Limits,
}

/// The units of one job.
pub(super) struct JobUnits<'a>(pub(super) &'a BuildSettings, pub(super) &'a BuildJob);

impl JobUnits<'_> {
    /// Unpacks what `what` made.
    pub(super) fn unpack(&self, what: &str, directory: PathBuf, request: UnpackRequest) -> Unit {
        let Self(settings, job) = self;
        let kind = if what == "unpack" {
            "unpack".to_owned()
        } else {
            format!("take-{what}")
        };
        let mut command = vec![PROGRAM.to_owned(), "unpack".to_owned()];
        command.extend(request.arguments());
        Unit {
            name: format!("temps-job-{kind}-{}.service", job.release),
            description: format!("Temps: unpacks release {} of {}", job.release, job.app),
            what: "unpack",
            command,
            identity: Identity::Owner { directory },
            network: false,
            generates_code: false,
            readable: None,
            limits: Limits {
                what: "unpacking",
                memory: UNPACK_MEMORY,
                cpu_percent: settings.cpu_percent,
                tasks: 16,
                time: UNPACK_TIME.max(settings.build_limit),
            },
        }
    }

    /// Fetches from git.
    pub(super) fn fetch(&self, url: &str) -> Result<Unit, Fault> {
        let Self(settings, job) = self;
        refuse_ssh(url)?;
        let readable = local_path(url).map(|path| readable(&path)).transpose()?;
        Ok(Unit {
            name: format!("temps-job-fetch-{}.service", job.release),
            description: format!("Temps: fetches release {} of {}", job.release, job.app),
            what: "fetch",
            command: vec![PROGRAM.to_owned(), "fetch".to_owned()],
            identity: Identity::Stranger {
                // Not the build's: nothing that a build left behind shall see a repository's secrets.
                user: user("temps-f-", &job.app),
                work: format!("{CACHE}/{}/fetch", job.app),
                temporary: format!("{CACHE}/{}/fetch-tmp", job.app),
                home: None,
            },
            network: true,
            generates_code: false,
            readable,
            limits: Limits {
                what: "fetching",
                // It says itself that its time is over.
                time: settings.git_limit + Duration::from_secs(60),
                ..limits(settings)
            },
        })
    }

    /// Runs the source's build command.
    pub(super) fn build(&self) -> Unit {
        let Self(settings, job) = self;
        Unit {
            name: format!("temps-job-build-{}.service", job.release),
            description: format!("Temps: builds release {} of {}", job.release, job.app),
            what: "build",
            command: vec![PROGRAM.to_owned(), "build".to_owned()],
            identity: builder(&job.app),
            network: true,
            generates_code: true,
            readable: None,
            limits: limits(settings),
        }
    }
}

/// Empties what builds of an app keep.
pub(super) fn forget(settings: &BuildSettings, app: &AppName) -> Unit {
    Unit {
        name: format!("temps-job-forget-{app}.service"),
        description: format!("Temps: removes what builds of {app} kept"),
        what: "forget",
        // What passes is emptied around it anyway.
        command: [
            "/bin/sh",
            "-c",
            &format!("set -- \"$1\" \"$HOME\"; {EMPTY}"),
            "sh",
            "0",
        ]
        .map(str::to_owned)
        .into(),
        identity: builder(app),
        network: false,
        generates_code: false,
        readable: None,
        limits: Limits {
            what: "removal",
            ..limits(settings)
        },
    }
}

/// As whom the builds of an app run. Their user is always the same, so that the home stays theirs.
fn builder(app: &AppName) -> Identity {
    Identity::Stranger {
        user: user("temps-b-", app),
        work: format!("{CACHE}/{app}/work"),
        temporary: format!("{CACHE}/{app}/tmp"),
        home: Some(format!("{CACHE}/{app}/home")),
    }
}

fn limits(settings: &BuildSettings) -> Limits {
    Limits {
        what: "build",
        memory: settings.memory,
        cpu_percent: settings.cpu_percent,
        tasks: settings.tasks,
        time: settings.build_limit,
    }
}

/// The name of a user for the app. Names of users are shorter than those of apps.
fn user(prefix: &str, app: &AppName) -> String {
    let digest = Sha256::digest(app.as_str().as_bytes());
    let digits: String = digest[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{prefix}{digits}")
}

/// What empties the directories of a stranger before and after its work.
pub(super) fn emptying(keep_kib: u32, directories: &[String]) -> Vec<String> {
    let mut command: Vec<String> = ["/bin/sh", "-c", EMPTY, "sh"].map(str::to_owned).into();
    command.push(keep_kib.to_string());
    command.extend_from_slice(directories);
    command
}

/// What empties a home that has grown too large.
pub(super) fn emptying_home(home: &str) -> Vec<String> {
    emptying(HOME_KIB, &[home.to_owned()])
}

/// The repository at a path of this machine, if everybody may read it: who fetches is nobody, and sees
/// nothing else of its neighbourhood.
fn readable(path: &Path) -> Result<PathBuf, Fault> {
    let refuse = |what: String| {
        Err(Fault::invalid(what)
            .hint("put the repository where everybody may read it, such as below /srv"))
    };
    let Ok(path) = path.canonicalize() else {
        return refuse(format!("there is no git repository at {}", path.display()));
    };
    for ancestor in path.ancestors() {
        let wanted = if ancestor == path { 0o005 } else { 0o001 };
        let mode = fs::metadata(ancestor).map(|found| found.permissions().mode());
        if !mode.is_ok_and(|mode| mode & wanted == wanted) {
            return refuse(format!(
                "the git repository at {} cannot be read by others, because of {}",
                path.display(),
                ancestor.display()
            ));
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_differ_by_app_and_work_and_are_short() {
        let (shop, other): (AppName, AppName) = ("shop".parse().unwrap(), "shop2".parse().unwrap());
        assert_ne!(user("temps-b-", &shop), user("temps-b-", &other));
        assert_ne!(user("temps-b-", &shop), user("temps-f-", &shop));
        assert!(user("temps-b-", &shop).len() <= 31);
    }

    #[test]
    fn a_repository_that_is_not_for_everybody_is_not_shown_to_a_stranger() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let repository = dir.path().join("repository");
        fs::create_dir(&repository).unwrap();
        fs::set_permissions(&repository, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(
            readable(&repository).unwrap(),
            repository.canonicalize().unwrap()
        );
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let fault = readable(&repository).unwrap_err();
        assert!(fault.what.contains("because of"), "{fault:?}");
        assert!(readable(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn directories_are_emptied_whatever_their_modes_unless_they_are_small_enough() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), vec![0; 100_000]).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        fs::set_permissions(&deep, fs::Permissions::from_mode(0o500)).unwrap();
        let run = |keep| {
            let command = emptying(keep, &[dir.path().display().to_string()]);
            let status = std::process::Command::new(&command[0])
                .args(&command[1..])
                .status();
            assert!(status.unwrap().success());
            fs::read_dir(dir.path()).unwrap().count()
        };
        assert_eq!(run(10_000), 2);
        assert_eq!(run(0), 0);
    }
}
