//! The chassis against the real things: nats-server, sockets, processes and signals.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests stop at the first surprise, helpers of tests too"
)]

mod accounts;
mod config;
mod http;
mod jetstream;
mod nats;
mod process;
mod publisher;
mod requests;
mod scripted;
mod server;
