//! The whole stack: real NATS, real services, real sockets, as `roomcast dev` starts them.
//!
//! Two systems serve most tests: a calm one that tests share, and one whose parts are killed, which tests have to themselves, one
//! after the other. Both end with this process. A third, on three NATS nodes, lives as long as the test that needs it.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise, in its helpers too"
)]

mod admin;
mod agreement;
mod alerts;
mod away;
mod bells;
mod canaries;
mod commands;
mod crossing;
mod drain;
mod elsewhere;
mod expiry;
mod explain;
mod gate;
mod idempotency;
mod injections;
mod kills;
mod languages;
mod lifetime;
mod live_rights;
mod nodes;
mod notifications;
mod openapi;
mod oracle;
mod permissions;
mod presence;
mod publishers;
mod recovery;
mod rights;
mod secured;
mod sinks;
mod slow;
mod tickets;
mod traces;
mod traces_begun;
mod trial;
mod two_way;
mod world;
