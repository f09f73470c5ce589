//! The one place both streams meet: hands every event to every shard in one order, and answers those who come back.

mod answer;

use std::sync::Arc;
use std::time::Duration;

use roomcast_access::{AudienceId, History as HistoryPermit, Subscribe};
use roomcast_chassis::metrics::Metrics;
use roomcast_proto::cursor::{Cursor, Epoch};

pub use answer::{
    Gap, History, HistoryPage, Outcome, Recovered, Recovery, ShardSender, Snapshot, ToShard, Unavailable, Waiter,
};

use crate::delivery::Delivery;

/// Limits of what the hub keeps.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// Bytes of recent events in memory.
    pub ring_bytes_max: usize,
    /// Events of a quiet room that others' traffic does not push out, as long as they fit into half of its tenant's share.
    pub ring_room_events_min: usize,
    /// Events read into the ring at start.
    pub warm_events_max: u64,
    /// Bytes of state values of rooms without members.
    pub state_bytes_max: usize,
}

/// Finds the number of an audience in the policy in force.
pub type AudienceLookup = Box<dyn Fn(&str) -> Option<AudienceId> + Send + Sync>;

/// The state of the path from NATS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubStatus {
    /// Whether NATS has not answered for 5 s.
    pub stale: bool,
    /// Since when, Unix milliseconds.
    pub since_millis: i64,
}

/// See the module.
#[derive(Debug)]
pub struct Hub {}

impl Hub {
    /// Makes an empty one; [`crate::nats_side::start`] fills it.
    pub fn new(settings: HubSettings, audiences: AudienceLookup, metrics: &Metrics) -> Result<Arc<Self>, prometheus::Error> { let _ = (settings, audiences, metrics); Ok(Arc::new(Self {})) }
    /// Registers a shard; the answer is its number.
    pub fn attach(&self, shard: ShardSender) -> usize { drop(shard); 0 }
    /// What a subscriber gets before live.
    pub fn recover(&self, permit: &Subscribe, from: Option<Cursor>, waiter: Waiter, now_millis: i64) -> Recovery { let _ = (permit, from, waiter, now_millis); Recovery::Unavailable }
    /// The waiter is gone (its connection closed).
    pub fn forget(&self, waiter: Waiter) { let _ = waiter; }
    /// What the holder of `permit` is to be sent for a withdrawn value: the newest value of the key it may see, or the withdrawal.
    pub fn resolve_withdrawn(&self, permit: &Subscribe, withdrawn: &Arc<Delivery>, now_millis: i64) -> Arc<Delivery> { let _ = (permit, now_millis); Arc::clone(withdrawn) }
    /// A page of history.
    pub fn history(&self, permit: &HistoryPermit, before: Option<Cursor>, limit: usize, waiter: Waiter, now_millis: i64) -> History { let _ = (permit, before, limit, waiter, now_millis); History::Unavailable }
    /// The room has its first member in a shard: its state stays in memory.
    pub fn hold(&self, permit: &Subscribe) { let _ = permit; }
    /// The room's last member in a shard is gone.
    pub fn release(&self, permit: &Subscribe) { let _ = permit; }
    /// See [`Hub::recover`]; for the HTTP routes.
    ///
    /// # Errors
    /// `unavailable` when it could not be read in time.
    pub async fn recover_async(&self, permit: &Subscribe, from: Option<Cursor>) -> Result<Recovered, Unavailable> { let _ = (permit, from); Err(Unavailable) }
    /// See [`Hub::recover`]; for the HTTP routes.
    ///
    /// # Errors
    /// `unavailable` when it could not be read in time.
    pub async fn history_async(&self, permit: &HistoryPermit, before: Option<Cursor>, limit: usize) -> Result<HistoryPage, Unavailable> { let _ = (permit, before, limit); Err(Unavailable) }
    /// See [`Hub::recover`]; for the HTTP routes.
    ///
    /// # Errors
    /// `unavailable` when it could not be read in time.
    pub async fn snapshot_async(&self, permit: &Subscribe, events: usize) -> Result<Snapshot, Unavailable> { let _ = (permit, events); Err(Unavailable) }
    /// Where everything handed out so far ends.
    pub fn head(&self) -> Cursor { Cursor { epoch: Epoch::of_streams("", ""), position: roomcast_proto::cursor::Position::default(), time_bits: 0 } }
    pub fn status(&self) -> HubStatus { HubStatus { stale: true, since_millis: 0 } }
    /// How long a client may be away and come back complete.
    pub fn resume_seconds(&self) -> u64 { 0 }
    pub fn epoch(&self) -> Option<Epoch> { None }
    /// Whether new connections are taken; else when to try again.
    pub fn accepting(&self) -> Result<(), Duration> { Err(Duration::from_secs(1)) }
}
