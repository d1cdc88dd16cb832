//! `temps deploy`, `temps redeploy` and `temps rollback`.

use super::Format;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::path::PathBuf;
use std::time::Duration;
use temps_ipc::id::ReleaseId;
use temps_ipc::types::{AppName, Host, RuntimeKind};
use temps_unit::duration;

/// Put a new release of an app into service; make the app if it is new
///
/// Takes the content, builds it, starts it, waits until it is healthy, and only then sends it
/// requests; the release that served before is stopped when its last request is answered. A release
/// that does not become healthy is refused and the one before keeps serving; one that turns bad
/// while it is watched is rolled back.
#[derive(Debug, Args)]
pub struct DeployArgs {
    /// The app's name: a-z, 0-9 and `-`
    #[arg(value_name = "APP")]
    pub app: AppName,

    #[command(flatten)]
    pub content: ContentArgs,

    /// How to run it [default: as before; for a new app, by its content]
    #[arg(long, value_name = "RUNTIME", value_parser = runtimes())]
    pub runtime: Option<RuntimeKind>,

    /// Let a request start it: the socket is there before it, and it may end when it is idle
    ///
    /// Only on the systemd runtime. The service manager listens for the app, which takes the socket as
    /// descriptor 3 (LISTEN_FDS), is started by the first connection, and loses none while it starts,
    /// restarts or crashes. [default: as before]
    #[arg(long, value_name = "WHETHER", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub socket_activated: Option<bool>,

    /// A host that the app shall answer to, beside its own
    #[arg(long, value_name = "HOST", value_hint = clap::ValueHint::Hostname)]
    pub domain: Option<Host>,

    /// Path that answers 200 to 399 when the app is healthy, such as /health
    #[arg(long, value_name = "PATH")]
    pub health: Option<String>,

    /// How long it may take to become healthy, such as 90s
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub health_timeout: Option<Duration>,

    /// How long to watch the new release and roll it back if it turns bad, such as 2m; 0: not at all
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pub watch: Option<Duration>,

    /// The environment; there is only `production` yet
    #[arg(long, value_name = "NAME", default_value = "production")]
    pub env: String,

    /// What `release list` calls the content [default: the directory's name]
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,

    /// With --static: answer unknown paths with /index.html (single-page applications)
    #[arg(long, conflicts_with_all = ["source", "image", "git"])]
    pub spa: bool,

    /// Return when the deployment is queued
    #[arg(long)]
    pub no_wait: bool,

    #[command(flatten)]
    pub format: Format,
}

/// The content of a release: exactly one.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ContentArgs {
    /// A directory of source: with a Dockerfile or a Procfile
    ///
    /// What .gitignore and .tempsignore name is left out, and .git always. Lines of .tempsignore
    /// that start with `!` bring back what .gitignore leaves out.
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub source: Option<PathBuf>,

    /// An image that the container engine has or can pull
    #[arg(long, value_name = "REF")]
    pub image: Option<String>,

    /// A git repository, by URL or path, at a branch, tag or commit
    ///
    /// For a private one put a token into the URL, https://USER:TOKEN@HOST/PATH, which everybody who can
    /// list processes sees while the command runs. By ssh only `temps up`
    /// fetches, with the keys of who runs it.
    #[arg(long, value_name = "URL[#REF]", value_hint = clap::ValueHint::Url)]
    pub git: Option<String>,

    /// A directory of files to serve as they are
    ///
    /// What .tempsignore names is left out, and .git always.
    #[arg(long = "static", value_name = "DIR", id = "static_dir", value_hint = clap::ValueHint::DirPath)]
    pub static_dir: Option<PathBuf>,
}

/// Put an earlier release of an app back into service
///
/// It is deployed like a new release: checked first, watched afterwards.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    /// The app's name
    #[arg(value_name = "APP")]
    pub app: AppName,

    /// The release [default: the one that served before the present one]
    #[arg(value_name = "RELEASE")]
    pub release: Option<ReleaseId>,

    /// Return when the deployment is queued
    #[arg(long)]
    pub no_wait: bool,

    #[command(flatten)]
    pub format: Format,
}

/// Put a release of an app into service anew, with the variables and settings of now
///
/// Makes a new release of the same content, without building it again, and deploys it as any other:
/// started beside the one that serves, checked first, watched afterwards. It is how changed variables come
/// into service, and a restart that drops no request.
#[derive(Debug, Args)]
pub struct RedeployArgs {
    /// The app's name
    #[arg(value_name = "APP")]
    pub app: AppName,

    /// The release [default: the one that serves]
    #[arg(value_name = "RELEASE")]
    pub release: Option<ReleaseId>,

    /// Return when the deployment is queued
    #[arg(long)]
    pub no_wait: bool,

    #[command(flatten)]
    pub format: Format,
}

/// The runtimes by name, so that help and completions list them.
fn runtimes() -> impl TypedValueParser<Value = RuntimeKind> {
    PossibleValuesParser::new(["docker", "process", "systemd", "static"])
        .try_map(|name| name.parse::<RuntimeKind>())
}
