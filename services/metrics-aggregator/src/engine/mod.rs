//! The pure core, in the order of an event's path: `row` (the fields that metrics name) → `predicate` (`where`) → `metric` (tests,
//! fold, windows) with `window`, `calendar`, `session`, `cell`, `ranks`, `sketch`, `top`, `chunk` → `render` (updates), `alert` (rules) → `codec` (stored form), all held together by `shard`.
//!
//! It reads no clock, awaits nothing and knows no NATS: the worker drives it.

pub use roomcast_cel::{decimal, predicate, row};

pub mod alert;
#[cfg(test)]
mod beyond;
pub mod calendar;
pub mod cell;
pub mod chunk;
pub mod codec;
pub mod fnv;
pub mod metric;
#[cfg(test)]
mod naive;
#[cfg(test)]
mod page;
pub mod ranks;
#[cfg(test)]
mod refill;
pub mod render;
#[cfg(test)]
mod replicas;
#[cfg(test)]
mod rules;
pub mod session;
pub mod shard;
pub mod sketch;
#[cfg(test)]
mod testing;
pub mod top;
#[cfg(test)]
mod upgrade;
pub mod window;
