//! The one place both streams meet: hands every event to every shard in one order, and answers those who come back.
//!
//! Written by the spines' drivers, read by shards (plain threads) and HTTP routes (tasks). What is handed out is in the ring or the
//! state cache before any shard hears of it, so whoever reads at a cut and then skips what is not after it misses nothing and gets
//! nothing twice. A frame's cursor says how far the *other* stream was at that moment, which is why both go through one door.

mod answer;
mod ask;
mod behind;
mod following;
mod intake;
mod look;
mod look_back;
mod metrics;
mod stock;
mod together;
mod waits;
mod wants;
mod watches;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use roomcast_access::AudienceId;
use roomcast_chassis::metrics::Metrics;
use roomcast_proto::cursor::{Cursor, Cursors, Epoch, Position};
use roomcast_proto::limits::{EVENTS_MAX_AGE, SCAN_POSITIONS_MAX};
use roomcast_rights::Current;
use tokio::sync::mpsc;

pub use answer::{
    Gap, History, HistoryPage, Outcome, Recovered, Recovery, Rewind, ShardSender, Snapshot, ToShard,
    Unavailable, Waiter,
};
pub use intake::Incoming;
pub use look::{RoomSizes, Sizes};
pub use metrics::{HubMetrics, StreamMetrics};
pub use together::{Begun, OfRoom, Page, Together};
pub use wants::{Part, Read, WantedPart};

use crate::delivery::{Delivery, Meter};
use crate::ring::{Ring, RingLimits};
use crate::spine_driver::Which;
use crate::state_cache::StateCache;
use crate::sync::{Mutex, MutexGuard, RwLock};
use behind::Behind;
use intake::Order;
use stock::Stock;

/// NATS has not answered for this long: clients are told that what they see may be old.
pub const STALE_AFTER_MILLIS: i64 = 5_000;
/// NATS has not answered for this long: connections are closed, new ones refused.
pub const AWAY_AFTER_MILLIS: i64 = 10_000;

/// Nobody has said for this long that rights are still what they are here: nothing is read back for anybody.
pub const UNSURE_AFTER: Duration = Duration::from_secs(2);

/// Limits of what the hub keeps.
#[derive(Debug, Clone, Copy)]
pub struct HubSettings {
    /// Bytes of recent events in memory.
    pub ring_bytes_max: usize,
    /// Bytes of them that one tenant may hold.
    pub ring_tenant_bytes_max: usize,
    /// Events of a quiet room that others' traffic does not push out, as long as they fit into half of its tenant's share.
    pub ring_room_events_min: usize,
    /// Events read into the ring at start.
    pub warm_events_max: u64,
    /// Positions of the stream that are looked through for one room at most.
    pub scan_positions_max: u64,
    /// Bytes of the state of rooms without members and of users' own rooms; those not used for longest are dropped beyond it.
    pub state_bytes_max: usize,
    /// How cursors are written and read.
    pub cursors: Cursors,
}

impl Default for HubSettings {
    fn default() -> Self {
        Self {
            ring_bytes_max: 256 << 20,
            ring_tenant_bytes_max: 256 << 20,
            ring_room_events_min: 64,
            warm_events_max: 200_000,
            scan_positions_max: SCAN_POSITIONS_MAX,
            state_bytes_max: 64 << 20,
            cursors: Cursors::plain(),
        }
    }
}

/// Finds the number of an audience in the policy in force.
pub type AudienceLookup = Box<dyn Fn(&str) -> Option<AudienceId> + Send + Sync>;

/// The state of the path from NATS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubStatus {
    /// Whether NATS has not answered for 5 s, or what it had 5 s ago is not here yet.
    pub stale: bool,
    /// Since when, Unix milliseconds.
    pub since_millis: i64,
}

/// Reads that may wait for their turn. Whoever wants one more is told `unavailable` when its time is over.
pub(crate) const READS_WAITING_MAX: usize = 16_384;

/// See the module.
pub struct Hub {
    settings: HubSettings,
    audiences: AudienceLookup,
    metrics: HubMetrics,
    meter: Meter,
    order: Mutex<Order>,
    stock: Mutex<Stock>,
    shards: RwLock<Vec<ShardSender>>,
    reads: mpsc::Sender<Read>,
    reads_taken: Mutex<Option<mpsc::Receiver<Read>>>,
    tasks: ask::Tasks,
    /// Ready: the ring is warm, both streams are current.
    open: AtomicBool,
    /// When NATS last answered, on the clock of [`Hub::tick`]'s second argument.
    answered: AtomicI64,
    behind: Mutex<[Behind; 2]>,
    stale: AtomicBool,
    stale_since: AtomicI64,
    away: AtomicBool,
    resume_seconds: AtomicU64,
    max_age_secs: AtomicU64,
    /// What says for how long nobody could say whether rights have changed.
    rights: OnceLock<Current>,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("settings", &self.settings)
            .field("head", &self.head())
            .finish_non_exhaustive()
    }
}

impl Hub {
    /// Makes an empty one; [`crate::nats_side::start`] fills it.
    ///
    /// # Errors
    /// When its metrics are declared already: a mistake in the code.
    pub fn new(
        settings: HubSettings,
        audiences: AudienceLookup,
        metrics: &Metrics,
    ) -> Result<Arc<Self>, prometheus::Error> {
        let (reads, reads_taken) = mpsc::channel(READS_WAITING_MAX);
        let stock = Stock::new(
            Ring::new(ring_limits(&settings), 1),
            StateCache::new(settings.state_bytes_max),
            settings.scan_positions_max,
        );
        Ok(Arc::new(Self {
            settings,
            audiences,
            metrics: HubMetrics::new(metrics)?,
            meter: Meter::default(),
            order: Mutex::default(),
            stock: Mutex::new(stock),
            shards: RwLock::default(),
            reads,
            reads_taken: Mutex::new(Some(reads_taken)),
            tasks: ask::Tasks::default(),
            open: AtomicBool::new(false),
            answered: AtomicI64::new(0),
            behind: Mutex::default(),
            stale: AtomicBool::new(false),
            stale_since: AtomicI64::new(0),
            away: AtomicBool::new(false),
            resume_seconds: AtomicU64::new(1),
            max_age_secs: AtomicU64::new(EVENTS_MAX_AGE.as_secs()),
            rights: OnceLock::new(),
        }))
    }

    /// Registers a shard; the answer is its number for [`Waiter::shard`].
    pub fn attach(&self, shard: ShardSender) -> usize {
        let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
        shards.push(shard);
        shards.len() - 1
    }

    /// Where everything handed out so far ends.
    #[must_use]
    pub fn head(&self) -> Cursor {
        let nothing = Cursor {
            epoch: Epoch::of_streams("", ""),
            position: Position::default(),
            time_bits: 0,
        };
        self.stock().head().unwrap_or(nothing)
    }

    /// An audience as a number of the policy in force; `None`: the policy does not know it.
    #[must_use]
    pub fn audience(&self, name: &str) -> Option<AudienceId> {
        (self.audiences)(name)
    }

    /// How cursors are written for clients, and read when they come back.
    #[must_use]
    pub fn cursors(&self) -> Cursors {
        self.settings.cursors
    }

    /// Which life of the streams; `None` before both were found.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.stock().epoch
    }

    /// Whether what clients see may be old.
    #[must_use]
    pub fn status(&self) -> HubStatus {
        HubStatus {
            stale: self.stale.load(Ordering::Relaxed),
            since_millis: self.stale_since.load(Ordering::Relaxed),
        }
    }

    /// How long a client may be away and come back complete, as far as can be said at the present rate.
    #[must_use]
    pub fn resume_seconds(&self) -> u64 {
        self.resume_seconds.load(Ordering::Relaxed)
    }

    /// Whether new connections are taken.
    ///
    /// # Errors
    /// After how long it makes sense to try again.
    pub fn accepting(&self) -> Result<(), Duration> {
        if self.open.load(Ordering::Relaxed) && !self.away.load(Ordering::Relaxed) && self.is_sure() {
            return Ok(());
        }
        Err(Duration::from_secs(2))
    }

    /// From now on nothing is read back for anybody while this cannot say whether rights have changed.
    pub fn watch(&self, rights: Current) {
        // Said once, at the start.
        let _ = self.rights.set(rights);
    }

    /// Whether rights are known to be what they are here; else neither resume, history, state nor presence may be answered.
    #[must_use]
    pub fn is_sure(&self) -> bool {
        self.unsure_for() <= UNSURE_AFTER
    }

    fn unsure_for(&self) -> Duration {
        self.rights.get().map_or(Duration::ZERO, Current::unsure_for)
    }

    /// The metrics of the NATS side.
    #[must_use]
    pub fn metrics(&self) -> &HubMetrics {
        &self.metrics
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> &HubSettings {
        &self.settings
    }

    /// Both streams are here: clients may come.
    pub fn open(&self) {
        self.open.store(true, Ordering::Relaxed);
    }

    /// NATS answered. `uptime_millis`: a clock that only goes forward.
    pub fn answered(&self, uptime_millis: i64) {
        self.answered.fetch_max(uptime_millis, Ordering::Relaxed);
    }

    /// A stream reaches to this position at least.
    pub fn knows(&self, which: Which, last: u64) {
        self.behind()[which as usize].knows(last);
    }

    /// The policy changed: audiences are numbers of the policy, so they are looked up again for everything kept.
    pub fn policy_changed(&self) {
        let _order = self.order();
        let mut stock = self.stock();
        let change = |delivery: &Delivery| {
            let audience = (self.audiences)(delivery.audience_name.as_str());
            (audience != delivery.audience).then(|| delivery.for_audience(audience))
        };
        stock.decide_again(change);
    }

    /// Time went by; to be called every 100 ms or so. `now_millis` is the wall clock (values end by it), `uptime_millis` the clock of
    /// [`Hub::answered`], which nobody sets back.
    pub fn tick(&self, now_millis: i64, uptime_millis: i64) {
        let (over, position) = {
            let mut stock = self.stock();
            stock.ring.beside(self.meter.bytes());
            let over = stock.tick(now_millis);
            self.measure(&stock, now_millis);
            (over, stock.position)
        };
        self.wake(&over);
        if !self.open.load(Ordering::Relaxed) {
            return;
        }
        let unsure = i64::try_from(self.unsure_for().as_millis()).unwrap_or(i64::MAX);
        let silent = unsure.max(uptime_millis - self.answered.load(Ordering::Relaxed));
        let is_behind = {
            let [events, state] = &mut *self.behind();
            let state = state.is_behind(position.rev, uptime_millis);
            events.is_behind(position.seq, uptime_millis) || state
        };
        let stale = silent >= STALE_AFTER_MILLIS || is_behind;
        if self.stale.swap(stale, Ordering::Relaxed) != stale {
            let old_millis = if is_behind {
                STALE_AFTER_MILLIS.max(silent)
            } else {
                silent
            };
            let since_millis = if stale {
                now_millis - old_millis
            } else {
                now_millis
            };
            self.stale_since.store(since_millis, Ordering::Relaxed);
            self.metrics.stale.set(i64::from(stale));
            if stale {
                tracing::warn!(
                    behind = is_behind,
                    "NATS has not answered for {silent} ms, or is ahead of what was handed out; clients are told that they may see old numbers"
                );
            } else {
                tracing::info!("NATS answers, and all it has is handed out");
            }
            self.tell(&ToShard::Status { stale, since_millis });
        }
        let away = silent >= AWAY_AFTER_MILLIS;
        if !self.away.swap(away, Ordering::Relaxed) && away {
            tracing::error!("NATS has not answered for {silent} ms; every connection is closed with 4005");
            self.tell(&ToShard::CloseAll);
            let held = self.stock().watches.all();
            self.wake(&held);
        }
    }

    fn measure(&self, stock: &Stock, now_millis: i64) {
        let m = &self.metrics;
        let gauge =
            |gauge: &prometheus::IntGauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        gauge(&m.ring_bytes, stock.ring.bytes());
        gauge(&m.ring_events, stock.ring.events());
        m.ring_evicted
            .inc_by(stock.ring.evicted().saturating_sub(m.ring_evicted.get()));
        let (rooms, values, bytes) = stock.state.sizes();
        gauge(&m.state_rooms, rooms);
        gauge(&m.state_values, values);
        gauge(&m.state_bytes, bytes);
        let (dropped, emptied, refused) = stock.state.dropped();
        for (what, count) in [("room", dropped), ("own", emptied), ("value", refused)] {
            let counter = m.state_dropped.with_label_values(&[what]);
            counter.inc_by(count.saturating_sub(counter.get()));
        }
        gauge(&m.waiting, stock.waiting());
        gauge(&m.read_bytes, stock.read_bytes());
        m.deep.inc_by(stock.deep.saturating_sub(m.deep.get()));
        let max_age = self.max_age_secs.load(Ordering::Relaxed);
        // Everything younger than what was pushed out last is in the ring; what the ring never had may be too far back.
        let whole = stock.ring.start() <= stock.first_seq;
        let in_ring = stock
            .ring
            .evicted_micros()
            .or_else(|| if whole { None } else { stock.ring.oldest_micros() });
        let kept = in_ring.map_or(max_age, |micros| {
            u64::try_from((now_millis - micros / 1000) / 1000)
                .unwrap_or(0)
                .clamp(1, max_age)
        });
        self.resume_seconds.store(kept, Ordering::Relaxed);
        m.resume_seconds.set(i64::try_from(kept).unwrap_or(i64::MAX));
    }

    /// What has to be read; taken once, by the NATS side.
    pub(crate) fn take_reads(&self) -> Option<mpsc::Receiver<Read>> {
        self.reads_taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn tell(&self, message: &ToShard) {
        let shards = self.shards.read().unwrap_or_else(PoisonError::into_inner);
        shards.iter().for_each(|shard| shard(message.clone()));
    }

    /// By [`Which`].
    fn behind(&self) -> MutexGuard<'_, [Behind; 2]> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ring_limits(settings: &HubSettings) -> RingLimits {
    RingLimits {
        bytes_max: settings.ring_bytes_max,
        tenant_bytes_max: settings.ring_tenant_bytes_max,
        room_events_min: settings.ring_room_events_min,
    }
}

#[cfg(test)]
mod tests;
