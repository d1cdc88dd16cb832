//! The `systemd` runtime: instances are transient units of the service manager.

pub mod manager;
