//! The contract between the daemons of Temps, and the only crate two daemons share.
//!
//! - [`types`]: what is talked about (apps, releases, routes, targets), validated when parsed;
//! - [`rpc`]: who may be asked for what, one tarpc service per daemon;
//! - [`wire`]: how it travels (postcard frames over Unix sockets, uploads on a second stream);
//! - [`Fault`]: how a request fails, with one closed set of codes.
//!
//! Compatibility: postcard is positional, so from the first tagged version on enum variants and
//! struct fields are append-only; the frames under `golden/` fail the tests otherwise.

pub mod fault;
pub mod id;
pub mod rpc;
pub mod types;
pub mod wire;

pub use fault::{Code, Fault};

/// Number of the protocol that this build speaks; raised when frames of an older build can no
/// longer be decoded.
pub const PROTOCOL: u32 = 1;
