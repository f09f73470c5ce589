//! What the NATS side counts: the way from the streams into memory, and the answers from there.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use roomcast_chassis::metrics::Metrics;

use crate::spine::Cause;

/// Handles of every metric of the NATS side. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HubMetrics {
    /// Messages handed out by the spines.
    pub delivered: IntCounterVec,
    /// Those of them that had to be read again.
    pub repaired: IntCounterVec,
    /// Messages that came twice.
    pub duplicates: IntCounterVec,
    /// Positions without a message.
    pub skipped: IntCounterVec,
    /// Reads to fill holes.
    pub repairs: IntCounterVec,
    /// Questions after the last message.
    pub probes: IntCounterVec,
    /// Calls without an answer.
    pub unanswered: IntCounterVec,
    /// Streams that could not be continued.
    pub resets: IntCounterVec,
    /// Messages that are not events.
    pub unreadable: IntCounterVec,
    /// Positions handed out.
    pub position: IntGaugeVec,
    /// Bytes in the ring.
    pub ring_bytes: IntGauge,
    /// Events in the ring.
    pub ring_events: IntGauge,
    /// Events pushed out of the ring.
    pub ring_evicted: IntCounter,
    /// Rooms in the state cache.
    pub state_rooms: IntGauge,
    /// Values in it.
    pub state_values: IntGauge,
    /// Bytes in it.
    pub state_bytes: IntGauge,
    /// Rooms and values the state cache gave up.
    pub state_dropped: IntCounterVec,
    /// Reads of the stream by kind and outcome.
    pub reads: IntCounterVec,
    /// Recoveries by outcome.
    pub recoveries: IntCounterVec,
    /// Those of them that were complete.
    pub complete: IntCounter,
    /// Those of them that began afresh.
    pub fresh: IntCounter,
    /// Events given in one recovery.
    pub replayed: Histogram,
    /// Positions between a cursor and the head.
    pub replay_positions: Histogram,
    /// Requests that wait for a read.
    pub waiting: IntGauge,
    /// Rooms that wait for their turn.
    pub reads_waiting: IntGauge,
    /// Bytes kept of what was read.
    pub read_bytes: IntGauge,
    /// Recoveries that took events from there.
    pub deep: IntCounter,
    /// 1 while NATS does not answer.
    pub stale: IntGauge,
    /// How long a client may be away.
    pub resume_seconds: IntGauge,
    /// Ephemeral events handed out.
    pub ephemeral: IntCounter,
}

impl HubMetrics {
    /// Declares all of them.
    ///
    /// # Errors
    /// When one is declared already: a mistake in the code.
    pub fn new(m: &Metrics) -> Result<Self, prometheus::Error> {
        let stream = &["stream"][..];
        let recoveries = m.counter_vec(
            "roomcast_gateway_recoveries_total",
            "Subscriptions opened, by recovery.",
            &["recovery"],
        )?;
        let made = Self {
            delivered: m.counter_vec("roomcast_gateway_spine_delivered_total", "Messages handed out in order, each once.", stream)?,
            repaired: m.counter_vec("roomcast_gateway_spine_repaired_total", "Messages that were missed live and read from the stream, warm-up included.", stream)?,
            duplicates: m.counter_vec("roomcast_gateway_spine_duplicates_total", "Messages that came again and were dropped.", stream)?,
            skipped: m.counter_vec("roomcast_gateway_spine_skipped_total", "Positions that hold nothing any more (replaced state, deleted events).", stream)?,
            repairs: m.counter_vec("roomcast_gateway_spine_repairs_total", "Reads of the stream to fill a hole, by who was asked.", &["stream", "asked"])?,
            probes: m.counter_vec("roomcast_gateway_spine_probes_total", "Questions after the last message because it was silent.", stream)?,
            unanswered: m.counter_vec("roomcast_gateway_spine_unanswered_total", "Calls that NATS did not answer in time.", stream)?,
            resets: m.counter_vec("roomcast_gateway_spine_resets_total", "Streams that could not be continued, by cause; every client comes back with an incomplete recovery.", &["stream", "cause"])?,
            unreadable: m.counter_vec("roomcast_gateway_spine_unreadable_total", "Messages whose subject or headers are not those of an event; they are not delivered.", stream)?,
            position: m.gauge_vec("roomcast_gateway_spine_position", "Position up to which the stream has been handed out.", stream)?,
            ring_bytes: m.gauge("roomcast_gateway_ring_bytes", "Bytes of recent events in memory.")?,
            ring_events: m.gauge("roomcast_gateway_ring_events", "Recent events in memory.")?,
            ring_evicted: m.counter("roomcast_gateway_ring_evicted_total", "Events pushed out of memory by newer ones.")?,
            state_rooms: m.gauge("roomcast_gateway_state_rooms", "Rooms whose state is in memory.")?,
            state_values: m.gauge("roomcast_gateway_state_values", "State values in memory: keys, counted per audience.")?,
            state_bytes: m.gauge("roomcast_gateway_state_bytes", "Bytes of state values in memory.")?,
            state_dropped: m.counter_vec("roomcast_gateway_state_dropped_total", "Rooms dropped because they were unused (room), users' own rooms emptied because nobody asked for them (own), values refused because their room holds too many (value).", &["what"])?,
            reads: m.counter_vec("roomcast_gateway_stream_reads_total", "Reads of a room's state or older events, by outcome.", &["kind", "outcome"])?,
            complete: recoveries.with_label_values(&["complete"]),
            fresh: recoveries.with_label_values(&["fresh"]),
            recoveries,
            replayed: m.histogram("roomcast_gateway_replayed_events", "Missed events given to one returning client.", &[0.0, 1.0, 10.0, 100.0, 1_000.0, 10_000.0])?,
            replay_positions: m.histogram("roomcast_gateway_replay_depth_positions", "How far behind the head a returning client's cursor was, in positions of the stream.", &[0.0, 10.0, 100.0, 1_000.0, 10_000.0, 50_000.0, 200_000.0])?,
            waiting: m.gauge("roomcast_gateway_recoveries_waiting", "Subscriptions and requests that wait for a read.")?,
            reads_waiting: m.gauge("roomcast_gateway_stream_reads_waiting", "Rooms whose older events wait for their turn to be read; one is read at a time.")?,
            read_bytes: m.gauge("roomcast_gateway_stream_read_bytes", "Bytes of older events that were read from the stream just now, kept for those who want the same.")?,
            deep: m.counter("roomcast_gateway_recoveries_deep_total", "Recoveries that took events from before those in memory: what was read from the stream for one serves all of a room.")?,
            stale: m.gauge("roomcast_gateway_stale", "1 while NATS has not answered for more than 5 s, or while what it had 5 s ago is not handed out.")?,
            resume_seconds: m.gauge("roomcast_gateway_resume_seconds", "How long a client may be away and still come back complete.")?,
            ephemeral: m.counter("roomcast_gateway_ephemeral_total", "Ephemeral events handed out.")?,
        };
        for what in ["room", "own", "value"] {
            made.state_dropped.with_label_values(&[what]);
        }
        Ok(made)
    }
}

/// The counters of one stream, looked up once.
#[derive(Debug, Clone)]
pub struct StreamMetrics {
    /// See [`HubMetrics::delivered`].
    pub delivered: IntCounter,
    /// See [`HubMetrics::repaired`].
    pub repaired: IntCounter,
    /// See [`HubMetrics::duplicates`].
    pub duplicates: IntCounter,
    /// See [`HubMetrics::skipped`].
    pub skipped: IntCounter,
    /// See [`HubMetrics::repairs`]: any replica was asked.
    pub asked_replica: IntCounter,
    /// See [`HubMetrics::repairs`]: the leader was asked.
    pub asked_leader: IntCounter,
    /// See [`HubMetrics::probes`].
    pub probes: IntCounter,
    /// See [`HubMetrics::unanswered`].
    pub unanswered: IntCounter,
    /// See [`HubMetrics::unreadable`].
    pub unreadable: IntCounter,
    /// See [`HubMetrics::position`].
    pub position: IntGauge,
}

impl HubMetrics {
    /// Those of one stream.
    #[must_use]
    pub fn of_stream(&self, stream: &str) -> StreamMetrics {
        let label = &[stream][..];
        for cause in Cause::ALL {
            self.resets.with_label_values(&[stream, cause.as_str()]);
        }
        StreamMetrics {
            delivered: self.delivered.with_label_values(label),
            repaired: self.repaired.with_label_values(label),
            duplicates: self.duplicates.with_label_values(label),
            skipped: self.skipped.with_label_values(label),
            asked_replica: self.repairs.with_label_values(&[stream, "replica"]),
            asked_leader: self.repairs.with_label_values(&[stream, "leader"]),
            probes: self.probes.with_label_values(label),
            unanswered: self.unanswered.with_label_values(label),
            unreadable: self.unreadable.with_label_values(label),
            position: self.position.with_label_values(label),
        }
    }
}
