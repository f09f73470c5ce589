//! Settings: environment variables `ROOMCAST_…`, each read once, with default and doc beside the read.
//!
//! A service's `Settings::read(&mut Reader)` names every variable; [`Reader::finish`] then answers with all
//! mistakes at once. The same reads produce `--help` and `--print-config`, so neither can go stale.

mod environment;
mod mistakes;
mod reader;
mod secret;
mod similar;

pub use environment::Environment;
pub use mistakes::{Mistake, Mistakes};
pub use reader::{Listed, Reader};
pub use secret::Secret;

/// The prefix all our variables have; one with this prefix that nobody reads is a mistake.
pub const PREFIX: &str = "ROOMCAST_";
