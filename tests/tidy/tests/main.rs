//! The rules about ourselves.

mod dependencies;
mod documents;
mod purity;
