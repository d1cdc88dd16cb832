//! The docker runtime and the builder on a real engine: needs one on `/run/docker.sock`, otherwise
//! each test says SKIPPED. Images are made from nothing and the static busybox; nothing is pulled.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use temps_deployd::adapter::build::{BuildSettings, SourceBuilder};
use temps_deployd::adapter::docker::{DockerRuntime, DockerSettings};
use temps_deployd::logfile::{Cursor, Reader};
use temps_deployd::port::{
    Artifact, BuildJob, Builder, Built, InstanceSpec, InstanceState, Material, Runtime,
    RuntimeError,
};
use temps_ipc::Fault;
use temps_ipc::id::{InstanceId, ReleaseId};
use temps_ipc::types::{Address, EnvVar, RuntimeKind};
use tokio::time::{sleep, timeout};

const LIMIT: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(5);
const BUSYBOX: &str = "/bin/busybox";

struct World {
    dir: tempfile::TempDir,
    runtime: DockerRuntime,
}

impl World {
    /// Nothing, with the reason on stdout, if the tests cannot run here.
    async fn new() -> Option<Self> {
        Self::with(DockerSettings::default()).await
    }

    async fn with(settings: DockerSettings) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let runtime = DockerRuntime::new(settings, dir.path());
        if let Err(fault) = runtime.check().await {
            println!("SKIPPED: {}", fault.what);
            return None;
        }
        if !Path::new(BUSYBOX).exists() {
            println!("SKIPPED: {BUSYBOX} (package busybox-static) is missing");
            return None;
        }
        Some(Self { dir, runtime })
    }

    fn job(&self, material: Material) -> BuildJob {
        BuildJob {
            app: "shop".parse().unwrap(),
            release: ReleaseId::fresh(),
            material,
            runtime: None,
            directory: self.dir.path().join("release"),
            log: self.dir.path().join("build.log"),
        }
    }

    async fn make(&self, material: Material) -> Result<Built, Fault> {
        let builder = SourceBuilder::new(BuildSettings::default(), Some(self.runtime.images()));
        builder.build(&self.job(material)).await
    }

    fn archive(&self, files: &[(&str, &str)]) -> Material {
        let path = self.dir.path().join("upload.tar");
        let mut archive = tar::Builder::new(fs::File::create(&path).unwrap());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o755);
            archive
                .append_data(&mut header, name, content.as_bytes())
                .unwrap();
        }
        archive.append_path_with_name(BUSYBOX, "busybox").unwrap();
        archive.finish().unwrap();
        Material::Archive {
            path,
            label: "shop".to_owned(),
        }
    }

    /// An image whose command is the shell script.
    async fn image(&self, script: &str) -> Artifact {
        let end = "COPY run /run.sh\nEXPOSE 8080\nCMD [\"/bin/busybox\", \"sh\", \"/run.sh\"]\n";
        let material = self.archive(&[
            ("Dockerfile", &format!("{}{end}", self.base())),
            ("run", script),
        ]);
        self.make(material)
            .await
            .unwrap_or_else(|fault| panic!("{fault:?}\n{}", self.build_log()))
            .artifact
    }

    async fn spec(&self, artifact: Artifact) -> InstanceSpec {
        let id = InstanceId::fresh();
        InstanceSpec {
            address: self.runtime.choose_address(&artifact, &[]).await.unwrap(),
            app: "shop".parse().unwrap(),
            release: ReleaseId::fresh(),
            artifact,
            env: Vec::new(),
            url: "http://shop.localhost:8080".to_owned(),
            log: self.dir.path().join(format!("{id}.log")),
            id,
        }
    }

    async fn start(&self, script: &str) -> InstanceSpec {
        let spec = self.spec(self.image(script).await).await;
        self.runtime.start(&spec).await.unwrap();
        spec
    }

    async fn wait_for_line(&self, spec: &InstanceSpec, start: &str) -> String {
        let find = async {
            loop {
                self.runtime
                    .collect_log(&spec.id, &spec.release, &spec.log)
                    .await
                    .unwrap();
                if let Some(line) = lines(&spec.log)
                    .into_iter()
                    .find(|line| line.starts_with(start))
                {
                    return line;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(LIMIT, find)
            .await
            .unwrap_or_else(|_| panic!("{start}: {:?}", lines(&spec.log)))
    }

    /// What every image of this world starts with. The label keeps it from sharing steps with
    /// another test, which may remove them at any moment.
    fn base(&self) -> String {
        let mark = self.runtime.installation();
        format!(
            "FROM scratch\nLABEL sh.temps.test={mark}\nCOPY busybox /bin/busybox\nENV PATH=/bin\n"
        )
    }

    fn build_log(&self) -> String {
        lines(&self.dir.path().join("build.log")).join("\n")
    }

    /// Removes everything, and sees that nothing is left.
    async fn end(self, artifacts: &[&Artifact]) {
        for id in self.runtime.list().await.unwrap() {
            let log = self.dir.path().join("end.log");
            self.runtime.stop(&id, Duration::ZERO, &log).await.unwrap();
        }
        for artifact in artifacts {
            self.runtime.remove_artifact(artifact).await.unwrap();
            self.runtime.remove_artifact(artifact).await.unwrap();
        }
        self.runtime.remove_network().await.unwrap();
        assert_eq!(self.runtime.list().await.unwrap(), []);
    }
}

impl Drop for World {
    /// A test that failed leaves nothing either.
    fn drop(&mut self) {
        let label = format!(
            "label=sh.temps.installation={}",
            self.runtime.installation()
        );
        // Also the steps before one that failed.
        let mark = format!("label=sh.temps.test={}", self.runtime.installation());
        for (label, list, remove) in [
            (&label, ["container", "ls", "-a"], ["rm", "-fv"]),
            (&mark, ["image", "ls", "-a"], ["rmi", "-f"]),
            (&label, ["network", "ls", "--no-trunc"], ["network", "rm"]),
        ] {
            for id in docker(&[list[0], list[1], list[2], "-q", "--filter", label]).lines() {
                docker(&[remove[0], remove[1], id]);
            }
        }
    }
}

fn lines(log: &Path) -> Vec<String> {
    let mut cursor: Option<Cursor> = None;
    let mut all = Vec::new();
    loop {
        let (lines, next) = Reader::new(log).read(cursor, 1000).unwrap();
        if lines.is_empty() {
            return all;
        }
        all.extend(lines.into_iter().map(|(.., text)| text));
        cursor = Some(next);
    }
}

fn address(spec: &InstanceSpec) -> SocketAddr {
    let Address::Tcp(address) = &spec.address else {
        panic!("{}", spec.address)
    };
    *address
}

fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

async fn get_soon(address: SocketAddr) -> String {
    let attempts = async {
        loop {
            match tokio::task::spawn_blocking(move || get(address))
                .await
                .unwrap()
            {
                Ok(text) => return text,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    };
    timeout(LIMIT, attempts).await.expect("it answers")
}

fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

const SERVE: &str = "busybox mkdir -p /www; echo hello > /www/index.html; echo up; exec busybox httpd -f -p $HOST:$PORT -h /www";

#[tokio::test]
async fn a_dockerfile_becomes_an_image_that_serves_on_its_own_address() {
    let Some(world) = World::new().await else {
        return;
    };
    let mut spec = world.spec(world.image(SERVE).await).await;
    spec.env = vec![EnvVar {
        name: "GREETING".parse().unwrap(),
        value: "a b'c\"$d\ne".parse().unwrap(),
    }];
    world.runtime.start(&spec).await.unwrap();
    world
        .runtime
        .start(&spec)
        .await
        .expect("starting what runs succeeds");
    assert!(get_soon(address(&spec)).await.contains("hello"));
    assert_eq!(
        world.runtime.state(&spec.id).await.unwrap(),
        InstanceState::Running
    );
    assert_eq!(
        world.runtime.list().await.unwrap(),
        std::slice::from_ref(&spec.id)
    );
    assert_eq!(world.runtime.listening(&spec.id).await, ["0.0.0.0:8080"]);

    let name = format!("temps-shop-{}", spec.id);
    let inspect = |format: &str| docker(&["inspect", "--format", format, &name]);
    assert_eq!(
        inspect("{{.HostConfig.CapDrop}} {{.HostConfig.Privileged}}"),
        "[ALL] false"
    );
    assert_eq!(
        inspect("{{.HostConfig.SecurityOpt}}"),
        "[no-new-privileges]"
    );
    assert_eq!(
        inspect("{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}"),
        "536870912 512"
    );
    assert_eq!(
        inspect("{{.HostConfig.PortBindings}} {{.HostConfig.RestartPolicy.Name}}"),
        "map[] no"
    );
    let env: Vec<String> = serde_json::from_str(&inspect("{{json .Config.Env}}")).unwrap();
    for expected in ["GREETING=a b'c\"$d\ne", "PORT=8080", "TEMPS_APP=shop"] {
        assert!(env.contains(&expected.to_owned()), "{expected} {env:?}");
    }
    assert!(
        world.build_log().contains("Step 1/"),
        "{}",
        world.build_log()
    );
    assert!(
        !world.dir.path().join("release").exists(),
        "the image holds all that is needed"
    );

    let ended = {
        let (runtime, id) = (world.runtime.clone(), spec.id.clone());
        tokio::spawn(async move { runtime.ended(&id).await })
    };
    world
        .runtime
        .stop(&spec.id, GRACE, &spec.log)
        .await
        .unwrap();
    assert_eq!(lines(&spec.log), ["up"]);
    assert_ne!(
        timeout(LIMIT, ended).await.unwrap().unwrap().unwrap(),
        InstanceState::Running
    );
    assert_eq!(
        world.runtime.state(&spec.id).await.unwrap(),
        InstanceState::Absent
    );
    world
        .runtime
        .stop(&spec.id, GRACE, &spec.log)
        .await
        .unwrap();
    let id = match &spec.artifact {
        Artifact::Image { id, .. } => id.clone(),
        other => panic!("{other:?}"),
    };
    world.end(&[&spec.artifact]).await;
    assert_eq!(
        docker(&[
            "image",
            "ls",
            "-q",
            "--no-trunc",
            "--filter",
            &format!("reference={id}")
        ]),
        ""
    );
}

#[tokio::test]
async fn how_a_container_ended_is_said_in_words_and_its_output_is_kept() {
    let Some(world) = World::new().await else {
        return;
    };
    let spec = world.start("echo one; echo two >&2; exit 3").await;
    let state = timeout(LIMIT, world.runtime.ended(&spec.id))
        .await
        .unwrap()
        .unwrap();
    assert!(
        matches!(&state, InstanceState::Exited { how, at: Some(_) } if how == "exited with status 3"),
        "{state:?}"
    );
    world
        .runtime
        .stop(&spec.id, GRACE, &spec.log)
        .await
        .unwrap();
    let mut found = lines(&spec.log);
    found.sort();
    assert_eq!(found, ["one", "two"]);
    world.end(&[&spec.artifact]).await;
}

#[tokio::test]
async fn a_container_that_takes_too_much_memory_is_said_to_have_done_so() {
    let settings = DockerSettings {
        memory: 16 * 1024 * 1024,
        ..Default::default()
    };
    let Some(world) = World::with(settings).await else {
        return;
    };
    let spec = world
        .start("x=0123456789abcdef; while :; do x=$x$x; done")
        .await;
    let state = timeout(LIMIT, world.runtime.ended(&spec.id))
        .await
        .unwrap()
        .unwrap();
    let InstanceState::Exited { how, .. } = &state else {
        panic!("{state:?}")
    };
    assert!(how.contains("memory limit of 16 MiB"), "{how}");
    world.end(&[&spec.artifact]).await;
}

#[tokio::test]
async fn output_is_collected_once_however_often_it_is_asked_for() {
    let Some(world) = World::new().await else {
        return;
    };
    // Bursts, so that many lines have the same millisecond.
    // A collector at any moment, as someone who follows the log is.
    let spec = world
        .start("n=0; while [ $n -lt 3000 ]; do echo line $n; n=$((n+1)); [ $((n % 500)) = 0 ] && busybox usleep 100000; done; echo end; exec busybox sleep 60")
        .await;
    world.wait_for_line(&spec, "end").await;
    for _ in 0..3 {
        world
            .runtime
            .collect_log(&spec.id, &spec.release, &spec.log)
            .await
            .unwrap();
    }
    // What the platform says in between does not confuse it.
    temps_deployd::logfile::Writer::open(&spec.log)
        .unwrap()
        .line(temps_ipc::types::LogStream::Platform, "said");
    world
        .runtime
        .stop(&spec.id, Duration::ZERO, &spec.log)
        .await
        .unwrap();
    let expected: Vec<String> = (0..3000)
        .map(|n| format!("line {n}"))
        .chain(["end".to_owned(), "said".to_owned()])
        .collect();
    let found = lines(&spec.log);
    assert_eq!(found.len(), expected.len());
    assert_eq!(found, expected);
    world.end(&[&spec.artifact]).await;
}

#[tokio::test]
async fn containers_of_one_network_cannot_reach_each_other_and_this_machine_can() {
    let Some(world) = World::new().await else {
        return;
    };
    let one = world.start(SERVE).await;
    get_soon(address(&one)).await;
    let target = address(&one).ip();
    let two = world
        .start(&format!("if busybox wget -T 3 -q -O - http://{target}:8080/; then echo result reached; else echo result blocked; fi; exec busybox sleep 60"))
        .await;
    assert_eq!(world.wait_for_line(&two, "result").await, "result blocked");
    world.end(&[&one.artifact, &two.artifact]).await;
}

#[tokio::test]
async fn two_installations_share_an_engine_without_seeing_each_other() {
    let Some(one) = World::new().await else {
        return;
    };
    let Some(two) = World::new().await else {
        return;
    };
    let spec = one.start("exec busybox sleep 60").await;
    assert_eq!(two.runtime.list().await.unwrap(), []);
    assert_eq!(
        two.runtime.state(&spec.id).await.unwrap(),
        InstanceState::Absent
    );
    two.runtime.stop(&spec.id, GRACE, &spec.log).await.unwrap();
    two.runtime.remove_artifact(&spec.artifact).await.unwrap();
    assert_eq!(
        one.runtime.state(&spec.id).await.unwrap(),
        InstanceState::Running
    );
    let other = two
        .runtime
        .choose_address(&spec.artifact, &[])
        .await
        .unwrap();
    assert_ne!(other, spec.address);
    two.end(&[]).await;
    one.end(&[&spec.artifact]).await;
}

#[tokio::test]
async fn an_image_whose_command_is_missing_is_refused_and_leaves_no_container() {
    let Some(world) = World::new().await else {
        return;
    };
    let material = world.archive(&[(
        "Dockerfile",
        &format!("{}CMD [\"/nothing\"]\n", world.base()),
    )]);
    let artifact = world.make(material).await.unwrap().artifact;
    let spec = world.spec(artifact).await;
    let error = world.runtime.start(&spec).await;
    // With an init of its own the engine starts that, which then finds nothing to run.
    match error {
        Err(RuntimeError::Refused(_)) => assert_eq!(world.runtime.list().await.unwrap(), []),
        Ok(()) => {
            let state = timeout(LIMIT, world.runtime.ended(&spec.id))
                .await
                .unwrap()
                .unwrap();
            assert!(matches!(state, InstanceState::Exited { .. }), "{state:?}");
        }
        Err(error) => panic!("{error:?}"),
    }
    let gone = Artifact::Image {
        id: format!("sha256:{}", "0".repeat(64)),
        port: 80,
    };
    let spec = world.spec(gone).await;
    let error = world.runtime.start(&spec).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Refused(_)), "{error:?}");
    let artifact = world
        .make(world.archive(&[(
            "Dockerfile",
            &format!("{}CMD [\"/nothing\"]\n", world.base()),
        )]))
        .await
        .unwrap()
        .artifact;
    world.end(&[&artifact]).await;
}

#[tokio::test]
async fn a_build_that_fails_names_the_step_and_what_it_said() {
    let Some(world) = World::new().await else {
        return;
    };
    let file = format!(
        "{}RUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo about to fail; exit 7\"]\n",
        world.base()
    );
    let fault = world
        .make(world.archive(&[("Dockerfile", &file)]))
        .await
        .unwrap_err();
    assert!(fault.what.contains(": RUN"), "{fault:?}");
    assert!(
        fault.what.contains("about to fail") && fault.what.contains("7"),
        "{fault:?}"
    );
    let fault = world
        .make(world.archive(&[("Dockerfile", "FRM scratch\n")]))
        .await
        .unwrap_err();
    assert!(fault.what.to_lowercase().contains("frm"), "{fault:?}");
    world.end(&[]).await;
}

#[tokio::test]
async fn what_the_dockerignore_names_is_not_sent() {
    let Some(world) = World::new().await else {
        return;
    };
    let file = format!(
        "{}COPY . /all\nRUN [\"/bin/busybox\", \"find\", \"/all\"]\n",
        world.base()
    );
    let files = [
        ("Dockerfile", file.as_str()),
        (".dockerignore", "secret\n*.log\n!keep.log\n"),
        ("secret/key", "x"),
        ("a.log", "x"),
        ("keep.log", "x"),
    ];
    let artifact = world.make(world.archive(&files)).await.unwrap().artifact;
    let log = world.build_log();
    assert!(
        log.contains("/all/keep.log") && log.contains("/all/Dockerfile"),
        "{log}"
    );
    assert!(
        !log.contains("/all/secret") && !log.contains("/all/a.log"),
        "{log}"
    );
    world.end(&[&artifact]).await;
}

#[tokio::test]
async fn a_build_ends_when_nobody_waits_for_it_any_more() {
    let Some(world) = World::new().await else {
        return;
    };
    let mark = format!("{}", 100_000 + std::process::id());
    let file = format!(
        "{}RUN [\"/bin/busybox\", \"sleep\", \"{mark}\"]\n",
        world.base()
    );
    let material = world.archive(&[("Dockerfile", &file)]);
    let started = async {
        while !sleeps(&mark) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        built = world.make(material) => panic!("{built:?}"),
        () = started => {}
    }
    let stopped = async {
        while sleeps(&mark) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, stopped)
        .await
        .expect("the engine ends the step");
    world.end(&[]).await;
}

fn sleeps(mark: &str) -> bool {
    let wanted = format!("sleep\0{mark}\0");
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).ends_with(&wanted))
    })
}

#[tokio::test]
async fn an_image_is_taken_by_reference_and_kept_by_content() {
    let Some(world) = World::new().await else {
        return;
    };
    let Artifact::Image { id, .. } = world.image("echo x").await else {
        panic!()
    };
    let name = format!("temps-test-{}:1", std::process::id());
    docker(&["tag", &id, &name]);
    let built = world
        .make(Material::Image {
            reference: name.clone(),
        })
        .await
        .unwrap();
    assert_eq!(
        built.artifact,
        Artifact::Image {
            id: id.clone(),
            port: 8080
        }
    );
    assert_eq!(
        (built.runtime, built.source),
        (RuntimeKind::Docker, format!("image {name}"))
    );
    docker(&["rmi", &name]);

    let release = ReleaseId::fresh();
    let again = || Material::Artifact {
        release: release.clone(),
        artifact: built.artifact.clone(),
        runtime: RuntimeKind::Docker,
    };
    world.make(again()).await.unwrap();
    world
        .runtime
        .remove_artifact(&built.artifact)
        .await
        .unwrap();
    let fault = world.make(again()).await.unwrap_err();
    assert!(fault.what.contains("was removed"), "{fault:?}");

    let reference = "127.0.0.1:1/nothing/there:1".to_owned();
    let fault = world.make(Material::Image { reference }).await.unwrap_err();
    assert!(fault.what.contains("cannot be pulled"), "{fault:?}");
    world.end(&[]).await;
}

#[tokio::test]
async fn an_app_that_ignores_the_polite_signal_is_killed_after_the_grace() {
    let Some(world) = World::new().await else {
        return;
    };
    let spec = world
        .start("trap '' TERM; echo up; while :; do busybox sleep 1; done")
        .await;
    world.wait_for_line(&spec, "up").await;
    timeout(
        LIMIT,
        world
            .runtime
            .stop(&spec.id, Duration::from_secs(1), &spec.log),
    )
    .await
    .unwrap()
    .unwrap();
    assert_eq!(
        world.runtime.state(&spec.id).await.unwrap(),
        InstanceState::Absent
    );
    world.end(&[&spec.artifact]).await;
}
