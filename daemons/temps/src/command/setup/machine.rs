//! The machine that is set up: this one, or one that lies in a directory and does not run (an image, a
//! test). Files are found below its root; its service manager is asked by `systemctl`.

use nix::unistd::geteuid;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use temps_ipc::{Code, Fault};
use tokio::process::Command;
use tokio::time::timeout;

/// Longer than any unit of ours may take to start.
const PATIENCE: Duration = Duration::from_secs(120);

/// See the module.
#[derive(Debug)]
pub struct Machine {
    root: PathBuf,
    /// Where programs are taken from, if not from `$PATH`: for tests.
    pub tools: Option<PathBuf>,
    /// Its service manager runs and can be told to start things.
    pub runs: bool,
}

impl Machine {
    /// The machine in `root`, else this one.
    pub fn new(root: Option<&Path>) -> Self {
        let root = root.unwrap_or(Path::new("/"));
        Self {
            root: root.to_owned(),
            tools: None,
            // sd_booted(3)
            runs: root == Path::new("/") && Path::new("/run/systemd/system").is_dir(),
        }
    }

    /// It is the machine this runs on.
    pub fn is_this(&self) -> bool {
        self.root == Path::new("/")
    }

    /// An absolute path of it, as it is found from here.
    pub fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// Whether it has such a user: of this machine also one that the name service knows (LDAP).
    pub fn has_user(&self, name: &str) -> bool {
        if self.is_this() {
            return matches!(nix::unistd::User::from_name(name), Ok(Some(_)));
        }
        let users = std::fs::read_to_string(self.path("/etc/passwd")).unwrap_or_default();
        let mut users = users.lines().filter_map(|line| line.split(':').next());
        !name.is_empty() && users.any(|user| user == name)
    }

    /// Only root may set up this machine.
    ///
    /// # Errors
    /// [`Code::Denied`].
    pub fn may_change(&self) -> Result<(), Fault> {
        if self.is_this() && !geteuid().is_root() {
            return Err(Fault::new(
                Code::Denied,
                "setting up the platform writes to /etc and starts units: it needs root",
            )
            .hint("`sudo temps setup`; with --dry-run or --check it needs nothing"));
        }
        Ok(())
    }

    /// What `systemctl` prints, whatever its exit status: it tells states by that, too.
    ///
    /// # Errors
    /// When there is none, or it takes too long.
    pub async fn systemctl(&self, arguments: &[&str]) -> Result<String, Fault> {
        let (_, said, _) = self.run("systemctl", &self.arguments(arguments)).await?;
        Ok(said)
    }

    /// Has `systemctl` change something.
    ///
    /// # Errors
    /// With what it printed, if it fails.
    pub async fn order(&self, arguments: &[&str]) -> Result<(), Fault> {
        self.succeed("systemctl", &self.arguments(arguments)).await
    }

    /// Makes a user a member of a group.
    ///
    /// # Errors
    /// With what usermod(8) printed, if it fails.
    pub async fn add_member(&self, user: &str, group: &str) -> Result<(), Fault> {
        let mut arguments = Vec::new();
        if !self.is_this() {
            arguments.extend(["--prefix".to_owned(), self.root.display().to_string()]);
        }
        arguments.extend(["--append", "--groups", group, "--", user].map(str::to_owned));
        self.succeed("usermod", &arguments).await
    }

    /// Puts a file in place of one that may be there: whole or not at all, also over a crash.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, absolute: &str, text: &str) -> Result<(), Fault> {
        let path = self.path(absolute);
        replace(&path, text).map_err(|error| {
            Fault::new(
                Code::NoSpace,
                format!("{} cannot be written: {error}", path.display()),
            )
        })
    }

    fn arguments(&self, arguments: &[&str]) -> Vec<String> {
        let root = (!self.is_this()).then(|| format!("--root={}", self.root.display()));
        root.into_iter()
            .chain(arguments.iter().map(|&argument| argument.to_owned()))
            .collect()
    }

    async fn succeed(&self, program: &str, arguments: &[String]) -> Result<(), Fault> {
        let (succeeded, _, complaint) = self.run(program, arguments).await?;
        if succeeded {
            return Ok(());
        }
        let line = format!("{program} {}", arguments.join(" "));
        Err(Fault::unavailable(format!(
            "`{line}` failed: {}",
            complaint.trim()
        )))
    }

    /// Whether it succeeds, and both its outputs.
    async fn run(
        &self,
        program: &str,
        arguments: &[String],
    ) -> Result<(bool, String, String), Fault> {
        let found = match &self.tools {
            Some(tools) => tools.join(program),
            None => program.into(),
        };
        let mut command = Command::new(found);
        command
            .args(arguments)
            .stdin(Stdio::null())
            // A Ctrl-C at the terminal ends setup between two changes, none of them half done.
            .process_group(0)
            .kill_on_drop(true);
        let done = timeout(PATIENCE, command.output())
            .await
            .map_err(|_| Fault::unavailable(format!("{program} does not come back")))?
            .map_err(|error| Fault::unavailable(format!("{program} cannot be started: {error}")))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((
            done.status.success(),
            text(&done.stdout),
            text(&done.stderr),
        ))
    }
}

fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Hidden, so that nobody reads it as a drop-in.
    let partial = directory.join(format!(".{name}.new"));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&partial, path)?;
    std::fs::File::open(directory)?.sync_all()
}
