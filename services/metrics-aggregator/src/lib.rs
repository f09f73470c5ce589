//! Events in, numbers out: the only keeper of windows.
//!
//! `definition` says what is counted; `engine` counts (pure); `reader` → `feed` → `worker` → `store` → `publish` drive it, one task per shard,
//! `filler` beside it for new and changed metrics;
//! `following` says which definitions are in force; `notify` says what rules have to say; `lease` spreads the shards over the instances.

pub mod admin;
pub mod board;
pub mod counters;
pub mod cover;
pub mod definition;
pub mod delivered;
pub mod engine;
pub mod feed;
pub mod filler;
pub mod following;
pub mod holder;
pub mod lease;
pub mod notify;
pub mod publish;
pub mod reader;
pub mod serve;
pub mod settings;
pub mod silences;
pub mod store;
mod traces;
pub mod trial;
pub mod worker;

pub use serve::{SERVICE, serve};
pub use settings::Settings;
