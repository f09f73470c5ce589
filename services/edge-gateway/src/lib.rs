//! NATS in, browsers out: the edge of Roomcast.
//!
//! The way of a client: `accept` (limits before a byte is parsed) → `upgrade` (what a request must look like) → `shard`
//! (one thread's loop over its sockets) → `session` (what a client may say and is answered) → `outbox`. The way of an
//! event: `spine` → `ring` and `state_cache` → `hub` → `shard` → every member of its room.

pub mod outbox;
pub mod upgrade;
pub mod wheel;
pub mod ws;
pub mod delivery;
pub mod hub;
pub mod place;
pub mod replay;
pub mod ring;
pub mod state_cache;
pub mod spine;
