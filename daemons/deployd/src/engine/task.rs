//! Changes that callers ask for, as tasks of the engine.

use super::Engine;
use std::future::Future;
use temps_ipc::Fault;
use tracing::error;

impl Engine {
    /// Begins a change and carries it out to its end, whatever becomes of who asked for it: the daemon does not go
    /// idle and does not end before it ([`Engine::stopped`]), and a defect in it is told in the journal.
    ///
    /// What is returned waits for its end, and need not be.
    ///
    /// # Errors
    /// What the change says; `Internal` if it ended by a defect.
    pub fn carry_out<T, F>(
        &self,
        change: F,
    ) -> impl Future<Output = Result<T, Fault>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Fault>> + Send + 'static,
    {
        let busy = self.idle.busy();
        let done = self.tasks.spawn(async move {
            // Two tasks: the outer one sees how the inner one ended, also by a panic.
            let done = tokio::spawn(change).await;
            drop(busy);
            done.unwrap_or_else(|panicked| {
                error!(%panicked, "a change ended by a defect");
                Err(Fault::internal(
                    "the change ended by a defect; see the journal",
                ))
            })
        });
        async move {
            done.await
                .unwrap_or_else(|_| Err(Fault::unavailable("temps-deployd stops")))
        }
    }
}
