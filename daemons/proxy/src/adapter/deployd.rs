//! deployd, reached over its socket. It may be asleep: the call wakes it.

use crate::port::Alarm;
use async_trait::async_trait;
use std::path::Path;
use std::time::Duration;
use temps_ipc::Fault;
use temps_ipc::id::InstanceId;
use temps_ipc::rpc::DeploydClient;
use temps_ipc::wire::client::{Link, Repeat};

/// deployd only writes the message down before it answers; the rest is its start.
const PATIENCE: Duration = Duration::from_secs(10);

/// The link to deployd.
#[derive(Debug)]
pub struct Deployd(Link<DeploydClient>);

impl Deployd {
    /// deployd at `socket`. Nothing is connected yet.
    pub fn new(socket: &Path) -> Self {
        Self(Link::new(socket))
    }
}

#[async_trait]
impl Alarm for Deployd {
    async fn target_unhealthy(&self, target: InstanceId, why: String) -> Result<(), Fault> {
        self.0
            .call(Repeat::Idempotent, PATIENCE, |client, context| {
                let (target, why) = (target.clone(), why.clone());
                async move { client.target_unhealthy(context, target, why).await }
            })
            .await
    }
}
