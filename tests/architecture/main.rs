//! The rules of the tree that no compiler holds: who may depend on whom, and how files are made.
//!
//! The lists of crates and licences are in deny.toml; cargo-deny checks the same where it is
//! installed.

mod dependencies;
mod licence;
mod source;
mod style;
