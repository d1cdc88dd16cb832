//! `deployd.toml`: what the administrator chose.

use crate::adapter::systemd::Range;
use serde::Deserialize;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use temps_ipc::types::{AppName, Host};
use temps_unit::duration;

/// The settings of temps-deployd. Durations are texts such as `30s`, `2m` or `500ms`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// Apps answer at `APP.<base-domain>`.
    pub base_domain: Host,
    /// The scheme of the URLs that are shown: `http` or `https`.
    pub public_scheme: Scheme,
    /// The port of the URLs that are shown, if it is not the scheme's own.
    pub public_port: Option<u16>,
    /// Set by `temps up`: run by an ordinary user without systemd. Only its own uid may call, and
    /// the process runtime exists.
    pub standalone: bool,
    /// The executable that supervises an instance of the process runtime (`temps-instance`).
    pub instance_program: Option<PathBuf>,
    /// The proxy's control socket.
    pub proxy_socket: PathBuf,
    /// The container engine's socket.
    pub docker_socket: PathBuf,
    /// How long an instance may take to become healthy, unless its deployment says otherwise.
    #[serde(deserialize_with = "duration::deserialize")]
    pub health_timeout: Duration,
    /// How long a release is watched after the switch, unless its deployment says otherwise.
    #[serde(deserialize_with = "duration::deserialize")]
    pub watch: Duration,
    /// How long requests to the old instance may take to end before they are cut.
    #[serde(deserialize_with = "duration::deserialize")]
    pub drain_timeout: Duration,
    /// How long an instance may take to end after SIGTERM before it is killed.
    #[serde(deserialize_with = "duration::deserialize")]
    pub stop_grace: Duration,
    /// How long without work until the daemon ends; systemd starts it again when it is called.
    #[serde(deserialize_with = "duration::deserialize")]
    pub idle: Duration,
    /// Builds side by side.
    pub builds_at_once: usize,
    /// Memory that a build may use, in MiB.
    pub build_memory: u64,
    /// Processor time that a build may use, in percent of one processor.
    pub build_cpu: u32,
    /// Processes and threads of a build.
    pub build_tasks: u64,
    /// How long a build may take.
    #[serde(deserialize_with = "duration::deserialize")]
    pub build_timeout: Duration,
    /// Releases per app that one may go back to.
    pub keep_releases: usize,
    /// Largest upload in MiB.
    pub upload_limit: u64,
    /// Memory limit of an instance on the docker and systemd runtimes, in MiB.
    pub memory_limit: u64,
    /// Processor time of an instance on the systemd runtime, in percent of one processor; as much as
    /// there is if it is left out.
    pub cpu_limit: Option<u32>,
    /// Processes and threads of an instance on the systemd runtime.
    pub task_limit: u64,
    /// Open files of each process of an instance on the systemd runtime.
    pub file_limit: u64,
    /// The addresses of instances on the systemd runtime; a private range that is free if it is left
    /// out.
    pub apps_network: Option<Range>,
    /// Servers that instances on the systemd runtime ask for names, instead of the host's.
    pub apps_resolvers: Vec<IpAddr>,
    /// What is wrong with the files, if these are the last good settings instead.
    #[serde(skip)]
    pub problem: Option<String>,
}

/// The scheme of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Plain.
    Http,
    /// With TLS.
    Https,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // Resolves to this machine without any DNS (RFC 6761 section 6.3).
            base_domain: "localhost".parse().expect("`localhost` is a host name"),
            public_scheme: Scheme::Http,
            public_port: None,
            standalone: false,
            instance_program: None,
            proxy_socket: "/run/temps/proxy.sock".into(),
            docker_socket: "/run/docker.sock".into(),
            // kamal-proxy's default; frameworks that compile at start are told to ask for more.
            health_timeout: Duration::from_secs(30),
            watch: Duration::from_secs(120),
            drain_timeout: Duration::from_secs(30),
            stop_grace: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            builds_at_once: 2,
            // What bundlers and compilers of ordinary web apps need; also all that the engine's API can
            // say for the steps of a Dockerfile.
            build_memory: 2048,
            // Leaves a processor of two for what serves requests.
            build_cpu: 100,
            // A parallel compiler has some per processor; a fork bomb would like more.
            build_tasks: 1024,
            build_timeout: Duration::from_secs(30 * 60),
            keep_releases: 5,
            upload_limit: 2048,
            memory_limit: 512,
            cpu_limit: None,
            // A web app has tens; a fork bomb would like more.
            task_limit: 512,
            // Two connections per request in flight, generously.
            file_limit: 65_536,
            apps_network: None,
            apps_resolvers: Vec::new(),
            problem: None,
        }
    }
}

impl Settings {
    /// Where the app answers.
    pub fn url(&self, app: &AppName) -> String {
        let (scheme, usual) = match self.public_scheme {
            Scheme::Http => ("http", 80),
            Scheme::Https => ("https", 443),
        };
        match self.public_port.filter(|port| *port != usual) {
            Some(port) => format!("{scheme}://{app}.{}:{port}", self.base_domain),
            None => format!("{scheme}://{app}.{}", self.base_domain),
        }
    }

    /// What cannot be right although each value is.
    ///
    /// # Errors
    /// A sentence that names the key.
    pub fn check(&self) -> Result<(), String> {
        if self.builds_at_once == 0 || self.builds_at_once > 64 {
            return Err("builds-at-once is from 1 to 64".to_owned());
        }
        if self.build_memory < 64 {
            return Err("build-memory is at least 64 (MiB)".to_owned());
        }
        if self.build_cpu == 0 || self.build_cpu > 100_000 {
            return Err("build-cpu is from 1 to 100000 (percent of one processor)".to_owned());
        }
        if self.build_tasks < 16 {
            return Err("build-tasks is at least 16".to_owned());
        }
        if self.build_timeout.is_zero() {
            return Err("build-timeout is longer than 0s".to_owned());
        }
        if self.keep_releases == 0 || self.keep_releases > 100 {
            return Err("keep-releases is from 1 to 100".to_owned());
        }
        if self.upload_limit == 0 {
            return Err("upload-limit is at least 1 (MiB)".to_owned());
        }
        if self.memory_limit < 16 {
            return Err("memory-limit is at least 16 (MiB)".to_owned());
        }
        if self
            .cpu_limit
            .is_some_and(|percent| percent == 0 || percent > 100_000)
        {
            return Err("cpu-limit is from 1 to 100000 (percent of one processor)".to_owned());
        }
        if self.task_limit < 8 {
            return Err("task-limit is at least 8".to_owned());
        }
        if self.file_limit < 64 {
            return Err("file-limit is at least 64".to_owned());
        }
        if self.standalone && self.instance_program.is_none() {
            return Err("standalone needs instance-program".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        toml::from_str::<Settings>(text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_gives_the_defaults() {
        let settings = parse("").unwrap();
        assert_eq!(settings.check(), Ok(()));
        assert_eq!(
            settings.url(&"shop".parse().unwrap()),
            "http://shop.localhost"
        );
    }

    #[test]
    fn the_port_is_shown_unless_it_is_the_schemes_own() {
        let shop: AppName = "shop".parse().unwrap();
        let settings = parse("public-port = 8080").unwrap();
        assert_eq!(settings.url(&shop), "http://shop.localhost:8080");
        let settings =
            parse("base-domain = \"example.org\"\npublic-scheme = \"https\"\npublic-port = 443")
                .unwrap();
        assert_eq!(settings.url(&shop), "https://shop.example.org");
    }

    #[test]
    fn unknown_keys_and_bad_durations_are_refused_by_name() {
        assert!(parse("wach = \"2m\"").unwrap_err().contains("wach"));
        assert!(
            parse("watch = \"2 minutes\"")
                .unwrap_err()
                .contains("2 minutes")
        );
        assert!(parse("watch = 120").is_err());
        for text in [
            "builds-at-once = 0",
            "build-memory = 1",
            "build-cpu = 0",
            "build-tasks = 1",
            "build-timeout = \"0s\"",
        ] {
            let problem = parse(text).unwrap().check().unwrap_err();
            let key = text.split(' ').next().unwrap();
            assert!(problem.starts_with(key), "{problem}");
        }
    }

    #[test]
    fn durations_have_units() {
        let watch = |text| parse(&format!("watch = \"{text}\"")).map(|settings| settings.watch);
        assert_eq!(watch("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(watch("2m"), Ok(Duration::from_secs(120)));
        assert!(watch("2").is_err());
        assert!(watch("99999999999999999999h").is_err());
    }
}
