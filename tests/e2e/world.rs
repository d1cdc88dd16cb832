//! An instance with the settings of tests, and what the suites ask of it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use harness::app::{self, App};
use harness::command::Output;
use harness::docker;
use harness::http::{self, Response};
use harness::load::{Load, LoadSpec};
use harness::process;
use harness::temps::{Deployed, Options, Temps};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Bad targets are noticed within two seconds instead of fifteen, and a stop takes no three.
const PROXY: &str = "fresh-grace = \"200ms\"\n[probes]\nrouted = \"500ms\"\n";

/// How an instance is started.
#[derive(Debug, Default)]
pub struct Setup {
    /// The test deploys containers.
    pub docker: bool,
    /// Lines for `deployd.toml`.
    pub deployd: &'static str,
    /// `proxy.toml`, if not the one of [`PROXY`].
    pub proxy: Option<&'static str>,
    /// The state directory is a file system of this size in memory.
    pub tmpfs: Option<&'static str>,
    /// Environment of the daemons.
    pub env: Vec<(String, String)>,
}

/// A running instance over a state directory that goes with it.
pub struct World {
    /// Always there but while it is started again.
    temps: Option<Temps>,
    state: TempDir,
    setup: Setup,
    releases: Mutex<BTreeSet<String>>,
    /// What an instance that was started again is called in the container engine.
    installation: Option<String>,
}

impl World {
    /// A new, empty instance.
    pub fn up() -> Self {
        Self::with(Setup::default())
    }

    /// A new, empty instance that may run containers.
    pub fn docker() -> Self {
        Self::with(Setup {
            docker: true,
            ..Setup::default()
        })
    }

    pub fn with(setup: Setup) -> Self {
        Self::start(setup).expect("the state directory can be made")
    }

    /// With [`Setup::tmpfs`]; `None` if this user cannot mount one.
    pub fn on_tmpfs(setup: Setup) -> Option<Self> {
        Self::start(setup)
    }

    fn start(setup: Setup) -> Option<Self> {
        let state = tempfile::Builder::new()
            .prefix("temps-state-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .expect("a directory");
        if let Some(size) = setup.tmpfs {
            let options = format!("size={size},mode=0700");
            let none = MsFlags::empty();
            mount(
                Some("tmpfs"),
                state.path(),
                Some("tmpfs"),
                none,
                Some(&*options),
            )
            .ok()?;
        }
        let config = state.path().join("config");
        DirBuilder::new().mode(0o700).create(&config).unwrap();
        std::fs::write(config.join("proxy.toml"), setup.proxy.unwrap_or(PROXY)).unwrap();
        std::fs::write(config.join("deployd.toml"), setup.deployd).unwrap();
        let mut world = Self {
            temps: None,
            state,
            setup,
            releases: Mutex::default(),
            installation: None,
        };
        world.start_on(None).expect("it starts");
        Some(world)
    }

    /// Starts it (again, once it was stopped) over its state, on the ports of `before` if given.
    pub fn start_on(
        &mut self,
        ports: Option<(std::net::SocketAddr, std::net::SocketAddr)>,
    ) -> anyhow::Result<()> {
        if let Some(ended) = self.temps.take() {
            // Dropping it would remove what the next one needs, such as images.
            self.installation = self.installation.take().or(ended.installation());
            ended.abandon();
        }
        self.temps = Some(Temps::up(Options {
            state: Some(self.state.path().to_owned()),
            docker: self.setup.docker,
            env: self.setup.env.clone(),
            http: ports.map(|ports| ports.0),
            https: ports.map(|ports| ports.1),
            ..Options::default()
        })?);
        Ok(())
    }

    /// Starts a successor over the same state, which finds what this one's killed supervisor left.
    pub fn succeed(&mut self, ports: (std::net::SocketAddr, std::net::SocketAddr)) {
        self.start_on(Some(ports)).expect("it starts");
    }

    pub fn temps(&self) -> &Temps {
        self.temps.as_ref().expect("it runs")
    }

    pub fn temps_mut(&mut self) -> &mut Temps {
        self.temps.as_mut().expect("it runs")
    }

    /// Deployd's part of the state directory.
    pub fn deployd_state(&self) -> PathBuf {
        self.state.path().join("deployd")
    }

    /// The proxy's.
    pub fn proxy_state(&self) -> PathBuf {
        self.state.path().join("proxy")
    }

    /// Runs a command, whatever its outcome.
    pub fn run<I>(&self, arguments: I) -> Output
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.temps().run(arguments).expect("it ends")
    }

    /// Runs a command that must succeed.
    #[track_caller]
    pub fn ok<I>(&self, arguments: I) -> Output
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.run(arguments).success().expect("exit status 0")
    }

    /// What a command prints with `--json`.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.ok([arguments, &["--json"]].concat());
        serde_json::from_str(&output.stdout).expect("one JSON value")
    }

    /// Deploys what is at `path` with `--source`.
    pub fn deploy_path(&self, app: &str, path: &Path, more: &[&str]) -> Deployed {
        let path = path.to_str().expect("the name is ours");
        let arguments = [&[app, "--source", path], more].concat();
        let deployed = self.temps().deploy_json(arguments).expect("an outcome");
        self.releases
            .lock()
            .unwrap()
            .insert(deployed.release.clone());
        deployed
    }

    /// Makes a sample app and deploys it, whatever its outcome.
    pub fn deploy(&self, app: &str, of: &str, variant: &str, more: &[&str]) -> Deployed {
        let made = app::make(of, variant, "v1").expect("a sample app");
        self.deploy_path(app, made.path(), more)
    }

    /// The same, for a deployment that must succeed.
    #[track_caller]
    pub fn live(&self, app: &str, of: &str, variant: &str, more: &[&str]) -> Deployed {
        self.deploy(app, of, variant, more).live().expect("live")
    }

    /// A deployment in the background.
    pub fn deploy_meanwhile(
        &self,
        app: &str,
        made: &App,
        more: &[&str],
    ) -> thread::JoinHandle<Deployed> {
        let arguments = [&["deploy", app, "--source", made.arg(), "--json"], more].concat();
        let mut command = self.temps().command(arguments);
        thread::spawn(move || {
            let output = harness::command::run(&mut command, Duration::from_secs(120));
            Deployed::parse(output.expect("it ends")).expect("an outcome")
        })
    }

    /// Notes a release that a command in the background made.
    pub fn note(&self, release: &str) {
        self.releases.lock().unwrap().insert(release.to_owned());
    }

    /// `GET path` of an app over HTTP.
    #[track_caller]
    pub fn get(&self, app: &str, path: &str) -> Response {
        let temps = self.temps();
        http::get(temps.http(), &temps.host(app), path).expect("an answer")
    }

    /// The load of the main job on an app.
    pub fn load(&self, app: &str) -> Load {
        let temps = self.temps();
        Load::start(LoadSpec::new(temps.http(), &temps.host(app))).expect("a load")
    }

    /// A load that leaves the machine to what is tested.
    pub fn light_load(&self, app: &str) -> Load {
        let temps = self.temps();
        let spec = LoadSpec {
            keepalive_rps: 50,
            keepalive_conns: 5,
            new_conn_rps: 20,
            ..LoadSpec::new(temps.http(), &temps.host(app))
        };
        Load::start(spec).expect("a load")
    }

    /// One release of `temps release list`.
    #[track_caller]
    pub fn release(&self, app: &str, release: &str) -> Value {
        let all = self.json(&["release", "list", app]);
        let all = all.as_array().expect("a list");
        let found = all.iter().find(|one| one["release"] == release);
        found
            .unwrap_or_else(|| panic!("no {release} in {all:?}"))
            .clone()
    }

    /// The releases that run now, one entry per instance: as processes, and as containers if this
    /// instance has any.
    pub fn running(&self) -> Vec<String> {
        let ours = self.deployd_state();
        let mut instances = BTreeSet::new();
        for process in process::all() {
            let (Some(release), Some(instance)) = (
                process.environment.get("TEMPS_RELEASE"),
                process.environment.get("TEMPS_INSTANCE"),
            ) else {
                continue;
            };
            if process.state != 'Z' && process.uses(&ours) {
                instances.insert((instance.clone(), release.clone()));
            }
        }
        let known = self.releases.lock().unwrap().clone();
        if self.setup.docker {
            for thing in docker::things().expect("the engine answers") {
                let label = |name: &str| thing.labels.get(name).cloned().unwrap_or_default();
                let release = label("sh.temps.release");
                if thing.kind == "container" && known.contains(&release) {
                    instances.insert((label("sh.temps.instance"), release));
                }
            }
        }
        instances.into_iter().map(|(_, release)| release).collect()
    }

    /// Waits until exactly these releases run.
    #[track_caller]
    pub fn only(&self, releases: &[&str]) {
        let mut wanted: Vec<String> = releases.iter().map(|&release| release.to_owned()).collect();
        wanted.sort();
        let mut found = Vec::new();
        let done = within(PATIENCE, || {
            found = self.running();
            found.sort();
            found == wanted
        });
        assert!(done, "{found:?} run, not {wanted:?}");
    }

    /// Waits until nothing of the app is under way or watched.
    #[track_caller]
    pub fn settled(&self, app: &str) -> Value {
        let mut shown = Value::Null;
        let done = within(PATIENCE, || {
            shown = self.json(&["app", "show", app]);
            shown["deployment"].is_null()
        });
        assert!(done, "still under way: {shown}");
        shown
    }

    /// The names in a folder of deployd's state directory.
    pub fn files(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.deployd_state().join(folder));
        let mut names: Vec<String> = entries
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.temps = None;
        if let Some(installation) = self.installation.take() {
            let _ = docker::remove(&[installation]);
        }
        if self.setup.tmpfs.is_some() {
            let _ = umount2(self.state.path(), MntFlags::MNT_DETACH);
        }
    }
}

/// Whether `is_true` becomes so within `limit`.
pub fn within(limit: Duration, mut is_true: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if is_true() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Ends the test as skipped unless the container engine answers; CI has one.
pub fn docker_or_skip() -> bool {
    match docker::available() {
        Ok(()) => true,
        Err(reason) => {
            let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
            assert!(!is_ci, "never skipped in CI: {reason}");
            println!("SKIPPED: {reason}");
            false
        }
    }
}
