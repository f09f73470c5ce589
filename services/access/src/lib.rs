//! Who may do what where: tokens, principals, the policy, rights and permits.
//!
//! Called by the edge gateway at connect and subscribe and by ingest for every publisher. Everything here is a pure
//! decision: no I/O, no async, and no clock; whoever needs the time passes it in as seconds since the Unix epoch.
//!
//! The way of a request through this crate: [`token::Verifier`] turns a token into a [`Principal`],
//! [`Policy::rights`] turns the principal into [`Rights`], and [`Rights`] hand out permits ([`Subscribe`], [`History`],
//! [`Publish`], …), which the next step of a service asks for. Only this crate can make a permit.

pub mod acl;
pub mod audience;
pub mod in_force;
pub mod issuers;
mod json;
pub mod jwks;
pub mod keys;
pub mod pattern;
pub mod permit;
pub mod policy;
pub mod principal;
pub mod redact;
pub mod rights;
pub mod token;
pub mod yaml;

pub use acl::Acl;
pub use audience::{AudienceId, AudienceSet};
pub use in_force::{Decided, InForce, Revoked};
pub use jwks::Endpoint;
pub use keys::KeySet;
pub use permit::{Command, Denied, History, Presence, Publish, Subscribe};
pub use policy::Policy;
pub use principal::Principal;
pub use rights::Rights;
pub use rights::why::Why;
pub use token::{TokenError, TokenRules, Verifier};
pub use yaml::Mistake;
