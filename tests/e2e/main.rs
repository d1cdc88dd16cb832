//! The main job on the real binary: `temps up`, deployments, load, failures. Every test starts an
//! instance of its own, and leaves nothing behind.
//!
//! The binary must have the cargo feature `failpoints` for the module of that name.

#![allow(clippy::unwrap_used, reason = "a test says what it expects by failing")]
#![allow(
    clippy::disallowed_methods,
    reason = "nothing here is async; a test may block"
)]

mod bad_input;
mod crash;
mod deploy_docker;
mod deploy_process;
mod failpoints;
mod restart;
mod watch_window;
mod world;
mod zero_downtime;
