//! What is wrong is refused, with an exit status, a cause and a way out, and what served serves on.

mod commands;
mod platform;
mod sockets;
mod storage;
