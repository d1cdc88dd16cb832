//! A bus of one test: its own dbus-daemon with the rules of a system bus and our policy files. Also
//! used by the bus tests of the daemons.
#![allow(dead_code, reason = "not every suite needs all of it")]

use std::fs::Permissions;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use zbus::Connection;

/// What happens on a machine that is busy with other tests takes no longer.
pub const SOON: Duration = Duration::from_secs(20);

/// A user who is nobody in particular.
pub const NOBODY: u32 = 65534;

/// The rules of /usr/share/dbus-1/system.conf: who is not mentioned owns nothing and calls nobody.
const RULES: &str = r#"
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
    <allow own="org.freedesktop.PolicyKit1"/>
    <allow send_destination="org.freedesktop.PolicyKit1"/>
  </policy>
"#;

/// See the module. Ends with its value.
pub struct PrivateBus {
    directory: TempDir,
    /// With its output, which what it starts writes to as well.
    daemon: Option<(Child, BufReader<ChildStdout>)>,
}

/// Whether other users can be tried.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A file under `ipc/dbus/`.
pub fn contract(file: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join("ipc/dbus").join(file)
}

impl PrivateBus {
    /// A bus with these policy files of `ipc/dbus/`.
    pub fn start(policies: &[&str]) -> Self {
        let mut bus = Self::absent(policies);
        bus.revive();
        bus
    }

    /// One that is not running yet.
    pub fn absent(policies: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let open = Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open).unwrap();
        std::fs::create_dir(directory.path().join("services")).unwrap();
        let mut includes = String::new();
        for policy in policies {
            let text = std::fs::read_to_string(contract(policy)).unwrap();
            // Whoever runs the test stands for the daemon's user.
            let own = nix::unistd::geteuid().as_raw().to_string();
            let text: String = ["root", "temps-proxy"].iter().fold(text, |text, user| {
                text.replace(&format!("user=\"{user}\""), &format!("user=\"{own}\""))
            });
            std::fs::write(directory.path().join(policy), text).unwrap();
            includes.push_str(&format!("  <include>{policy}</include>\n"));
        }
        let config = format!(
            "<busconfig>\n  <listen>unix:path={0}/bus</listen>\n  <auth>EXTERNAL</auth>\n  \
             <servicedir>{0}/services</servicedir>\n{RULES}{includes}</busconfig>\n",
            directory.path().display()
        );
        std::fs::write(directory.path().join("bus.conf"), config).unwrap();
        let daemon = None;
        Self { directory, daemon }
    }

    /// Has the bus start `command` for calls to `name`.
    pub fn activates(&self, name: &str, command: &str) {
        let file = format!("services/{name}.service");
        let text = format!("[D-BUS Service]\nName={name}\nExec={command}\n");
        std::fs::write(self.directory.path().join(file), text).unwrap();
    }

    /// Starts it, again or for the first time, where it was.
    pub fn revive(&mut self) {
        let mut daemon = Command::new("dbus-daemon")
            .arg(format!(
                "--config-file={}",
                self.directory.path().join("bus.conf").display()
            ))
            .args(["--nofork", "--nopidfile", "--print-address"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon runs (package dbus)");
        let mut address = String::new();
        let mut output = BufReader::new(daemon.stdout.take().unwrap());
        output.read_line(&mut address).unwrap();
        self.daemon = Some((daemon, output));
        assert!(address.starts_with("unix:path="), "no bus: {address:?}");
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        if let Some((mut daemon, _)) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }

    pub fn address(&self) -> String {
        format!("unix:path={}/bus", self.directory.path().display())
    }

    pub async fn connect(&self) -> Connection {
        let address = self.address();
        let builder = zbus::connection::Builder::address(address.as_str());
        builder.method_timeout(SOON).build().await.unwrap()
    }

    /// A method call by another user, with arguments as dbus-send(1) takes them.
    pub async fn call_as(&self, uid: u32, name: &str, path: &str, call: &[&str]) -> Output {
        let mut command = Command::new("dbus-send");
        command
            .arg(format!("--bus={}", self.address()))
            .arg(format!("--dest={name}"))
            .args(["--print-reply", path])
            .args(call)
            .uid(uid)
            .gid(uid);
        let output = tokio::task::spawn_blocking(move || command.output());
        output.await.unwrap().expect("dbus-send runs")
    }
}

impl Drop for PrivateBus {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits until somebody owns `name`.
pub async fn owned(connection: &Connection, name: &str) {
    has_owner(connection, name, true).await;
}

/// Waits until nobody owns `name`.
pub async fn unowned(connection: &Connection, name: &str) {
    has_owner(connection, name, false).await;
}

async fn has_owner(connection: &Connection, name: &str, wanted: bool) {
    let bus = Some("org.freedesktop.DBus");
    let looked = async {
        loop {
            let reply = connection
                .call_method(bus, "/org/freedesktop/DBus", bus, "NameHasOwner", &name)
                .await;
            if reply.is_ok_and(|reply| reply.body().deserialize::<bool>() == Ok(wanted)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = tokio::time::timeout(SOON, looked).await;
    in_time.unwrap_or_else(|_| panic!("{name} has {}owner", if wanted { "no " } else { "an " }));
}

/// Our own interfaces of an object as introspection shows them, in order of their names.
pub async fn introspected(connection: &Connection, name: &str, path: &str) -> String {
    let reply = connection
        .call_method(
            Some(name),
            path,
            Some("org.freedesktop.DBus.Introspectable"),
            "Introspect",
            &(),
        )
        .await
        .unwrap();
    let xml: String = reply.body().deserialize().unwrap();
    let mut own: Vec<String> = xml
        .split("  <interface name=\"sh.temps.")
        .skip(1)
        .filter_map(|rest| rest.split_once("  </interface>\n"))
        .map(|(inner, _)| format!("  <interface name=\"sh.temps.{inner}  </interface>\n"))
        .collect();
    own.sort();
    own.concat()
}

/// Compares with a file of `ipc/dbus/`, or writes it if `UPDATE_GOLDEN` is set.
pub fn assert_golden(file: &str, interfaces: &str) {
    const HEAD: &str = "<!DOCTYPE node PUBLIC \"-//freedesktop//DTD D-BUS Object Introspection 1.0//EN\"\n \
         \"http://www.freedesktop.org/standards/dbus/1.0/introspect.dtd\">\n";
    let xml = format!("{HEAD}<node>\n{interfaces}</node>\n");
    let path = contract(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &xml).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        golden == xml,
        "{file} is not what the daemon shows; if that is meant, run with UPDATE_GOLDEN=1, and \
         mention it in man/temps-dbus.5:\n{xml}"
    );
}
