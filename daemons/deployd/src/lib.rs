//! temps-deployd: the deployment engine. It is the only source of truth for apps, releases,
//! variables and routes.

pub mod adapter;
pub mod logfile;
pub mod port;
