//! The rules about ourselves.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod dependencies;
mod documents;
mod images;
mod purity;
