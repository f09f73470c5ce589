//! Ingest with a real nats-server, its accounts, permissions and streams.
#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first surprise, and measurements are printed"
)]

mod batches;
mod capture;
mod classes;
mod doors;
mod durability;
mod fail_over;
mod faults;
mod fixture;
mod flood;
mod hang;
mod idempotency;
mod keys;
mod leaders;
mod modes;
mod order;
mod process;
mod queues;
mod quotas;
mod refusals;
mod relay;
mod schemas;
mod services;
mod sinks;
mod start;
mod statistics;
mod transactions;
mod triggers;
mod vectors;
