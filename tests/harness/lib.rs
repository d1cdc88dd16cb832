//! What the suites stand on: the real binary started in a directory of its own, sample apps, HTTP
//! clients that hide nothing, and a load generator that never retries.
//!
//! Everything but [`load::Load::stop`] blocks, works inside and outside a tokio runtime, and has
//! a time limit. A test that fails leaves no process behind: see [`temps::Temps`].

#![allow(
    clippy::disallowed_methods,
    reason = "the callers are tests, which may block; what is async here sleeps by tokio"
)]

pub mod app;
pub mod command;
pub mod docker;
pub mod http;
pub mod load;
pub mod main_job;
pub mod process;
pub mod temps;
pub mod tls;
pub mod websocket;
