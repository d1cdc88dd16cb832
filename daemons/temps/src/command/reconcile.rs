//! `temps reconcile`: what `temps-reconcile.service` starts.

use crate::instance::Instance;
use crate::output::{Done, Out};
use serde_json::json;
use std::time::Duration;
use temps_ipc::wire::client::Repeat;

/// How long it may take: at boot it starts every instance and waits for it. Below
/// `TimeoutStartSec=` of the unit.
const PATIENCE: Duration = Duration::from_secs(14 * 60);

/// Reconciles, and says what was mended.
pub async fn run(instance: &Instance, out: &Out) -> Done {
    let mended = instance
        .deployd
        .call(Repeat::Idempotent, PATIENCE, |client, context| async move {
            client.reconcile(context).await
        })
        .await?;
    if out.json {
        return out.object(&json!({ "mended": mended }));
    }
    if mended.is_empty() {
        out.note("what should run runs, and nothing else");
    }
    mended.iter().try_for_each(|what| out.line(what))
}
