//! What the socket side counts. Shards count in plain numbers of their own and add them here once a turn, so that
//! counting costs a delivery nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};
use roomcast_chassis::metrics::Metrics;
use roomcast_proto::close::Close;
use roomcast_proto::ids::Room;
use schemars::JsonSchema;
use serde::Serialize;

use crate::accept::Away;
use crate::admission::TooMany;
use crate::allowance::Operation;
use crate::limit::Limit;
use crate::session::Verdict;

/// Upper bounds of the latency from stored to written: P5 asks for 5 and 25 ms.
const LATENCY_BUCKETS: [f64; 11] = [
    0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0,
];
/// Upper bounds of the time from accept to `connected`.
const HANDSHAKE_BUCKETS: [f64; 9] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 8.0];

/// Rooms by what they are for: one of many shards' members is slow to reach, a user's own is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoomClass {
    /// Many may be in it.
    Shared,
    /// A user's own.
    Personal,
}

impl RoomClass {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Shared, Self::Personal];

    /// Which a room is.
    #[must_use]
    pub fn of(room: &Room) -> Self {
        if room.is_personal() {
            Self::Personal
        } else {
            Self::Shared
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Personal => "personal",
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// We closed it.
    Closed(Close),
    /// The client closed it in order.
    Client,
    /// It broke off.
    Gone,
}

impl Ending {
    fn label(self) -> &'static str {
        match self {
            Self::Closed(close) => close.reason(),
            Self::Client => "client",
            Self::Gone => "gone",
        }
    }
}

/// The metrics of the socket side.
#[derive(Clone, Debug)]
pub struct GatewayMetrics {
    /// WebSockets and streams open, authenticated or not.
    pub connections: IntGauge,
    /// Those of them that are streams of server-sent events.
    pub streams: IntGauge,
    /// Bytes that wait in all outboxes.
    pub outbox_bytes: IntGauge,
    /// Polls that are held until there is something to answer.
    pub polls: IntGauge,
    /// New connections that were not taken.
    pub turned_away: IntCounterVec,
    /// Operations refused because of their rate.
    pub rate_limited: IntCounterVec,
    limited: IntCounterVec,
    /// Upgrade requests by outcome.
    pub upgrades: IntCounterVec,
    /// Those of them that a shard answered by itself.
    pub switched: IntCounter,
    /// HTTP answers by route and class.
    pub http: IntCounterVec,
    /// Tokens by outcome.
    pub tokens: IntCounterVec,
    connected: IntCounter,
    closes: IntCounterVec,
    /// By outcome, those of nearly all; the rest by the codes of refusals.
    subscribed: Arc<[(&'static str, IntCounter)]>,
    subscriptions: IntCounterVec,
    frames_in: IntCounter,
    bytes_in: IntCounter,
    frames_out: IntCounter,
    bytes_out: IntCounter,
    deliveries: IntCounter,
    outbox_full: IntCounterVec,
    flushes: IntCounterVec,
    dropped: IntCounterVec,
    /// What ingest said to gateways.
    pub control: IntCounterVec,
    decided: IntCounterVec,
    decided_again: Histogram,
    handshake: Histogram,
    /// By class of room, as [`RoomClass`] numbers them.
    latency: [Histogram; RoomClass::ALL.len()],
}

impl GatewayMetrics {
    /// Declares them.
    ///
    /// # Errors
    /// Where one is declared already.
    pub fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let latency = metrics.histogram_vec(
            "roomcast_gateway_fan_out_seconds",
            "Time from stored to written to the last member in a shard, by class of room (shared, personal); one sample per turn with \
             events.",
            &LATENCY_BUCKETS,
            &["class"],
        )?;
        let upgrades = metrics.counter_vec(
            "roomcast_gateway_upgrades_total",
            "Requests for a WebSocket by outcome: switched, or the refusal's code.",
            &["outcome"],
        )?;
        let subscriptions = metrics.counter_vec(
            "roomcast_gateway_subscriptions_total",
            "Rooms asked for, by outcome: complete, incomplete, fresh, forbidden, unavailable.",
            &["outcome"],
        )?;
        let made = Self {
            connections: metrics.gauge("roomcast_gateway_connections", "Open WebSockets and streams of server-sent events.")?,
            streams: metrics.gauge("roomcast_gateway_streams", "Open streams of server-sent events.")?,
            outbox_bytes: metrics.gauge("roomcast_gateway_outbox_bytes", "Bytes that wait for clients; what several wait for is counted for each.")?,
            polls: metrics.gauge("roomcast_gateway_polls_held", "Polls that are held until there is something new.")?,
            turned_away: metrics.counter_vec(
                "roomcast_gateway_turned_away_total",
                "New connections that were not taken, by the limit: connections, strangers, rate, address, \
                 address_strangers, address_rate, tenant, user; descriptors (none left), head (no whole request in time), \
                 drain (the gateway goes down).",
                &["limit"],
            )?,
            rate_limited: metrics.counter_vec(
                "roomcast_gateway_rate_limited_total",
                "Messages and requests refused because their user did too many of the kind, by operation.",
                &["operation"],
            )?,
            limited: metrics.counter_vec(
                "roomcast_gateway_limited_total",
                "Times somebody met a limit that is not counted by another metric, by limit: head, url, rooms, authenticate, message, \
                 body, requests, ingress, waiting, subscriptions, reading, activity, asks_of_connection, asks_of_user, asks_of_tenant, \
                 asks, polls_of_tenant, polls, write, outboxes, pong, unacknowledged.",
                &["limit"],
            )?,
            switched: upgrades.with_label_values(&["switched"]),
            upgrades,
            http: metrics.counter_vec(
                "roomcast_gateway_http_total",
                "HTTP answers by route and class of status.",
                &["route", "class"],
            )?,
            tokens: metrics.counter_vec(
                "roomcast_gateway_tokens_total",
                "Tokens shown, by outcome: accepted, or the check that failed.",
                &["outcome"],
            )?,
            connected: metrics
                .counter("roomcast_gateway_connected_total", "Connections that were authenticated and answered.")?,
            closes: metrics.counter_vec(
                "roomcast_gateway_closes_total",
                "WebSocket connections that ended, by reason: those of the close codes, client, gone.",
                &["reason"],
            )?,
            subscribed: ["complete", "incomplete", "fresh"]
                .map(|outcome| (outcome, subscriptions.with_label_values(&[outcome])))
                .into(),
            subscriptions,
            frames_in: metrics.counter("roomcast_gateway_frames_in_total", "Messages and control frames from clients.")?,
            bytes_in: metrics.counter("roomcast_gateway_bytes_in_total", "Bytes read from WebSockets.")?,
            frames_out: metrics.counter("roomcast_gateway_frames_out_total", "Frames handed to WebSockets.")?,
            bytes_out: metrics.counter("roomcast_gateway_bytes_out_total", "Bytes written to WebSockets.")?,
            deliveries: metrics
                .counter("roomcast_gateway_deliveries_total", "Live events handed to members, one per member.")?,
            outbox_full: metrics.counter_vec(
                "roomcast_gateway_outbox_full_total",
                "Clients closed because their outbox was full, by the class of the message that did not fit: event, \
                 state, answer.",
                &["class"],
            )?,
            flushes: metrics.counter_vec(
                "roomcast_gateway_flushes_total",
                "Times a room's events were written to its members, by how they came: at_once, gathered.",
                &["kind"],
            )?,
            dropped: metrics.counter_vec(
                "roomcast_gateway_dropped_total",
                "Deliveries not made, by reason: ephemeral (outbox full), conflated (a newer value of the key left in its \
                 place), unreadable (cannot be redacted), inbox (shard too far behind; its clients are told to come \
                 back).",
                &["reason"],
            )?,
            control: metrics.counter_vec(
                "roomcast_gateway_control_total",
                "Messages of ingest to all gateways: kick, unknown.",
                &["what"],
            )?,
            decided: metrics.counter_vec(
                "roomcast_gateway_decided_again_total",
                "Clients decided about again because rights changed, by outcome: same, changed, revoked.",
                &["outcome"],
            )?,
            decided_again: metrics.histogram(
                "roomcast_gateway_decided_again_seconds",
                "Time in which a shard decided about all its clients again.",
                &LATENCY_BUCKETS,
            )?,
            handshake: metrics.histogram(
                "roomcast_gateway_handshake_seconds",
                "Time from accept to `connected`.",
                &HANDSHAKE_BUCKETS,
            )?,
            latency: RoomClass::ALL.map(|class| latency.with_label_values(&[class.as_str()])),
        };
        made.show_zeros();
        Ok(made)
    }

    /// A closed label exists from the start, so that a rate over it is never "no data".
    fn show_zeros(&self) {
        for close in Close::ALL {
            self.closes.with_label_values(&[close.reason()]);
        }
        for (_, operation, _) in Operation::ALL {
            self.rate_limited.with_label_values(&[operation]);
        }
        for limit in TooMany::ALL {
            self.turned_away.with_label_values(&[limit.as_str()]);
        }
        for (_, limit) in Limit::ALL {
            self.limited.with_label_values(&[limit]);
        }
        for label in Away::LABELS {
            self.turned_away.with_label_values(&[label]);
        }
        for reason in ["ephemeral", "conflated", "unreadable", "inbox"] {
            self.dropped.with_label_values(&[reason]);
        }
        for class in ["event", "state", "answer"] {
            self.outbox_full.with_label_values(&[class]);
        }
        for what in ["kick", "unknown"] {
            self.control.with_label_values(&[what]);
        }
        for outcome in ["same", "changed", "revoked"] {
            self.decided.with_label_values(&[outcome]);
        }
        for kind in ["at_once", "gathered"] {
            self.flushes.with_label_values(&[kind]);
        }
    }

    /// What was counted since the start, for operators.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let closes = Close::ALL.iter().map(|close| close.reason());
        Totals {
            connected: self.connected.get(),
            deliveries: self.deliveries.get(),
            frames_in: self.frames_in.get(),
            bytes_in: self.bytes_in.get(),
            frames_out: self.frames_out.get(),
            bytes_out: self.bytes_out.get(),
            closes: closes
                .chain(["client", "gone"])
                .map(|reason| (reason, self.closes.with_label_values(&[reason]).get()))
                .filter(|(_, count)| *count > 0)
                .collect(),
        }
    }

    /// One connection ended.
    pub fn ended(&self, ending: Ending) {
        self.connections.dec();
        self.closes.with_label_values(&[ending.label()]).inc();
    }

    /// Somebody met a limit.
    pub fn limited(&self, limit: Limit) {
        self.limited.with_label_values(&[limit.as_str()]).inc();
    }

    /// One room was asked for.
    pub fn subscribed(&self, outcome: &str) {
        match self.subscribed.iter().find(|(known, _)| *known == outcome) {
            Some((_, counter)) => counter.inc(),
            None => self.subscriptions.with_label_values(&[outcome]).inc(),
        }
    }

    /// Deliveries dropped because a shard was too far behind.
    pub fn inbox_overflow(&self) {
        self.dropped.with_label_values(&["inbox"]).inc();
    }

    /// A client was decided about again.
    pub fn decided(&self, verdict: Verdict) {
        let outcome = match verdict {
            Verdict::Same => "same",
            Verdict::Changed => "changed",
            Verdict::Revoked => "revoked",
        };
        self.decided.with_label_values(&[outcome]).inc();
    }

    /// A shard decided about all its clients again.
    pub fn decided_again(&self, after: std::time::Duration) {
        self.decided_again.observe(after.as_secs_f64());
    }

    /// A connection was answered `connected`.
    pub fn connected(&self, after: std::time::Duration) {
        self.connected.inc();
        self.handshake.observe(after.as_secs_f64());
    }

    /// Adds what a shard counted and sets its counts to zero.
    pub fn add(&self, tally: &mut Tally) {
        let counters = [
            (&self.frames_in, tally.frames_in),
            (&self.bytes_in, tally.bytes_in),
            (&self.frames_out, tally.frames_out),
            (&self.bytes_out, tally.bytes_out),
            (&self.deliveries, tally.deliveries),
        ];
        for (counter, count) in counters {
            if count > 0 {
                counter.inc_by(count);
            }
        }
        let labelled = [
            (&self.dropped, "ephemeral", tally.dropped_ephemeral),
            (&self.dropped, "conflated", tally.conflated),
            (&self.dropped, "unreadable", tally.unreadable),
            (&self.outbox_full, "event", tally.outbox_full.event),
            (&self.outbox_full, "state", tally.outbox_full.state),
            (&self.outbox_full, "answer", tally.outbox_full.answer),
            (&self.flushes, "at_once", tally.flushes_at_once),
            (&self.flushes, "gathered", tally.flushes_gathered),
        ];
        for (counter, label, count) in labelled {
            if count > 0 {
                counter.with_label_values(&[label]).inc_by(count);
            }
        }
        for (latency, millis) in self.latency.iter().zip(tally.latency_millis) {
            if let Some(millis) = millis {
                latency.observe(f64::from(millis) / 1000.0);
            }
        }
        *tally = Tally::default();
    }
}

/// What a gateway has counted since it started.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Connections that were authenticated.
    pub connected: u64,
    /// Live events handed to members, one per member.
    pub deliveries: u64,
    /// Messages and control frames from clients.
    pub frames_in: u64,
    /// Bytes read from WebSockets.
    pub bytes_in: u64,
    /// Frames handed to WebSockets.
    pub frames_out: u64,
    /// Bytes written to WebSockets.
    pub bytes_out: u64,
    /// Connections that ended, by reason; those that never occurred are left out.
    pub closes: BTreeMap<&'static str, u64>,
}

/// The counts of one shard since the last turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Messages and control frames read.
    pub frames_in: u64,
    /// Bytes read.
    pub bytes_in: u64,
    /// Frames handed to sockets.
    pub frames_out: u64,
    /// Bytes written.
    pub bytes_out: u64,
    /// Live events, one per member.
    pub deliveries: u64,
    /// Clients whose outbox was full.
    pub outbox_full: ByClass,
    /// Ephemeral events dropped at a full outbox.
    pub dropped_ephemeral: u64,
    /// State values that gave way to newer ones of their key.
    pub conflated: u64,
    /// Flushes of rooms that nothing had waited for.
    pub flushes_at_once: u64,
    /// Flushes of what rooms had gathered.
    pub flushes_gathered: u64,
    /// Bytes more (or fewer) that wait in outboxes; the shard takes them out before the rest is added.
    pub waiting_bytes: i64,
    /// Events that could not be redacted.
    pub unreadable: u64,
    /// Milliseconds from stored to written, of the oldest event of the turn, by class of room.
    pub latency_millis: [Option<u16>; RoomClass::ALL.len()],
}

/// A count per class of message.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByClass {
    /// Live events.
    pub event: u64,
    /// State values.
    pub state: u64,
    /// Everything else.
    pub answer: u64,
}
