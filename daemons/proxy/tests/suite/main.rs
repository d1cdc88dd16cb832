//! A proxy in this process, asked over its sockets. One program, since linking is what takes time.
//!
//! | module | subject |
//! |---|---|
//! | [`routing`] | which target a request finds, and what it learns about the client |
//! | [`protocol`] | what HTTP/1 clients may and may not do |
//! | [`body`] | bodies pass unchanged, as they come |
//! | [`websocket`] | WebSockets |
//! | [`tls`] | certificates, HTTP/2 |
//! | [`site`] | static sites |
//! | [`swap`] | new snapshots, the drain, the stop |
//! | [`handover`] | restarts: a helper serves between two processes |
//! | [`suspicion`] | dead targets are noticed by the requests that cannot reach them |
//! | [`support`] | the proxy, its clients, and servers to stand behind it |
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod body;
mod handover;
mod protocol;
mod routing;
mod site;
mod support;
mod suspicion;
mod swap;
mod tls;
mod websocket;
