//! One tarpc service per daemon, `hello` first.
//!
//! The order of methods and of their arguments is the protocol (postcard is positional): append
//! only. Each method states who may call it: an *operator* (root or group `temps-admin`; under
//! `temps up` the same uid) or another daemon, told apart by `SO_PEERCRED`.

pub mod deployd;
pub mod hello;
pub mod proxy;

pub use deployd::{Deployd, DeploydClient};
pub use hello::Hello;
pub use proxy::{Applied, Drain, Proxy, ProxyClient};
