//! The gateway in figures, and the policy in force.

use axum::Json;
use axum::extract::State;
use roomcast_admin::instance::Instance;
use roomcast_admin::problem::guarded;
use roomcast_admin::{Operation, Problem, Routes};
use schemars::JsonSchema;
use serde::Serialize;

use super::AdminDesk;
use crate::metrics::Totals;
use crate::session::rfc3339;

/// A gateway in figures.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Statistics {
    #[serde(flatten)]
    instance: Instance,
    /// Whether clients are taken.
    accepting: bool,
    /// Since when what clients see may be old (NATS is not heard); absent while it is heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_since: Option<String>,
    /// How long a client may be away and come back complete, seconds.
    resume_seconds: u64,
    /// Connections at the moment.
    connections: Connections,
    /// Rooms with members; one that has them in several shards counts in each.
    rooms: usize,
    /// What is held in memory.
    memory: Memory,
    /// Counted since the start.
    totals: Totals,
}

#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Connections {
    /// Authenticated WebSockets in JSON.
    json: usize,
    /// Authenticated WebSockets in Protobuf.
    protobuf: usize,
    /// Streams of server-sent events.
    sse: usize,
    /// WebSockets that have not shown a token.
    strangers: usize,
    /// Sockets that have not said what they want.
    newcomers: usize,
    /// Those that do not read as fast as they are written to.
    slow: usize,
}

#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Memory {
    /// Recent events.
    ring_events: usize,
    /// Their bytes.
    ring_bytes: usize,
    /// Rooms whose state is here.
    state_rooms: usize,
    /// Its values.
    state_values: usize,
    /// Its bytes.
    state_bytes: usize,
}

/// The policy in force.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct PolicyInForce {
    /// A mark of its content: gateways that say the same decide the same.
    fingerprint: String,
    /// Its roles.
    roles: Vec<String>,
}

pub(super) fn routes() -> Routes<AdminDesk> {
    let statistics = guarded(Operation::new(
        "gateway",
        "getStatistics",
        "The gateway in figures.",
    ))
    .answers_json::<Statistics>(200, "As they are at the moment.");
    let policy = guarded(Operation::new(
        "gateway",
        "getPolicy",
        "Names the policy in force.",
    ))
    .answers_json::<PolicyInForce>(200, "The policy that decides now.");
    Routes::new()
        .get("/admin/v1/statistics", statistics, show)
        .get("/admin/v1/policy", policy, show_policy)
}

async fn show(State(desk): State<AdminDesk>) -> Result<Json<Statistics>, Problem> {
    let (mut connections, mut rooms) = (Connections::default(), 0);
    for counts in desk.ask(|shard| shard.counts()).await? {
        let [json, protobuf, sse] = counts.sessions;
        connections.json += json;
        connections.protobuf += protobuf;
        connections.sse += sse;
        connections.strangers += counts.strangers;
        connections.newcomers += counts.newcomers;
        connections.slow += counts.blocked;
        rooms += counts.rooms;
    }
    let (sizes, status) = (desk.hub.sizes(), desk.hub.status());
    Ok(Json(Statistics {
        instance: desk.running.now(),
        accepting: desk.hub.accepting().is_ok(),
        stale_since: status.stale.then(|| rfc3339(status.since_millis)),
        resume_seconds: desk.hub.resume_seconds(),
        connections,
        rooms,
        memory: Memory {
            ring_events: sizes.ring_events,
            ring_bytes: sizes.ring_bytes,
            state_rooms: sizes.state_rooms,
            state_values: sizes.state_values,
            state_bytes: sizes.state_bytes,
        },
        totals: desk.metrics.totals(),
    }))
}

async fn show_policy(State(desk): State<AdminDesk>) -> Json<PolicyInForce> {
    let policy = &desk.gate.rights().now().policy;
    let mut roles: Vec<String> = policy.audiences().map(str::to_owned).collect();
    roles.sort_unstable();
    Json(PolicyInForce {
        fingerprint: format!("{:016x}", policy.fingerprint()),
        roles,
    })
}
