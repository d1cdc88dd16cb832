//! The daemon of the bus' tests as a program of its own, so that a bus can start it: it ends whenever it
//! has been idle for a moment.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "the other half is for those who call it")]

#[path = "../bus/echo.rs"]
mod echo;

use std::sync::Arc;
use std::time::Duration;
use temps_unit::bus::{Bus, Place};
use temps_unit::idle::Idle;
use temps_unit::task::Supervisor;
use tokio_util::sync::CancellationToken;

#[tokio::main(worker_threads = 2)]
async fn main() {
    let place = Place::At(std::env::var(echo::ADDRESS).unwrap());
    let idle = Idle::new(Duration::from_millis(80));
    let supervisor = Supervisor::new(CancellationToken::new());
    let bus = Bus::start(Arc::new(echo::Echo), place, idle.clone(), &supervisor);
    idle.expired().await;
    bus.leave().await;
}
