//! A docker runtime of its own for each case, on an engine that others use too.

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
};
use temps_ipc::Fault;
use temps_ipc::id::{InstanceId, ReleaseId};
use temps_ipc::types::Address;
use tokio::time::{sleep, timeout};

/// Longer than anything here takes.
pub const LIMIT: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_secs(5);
const BUSYBOX: &str = "/bin/busybox";

/// A web server that says hello.
pub const SERVE: &str = "busybox mkdir -p /www; echo hello > /www/index.html; echo up; exec busybox httpd -f -p $HOST:$PORT -h /www";

/// A docker runtime, and a directory for what it needs.
pub struct World {
    pub dir: tempfile::TempDir,
    pub runtime: DockerRuntime,
}

impl World {
    /// Nothing, with the reason on stdout, if the tests cannot run here.
    pub async fn new() -> Option<Self> {
        Self::with(DockerSettings::default()).await
    }

    pub async fn with(settings: DockerSettings) -> Option<Self> {
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
            env: Vec::new(),
            directory: self.dir.path().join("release"),
            log: self.dir.path().join("build.log"),
        }
    }

    pub async fn make(&self, material: Material) -> Result<Built, Fault> {
        let builder = SourceBuilder::new(BuildSettings::default(), Some(self.runtime.images()));
        builder.build(&self.job(material)).await
    }

    /// An upload of `files` and busybox.
    pub fn archive(&self, files: &[(&str, &str)]) -> Material {
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

    /// Files, and a Dockerfile that gives every image busybox, then does `steps`. The label keeps it
    /// from sharing steps with another test, which may remove them at any moment.
    pub fn dockerfile(&self, steps: &str, files: &[(&str, &str)]) -> Material {
        let mark = self.runtime.installation();
        let file = format!(
            "FROM scratch\nLABEL sh.temps.test={mark}\nCOPY busybox /bin/busybox\nENV PATH=/bin\n{steps}"
        );
        self.archive(&[&[("Dockerfile", file.as_str())], files].concat())
    }

    /// An image whose command is the shell script.
    pub async fn image(&self, script: &str) -> Artifact {
        let end = "COPY run /run.sh\nEXPOSE 8080\nCMD [\"/bin/busybox\", \"sh\", \"/run.sh\"]\n";
        let material = self.dockerfile(end, &[("run", script)]);
        self.make(material)
            .await
            .unwrap_or_else(|fault| panic!("{fault:?}\n{}", self.build_log()))
            .artifact
    }

    pub async fn spec(&self, artifact: Artifact) -> InstanceSpec {
        let id = InstanceId::fresh();
        InstanceSpec {
            address: self.runtime.choose_address(&artifact, &[]).await.unwrap(),
            app: "shop".parse().unwrap(),
            release: ReleaseId::fresh(),
            artifact,
            env: Vec::new(),
            url: "http://shop.localhost:8080".to_owned(),
            log: self.dir.path().join(format!("{id}.log")),
            socket_activated: false,
            id,
        }
    }

    /// A container that runs the shell script.
    pub async fn start(&self, script: &str) -> InstanceSpec {
        let spec = self.spec(self.image(script).await).await;
        self.runtime.start(&spec).await.unwrap();
        spec
    }

    pub async fn stop(&self, spec: &InstanceSpec) {
        self.stop_within(spec, GRACE).await;
    }

    pub async fn stop_within(&self, spec: &InstanceSpec, grace: Duration) {
        let stopped = self.runtime.stop(&spec.id, grace, &spec.log).await;
        stopped.unwrap();
    }

    pub async fn state(&self, spec: &InstanceSpec) -> InstanceState {
        self.runtime.state(&spec.id).await.unwrap()
    }

    /// How it ended, as soon as it has.
    pub async fn ended(&self, spec: &InstanceSpec) -> InstanceState {
        let ended = timeout(LIMIT, self.runtime.ended(&spec.id)).await;
        ended.expect("it ends").unwrap()
    }

    pub async fn list(&self) -> Vec<InstanceId> {
        self.runtime.list().await.unwrap()
    }

    /// Fetches what it said since the last time.
    pub async fn collect(&self, spec: &InstanceSpec) {
        let (id, release) = (&spec.id, &spec.release);
        let collected = self.runtime.collect_log(id, release, &spec.log).await;
        collected.unwrap();
    }

    pub async fn wait_for_line(&self, spec: &InstanceSpec, start: &str) -> String {
        let find = async {
            loop {
                self.collect(spec).await;
                let mut found = lines(&spec.log).into_iter();
                if let Some(line) = found.find(|line| line.starts_with(start)) {
                    return line;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(LIMIT, find)
            .await
            .unwrap_or_else(|_| panic!("{start}: {:?}", lines(&spec.log)))
    }

    pub fn build_log(&self) -> String {
        lines(&self.dir.path().join("build.log")).join("\n")
    }

    /// Removes everything, and sees that nothing is left.
    pub async fn end(self, artifacts: &[&Artifact]) {
        for id in self.list().await {
            let log = self.dir.path().join("end.log");
            self.runtime.stop(&id, Duration::ZERO, &log).await.unwrap();
        }
        for artifact in artifacts {
            self.runtime.remove_artifact(artifact).await.unwrap();
            self.runtime.remove_artifact(artifact).await.unwrap();
        }
        self.runtime.remove_network().await.unwrap();
        assert_eq!(self.list().await, []);
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

pub fn lines(log: &Path) -> Vec<String> {
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

pub fn address(spec: &InstanceSpec) -> SocketAddr {
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

/// The answer of the instance once it listens.
pub async fn get_soon(spec: &InstanceSpec) -> String {
    let address = address(spec);
    let attempts = async {
        loop {
            let answer = tokio::task::spawn_blocking(move || get(address)).await;
            match answer.unwrap() {
                Ok(text) => return text,
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    };
    timeout(LIMIT, attempts).await.expect("it answers")
}

pub fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker").args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
