//! The adapters behind the ports of [`crate::port`].

pub mod process;
pub mod proxy;
mod procfs;
pub mod sim;
