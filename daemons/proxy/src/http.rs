//! Everything between a client's socket and its target.
//!
//! | module | duty |
//! |---|---|
//! | [`front`] | accepts connections, TLS, the keep-alive loop, the drain |
//! | [`connection`] | one client connection: hands pingora exactly one request at a time |
//! | [`origin`] | what a request may want to know about its connection |
//! | [`socket`] | plain or encrypted, and how it is left |
//! | [`head`] | strict reading of an HTTP/1 request head, before pingora sees it |
//! | [`chunk`] | where a chunked body ends |
//! | [`flow`] | how much of what a client sends belongs to its request |
//! | [`live`] | who is connected, and when the drain is over |
//! | [`app`] | what happens to a request: routing, forwarding, errors, its record |
//! | [`failure`] | the status that a failure means |
//! | [`forward`] | headers that tell the target about the client |
//! | [`page`] | our own answers |
//! | [`turn`] | the connection to a target that may become a WebSocket |
//!
//! pingora is the HTTP engine only: it owns no listener, no signal and no TLS of ours.

pub mod app;
pub mod chunk;
pub mod connection;
pub mod failure;
pub mod flow;
pub mod forward;
pub mod front;
pub mod head;
pub mod live;
pub mod origin;
pub mod page;
pub mod socket;
pub mod turn;
