//! What the engine needs from outside, apart from the targets themselves.

use async_trait::async_trait;
use temps_ipc::Fault;
use temps_ipc::id::InstanceId;

/// Whoever acts on a target that went bad: deployd, or a test.
#[async_trait]
pub trait Alarm: Send + Sync + 'static {
    /// Says that a routed target failed its check three times in a row, and why.
    ///
    /// # Errors
    /// Whatever kept the message from being taken; it is sent again later.
    async fn target_unhealthy(&self, target: InstanceId, why: String) -> Result<(), Fault>;
}
