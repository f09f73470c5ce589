//! PostgreSQL's changes as events. Knows no NATS: ingest drives it and stores what it makes.
//!
//! In the order of a change's path: [`session`] (one connection: checks, slot, snapshot, stream) → [`follow`] (transactions to events,
//! each with its place) → [`pgoutput`] (bytes to rows) → [`event`] (a row's change to an event, as the [`mapping`] says) or [`outbox`] (a
//! row that is an event) → [`value`] (a column's value to JSON). [`position`] says how far it was stored, [`begin`] how to go on from
//! there, [`checks`] what in a database is not as it must be, [`sql`] how names are written.

pub mod begin;
pub mod checks;
pub mod database;
pub mod event;
pub mod follow;
pub mod mapping;
pub mod outbox;
pub mod pgoutput;
pub mod position;
pub mod session;
pub mod sql;
pub mod tls;
pub mod value;

pub use mapping::Mapping;
