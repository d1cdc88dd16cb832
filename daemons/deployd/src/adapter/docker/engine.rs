//! The connection to the engine: one place that knows its socket, its limits and its errors.

use crate::port::RuntimeError;
use bollard::{API_DEFAULT_VERSION, Docker};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use temps_ipc::Fault;
use tokio::sync::OnceCell;
use tokio::time::timeout;

/// Where Docker listens unless told otherwise.
const DEFAULT_SOCKET: &str = "/run/docker.sock";

/// Which installation a container, network or image belongs to.
const LABEL_INSTALLATION: &str = "sh.temps.installation";
pub(super) const LABEL_APP: &str = "sh.temps.app";
pub(super) const LABEL_RELEASE: &str = "sh.temps.release";
pub(super) const LABEL_INSTANCE: &str = "sh.temps.instance";

/// The oldest API that has all we use (Docker 20.10, Podman 4).
const OLDEST_API: (usize, usize) = (1, 41);

/// For calls that wait for an end that may be days away.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// How containers and builds are limited, and where the engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerSettings {
    /// The engine's Unix socket.
    pub socket: PathBuf,
    /// Memory of an instance in bytes, swap included.
    pub memory: i64,
    /// Processes and threads of an instance.
    pub processes: i64,
    /// Open files of an instance.
    pub open_files: i64,
    /// CPU weight of an instance; 1024 is that of a process outside.
    pub cpu_shares: i64,
    /// Memory of each build step in bytes; the engine's API takes less than 2 GiB.
    pub build_memory: i64,
    /// CPU time of each build step in percent of one processor.
    pub build_cpu_percent: i32,
    /// How long a build may take.
    pub build_limit: Duration,
    /// How long pulling an image may take.
    pub pull_limit: Duration,
    /// How long any other call may take.
    pub call_limit: Duration,
}

impl Default for DockerSettings {
    fn default() -> Self {
        Self {
            socket: PathBuf::from(DEFAULT_SOCKET),
            memory: 512 * 1024 * 1024,
            // A web app has tens; a fork bomb would like more.
            processes: 512,
            // Two connections per request in flight, generously.
            open_files: 65_536,
            // Under contention the proxy goes first.
            cpu_shares: 512,
            build_memory: i64::from(i32::MAX),
            // Leaves a processor of two for what serves requests.
            build_cpu_percent: 100,
            build_limit: Duration::from_secs(30 * 60),
            pull_limit: Duration::from_secs(15 * 60),
            call_limit: Duration::from_secs(60),
        }
    }
}

/// Why a call to the engine failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// It cannot be reached; the fault says what to do about it.
    #[error("{0}")]
    Unreachable(Fault),
    /// It did not answer in time.
    #[error("the container engine did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// It does not know what the call is about.
    #[error("{0}")]
    NotFound(String),
    /// It finds the request wrong.
    #[error("{0}")]
    Refused(String),
    /// It failed.
    #[error("the container engine failed: {0}")]
    Failed(String),
    /// Our side failed.
    #[error("{0}")]
    Own(Fault),
}

impl CallError {
    /// For calls whose aim is that something is gone.
    pub(super) fn gone_is_fine(self) -> Result<(), Self> {
        match self {
            Self::NotFound(_) => Ok(()),
            error => Err(error),
        }
    }

    pub(super) fn into_fault(self) -> Fault {
        let what = self.to_string();
        match self {
            Self::Unreachable(fault) | Self::Own(fault) => fault,
            Self::NotFound(_) | Self::Refused(_) => Fault::invalid(what),
            Self::TimedOut(_) | Self::Failed(_) => {
                Fault::unavailable(what).hint("look at the engine's log: `journalctl -u docker`")
            }
        }
    }
}

impl From<CallError> for RuntimeError {
    fn from(error: CallError) -> Self {
        let is_refused = matches!(error, CallError::NotFound(_) | CallError::Refused(_))
            || matches!(&error, CallError::Own(fault) if fault.code == temps_ipc::Code::Invalid);
        let fault = error.into_fault();
        if is_refused {
            RuntimeError::Refused(fault)
        } else {
            RuntimeError::Unavailable(fault)
        }
    }
}

impl From<CallError> for Fault {
    fn from(error: CallError) -> Self {
        error.into_fault()
    }
}

/// The engine, as one installation sees it.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) settings: DockerSettings,
    installation: String,
    docker: OnceCell<Docker>,
    /// The engine may raise its containers' limits above its own (it may not inside a container).
    can_raise_limits: AtomicBool,
}

impl Engine {
    pub(super) fn new(settings: DockerSettings, state_dir: &Path) -> Self {
        let state_dir = state_dir
            .canonicalize()
            .unwrap_or_else(|_| state_dir.to_owned());
        let hash = Sha256::digest(state_dir.as_os_str().as_encoded_bytes());
        let installation = hash
            .iter()
            .take(6)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self {
            settings,
            installation,
            docker: OnceCell::new(),
            can_raise_limits: AtomicBool::new(true),
        }
    }

    /// Whether containers get a limit of open files of their own.
    pub(super) fn can_raise_limits(&self) -> bool {
        self.can_raise_limits.load(Ordering::Relaxed)
    }

    /// Whether the error says that the engine may not; then no container is asked to any more.
    pub(super) fn learn_limits(&self, error: &CallError) -> bool {
        let refused = error.to_string().contains("error setting rlimit");
        if refused {
            self.can_raise_limits.store(false, Ordering::Relaxed);
        }
        refused
    }

    /// Twelve hexadecimal digits that name this installation.
    pub(super) fn installation(&self) -> &str {
        &self.installation
    }

    /// The label that everything of ours carries, as a map.
    pub(super) fn labels(&self) -> HashMap<String, String> {
        HashMap::from([(LABEL_INSTALLATION.to_owned(), self.installation.clone())])
    }

    /// The same as a filter.
    pub(super) fn label_filter(&self) -> String {
        format!("{LABEL_INSTALLATION}={}", self.installation)
    }

    /// Whether something with these labels is ours.
    pub(super) fn owns(&self, labels: Option<&HashMap<String, String>>) -> bool {
        labels.and_then(|labels| labels.get(LABEL_INSTALLATION)) == Some(&self.installation)
    }

    /// The client, which speaks the newest API that both sides know.
    pub(super) async fn docker(&self) -> Result<&Docker, CallError> {
        self.docker.get_or_try_init(|| self.connect()).await
    }

    /// The same for calls that take as long as they take.
    pub(super) async fn patient_docker(&self) -> Result<Docker, CallError> {
        Ok(self.docker().await?.clone().with_timeout(PATIENCE))
    }

    async fn connect(&self) -> Result<Docker, CallError> {
        let limit = self.settings.call_limit;
        let socket = self.settings.socket.display().to_string();
        let docker =
            Docker::connect_with_unix(&socket, limit.as_secs().max(1), API_DEFAULT_VERSION)
                .map_err(|error| self.explain(error))?;
        let docker = self.call(docker.negotiate_version()).await?;
        let version = docker.client_version();
        if (version.major_version, version.minor_version) < OLDEST_API {
            return Err(CallError::Unreachable(
                Fault::unavailable(format!(
                    "the container engine is too old: it speaks API {version}"
                ))
                .hint("Docker 20.10 or newer is needed (API 1.41)"),
            ));
        }
        Ok(docker)
    }

    /// Name, version and API of the engine.
    pub(super) async fn describe(&self) -> Result<String, CallError> {
        let docker = self.docker().await?;
        let found = self.call(docker.version()).await?;
        let name = found
            .platform
            .map(|platform| platform.name)
            .filter(|name| name.contains("Podman"))
            .map_or("Docker Engine", |_| "Podman");
        let version = found
            .version
            .unwrap_or_else(|| "of unknown version".to_owned());
        Ok(format!("{name} {version}, API {}", docker.client_version()))
    }

    /// Makes a call within the usual time.
    pub(super) async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, CallError> {
        self.call_within(self.settings.call_limit, call).await
    }

    /// Makes a call within some time.
    pub(super) async fn call_within<T>(
        &self,
        limit: Duration,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T, CallError> {
        match timeout(limit, call).await {
            Ok(result) => result.map_err(|error| self.explain(error)),
            Err(_) => Err(CallError::TimedOut(limit)),
        }
    }

    /// What an error of the client means.
    pub(super) fn explain(&self, error: bollard::errors::Error) -> CallError {
        use bollard::errors::Error;
        match error {
            Error::DockerResponseServerError {
                status_code: 404,
                message,
            } => CallError::NotFound(message),
            Error::DockerResponseServerError {
                status_code,
                message,
            } if status_code < 500 => CallError::Refused(message),
            // The engine says 500 also when the image's own command cannot be run.
            Error::DockerResponseServerError { message, .. } if is_the_images_fault(&message) => {
                CallError::Refused(message)
            }
            Error::DockerResponseServerError { message, .. } => CallError::Failed(message),
            Error::DockerStreamError { error } => CallError::Refused(error),
            Error::RequestTimeoutError => CallError::TimedOut(self.settings.call_limit),
            error => match self.reach() {
                Ok(()) => CallError::Failed(error.to_string()),
                Err(fault) => CallError::Unreachable(fault),
            },
        }
    }

    /// Whether the socket can be connected to; if not, what to do about it.
    fn reach(&self) -> Result<(), Fault> {
        let socket = &self.settings.socket;
        let place = socket.display();
        match UnixStream::connect(socket) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Fault::unavailable(format!("there is no container engine: {place} does not exist"))
                    .hint("install Docker (`apt-get install docker.io`), or start it (`systemctl start docker`)"))
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(Fault::unavailable(format!("{place} cannot be opened: permission denied")).hint(
                    "add the user to the group docker (`usermod -aG docker USER`) and log in again; members of that group are as powerful as root",
                ))
            }
            Err(error) => Err(Fault::unavailable(format!(
                "the container engine does not answer on {place}: {error}"
            ))
            .hint("start it: `systemctl start docker`")),
        }
    }
}

fn is_the_images_fault(message: &str) -> bool {
    ["exec: \"", "executable file not found", "exec format error"]
        .iter()
        .any(|text| message.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_engine_that_is_not_there_is_unavailable_with_advice() {
        let dir = tempfile::tempdir().unwrap();
        let settings = DockerSettings {
            socket: dir.path().join("none.sock"),
            ..Default::default()
        };
        let error = Engine::new(settings, dir.path())
            .describe()
            .await
            .unwrap_err();
        let fault = error.into_fault();
        assert_eq!(fault.code, temps_ipc::Code::Unavailable);
        assert!(
            fault.hint.contains("apt-get install docker.io"),
            "{fault:?}"
        );
    }

    #[tokio::test]
    async fn a_socket_nobody_answers_on_is_unavailable_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("mute.sock");
        let _mute = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let settings = DockerSettings {
            socket,
            call_limit: Duration::from_millis(200),
            ..Default::default()
        };
        let error = Engine::new(settings, dir.path())
            .describe()
            .await
            .unwrap_err();
        assert!(matches!(error, CallError::TimedOut(_)), "{error:?}");
    }

    #[test]
    fn two_state_directories_are_two_installations() {
        let [one, two] = ["/var/lib/temps", "/home/ada/.local/state/temps"]
            .map(|dir| Engine::new(DockerSettings::default(), Path::new(dir)).installation);
        assert_ne!(one, two);
        assert_eq!(one.len(), 12);
    }
}
