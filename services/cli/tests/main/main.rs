//! The `roomcast` binary from outside: what it prints, how it ends, what it leaves behind.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops at the first surprise, and says what it skips"
)]

mod dev;
mod lagging;
mod metrics;
mod offline;
mod replay;
mod scenarios;
mod system;
mod tenant;
mod top;
