//! Ingest: the only writer of business events.
//!
//! An event comes in by a door ([`door_http`], [`door_nats`]), passes the limits on work in flight ([`capacity`]) and on what each
//! publisher and tenant may send ([`quota`]), is decided upon
//! ([`accept`], pure; [`schemas`] says what data looks like), stored and acknowledged ([`store`]) or refused and kept as a dead letter ([`dead_letter`]), and answered
//! ([`answer`]). What an HTTP [`body`] may be: JSON, data beside headers ([`binary_mode`]), lines without end ([`long_body`]), packed
//! ([`inflate`]). [`intake`] leads it along that path; [`serve`] starts everything and ends it in order.
//! Nothing is acknowledged that a power cut would take ([`durability`]) and nothing is sent where writes [`hang`] ([`standing`]).
//! A third door is a database whose changes are followed ([`capture`]).
//! What publishers have left in NATS while nobody listened comes by [`queues`].
//! Beside that path, gateways ask for services ([`door_service`]): [`commands`], on keys that only [`key_value`] writes;
//! and administrators look at what was refused and have it taken again ([`letters`]).

pub mod accept;
pub mod admin;
pub mod answer;
pub mod bearer;
pub mod binary_mode;
pub mod body;
pub mod capacity;
pub mod capture;
pub mod claim;
pub mod commands;
pub mod dead_letter;
pub mod describe;
pub mod door_http;
pub mod door_nats;
pub mod door_service;
pub mod durability;
pub mod error;
pub mod hang;
pub mod inflate;
pub mod intake;
pub mod key_limit;
pub mod key_value;
pub mod lease;
pub mod letters;
pub mod lines;
pub mod long_body;
pub mod metrics;
pub mod queues;
pub mod quota;
pub mod readstate;
pub mod recent;
pub mod room_keys;
pub mod schemas;
pub mod serve;
pub mod settings;
pub mod sinks;
pub mod standing;
pub mod statistics;
pub mod store;
pub mod streams;
pub mod tickets;
mod to_its_end;
pub mod trigger;
mod whole_body;

pub use serve::{SERVICE, serve};
pub use settings::Settings;

/// Now, Unix microseconds. The one place of this service where the clock is read; decisions take it as an argument.
pub(crate) fn now_micros() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// The bytes as hexadecimal digits in small letters.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
