//! What one look saw, as the admin ports say it. What is not shown is not read, so older and newer services can be looked at.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Deserialize;

/// One look at everything.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// When it began.
    pub(super) at: Instant,
    /// Each admin port, in the order asked.
    pub(super) ports: Vec<Port>,
}

impl Seen {
    /// Why the first one does not answer, when none does.
    pub(super) fn first_silence(&self) -> Option<String> {
        let silent = |port: &Port| match &port.said {
            Said::Nothing(why) => Some(format!("{}: {why}", port.address)),
            _ => None,
        };
        match self.ports.iter().all(|port| silent(port).is_some()) {
            true => self.ports.first().and_then(silent),
            false => None,
        }
    }

    /// What a port said in this look.
    pub(super) fn of(&self, address: &str) -> Option<&Said> {
        self.ports
            .iter()
            .find(|port| port.address == address)
            .map(|port| &port.said)
    }
}

/// One admin port.
#[derive(Debug, Clone)]
pub(super) struct Port {
    /// Host and port.
    pub(super) address: String,
    pub(super) said: Said,
}

/// What a port said.
#[derive(Debug, Clone)]
pub(super) enum Said {
    Gateway(Box<Gateway>),
    Ingest(Ingest),
    Aggregator(Aggregator),
    /// Why it said nothing.
    Nothing(String),
}

/// A gateway, with its fullest rooms and the connections that do not read as fast as they are written to.
#[derive(Debug, Clone)]
pub(super) struct Gateway {
    pub(super) statistics: GatewayStatistics,
    pub(super) rooms: Rooms,
    pub(super) slow: Vec<Connection>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GatewayStatistics {
    pub(super) uptime_seconds: u64,
    pub(super) accepting: bool,
    pub(super) stale_since: Option<String>,
    /// By kind: those that are authenticated by how they speak, and some others.
    pub(super) connections: BTreeMap<String, u64>,
    pub(super) rooms: u64,
    pub(super) memory: Memory,
    pub(super) totals: GatewayTotals,
}

/// Kinds of connections that are not of authenticated clients, or count some of these again.
const NOT_CLIENTS: [&str; 3] = ["strangers", "newcomers", "slow"];

impl GatewayStatistics {
    /// Authenticated clients, however they speak.
    pub(super) fn clients(&self) -> u64 {
        let kinds = self.connections.iter();
        kinds
            .filter(|(kind, _)| !NOT_CLIENTS.contains(&kind.as_str()))
            .map(|(_, count)| count)
            .sum()
    }

    /// Clients that do not read as fast as they are written to.
    pub(super) fn slow(&self) -> u64 {
        self.connections.get("slow").copied().unwrap_or_default()
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Memory {
    pub(super) ring_bytes: u64,
    pub(super) state_bytes: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GatewayTotals {
    pub(super) connected: u64,
    pub(super) deliveries: u64,
    pub(super) frames_in: u64,
    pub(super) bytes_out: u64,
    pub(super) closes: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Rooms {
    pub(super) rooms: Vec<Room>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Room {
    pub(super) tenant: String,
    pub(super) room: String,
    pub(super) members: u64,
    pub(super) events: u64,
    pub(super) ring_bytes: u64,
    pub(super) state_bytes: Option<u64>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Connections {
    pub(super) connections: Vec<Connection>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Connection {
    pub(super) connection: String,
    pub(super) user: Option<User>,
    pub(super) waiting_frames: u64,
    pub(super) waiting_bytes: u64,
    pub(super) stuck_millis: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct User {
    pub(super) user: String,
    pub(super) tenant: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Ingest {
    pub(super) uptime_seconds: u64,
    pub(super) connected: bool,
    pub(super) in_flight: u64,
    pub(super) totals: IngestTotals,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct IngestTotals {
    pub(super) stored: u64,
    pub(super) duplicate: u64,
    pub(super) sent: u64,
    pub(super) refused: BTreeMap<String, u64>,
    pub(super) retries: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Aggregator {
    pub(super) uptime_seconds: u64,
    pub(super) shards: Vec<Shard>,
    pub(super) totals: AggregatorTotals,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shard {
    pub(super) current: bool,
    pub(super) lag_events: u64,
    pub(super) metrics: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct AggregatorTotals {
    pub(super) folded: u64,
    pub(super) published: u64,
}
