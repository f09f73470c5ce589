//! What the data of an event looks like: JSON Schemas (2020-12), one file for each version of a type.
//!
//! Called by ingest for every event ([`Catalog::check`]) and by the command line, which checks the files and writes TypeScript from
//! them. [`folder`] reads the files; [`document`] understands one and says what is wrong in it; [`Catalog`] holds all of them. A check
//! is a pure decision. Nothing is ever fetched, and what a check may cost is bounded before a schema counts ([`weight`]).

pub mod catalog;
pub mod document;
pub mod folder;
mod keywords;
mod place;
mod weight;

pub use catalog::{Breach, Catalog, Data};
pub use document::{Mode, Schema};
