//! What an instance runs and with which variables, as its credential carries it; and the program
//! that reads it in the instance and becomes the app (`temps-exec`).
//!
//! Variables are secrets. `Environment=` of a unit can be read by every local user, and arguments
//! stand in the list of processes; a credential is readable by the unit's own user alone.

use super::{exec, stderr};
use crate::port::InstanceSpec;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use temps_unit::Applet;

/// The program that becomes the app.
pub const EXEC_APPLET: Applet = Applet {
    name: "temps-exec",
    about: "becomes an app of the systemd runtime (started by the service manager)",
    run,
};

/// Where the applet is installed.
pub(super) const EXEC: &str = "/usr/libexec/temps/temps-exec";

/// The name of the credential.
pub(super) const CREDENTIAL: &str = "app";

/// Where the release is, as the instance sees it. `/srv` is otherwise empty there.
pub(super) const ROOT: &str = "/srv/app";

/// The status of a shell that cannot start a command: the system is at fault, not the app.
const CANNOT_START: u8 = 126;

/// Where programs are looked for, unless the app has a `PATH` of its own.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables of the manager that mean something to the app: its data, and the sockets it was given.
const KEPT: [&str; 6] = [
    "STATE_DIRECTORY",
    "USER",
    "LOGNAME",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
];

/// What an instance runs.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Launch {
    /// For `/bin/sh -c`.
    pub(super) command: String,
    /// The app's variables and the platform's.
    pub(super) env: BTreeMap<String, String>,
}

impl Launch {
    /// The app's variables, then the platform's, which win.
    pub(super) fn new(
        spec: &InstanceSpec,
        command: &str,
        address: SocketAddr,
        platform: &str,
    ) -> Self {
        let mut env = BTreeMap::new();
        let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
        for var in &spec.env {
            // The manager hands the plain text to the app alone.
            set(var.name.as_str(), var.value.reveal().to_owned());
        }
        // It has its own network; its neighbours cannot reach it.
        set("HOST", "0.0.0.0".to_owned());
        set("PORT", address.port().to_string());
        set("TEMPS_APP", spec.app.to_string());
        set("TEMPS_RELEASE", spec.release.to_string());
        set("TEMPS_INSTANCE", spec.id.to_string());
        set("TEMPS_APP_URL", spec.url.clone());
        set("TEMPS_URL", platform.to_owned());
        Self {
            command: command.to_owned(),
            env,
        }
    }

    /// The whole environment of the app: what is usual, what `inherited` has of use, and its own.
    fn environment(self, inherited: impl Fn(&str) -> Option<String>) -> BTreeMap<String, String> {
        let mut env = BTreeMap::from([
            ("PATH".to_owned(), PATH.to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ("SHELL".to_owned(), "/bin/sh".to_owned()),
            ("TMPDIR".to_owned(), "/tmp".to_owned()),
        ]);
        for name in KEPT {
            if let Some(value) = inherited(name) {
                env.insert(name.to_owned(), value);
            }
        }
        if let Some(data) = inherited("STATE_DIRECTORY") {
            env.insert("HOME".to_owned(), data);
        }
        env.extend(self.env);
        env
    }
}

fn run(arguments: Vec<OsString>) -> ExitCode {
    if let Some((flag, arguments)) = arguments.split_first()
        && flag == stderr::FLAG
    {
        let Err(error) = stderr::store(arguments) else {
            return ExitCode::SUCCESS;
        };
        let _ = writeln!(
            io::stderr(),
            "temps-exec: standard error is not told from standard output: {error}"
        );
        return ExitCode::FAILURE;
    }
    let problem = match read() {
        Ok(launch) => {
            let inherited = stderr::take();
            let command = launch.command.clone();
            let env = launch.environment(|name| inherited.variable(name));
            let command = if env.contains_key("LISTEN_PID") {
                exec::in_place(&command)
            } else {
                command
            };
            let error = Command::new("/bin/sh")
                .args(["-c", &command])
                .env_clear()
                .envs(env)
                .exec();
            match error.kind() {
                io::ErrorKind::ArgumentListTooLong => {
                    "the app's variables are too large together for the system to start it"
                        .to_owned()
                }
                _ => format!("`/bin/sh` cannot be started: {error}"),
            }
        }
        Err(error) => format!("what to run cannot be read: {error}"),
    };
    let _ = writeln!(io::stderr(), "temps-exec: {problem}");
    ExitCode::from(CANNOT_START)
}

fn read() -> io::Result<Launch> {
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY")
        .ok_or_else(|| io::Error::other("the service manager gave no credential"))?;
    let text = fs::read(PathBuf::from(directory).join(CREDENTIAL))?;
    // Not what is wrong with it: an error of the parser would quote a variable.
    serde_json::from_slice(&text)
        .map_err(|_| io::Error::other("it is not as temps-deployd writes it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(pairs: &[(&str, &str)]) -> Launch {
        let env = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Launch {
            command: "python3 app.py".to_owned(),
            env: env.collect(),
        }
    }

    #[test]
    fn of_the_managers_variables_only_the_useful_ones_reach_the_app() {
        let inherited = |name: &str| match name {
            "STATE_DIRECTORY" => Some("/var/lib/temps-apps/shop".to_owned()),
            "CREDENTIALS_DIRECTORY" | "INVOCATION_ID" | "JOURNAL_STREAM" | "NOTIFY_SOCKET" => {
                Some("x".to_owned())
            }
            _ => None,
        };
        let env = launch(&[("KEY", "a\nb"), ("PATH", "/opt/bin")]).environment(inherited);
        assert_eq!(env["HOME"], "/var/lib/temps-apps/shop");
        assert_eq!(env["KEY"], "a\nb");
        assert_eq!(env["PATH"], "/opt/bin", "the app's own wins");
        for name in [
            "CREDENTIALS_DIRECTORY",
            "INVOCATION_ID",
            "JOURNAL_STREAM",
            "NOTIFY_SOCKET",
            "LISTEN_FDS",
        ] {
            assert!(!env.contains_key(name), "{name}");
        }
    }

    #[test]
    fn any_text_survives_the_credential() {
        let launch = launch(&[("KEY", "quotes \" ' $HOME %n \u{1F600}\n")]);
        let text = serde_json::to_vec(&launch).unwrap();
        assert_eq!(serde_json::from_slice::<Launch>(&text).unwrap(), launch);
    }
}
