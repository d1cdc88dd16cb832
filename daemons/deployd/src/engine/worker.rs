//! One worker per app: it drives the app's open deployments, oldest first, and ends when there is
//! none left. A release in its watch window is watched until its successor is switched to, also while
//! that is built and probed: should the successor be refused, the window is still open.

use super::{Engine, step};
use crate::store::{StoreError, app, deployment};
use std::time::Duration;
use temps_ipc::id::AppId;
use temps_ipc::types::Phase;
use tracing::{error, warn};

/// Pause after the database failed (a full disk), before the deployment is taken up again.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// Whether a running worker was called again, and shall look once more before it ends.
#[derive(Debug, Default, Clone, Copy)]
pub struct Call {
    again: bool,
}

impl Engine {
    /// Makes sure that a worker looks at the app's deployments, now or right after what it does.
    pub(super) fn wake(&self, app: &AppId) {
        {
            let mut workers = self
                .workers
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(call) = workers.get_mut(app) {
                call.again = true;
                drop(workers);
                // It may be waiting in a watch window that a new deployment ends.
                self.changed();
                return;
            }
            workers.insert(app.clone(), Call::default());
        }
        let engine = self.clone();
        let app = app.clone();
        let busy = self.idle.busy();
        self.tasks.spawn(async move {
            let worker = tokio::spawn({
                let engine = engine.clone();
                let app = app.clone();
                async move { engine.work(&app).await }
            });
            if let Err(panicked) = worker.await {
                // The deployment is durable, so the next call or start takes it up again.
                error!(%app, %panicked, "a deployment worker ended by a defect");
                engine.forget_worker(&app);
            }
            drop(busy);
        });
    }

    fn forget_worker(&self, app: &AppId) {
        self.workers
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .remove(app);
    }

    /// Whether a worker looks after the app now.
    pub(super) fn is_worked_on(&self, app: &AppId) -> bool {
        self.workers
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .contains_key(app)
    }

    /// Ends the worker's entry unless it was called again.
    fn may_end(&self, app: &AppId) -> bool {
        let mut workers = self
            .workers
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if workers.get(app).is_some_and(|call| call.again) {
            workers.insert(app.clone(), Call::default());
            return false;
        }
        workers.remove(app);
        true
    }

    async fn work(&self, app: &AppId) {
        loop {
            if self.stopping.is_cancelled() {
                self.forget_worker(app);
                return;
            }
            match self.work_once(app).await {
                Ok(true) => {}
                Ok(false) if self.may_end(app) => return,
                Ok(false) => {}
                Err(failure) => {
                    warn!(%app, error = %failure, "a deployment cannot go on; trying again");
                    tokio::select! {
                        () = tokio::time::sleep(AFTER_FAILURE) => {}
                        () = self.stopping.cancelled() => {}
                    }
                }
            }
        }
    }

    /// Drives the app's oldest open deployment as far as it goes; false if there is none.
    async fn work_once(&self, id: &AppId) -> Result<bool, StoreError> {
        let wanted = id.clone();
        let (app, open) = self
            .store
            .read(move |db| Ok((app::by_id(db, &wanted)?, deployment::open(db, &wanted)?)))
            .await?;
        let Some(app) = app else { return Ok(false) };
        if app.destroying {
            return Ok(false);
        }
        let watched = open
            .iter()
            .find(|other| other.phase == Phase::Live)
            .cloned();
        let next = open.into_iter().find(|other| other.phase != Phase::Live);
        match (next, watched) {
            (None, None) => return Ok(false),
            (Some(next), Some(watched)) if next.phase.is_before_switch() => {
                let turned_bad = self.fails_before_successor(&app, &watched, &next);
                tokio::select! {
                    done = step::drive(self, &app, next.clone()) => done?,
                    // The successor is dropped as by a crash, and taken up again afterwards.
                    bad = turned_bad => step::roll_back(self, &app, watched, bad).await?,
                }
            }
            (Some(only), _) | (None, Some(only)) => step::drive(self, &app, only).await?,
        }
        Ok(true)
    }
}
