//! Ingest with a real nats-server, its accounts, permissions and streams.

mod doors;
mod faults;
mod fixture;
mod idempotency;
mod refusals;
mod start;

mod cost;
