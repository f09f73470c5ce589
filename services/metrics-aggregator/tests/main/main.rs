//! The aggregator on a real nats-server: exact numbers under kills and zombies, empty and trimmed streams, changed definitions.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod bad_input;
mod definitions;
mod ears;
mod feeds;
mod groups;
mod kills;
mod memory;
mod reading;
mod replicas;
mod rules;
mod silences;
mod streams;
mod truth;
mod values;
mod windows;
mod world;

use roomcast_harness::nats::Nats;
use world::World;

/// `None`, said aloud, where there is no nats-server.
async fn world() -> Option<World> {
    Some(World::new(Nats::start().await?).await)
}
