//! The adapters behind the ports of [`crate::port`].

pub mod build;
mod collected;
pub mod docker;
pub mod process;
mod procfs;
pub mod proxy;
pub mod sim;
pub mod systemd;
