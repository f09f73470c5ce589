//! What a gateway asks the aggregator that works a metric: the windows of one group, published or not (`svc.….series`).

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::ids::{Audience, Room};

/// Bytes of events in one answer, the newest first: a message of NATS takes 256 KiB.
pub const ANSWER_BYTES_MAX: usize = 192 << 10;

/// Which group of which metric.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// The metric.
    pub metric: String,
    /// The room that the asker may see, and that the metric must be published to.
    pub room: Room,
    /// The group as keys name it.
    pub group: String,
}

/// What an aggregator says. Whoever asked shows it to those whom `audience` and the policy let see it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// The group's windows.
    Windows {
        /// For whom the metric is published.
        audience: Audience,
        /// `metric.updated` events, each with the `statekey` that it has where it is state: of the current window and of the closed ones
        /// that are kept, the newest first. Empty where there is no such group.
        events: Vec<Box<RawValue>>,
    },
    /// No such metric is published to that room.
    Absent {},
    /// It is not current yet.
    Behind {},
}
