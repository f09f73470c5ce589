//! What is in force, followed live: the policy from its file or the `cfg` bucket, grants and revocations from the `acl` bucket.
//!
//! Called by the edge gateway and by ingest at start, so that both mean the same by the same files and keys. What follows from it is
//! decided in `roomcast_access`; here it is only read, checked and put in place. A policy with mistakes never takes the place of a
//! good one.

mod bucket;
mod current;
mod follower;
mod metrics;
mod settings;
mod sources;

pub use current::Current;
pub use follower::Follower;
pub use settings::{FILE_BYTES_MAX, PolicySettings};
