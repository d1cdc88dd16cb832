//! The docker runtime and the builder on a real engine: needs one on `/run/docker.sock`, otherwise
//! each test says SKIPPED. Images are made from nothing and the static busybox; nothing is pulled.
//!
//! | module | subject |
//! |---|---|
//! | [`container`] | an instance from its start to its end, and what it says |
//! | [`network`] | who reaches whom, and who sees whom |
//! | [`standalone`] | the end of a platform that runs without systemd |
//! | [`image`] | builds, and images that are there already |
//! | [`support`] | a runtime of its own for each case |
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod container;
mod image;
mod network;
mod standalone;
mod support;
