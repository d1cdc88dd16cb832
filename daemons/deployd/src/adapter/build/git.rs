//! Fetches a source from git, with the system's `git` and as little of its world as possible: no
//! configuration but ours, no hooks, no prompts, no helpers, three protocols.
//!
//! A URL may hold a token, so it is in no argument (it is in a configuration file that is ours
//! alone and removed afterwards), and in no log or message without being redacted.

mod url;

use super::command::{self, Finished};
use super::output::{Log, say};
use super::{space, system};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use temps_ipc::Fault;
use tokio::process::Command;
use tokio::time::{Instant, timeout_at};
use url::Remote;

/// What was fetched.
pub(super) struct Checkout {
    /// The files, without `.git`.
    pub(super) root: PathBuf,
    /// For people: `git URL REF (4f2c1d0)`.
    pub(super) source: String,
}

/// Fetches `reference` (the default branch if absent) of the repository into `directory/root`.
pub(super) async fn checkout(
    url: &str,
    reference: Option<&str>,
    directory: &Path,
    limit: Duration,
    log: &mut dyn Log,
) -> Result<Checkout, Fault> {
    let remote = Remote::parse(url)?;
    if let Some(reference) = reference {
        url::check_reference(reference)?;
    }
    let root = directory.join("root");
    let config = directory.join("gitconfig");
    write_config(&config, &remote)?;
    let mut git = Git {
        root: root.clone(),
        config: config.clone(),
        remote,
        deadline: Instant::now() + limit,
        limit,
        log,
    };
    let result = git.checkout(reference).await;
    // The URL in it may be a secret.
    fs::remove_file(&config).map_err(|error| system(&error))?;
    let commit = result?;
    let shown = git.remote.shown();
    let source = format!(
        "git {shown} {} ({})",
        reference.unwrap_or("HEAD"),
        commit.get(..7).unwrap_or(&commit)
    );
    say(log, &format!("checked out {commit}"));
    if root.join(".gitmodules").exists() {
        say(
            log,
            "the repository has submodules, which are not fetched yet",
        );
    }
    let metadata = root.join(".git");
    super::blocking(move |_| fs::remove_dir_all(metadata).map_err(|error| system(&error))).await?;
    Ok(Checkout { root, source })
}

/// Refuses a URL that takes a key: who fetches on an installed system is a user of one fetch, who has none
/// and knows no host.
pub(super) fn refuse_ssh(url: &str) -> Result<(), Fault> {
    if Remote::parse(url)?.is_ssh() {
        return Err(Fault::invalid(
            "git over ssh is not possible here: whoever fetches has no key",
        )
        .hint("use https, for a private repository with a token: https://USER:TOKEN@HOST/PATH"));
    }
    Ok(())
}

/// The path of a repository on this machine.
pub(super) fn local_path(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("file://").unwrap_or(url);
    path.starts_with('/').then(|| PathBuf::from(path))
}

/// What git would read from the user's configuration.
fn write_config(path: &Path, remote: &Remote) -> Result<(), Fault> {
    let text = format!(
        "[core]\n\thooksPath = /dev/null\n\tfsmonitor = false\n\
         [protocol]\n\tallow = never\n\
         [protocol \"https\"]\n\tallow = always\n\
         [protocol \"ssh\"]\n\tallow = always\n\
         [protocol \"file\"]\n\tallow = always\n\
         [safe]\n\tdirectory = *\n\
         [credential]\n\thelper =\n\
         [advice]\n\tdetachedHead = false\n\
         [gc]\n\tauto = 0\n\
         [init]\n\tdefaultBranch = main\n\
         [remote \"origin\"]\n\turl = {}\n",
        quoted(remote.url())
    );
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| system(&error))?;
    file.write_all(text.as_bytes())
        .map_err(|error| system(&error))
}

/// A value of a git configuration file.
fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

struct Git<'a> {
    root: PathBuf,
    config: PathBuf,
    remote: Remote,
    deadline: Instant,
    limit: Duration,
    log: &'a mut dyn Log,
}

impl Git<'_> {
    /// Fetches and checks out; the commit.
    async fn checkout(&mut self, reference: Option<&str>) -> Result<String, Fault> {
        say(
            self.log,
            &format!(
                "fetching {} {}",
                self.remote.shown(),
                reference.unwrap_or("HEAD")
            ),
        );
        let made = self.run(&["init", "--quiet", "--template=", "."]).await?;
        self.succeeded(&made, reference)?;
        let wanted = reference.unwrap_or("HEAD");
        let fetched = self
            .run(&[
                "fetch",
                "--depth=1",
                "--no-tags",
                "--no-recurse-submodules",
                "--",
                "origin",
                wanted,
            ])
            .await?;
        let commit = if fetched.status.success() {
            "FETCH_HEAD".to_owned()
        } else if url::may_be_commit(wanted) {
            // Servers hand out tips of branches; for other commits we need the whole history.
            self.fetch_all(reference).await?
        } else {
            return Err(self.fault(&fetched, reference));
        };
        let revision = format!("{commit}^{{commit}}");
        let found = self
            .run(&[
                "rev-parse",
                "--quiet",
                "--verify",
                "--end-of-options",
                &revision,
            ])
            .await?;
        let Some(id) = found
            .tail
            .back()
            .filter(|_| found.status.success())
            .cloned()
        else {
            return Err(no_such_reference(&self.remote, reference));
        };
        let out = self
            .run(&["checkout", "--quiet", "--force", "--detach", &id])
            .await?;
        self.succeeded(&out, reference)?;
        Ok(id)
    }

    async fn fetch_all(&mut self, reference: Option<&str>) -> Result<String, Fault> {
        say(
            self.log,
            "it is no branch or tag; fetching the whole history to look for a commit",
        );
        let fetched = self
            .run(&[
                "fetch",
                "--no-recurse-submodules",
                "--",
                "origin",
                "+refs/heads/*:refs/remotes/origin/*",
                "+refs/tags/*:refs/tags/*",
            ])
            .await?;
        self.succeeded(&fetched, reference)?;
        Ok(reference.unwrap_or("HEAD").to_owned())
    }

    async fn run(&mut self, arguments: &[&str]) -> Result<Finished, Fault> {
        fs::create_dir_all(&self.root).map_err(|error| system(&error))?;
        let inherited = |name: &str| std::env::var_os(name);
        let mut command = Command::new("git");
        command
            .args(arguments)
            .current_dir(&self.root)
            .env_clear()
            .env(
                "PATH",
                inherited("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()),
            )
            .env("LC_ALL", "C")
            .env("GIT_DIR", self.root.join(".git"))
            .env("GIT_WORK_TREE", &self.root)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", &self.config)
            .env("GIT_ALLOW_PROTOCOL", "https:ssh:file")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "/bin/false")
            .env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=20");
        // For ssh: its keys and known hosts, or its agent.
        for name in ["HOME", "SSH_AUTH_SOCK"] {
            if let Some(value) = inherited(name) {
                command.env(name, value);
            }
        }
        let (remote, log) = (&self.remote, &mut *self.log);
        let redact = |line: &str| remote.redact(line);
        let run = command::run(command, self.limit, log, &redact);
        tokio::select! {
            run = timeout_at(self.deadline, run) => run.unwrap_or_else(|_| {
                Err(Fault::invalid(format!(
                    "fetching {} took more than {} s",
                    self.remote.shown(),
                    self.limit.as_secs()
                )))
            }),
            full = space::exhausted(vec![self.root.clone()]) => Err(full),
        }
    }

    fn succeeded(&self, finished: &Finished, reference: Option<&str>) -> Result<(), Fault> {
        if finished.status.success() {
            Ok(())
        } else {
            Err(self.fault(finished, reference))
        }
    }

    /// What git meant.
    fn fault(&self, finished: &Finished, reference: Option<&str>) -> Fault {
        let shown = self.remote.shown();
        let said: String = finished
            .tail
            .iter()
            .map(|line| format!("{line}\n"))
            .collect();
        let has = |texts: &[&str]| texts.iter().any(|text| said.contains(text));
        if has(&[
            "couldn't find remote ref",
            "not our ref",
            "unadvertised object",
        ]) {
            return no_such_reference(&self.remote, reference);
        }
        if has(&[
            "could not read Username",
            "Authentication failed",
            "Permission denied (",
            "terminal prompts disabled",
            "Host key verification failed",
        ]) {
            return Fault::invalid(format!("{shown} wants authentication")).hint(
                "for a private repository put a token into the URL (https://USER:TOKEN@HOST/PATH); check that its name is right",
            );
        }
        if has(&[
            "does not appear to be a git repository",
            "not found",
            "does not exist",
        ]) {
            return Fault::invalid(format!("there is no git repository at {shown}"))
                .hint("check the URL; a private repository may look like one that does not exist");
        }
        if has(&[
            "Could not resolve host",
            "Connection refused",
            "Connection timed out",
            "Failed to connect",
            "Network is unreachable",
        ]) {
            return Fault::unavailable(format!("the server of {shown} does not answer"))
                .hint("try again when it does");
        }
        let last = finished
            .tail
            .back()
            .map_or("it said nothing", String::as_str);
        Fault::invalid(format!("git failed on {shown}: {last}"))
            .hint("the whole output is in the build log (`temps logs APP --build`)")
    }
}

fn no_such_reference(remote: &Remote, reference: Option<&str>) -> Fault {
    let shown = remote.shown();
    match reference {
        Some(reference) => Fault::invalid(format!(
            "{shown} has no branch, tag or commit `{reference}`"
        ))
        .hint("`git ls-remote URL` lists what it has"),
        None => Fault::invalid(format!("{shown} has no default branch"))
            .hint("push a commit first, or name a branch: URL#BRANCH"),
    }
}
