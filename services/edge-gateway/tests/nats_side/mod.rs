//! The NATS side against a real nats-server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::float_cmp,
    reason = "a test may stop at the first surprise"
)]

mod answers;
mod reading;
mod rig;
