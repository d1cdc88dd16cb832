//! Reading the settings again, by SIGHUP or by the bus: what can change while requests are served
//! does, and a wrong file changes nothing.

use super::start::read_settings;
use crate::config as settings;
use crate::status::{Problem, Status};
use arc_swap::ArcSwap;
use std::path::PathBuf;
use std::sync::Arc;
use temps_unit::shutdown::Reloads;
use temps_unit::{config, notify};

/// What a reload changes.
#[derive(Clone)]
pub struct Reload {
    /// Of requests.
    pub timeouts: Arc<ArcSwap<settings::Timeouts>>,
    /// The longest head of a request.
    pub header_bytes: Arc<ArcSwap<usize>>,
    /// What is wrong with the files.
    pub problem: Problem,
    /// The state directory, which has the last good settings.
    pub state: PathBuf,
    /// What the manager is told.
    pub status: Arc<Status>,
}

impl Reload {
    /// Reads them whenever the service manager asks; never ends.
    pub(super) async fn serve(self, mut reloads: Reloads) {
        loop {
            reloads.next().await;
            notify::reloading();
            // Told to the journal and in the status.
            let _ = self.now().await;
            notify::ready();
        }
    }

    /// Reads them now.
    ///
    /// # Errors
    /// What is wrong with the files; those before stay.
    pub async fn now(&self) -> Result<(), String> {
        let state = self.state.clone();
        let read = tokio::task::spawn_blocking(move || read_settings(&state)).await;
        let wrong = match read {
            Ok(Ok(config::Found {
                settings: fresh,
                problem: None,
            })) => {
                self.timeouts.store(Arc::new(fresh.timeouts));
                self.header_bytes.store(Arc::new(fresh.limits.header_bytes));
                tracing::info!(
                    "timeouts and header limit were read again; the rest follows a restart"
                );
                None
            }
            Ok(Ok(found)) => found.problem,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        self.problem.store(wrong.clone().map(Arc::new));
        notify::status(&self.status.line());
        match wrong {
            None => Ok(()),
            Some(wrong) => {
                tracing::error!("the configuration is wrong: {wrong}; the one before stays");
                Err(wrong)
            }
        }
    }
}
