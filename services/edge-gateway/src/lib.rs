//! NATS in, browsers out: the edge of Roomcast.
//!
//! The way of a client: `shard` (one thread's loop over its sockets) accepts → `admission` (limits before a byte is
//! parsed) → `upgrade` (what a request must look like) → `session` (what a client may say and is answered) → `outbox`.
//! The way of an event: `spine` → `ring` and `state_cache` → `hub` → `shard` → every member of its room.

pub mod accept;
pub mod admin;
pub mod admission;
pub mod allowance;
pub mod asking;
pub mod backlog;
pub mod beat;
pub mod bells;
pub mod bells_driver;
pub mod client_publish;
pub mod commands;
pub mod commands_http;
pub mod connection;
pub mod control;
pub mod delivery;
pub mod describe;
pub mod drain;
pub mod elsewhere;
pub mod encoding;
pub mod error;
pub mod feed;
pub mod gate;
pub mod gather;
pub mod http;
pub mod hub;
pub mod limit;
pub mod maps;
pub mod members;
pub mod metrics;
pub mod nats_side;
pub mod outbox;
pub mod page;
pub mod place;
pub mod preferences;
pub mod presence;
pub mod presence_driver;
pub mod reads;
pub mod replay;
pub mod ring;
pub mod serve;
pub mod session;
pub mod settings;
pub mod shard;
pub mod spine;
pub mod spine_driver;
pub mod sse;
pub mod state_cache;
pub mod statistics;
mod sync;
mod traces;
pub mod unwritten;
pub mod upgrade;
pub mod wheel;
pub mod ws;

#[cfg(test)]
mod simulation;
pub use roomcast_chassis::bucket;
