//! `org.freedesktop.LogControl1`: `systemctl service-log-level UNIT debug` on a daemon that runs.
//! Its form is fixed by org.freedesktop.LogControl1(5).

use super::authority;
use super::failure::Failure;
use crate::journal::level;
use temps_ipc::{Code, Fault};
use zbus::message::Header;
use zbus::{Connection, interface};

/// Where systemctl looks for it.
pub(super) const PATH: &str = "/org/freedesktop/LogControl1";

/// The interface.
pub(super) struct LogControl;

#[interface(name = "org.freedesktop.LogControl1", introspection_docs = false)]
impl LogControl {
    #[zbus(property(emits_changed_signal = "false"))]
    fn log_level(&self) -> &'static str {
        level::level()
    }

    #[zbus(property)]
    async fn set_log_level(
        &self,
        wanted: &str,
        #[zbus(connection)] connection: &Connection,
        #[zbus(header)] header: Option<Header<'_>>,
    ) -> Result<(), Failure> {
        let header = header.ok_or_else(|| Fault::internal("nobody called"))?;
        let uid = authority::user(connection, &header).await?;
        if uid != 0 {
            return Err(
                Fault::new(Code::Denied, format!("uid {uid} may not do this"))
                    .hint("only root may change what is logged")
                    .into(),
            );
        }
        level::set_level(wanted).map_err(Fault::invalid)?;
        tracing::info!("logging at {wanted}");
        Ok(())
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn log_target(&self) -> &'static str {
        level::target()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn syslog_identifier(&self) -> &'static str {
        level::identifier()
    }
}
