//! What operators may ask of an aggregator: its metrics, the shards it works, how far behind it is; silences; and what other metrics
//! would have shown.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use roomcast_admin::instance::{Instance, Running};
use roomcast_admin::problem::guarded;
use roomcast_admin::{Operation, Routes};
use roomcast_chassis::jetstream::JetStream;
use schemars::JsonSchema;
use serde::Serialize;

use crate::board::Board;
use crate::counters::{Counters, Totals};
use crate::definition::Definition;
use crate::following::InForce;
use crate::silences::Silences;

mod silences;
mod trial;

pub use trial::Against;

/// What the routes answer from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AdminDesk {
    /// The metrics in force.
    pub definitions: InForce,
    /// The shards worked here.
    pub board: Board,
    /// What was counted.
    pub counters: Counters,
    /// The process.
    pub running: Running,
    /// What operators silenced.
    pub silences: Silences,
    /// What definitions that are tried are checked against.
    pub against: Arc<Against>,
    /// Where past events are read.
    pub jetstream: JetStream,
}

/// An aggregator in figures.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Statistics {
    #[serde(flatten)]
    instance: Instance,
    /// The shards this instance works.
    shards: Vec<Shard>,
    /// Counted since the start.
    totals: Totals,
}

/// A sixteenth of the metrics, worked by one instance at a time.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Shard {
    /// Its number.
    shard: u32,
    /// Whether it has read all that was stored when it began.
    current: bool,
    /// Stored events for it that are not yet read.
    lag_events: u64,
    /// Metrics in it.
    metrics: usize,
}

/// Every metric in force.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Metrics {
    /// In the order of the file.
    metrics: Vec<Metric>,
    /// What is wrong with the newest file, each as `file:line:column: …`, while the one before it is in force.
    mistakes: Vec<String>,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Metric {
    /// Its name.
    name: String,
    /// Whose it is.
    tenant: String,
    /// The shard it belongs to.
    shard: u32,
    /// Whether this instance works it.
    here: bool,
    /// A mark of what is folded: another one means that it is counted anew.
    fingerprint: String,
    /// Where its numbers go; absent for one that only others name.
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<String>,
    /// Who of the room's members sees them.
    #[serde(skip_serializing_if = "Option::is_none")]
    audience: Option<String>,
}

/// The routes under `/admin/v1`.
#[must_use]
pub fn routes(desk: AdminDesk) -> Routes {
    described().with_state(desk)
}

fn described() -> Routes<AdminDesk> {
    let statistics = guarded(Operation::new(
        "aggregator",
        "getStatistics",
        "The aggregator in figures.",
    ))
    .answers_json::<Statistics>(200, "As they are at the moment.");
    let metrics = guarded(Operation::new(
        "aggregator",
        "listMetrics",
        "Lists the metrics in force.",
    ))
    .answers_json::<Metrics>(200, "All of them.");
    Routes::new()
        .get("/admin/v1/statistics", statistics, show)
        .get("/admin/v1/metrics", metrics, list)
        .merge(silences::described())
        .merge(trial::described())
}

async fn show(State(desk): State<AdminDesk>) -> Json<Statistics> {
    let definitions = desk.definitions.now();
    let shard = |(shard, current): (u32, bool)| Shard {
        shard,
        current,
        lag_events: desk.counters.lag_of(shard),
        metrics: definitions.of_shard(shard).len(),
    };
    Json(Statistics {
        instance: desk.running.now(),
        shards: desk.board.held().into_iter().map(shard).collect(),
        totals: desk.counters.totals(),
    })
}

async fn list(State(desk): State<AdminDesk>) -> Json<Metrics> {
    let held = desk.board.held();
    let metric = |metric: &Arc<Definition>| Metric {
        name: metric.name.clone(),
        tenant: metric.tenant.as_str().to_owned(),
        shard: metric.shard,
        here: held.contains_key(&metric.shard),
        fingerprint: format!("{:016x}", metric.fingerprint),
        room: metric
            .publish
            .as_ref()
            .map(|publish| publish.room.as_str().to_owned()),
        audience: metric
            .publish
            .as_ref()
            .map(|publish| publish.audience.as_str().to_owned()),
    };
    Json(Metrics {
        metrics: desk.definitions.now().metrics.iter().map(metric).collect(),
        mistakes: desk.definitions.mistakes(),
    })
}
