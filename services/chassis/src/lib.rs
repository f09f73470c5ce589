//! What every process needs to start, be watched and stop: settings, logs, traces, metrics, the admin port, HTTP accept and fetch,
//! NATS and JetStream, readiness, shutdown.
//!
//! Called by the services' `main.rs` (through [`process::run`]) and by their `serve` functions. It knows no
//! product words: no room, no audience, no event.

pub mod admin;
pub mod bucket;
pub mod build;
pub mod config;
pub mod descriptors;
pub mod fetch;
pub mod followed;
pub mod http;
pub mod jetstream;
pub mod metrics;
pub mod nats;
pub mod openapi;
pub mod process;
pub mod readiness;
pub mod routes;
pub mod shutdown;
pub mod telemetry;
pub mod trace;
