//! Tasks by name, and what happens when one ends unasked.
//!
//! A daemon whose engine has stopped but whose socket still accepts is worse than none. So a
//! *critical* task that ends, fails or panics before the shutdown makes [`Supervisor::failed`]
//! resolve; `main` then exits with a failure and the manager starts the daemon again. An ordinary
//! task (one request, one deployment) only has its panic logged.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Owner of the tasks of a daemon. Clones are one supervisor.
#[derive(Debug, Clone)]
pub struct Supervisor {
    shutdown: CancellationToken,
    tracker: TaskTracker,
    running: Arc<Mutex<BTreeMap<u64, &'static str>>>,
    failure: watch::Sender<Option<Failure>>,
}

/// A critical task that ended before the shutdown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("task {name} {cause}")]
pub struct Failure {
    /// Name of the task.
    pub name: &'static str,
    /// How it ended, as the rest of a sentence.
    pub cause: String,
}

impl Supervisor {
    /// A supervisor that takes ends for intended once `shutdown` is cancelled.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self {
            shutdown,
            tracker: TaskTracker::new(),
            running: Arc::default(),
            failure: watch::Sender::new(None),
        }
    }

    /// Starts a task the daemon cannot do without. It runs until the shutdown token is cancelled.
    pub fn critical<E: fmt::Display + Send + 'static>(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let this = self.clone();
        self.start(name, task, move |ended| {
            let cause = match ended {
                Ok(Ok(())) => "ended unasked".to_owned(),
                Ok(Err(error)) => format!("failed: {error}"),
                Err(error) => describe(error),
            };
            this.ended(Failure { name, cause });
        });
    }

    /// Starts a task whose end is no news. The handle may be dropped or awaited.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &'static str,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<Option<T>> {
        self.start(name, task, move |ended| match ended {
            Ok(value) => Some(value),
            Err(error) => {
                tracing::error!(task = name, "task {name} {}", describe(error));
                None
            }
        })
    }

    /// Resolves with the first critical task that ended before the shutdown. Safe to cancel.
    pub async fn failed(&self) -> Failure {
        let mut failures = self.failure.subscribe();
        match failures
            .wait_for(Option::is_some)
            .await
            .map(|failure| failure.clone())
        {
            Ok(Some(failure)) => failure,
            // Cannot happen: `self` holds the sender, and it was waited for a failure.
            _ => std::future::pending().await,
        }
    }

    /// Waits until all tasks have ended, at most for `deadline`; gives the names of those that have
    /// not. Tasks are never aborted: the process is about to end.
    pub async fn drain(&self, deadline: Duration) -> Result<(), Vec<&'static str>> {
        self.tracker.close();
        match tokio::time::timeout(deadline, self.tracker.wait()).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.lock().values().copied().collect()),
        }
    }

    fn start<T: Send + 'static, U: Send + 'static>(
        &self,
        name: &'static str,
        task: impl Future<Output = T> + Send + 'static,
        ended: impl FnOnce(Result<T, JoinError>) -> U + Send + 'static,
    ) -> JoinHandle<U> {
        let key = {
            let mut running = self.lock();
            let key = running.last_key_value().map_or(0, |(last, _)| last + 1);
            running.insert(key, name);
            key
        };
        let this = self.clone();
        // Two tasks: the outer one sees how the inner one ended, also by a panic.
        let inner = tokio::spawn(task);
        self.tracker.spawn(async move {
            let result = ended(inner.await);
            this.lock().remove(&key);
            result
        })
    }

    fn ended(&self, failure: Failure) {
        if self.shutdown.is_cancelled() {
            tracing::debug!("during the shutdown, {failure}");
            return;
        }
        tracing::error!(task = failure.name, "{failure}");
        self.failure.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(failure);
            is_first
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, &'static str>> {
        // Each access is one operation, so the map is whole even after a panic.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn describe(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned());
            format!("panicked: {}", text.unwrap_or_default())
        }
        Err(_) => "was aborted".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use tokio::time::{sleep, timeout};

    const SOON: Duration = Duration::from_secs(5);

    fn supervisor() -> (Supervisor, CancellationToken) {
        let shutdown = CancellationToken::new();
        (Supervisor::new(shutdown.clone()), shutdown)
    }

    #[tokio::test(start_paused = true)]
    async fn a_critical_task_that_ends_is_named_however_it_ends() {
        let (returns, _token) = supervisor();
        returns.critical("a", async { Ok::<_, Infallible>(()) });
        assert_eq!(returns.failed().await.to_string(), "task a ended unasked");

        let (fails, _token) = supervisor();
        fails.critical("b", async { Err("no disk") });
        assert_eq!(fails.failed().await.to_string(), "task b failed: no disk");

        let (panics, _token) = supervisor();
        panics.critical("c", async {
            panic!("index {}", 7) as Result<(), Infallible>
        });
        assert_eq!(
            panics.failed().await.to_string(),
            "task c panicked: index 7"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn ending_after_the_shutdown_is_no_failure() {
        let (supervisor, shutdown) = supervisor();
        let token = shutdown.clone();
        supervisor.critical("engine", async move {
            token.cancelled().await;
            Err("closed")
        });
        shutdown.cancel();
        supervisor.drain(SOON).await.unwrap();
        assert!(timeout(SOON, supervisor.failed()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_ordinary_task_may_panic_and_the_daemon_lives() {
        let (supervisor, _token) = supervisor();
        let panicked = supervisor.spawn("request", async { panic!("bad request") as u8 });
        assert_eq!(panicked.await.unwrap(), None);
        assert_eq!(
            supervisor.spawn("request", async { 3 }).await.unwrap(),
            Some(3)
        );
        assert!(timeout(SOON, supervisor.failed()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_tasks_and_names_those_that_stay() {
        let (supervisor, _token) = supervisor();
        supervisor.spawn("slow", sleep(SOON / 2));
        supervisor.spawn("stuck", std::future::pending::<()>());
        assert_eq!(supervisor.drain(SOON).await.unwrap_err(), ["stuck"]);
    }
}
