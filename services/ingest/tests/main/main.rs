//! Ingest with a real nats-server, its accounts, permissions and streams.
#![expect(
    clippy::unwrap_used,
    reason = "a test stops at the first surprise, and measurements are printed"
)]

mod admin_port;
mod batches;
mod blocks;
mod capture;
mod classes;
mod doors;
mod durability;
mod ends;
mod fail_over;
mod faults;
mod fixture;
mod flood;
mod going_on;
mod hang;
mod hang_ups;
mod idempotency;
mod keys;
mod leaders;
mod letters;
mod modes;
mod order;
mod process;
mod queues;
mod quotas;
mod refusals;
mod relay;
mod rights;
mod schemas;
mod services;
mod sinks;
mod start;
mod statistics;
mod tables;
mod transactions;
mod triggers;
mod vectors;
