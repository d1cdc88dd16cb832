//! Which instance of the platform a command talks to: the one whose sockets are in the runtime
//! directory.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use temps_ipc::rpc::{DeploydClient, ProxyClient};
use temps_ipc::types::Actor;
use temps_ipc::wire::client::Link;
use temps_ipc::{Code, Fault};
use temps_unit::dirs;

/// The system's instance.
const SYSTEM: &str = "/run/temps";

/// Chooses the instance.
pub const VARIABLE: &str = "TEMPS_RUNTIME_DIR";

/// Deployd's control socket.
pub const DEPLOYD: &str = "deployd.sock";

/// Deployd's socket for uploads.
pub const UPLOAD: &str = "deployd-upload.sock";

/// The proxy's control socket.
pub const PROXY: &str = "proxy.sock";

/// How long an ordinary call may take, a restart of the daemon included. Removing an app waits for
/// its instances to stop, which takes the longest.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An instance of the platform.
#[derive(Debug)]
pub struct Instance {
    /// The directory of its sockets.
    pub dir: PathBuf,
    /// Its deployd.
    pub deployd: Link<DeploydClient>,
    /// Its proxy.
    pub proxy: Link<ProxyClient>,
    /// Why its deployd does not start, if `temps up` says so. Nobody would answer a call.
    pub failed: Option<Fault>,
    /// The same of its proxy.
    pub proxy_failed: Option<Fault>,
}

/// Longest notice that is read; a fault is shorter.
const MAX_NOTICE: u64 = 64 * 1024;

/// The file in which `temps up` says why a daemon does not start.
pub fn notice(runtime: &Path, daemon: &str) -> PathBuf {
    runtime.join(format!("{daemon}.failed"))
}

fn read_notice(path: &Path) -> Option<Fault> {
    let mut text = String::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(MAX_NOTICE).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

impl Instance {
    /// The instance that was chosen, or the nearest one.
    ///
    /// # Errors
    /// When the directory could belong to somebody else.
    pub fn find(flag: Option<&Path>) -> Result<Self, Fault> {
        let choice = choose(
            flag,
            |name| std::env::var_os(name),
            |path| path.exists(),
            uid(),
        );
        let dir = absolute(choice.path())?;
        if matches!(choice, Choice::Shared(_)) && dir.symlink_metadata().is_ok() {
            private(&dir)?;
        }
        Ok(Self {
            deployd: Link::new(dir.join(DEPLOYD)),
            proxy: Link::new(dir.join(PROXY)),
            failed: read_notice(&notice(&dir, "deployd")),
            proxy_failed: read_notice(&notice(&dir, "proxy")),
            dir,
        })
    }
}

/// The runtime directory for `temps up`: as for every command, but never the system's unless it is
/// named.
///
/// # Errors
/// When the current directory is gone.
pub fn own_dir(flag: Option<&Path>) -> Result<PathBuf, Fault> {
    let choice = choose(flag, |name| std::env::var_os(name), |_| false, uid());
    absolute(choice.path())
}

/// Makes sure that nobody else can put sockets into `dir`.
///
/// # Errors
/// [`Code::Denied`] if somebody could.
pub fn private(dir: &Path) -> Result<(), Fault> {
    dirs::create_private(dir).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        Fault::new(
            Code::Denied,
            format!("{error}{}", cause.unwrap_or_default()),
        )
        .hint("choose another directory with --runtime-dir, or set XDG_RUNTIME_DIR")
    })
}

/// Who asks, as it is recorded.
pub fn actor() -> Actor {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid())
        .ok()
        .flatten();
    let name = user.map_or_else(|| format!("uid {}", uid()), |user| user.name);
    Actor::new(&name, "cli")
}

fn uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn absolute(path: &Path) -> Result<PathBuf, Fault> {
    std::path::absolute(path).map_err(|error| {
        Fault::invalid(format!(
            "{} cannot be made absolute: {error}",
            path.display()
        ))
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Choice {
    /// Somebody named it, or only this user can make it.
    Trusted(PathBuf),
    /// In a directory where everybody can make things.
    Shared(PathBuf),
}

impl Choice {
    fn path(&self) -> &Path {
        match self {
            Choice::Trusted(path) | Choice::Shared(path) => path,
        }
    }
}

fn choose(
    flag: Option<&Path>,
    variable: impl Fn(&str) -> Option<OsString>,
    exists: impl Fn(&Path) -> bool,
    uid: u32,
) -> Choice {
    let set = |name| {
        variable(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    if let Some(path) = flag.map(Path::to_owned).or_else(|| set(VARIABLE)) {
        return Choice::Trusted(path);
    }
    if exists(&Path::new(SYSTEM).join(DEPLOYD)) {
        return Choice::Trusted(SYSTEM.into());
    }
    // The specification says to ignore a relative path.
    match set("XDG_RUNTIME_DIR").filter(|path| path.is_absolute()) {
        Some(path) => Choice::Trusted(path.join("temps")),
        None => Choice::Shared(PathBuf::from(format!("/tmp/temps-{uid}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(flag: Option<&str>, variables: &[(&str, &str)], system: bool) -> Choice {
        choose(
            flag.map(Path::new),
            |name| {
                let found = variables.iter().find(|(other, _)| *other == name);
                found.map(|(_, value)| value.into())
            },
            |path| system && path == Path::new("/run/temps/deployd.sock"),
            1000,
        )
    }

    #[test]
    fn the_nearest_instance_is_chosen() {
        let xdg = ("XDG_RUNTIME_DIR", "/run/user/1000");
        let own = (VARIABLE, "/b");
        let trusted = |path: &str| Choice::Trusted(path.into());
        assert_eq!(chosen(Some("/a"), &[own, xdg], true), trusted("/a"));
        assert_eq!(chosen(None, &[own, xdg], true), trusted("/b"));
        assert_eq!(chosen(None, &[xdg], true), trusted("/run/temps"));
        assert_eq!(chosen(None, &[xdg], false), trusted("/run/user/1000/temps"));
        assert_eq!(
            chosen(None, &[], false),
            Choice::Shared("/tmp/temps-1000".into())
        );
    }

    #[test]
    fn a_notice_says_why_nobody_would_answer() {
        let dir = tempfile::tempdir().unwrap();
        let path = notice(dir.path(), "deployd");
        assert_eq!(read_notice(&path), None);
        let fault = Fault::new(Code::Config, "deployd.toml:1: unknown field").hint("mend it");
        std::fs::write(&path, serde_json::to_vec(&fault).unwrap()).unwrap();
        assert_eq!(read_notice(&path), Some(fault));
        std::fs::write(&path, "half a not").unwrap();
        assert_eq!(read_notice(&path), None);
    }

    #[test]
    fn empty_and_relative_variables_do_not_count() {
        let variables = [(VARIABLE, ""), ("XDG_RUNTIME_DIR", "relative")];
        assert_eq!(
            chosen(None, &variables, false),
            Choice::Shared("/tmp/temps-1000".into())
        );
    }
}
