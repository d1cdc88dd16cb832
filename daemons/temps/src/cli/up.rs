//! `temps up`.

use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use temps_ipc::types::Host;

/// Run the whole platform in the foreground, as an ordinary user
///
/// Needs no systemd and no root. Prints one line, `ready http=URL https=URL state=DIR`, when it
/// serves, and runs until it is interrupted. Apps of the process runtime run as the same user:
/// deploy only code that you trust.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// Where everything is kept that shall outlive the process
    ///
    /// Without it: $XDG_STATE_HOME/temps, else ~/.local/state/temps.
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub state: Option<PathBuf>,

    /// Where to serve HTTP; port 0 chooses a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080")]
    pub http: SocketAddr,

    /// Where to serve HTTPS; port 0 chooses a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8443")]
    pub https: SocketAddr,

    /// The domain under which apps get their hosts
    #[arg(long, value_name = "HOST", default_value = "localhost")]
    pub base_domain: Host,
}
