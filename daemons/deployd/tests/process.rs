//! The process runtime with real supervisors and real processes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use temps_deployd::adapter::process::{ProcessRuntime, stop_all};
use temps_deployd::logfile::Reader;
use temps_deployd::port::{Artifact, InstanceSpec, InstanceState, Runtime, RuntimeError};
use temps_ipc::id::{InstanceId, ReleaseId};
use temps_ipc::types::{Address, EnvVar};
use tokio::time::{sleep, timeout};

const SHIM: &str = env!("CARGO_BIN_EXE_temps-instance-for-tests");
const LIMIT: Duration = Duration::from_secs(20);
const GRACE: Duration = Duration::from_secs(10);

struct World {
    dir: tempfile::TempDir,
    runtime: ProcessRuntime,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let runtime = ProcessRuntime::new(dir.path(), PathBuf::from(SHIM));
        Self { dir, runtime }
    }

    async fn spec(&self, command: &str) -> InstanceSpec {
        let id = InstanceId::fresh();
        let root = self.dir.path().join("release");
        fs::create_dir_all(&root).unwrap();
        let artifact = Artifact::Directory {
            root,
            command: command.to_owned(),
        };
        InstanceSpec {
            address: self.runtime.choose_address(&artifact, &[]).await.unwrap(),
            app: "shop".parse().unwrap(),
            release: ReleaseId::fresh(),
            artifact,
            env: Vec::new(),
            url: "http://shop.localhost:8080".to_owned(),
            log: self.dir.path().join("logs").join(format!("{id}.log")),
            socket_activated: false,
            id,
        }
    }

    async fn start(&self, command: &str) -> InstanceSpec {
        let spec = self.spec(command).await;
        self.runtime.start(&spec).await.unwrap();
        spec
    }

    async fn ended(&self, spec: &InstanceSpec) -> InstanceState {
        timeout(LIMIT, self.runtime.ended(&spec.id))
            .await
            .expect("it ends")
            .unwrap()
    }

    async fn stop(&self, spec: &InstanceSpec) {
        let stopped = self.runtime.stop(&spec.id, GRACE, &spec.log).await;
        stopped.unwrap();
    }

    async fn state(&self, spec: &InstanceSpec) -> InstanceState {
        self.runtime.state(&spec.id).await.unwrap()
    }

    async fn list(&self) -> Vec<InstanceId> {
        self.runtime.list().await.unwrap()
    }

    fn supervisor(&self, id: &InstanceId) -> Pid {
        let text = fs::read_to_string(self.directory(id).join("pid")).unwrap();
        Pid::from_raw(text.trim().parse().unwrap())
    }

    fn directory(&self, id: &InstanceId) -> PathBuf {
        self.dir.path().join("instances").join(id.as_str())
    }
}

fn lines(log: &Path) -> Vec<String> {
    let (lines, _) = Reader::new(log).read(None, 1000).unwrap();
    lines.into_iter().map(|(.., text)| text).collect()
}

async fn wait_for_line(log: &Path, start: &str) -> String {
    let find = async {
        loop {
            if let Some(line) = lines(log).into_iter().find(|line| line.starts_with(start)) {
                return line;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, find).await.expect("the line comes")
}

/// The number at the end of the line that starts so.
async fn said_pid(log: &Path, start: &str) -> i32 {
    let line = wait_for_line(log, start).await;
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn lives(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
}

async fn dies(pid: i32) {
    let gone = async {
        while lives(pid) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, gone).await.expect("the process ends");
}

#[tokio::test]
async fn output_of_both_streams_and_the_exit_status_are_kept() {
    let world = World::new();
    let spec = world
        .start("echo out; echo err >&2; printf half; exit 3")
        .await;
    let state = world.ended(&spec).await;
    let InstanceState::Exited { how, at } = state else {
        panic!("{state:?}")
    };
    assert_eq!(how, "exited with status 3");
    assert!(at.is_some());
    let mut found = lines(&spec.log);
    found.sort();
    assert_eq!(found, ["err", "half", "out"]);
}

#[tokio::test]
async fn the_environment_is_made_from_nothing_and_the_platform_has_the_last_word() {
    let world = World::new();
    let mut spec = world.spec("env; pwd; echo end").await;
    let var = |name: &str, value: &str| EnvVar {
        name: name.parse().unwrap(),
        value: value.parse().unwrap(),
    };
    spec.env = vec![
        var("ODD", " $HOME 'a' \"b\""),
        var("HOST", "evil"),
        var("LANG", "de_DE"),
    ];
    world.runtime.start(&spec).await.unwrap();
    world.ended(&spec).await;
    let found = lines(&spec.log);
    let Address::Tcp(address) = &spec.address else {
        unreachable!()
    };
    for expected in [
        "ODD= $HOME 'a' \"b\"".to_owned(),
        "HOST=127.0.0.1".to_owned(),
        "LANG=de_DE".to_owned(),
        format!("PORT={}", address.port()),
        format!("TEMPS_INSTANCE={}", spec.id),
        format!("TEMPS_RELEASE={}", spec.release),
        "TEMPS_APP=shop".to_owned(),
        "TEMPS_APP_URL=http://shop.localhost:8080".to_owned(),
        format!("HOME={}", world.directory(&spec.id).join("home").display()),
    ] {
        assert!(found.contains(&expected), "{expected} in {found:?}");
    }
    assert!(
        !found.iter().any(|line| line.starts_with("CARGO")),
        "{found:?}"
    );
    assert!(found.contains(&world.dir.path().join("release").display().to_string()));
}

#[tokio::test]
async fn a_variable_is_in_no_argument_and_no_file() {
    let world = World::new();
    let mut spec = world.spec("echo up; exec sleep 60").await;
    spec.env = vec![EnvVar {
        name: "TOKEN".parse().unwrap(),
        value: "hunter2hunter2".parse().unwrap(),
    }];
    world.runtime.start(&spec).await.unwrap();
    wait_for_line(&spec.log, "up").await;
    let supervisor = world.supervisor(&spec.id);
    for file in ["cmdline", "environ"] {
        let text = fs::read(format!("/proc/{supervisor}/{file}")).unwrap();
        let text = String::from_utf8_lossy(&text);
        assert!(!text.contains("hunter2"), "{file}");
    }
    for name in ["pid", "lock"] {
        let text = fs::read_to_string(world.directory(&spec.id).join(name)).unwrap();
        assert!(!text.contains("hunter2"));
    }
    world.stop(&spec).await;
}

#[tokio::test]
async fn starting_what_runs_succeeds_and_starts_nothing() {
    let world = World::new();
    let spec = world.start("echo started; exec sleep 60").await;
    world.runtime.start(&spec).await.unwrap();
    wait_for_line(&spec.log, "started").await;
    assert_eq!(world.state(&spec).await, InstanceState::Running);
    assert_eq!(world.list().await, std::slice::from_ref(&spec.id));
    world.stop(&spec).await;
    assert_eq!(lines(&spec.log), ["started"]);
    assert_eq!(world.state(&spec).await, InstanceState::Absent);
    assert_eq!(world.list().await, []);
    world.stop(&spec).await;
}

#[tokio::test]
async fn stopping_is_polite_and_waits_for_the_workers_too() {
    let world = World::new();
    // The main process dies of SIGTERM at once; its worker finishes what it does.
    let spec = world
        .start("(trap 'sleep 0.3; echo finished; exit 0' TERM; echo worker; while :; do sleep 0.05; done) & wait")
        .await;
    wait_for_line(&spec.log, "worker").await;
    world.stop(&spec).await;
    assert!(lines(&spec.log).contains(&"finished".to_owned()));
}

#[tokio::test]
async fn an_app_that_ignores_the_polite_signal_is_killed_after_the_grace() {
    let world = World::new();
    let spec = world
        .start("trap '' TERM; echo $$; while :; do sleep 1; done")
        .await;
    let pid = said_pid(&spec.log, "").await;
    let stop = world
        .runtime
        .stop(&spec.id, Duration::from_millis(200), &spec.log);
    timeout(LIMIT, stop).await.unwrap().unwrap();
    assert!(!lives(pid));
}

#[tokio::test]
async fn children_that_an_app_leaves_behind_are_killed_when_it_ends() {
    let world = World::new();
    let spec = world
        .start("setsid sh -c 'echo far $$; sleep 600' & sh -c 'echo near $$; sleep 600' & sleep 0.5; exit 0")
        .await;
    let far = said_pid(&spec.log, "far").await;
    let near = said_pid(&spec.log, "near").await;
    world.ended(&spec).await;
    assert!(!lives(far) && !lives(near));
}

#[tokio::test]
async fn a_stopped_app_with_a_daemon_of_its_own_leaves_nothing_and_takes_no_whole_grace() {
    let world = World::new();
    let spec = world
        .start("setsid sh -c 'trap \"\" TERM; echo far $$; sleep 600' & exec sleep 600")
        .await;
    let far = said_pid(&spec.log, "far").await;
    let stop = world
        .runtime
        .stop(&spec.id, Duration::from_secs(600), &spec.log);
    timeout(LIMIT, stop)
        .await
        .expect("it does not wait for the grace")
        .unwrap();
    assert!(!lives(far));
}

#[tokio::test]
async fn a_killed_supervisor_takes_the_app_and_all_its_children_along() {
    let world = World::new();
    let spec = world
        .start("setsid sh -c 'echo far $$; sleep 600' & echo main $$; while :; do sleep 1; done")
        .await;
    let far = said_pid(&spec.log, "far").await;
    let main = said_pid(&spec.log, "main").await;
    kill(world.supervisor(&spec.id), Signal::SIGKILL).unwrap();
    let state = world.ended(&spec).await;
    assert!(
        matches!(&state, InstanceState::Exited { how, .. } if how.contains("supervisor")),
        "{state:?}"
    );
    dies(main).await;
    dies(far).await;
    world.stop(&spec).await;
    assert_eq!(world.list().await, []);
}

#[tokio::test]
async fn an_instance_outlives_the_runtime_that_started_it_and_the_next_one_finds_it() {
    let world = World::new();
    let spec = world.start("exec sleep 600").await;
    let next = ProcessRuntime::new(world.dir.path(), PathBuf::from(SHIM));
    assert_eq!(next.state(&spec.id).await.unwrap(), InstanceState::Running);
    let supervisor = world.supervisor(&spec.id);
    let stat = fs::read_to_string(format!("/proc/{supervisor}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let session = fields.split_ascii_whitespace().nth(3).unwrap();
    let its_own = supervisor.to_string();
    assert_eq!(session, its_own, "it has a session of its own");
    stop_all(world.dir.path(), GRACE).await.unwrap();
    assert_eq!(next.state(&spec.id).await.unwrap(), InstanceState::Absent);
    assert!(!lives(supervisor.as_raw()));
}

#[tokio::test]
async fn many_are_stopped_at_once() {
    let world = World::new();
    for _ in 0..5 {
        world
            .start("trap 'sleep 0.2; exit 0' TERM; while :; do sleep 0.05; done")
            .await;
    }
    assert_eq!(world.list().await.len(), 5);
    stop_all(world.dir.path(), GRACE).await.unwrap();
    assert_eq!(world.list().await, []);
}

#[tokio::test]
async fn a_release_directory_that_is_gone_is_refused_and_nothing_is_left() {
    let world = World::new();
    let spec = world.spec("true").await;
    fs::remove_dir_all(world.dir.path().join("release")).unwrap();
    let error = world.runtime.start(&spec).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Refused(_)), "{error:?}");
    assert_eq!(world.list().await, []);
}

#[tokio::test]
async fn variables_that_no_process_can_hold_are_refused() {
    let world = World::new();
    let mut spec = world.spec("true").await;
    spec.env = (0..100)
        .map(|n| EnvVar {
            name: format!("V{n}").parse().unwrap(),
            value: "x".repeat(90_000).parse().unwrap(),
        })
        .collect();
    let error = world.runtime.start(&spec).await.unwrap_err();
    assert!(error.fault().what.contains("too large"), "{error:?}");
    assert_eq!(world.list().await, []);
}

#[tokio::test]
async fn a_missing_supervisor_is_said_by_check_and_by_start() {
    let world = World::new();
    let spec = world.spec("true").await;
    let runtime = ProcessRuntime::new(world.dir.path(), world.dir.path().join("none"));
    assert!(runtime.check().await.is_err());
    assert!(matches!(
        runtime.start(&spec).await,
        Err(RuntimeError::Unavailable(_))
    ));
    assert_eq!(runtime.list().await.unwrap(), []);
    assert!(world.runtime.check().await.unwrap().contains("trusted"));
}

#[tokio::test]
async fn an_instance_that_listens_elsewhere_is_seen() {
    let world = World::new();
    let python = "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); \
                  print('%s:%d' % s.getsockname(), flush=True); time.sleep(60)";
    let spec = world.start(&format!("python3 -c \"{python}\"")).await;
    let address = wait_for_line(&spec.log, "127.").await;
    assert_eq!(world.runtime.listening(&spec.id).await, [address]);
    world.stop(&spec).await;
}

#[tokio::test]
async fn a_started_app_has_default_signals_and_no_descriptor_of_ours() {
    let world = World::new();
    let spec = world
        .start("ls /proc/self/fd | wc -l; grep -E '^Sig(Blk|Ign)' /proc/self/status; echo end")
        .await;
    wait_for_line(&spec.log, "end").await;
    let found = lines(&spec.log);
    // Standard ones and that of the listing itself.
    assert_eq!(found[0].trim(), "4");
    for line in &found[1..3] {
        let set = u64::from_str_radix(line.rsplit('\t').next().unwrap(), 16).unwrap();
        // Signals 32 and up belong to the C library.
        assert_eq!(set & 0x7fff_ffff, 0, "{line}");
    }
}
