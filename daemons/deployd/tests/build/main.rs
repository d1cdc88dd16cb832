//! The builder with real archives and real git repositories, without a container engine: the same suite
//! for both of its workshops, in this process and with every piece of work a program of its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::duplicate_mod,
    reason = "both workshops have to pass the same suite"
)]

mod children;

#[path = "suite.rs"]
mod here;

#[path = "suite.rs"]
mod units;
