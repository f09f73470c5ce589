//! Whose tokens are accepted: what an operator sets, the files it names, and the keys that issuers publish.
//!
//! Called by the edge gateway and by ingest at start, so that both mean the same by the same settings. Decides nothing:
//! what a key or a token must be and when to fetch is said in `roomcast_access`; how to fetch in `roomcast_chassis`.

pub mod fetching;
pub mod settings;
pub mod tenancy;

pub use fetching::Fetching;
pub use settings::{ADMIN_AUDIENCE, IssuerSettings, Trusted};
pub use tenancy::Tenancy;
