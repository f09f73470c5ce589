//! The contract: everything that goes over NATS and to clients, in one place.
//!
//! No runtime, no I/O, no clock except in [`ids::new_event_id`]. Every service builds and parses subjects, events, cursors, frames
//! and errors through this crate and nowhere else; `proto/README.md` says the same in words.

pub mod accounts;
pub mod acl;
pub mod binary;
pub mod close;
pub mod command;
pub mod cursor;
pub mod device;
pub mod elsewhere;
pub mod event;
pub mod frame;
pub mod ids;
mod json;
pub mod limits;
pub mod metric;
pub mod notification;
pub mod preferences;
pub mod presence;
mod raw_json;
pub mod readstate;
pub mod refusal;
pub mod series;
pub mod statistics;
pub mod stream;
pub mod subject;
pub mod ticket;
pub mod trigger;

pub use json::ascii_json;
