//! The NATS server's configuration: accounts, imports, exports and permissions, generated from the subject grammar.
//!
//! Accounts are the first wall, permissions the second. Inside one account a reply subject can carry an answer of the server onto any
//! subject, so services that must not write for one another live in different accounts: `CORE` (ingest and the streams), `GW`
//! (gateways), `AGG` (aggregators), one per tenant, one for readers, `SYS`. Outside `CORE` the JetStream API is imported call by call
//! under `core.JS.API`: under its own name the server would answer for the wrong account first.

mod calls;
mod render;
mod security;

pub use security::{Security, Tls};

use crate::ids::{Room, Tenant};

/// Prefix of the JetStream API inside `CORE`.
pub const API_IN_CORE: &str = "$JS.API";
/// Prefix of the JetStream API everywhere else.
pub const API_OUTSIDE_CORE: &str = "core.JS.API";

/// A NATS user with its password.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// The user's name; its inbox prefix is `_INBOX_<name>`.
    pub name: String,
    /// The password, or its bcrypt hash.
    pub password: String,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "User({:?})", self.name)
    }
}

/// The inbox prefix a user may listen on.
#[must_use]
pub fn inbox_prefix(user: &str) -> String {
    format!("_INBOX_{user}")
}

/// A publisher of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publisher {
    /// Its NATS user.
    pub user: User,
    /// The rooms it may publish to, each with its sub-rooms; `None`: any (the policy still decides).
    pub rooms: Option<Vec<Room>>,
}

/// A backend of a tenant: carries out commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Its NATS user.
    pub user: User,
    /// The commands it hears, each with those below its name; `None`: all of the tenant.
    pub commands: Option<Vec<String>>,
}

/// The queue group of a tenant's backends: each command is heard by one of them, and nobody gets a copy.
pub const BACKEND_QUEUE: &str = "backends";

/// A tenant's account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantAccount {
    /// The tenant.
    pub tenant: Tenant,
    /// Who publishes.
    pub publishers: Vec<Publisher>,
    /// Who carries out commands.
    pub backends: Vec<Backend>,
}

/// One node of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Address of this node's route listener.
    pub listen: String,
    /// Addresses of all nodes' route listeners.
    pub routes: Vec<String>,
    /// Shared by the nodes.
    pub user: User,
}

/// Everything a server's configuration is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Unique among the nodes.
    pub server_name: String,
    /// Client listener, `address:port`.
    pub listen: String,
    /// Monitoring listener, `address:port`; loopback or a private network only.
    pub monitor: Option<String>,
    /// Where JetStream stores.
    pub store_dir: String,
    /// Bytes JetStream may store: not below the sum of all streams, and below the disk.
    pub max_file_bytes: u64,
    /// The user that creates streams.
    pub admin: User,
    /// The user of the ingests.
    pub ingest: User,
    /// The user of the aggregators.
    pub aggregator: User,
    /// The user of the gateways.
    pub gateway: User,
    /// May read `EVENTS`, `STATE` and `DLQ`, and nothing else.
    pub reader: Option<User>,
    /// The system account's user.
    pub system: User,
    /// Tenants.
    pub tenants: Vec<TenantAccount>,
    /// Present on each of three nodes.
    pub cluster: Option<Cluster>,
    /// TLS, and keys instead of passwords.
    pub security: Security,
}

#[cfg(test)]
mod tests;
