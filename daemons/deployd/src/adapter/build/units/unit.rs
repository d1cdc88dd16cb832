//! What the units of a build are: their names, users, directories and limits.

use super::repository::Repository;
use crate::adapter::build::BuildSettings;
use crate::adapter::build::git::{local_path, refuse_ssh};
use crate::adapter::build::job::UnpackRequest;
use crate::port::BuildJob;
use sha2::{Digest, Sha256};
use std::fs;
use std::io;
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

/// Empties directories, whatever a build made of their modes. The first argument are KiB that may stay,
/// all of them counted: what cannot be read is made readable first, and where something cannot be counted
/// all the same, nothing stays. Then come the directories, which may be somebody else's. `find` follows
/// no link and has no limit of depth. (No `${`: the service manager would replace it.)
const EMPTY: &str = "keep=$1; shift; for d; do \
     if [ \"$keep\" -gt 0 ]; then \
     find \"$d\" -mindepth 1 -maxdepth 1 ! -type l -exec chmod -R u+rX {} +; \
     used=$(du -sk \"$d\" 2>/dev/null) && [ \"$(echo \"$used\" | cut -f1)\" -le \"$keep\" ] && continue; \
     fi; \
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

    /// Fetches from git, from a repository of this machine if the URL names one.
    pub(super) fn fetch(&self, url: &str) -> Result<(Unit, Option<Repository>), Fault> {
        let Self(settings, job) = self;
        refuse_ssh(url)?;
        let repository = local_path(url).map(|path| Repository::open(&path));
        let repository = repository.transpose()?;
        let unit = Unit {
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
            readable: repository
                .as_ref()
                .map(|repository| repository.path().to_owned()),
            limits: Limits {
                what: "fetching",
                // It says itself that its time is over.
                time: settings.git_limit + Duration::from_secs(60),
                ..limits(settings)
            },
        };
        Ok((unit, repository))
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

/// What stays of a build or passes, below the directory of its app.
const WORK: &str = "work";
const TEMPORARY: &str = "tmp";
const HOME: &str = "home";

/// As whom the builds of an app run. Their user is always the same, so that the home stays theirs.
fn builder(app: &AppName) -> Identity {
    Identity::Stranger {
        user: user("temps-b-", app),
        work: format!("{CACHE}/{app}/{WORK}"),
        temporary: format!("{CACHE}/{app}/{TEMPORARY}"),
        home: Some(format!("{CACHE}/{app}/{HOME}")),
    }
}

/// The apps of which builds keep something, below the directory of all caches.
pub(super) fn kept(caches: &Path) -> io::Result<Vec<AppName>> {
    let apps = match fs::read_dir(caches.join("private").join(CACHE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        apps => apps?,
    };
    let mut kept = Vec::new();
    for app in apps {
        let app = app?;
        let Ok(name) = app.file_name().to_string_lossy().parse() else {
            continue;
        };
        // One that cannot be looked into may hold anything.
        let holds = |directory: &str| match fs::read_dir(app.path().join(directory)) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        };
        if [WORK, TEMPORARY, HOME].into_iter().any(holds) {
            kept.push(name);
        }
    }
    Ok(kept)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn users_differ_by_app_and_work_and_are_short() {
        let (shop, other): (AppName, AppName) = ("shop".parse().unwrap(), "shop2".parse().unwrap());
        assert_ne!(user("temps-b-", &shop), user("temps-b-", &other));
        assert_ne!(user("temps-b-", &shop), user("temps-f-", &shop));
        assert!(user("temps-b-", &shop).len() <= 31);
    }

    #[test]
    fn what_builds_keep_is_told_by_app_until_it_is_empty() {
        let caches = tempfile::tempdir().unwrap();
        assert!(kept(caches.path()).unwrap().is_empty());
        let of = |path: &str| caches.path().join("private/temps-builds").join(path);
        for path in [
            "shop/home/.npm",
            "shop/work",
            "empty/home",
            "empty/tmp",
            "No App/home/x",
        ] {
            fs::create_dir_all(of(path)).unwrap();
        }
        let shop: AppName = "shop".parse().unwrap();
        assert_eq!(kept(caches.path()).unwrap(), [shop]);
        fs::remove_dir(of("shop/home/.npm")).unwrap();
        assert!(kept(caches.path()).unwrap().is_empty());
    }

    /// How many entries are left.
    fn run(keep: u32, directory: &Path) -> usize {
        let mut command = emptying(keep, &[directory.display().to_string()]);
        if nix::unistd::geteuid().is_root() {
            // As a build does it: its owner's rights are all it has.
            let without = ["setpriv", "--bounding-set=-all"].map(str::to_owned);
            command.splice(..0, without);
        }
        let done = std::process::Command::new(&command[0])
            .args(&command[1..])
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        assert!(done.stderr.is_empty(), "{done:?}");
        fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn what_a_build_hides_in_its_home_counts_too() {
        let dir = tempfile::tempdir().unwrap();
        let hidden = dir.path().join("hidden");
        fs::create_dir(&hidden).unwrap();
        fs::write(hidden.join("file"), vec![0; 1_000_000]).unwrap();
        let hide = || fs::set_permissions(&hidden, fs::Permissions::from_mode(0o000)).unwrap();
        hide();
        assert_eq!(run(10_000, dir.path()), 1, "small enough");
        hide();
        assert_eq!(run(100, dir.path()), 0);
    }

    #[test]
    fn directories_are_emptied_whatever_their_modes_unless_they_are_small_enough() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), vec![0; 100_000]).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        fs::set_permissions(&deep, fs::Permissions::from_mode(0o500)).unwrap();
        assert_eq!(run(10_000, dir.path()), 2);
        assert_eq!(run(0, dir.path()), 0);
    }
}
