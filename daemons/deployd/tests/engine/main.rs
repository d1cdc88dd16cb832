//! The engine over a simulated world: every way a deployment can go, and a crash at every moment.
//!
//! | module | subject |
//! |---|---|
//! | [`deployment`] | going live, being refused, waiting for one's turn |
//! | [`cancel`] | a deployment that is cancelled before it serves |
//! | [`rollback`] | what turns bad in its watch window, and going back by hand |
//! | [`restart`] | the daemon stops and starts while the world goes on |
//! | [`crash`] | the daemon dies after any effect of a deployment |
//! | [`dying`] | an instance that dies outside its watch window, once or again and again |
//! | [`app`] | what belongs to an app: hosts, variables, secrets, its end |
//! | [`artifact`] | what releases are made of, and who else needs it |
//! | [`publish`] | a snapshot that the proxy refuses |
//! | [`log`] | what instances said |
//! | [`task`] | a change whose caller does not wait for it |
//! | [`support`] | the installation that the cases run on |
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod activation;
mod app;
mod artifact;
mod cancel;
mod crash;
mod deployment;
mod dying;
mod log;
mod publish;
mod restart;
mod rollback;
mod support;
mod task;
