//! The metrics of ingest, each declared once. Labels are closed enums, but for the first 50 tenants and the streams.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use roomcast_chassis::jetstream::StreamInfo;
use roomcast_chassis::metrics::Metrics;
use roomcast_proto::ids::Tenant;
use roomcast_proto::refusal::Code;
use schemars::JsonSchema;
use serde::Serialize;

/// Which way a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `POST /v1/events`
    Http,
    /// A request on `in.>`
    Nats,
    /// A broadcast of an administrator.
    Admin,
    /// A dead letter that an administrator has taken again.
    Replay,
    /// A change in a database.
    Capture,
    /// A message of a queue.
    Queue,
}

impl Door {
    /// All of them.
    pub const ALL: [Door; 6] = [
        Door::Http,
        Door::Nats,
        Door::Admin,
        Door::Replay,
        Door::Capture,
        Door::Queue,
    ];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Door::Http => "http",
            Door::Nats => "nats",
            Door::Admin => "admin",
            Door::Replay => "replay",
            Door::Capture => "capture",
            Door::Queue => "queue",
        }
    }
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Stored now.
    Stored,
    /// Stored before.
    Duplicate,
    /// Sent and not kept.
    Sent,
    /// Refused.
    Refused,
}

impl Outcome {
    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Stored => "stored",
            Outcome::Duplicate => "duplicate",
            Outcome::Sent => "sent",
            Outcome::Refused => "refused",
        }
    }
}

/// All of them. Cheap to clone: every request does it several times.
#[derive(Clone, Debug)]
pub struct IngestMetrics(Arc<Declared>);

impl std::ops::Deref for IngestMetrics {
    type Target = Declared;

    fn deref(&self) -> &Declared {
        &self.0
    }
}

/// The metrics themselves.
#[derive(Debug)]
pub struct Declared {
    requests: IntCounterVec,
    events: IntCounterVec,
    refused: IntCounterVec,
    dead_letters: IntCounterVec,
    /// Dead letters that could not be kept.
    pub dead_letters_lost: IntCounter,
    unauthenticated: IntCounterVec,
    /// Requests that carried `Rc-User` from an account that may not.
    pub forged_user: IntCounter,
    /// Requests without a reply subject: nobody heard the answer.
    pub unheard: IntCounter,
    /// Requests being worked on.
    pub in_flight: IntGauge,
    /// Requests refused because the bound on work in flight was reached.
    pub full: IntCounter,
    /// Requests refused because their publisher or tenant had its share, by whose limit and which.
    pub over_quota: IntCounterVec,
    /// From the decision to the acknowledgement of one request's events.
    pub store_seconds: Histogram,
    /// Publishes sent again with the same id.
    pub retries: IntCounter,
    batches: IntCounterVec,
    services: IntCounterVec,
    /// Service requests being worked on.
    pub services_in_flight: IntGauge,
    /// From a service request to its answer.
    pub service_seconds: Histogram,
    key_values: IntCounterVec,
    /// 1 while acknowledged events may not be on disk.
    pub may_lose: IntGauge,
    hanging: IntGaugeVec,
    /// Messages that wait in queues, as the instance that drains them sees it; 0 at the others.
    pub queue_waiting: IntGauge,
    /// How long the oldest message at the head of a queue has waited, seconds.
    pub queue_oldest_seconds: IntGauge,
    queue_pauses: IntCounterVec,
    tenants: Tenants,
    /// What each stream holds.
    pub streams: StreamGauges,
}

/// What each tenant publishes.
#[derive(Debug)]
struct Tenants {
    events: IntCounterVec,
    bytes: IntCounterVec,
    named: Mutex<HashMap<Tenant, Usage, RandomState>>,
}

/// What one tenant publishes.
#[derive(Debug)]
struct Usage {
    events: IntCounter,
    bytes: IntCounter,
}

impl Usage {
    fn add(&self, events: u64, bytes: u64) {
        self.events.inc_by(events);
        self.bytes.inc_by(bytes);
    }
}

impl Tenants {
    /// Counts for a tenant; all beyond the first [`TENANTS_MAX`] are counted as one.
    fn add(&self, tenant: &Tenant, events: u64, bytes: u64) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(usage) = named.get(tenant) {
            return usage.add(events, bytes);
        }
        if named.len() >= TENANTS_MAX {
            return self.usage(OTHER_TENANTS).add(events, bytes);
        }
        let usage = self.usage(tenant.as_str());
        usage.add(events, bytes);
        named.insert(tenant.clone(), usage);
    }

    fn usage(&self, label: &str) -> Usage {
        Usage {
            events: self.events.with_label_values(&[label]),
            bytes: self.bytes.with_label_values(&[label]),
        }
    }
}

/// What the streams hold and may hold, by stream.
#[derive(Debug)]
pub struct StreamGauges {
    bytes: IntGaugeVec,
    bytes_max: IntGaugeVec,
    messages: IntGaugeVec,
    messages_max: IntGaugeVec,
    oldest_seconds: IntGaugeVec,
    kept_seconds_max: IntGaugeVec,
}

impl StreamGauges {
    /// Shows what a stream holds at `now_micros`, Unix microseconds. A bound that it does not have is not shown.
    pub fn show(&self, stream: &str, info: &StreamInfo, now_micros: i64) {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.bytes
            .with_label_values(&[stream])
            .set(whole(info.state.bytes));
        if let Some(max) = info.config["max_bytes"].as_i64().filter(|max| *max > 0) {
            self.bytes_max.with_label_values(&[stream]).set(max);
        }
        if let Some(max) = info.config["max_msgs"].as_i64().filter(|max| *max > 0) {
            self.messages
                .with_label_values(&[stream])
                .set(whole(info.state.messages));
            self.messages_max.with_label_values(&[stream]).set(max);
        }
        if let Some(max) = info.config["max_age"].as_i64().filter(|max| *max > 0) {
            self.kept_seconds_max
                .with_label_values(&[stream])
                .set(max / 1_000_000_000);
        }
        let oldest = whole(info.state.oldest(now_micros).as_secs());
        self.oldest_seconds.with_label_values(&[stream]).set(oldest);
    }
}

/// What an ingest has counted since it started.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Events stored.
    pub stored: u64,
    /// Events that were stored before.
    pub duplicate: u64,
    /// Events sent and not kept.
    pub sent: u64,
    /// Refusals by code; those that never occurred are left out.
    pub refused: BTreeMap<&'static str, u64>,
    /// Publishes sent again with the same id.
    pub retries: u64,
    /// Requests refused because as much as may be was being worked on.
    pub full: u64,
}

/// Tenants with lines of their own in the metrics: each is a series of every instance. What the others publish is counted together.
const TENANTS_MAX: usize = 50;
/// Stands for them; no tenant can have this name.
const OTHER_TENANTS: &str = "(others)";

/// 0.5 ms to 8 s in doublings: a quiet fsync takes 0.3 to 1 ms, all attempts together at most 6 s.
const STORE_BUCKETS: [f64; 15] = [
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.0, 4.0, 8.0,
];

impl Declared {
    /// A closed label exists from the start: a rate over what never happened is zero, not "no data", and the first time counts, too.
    fn show_zeros(&self) {
        for code in Code::ALL {
            self.refused.with_label_values(&[code.as_str()]);
        }
        for outcome in ["stored", "apart"] {
            self.batches.with_label_values(&[outcome]);
        }
        for reason in ["unavailable", "rate", "not_listed", "unsure"] {
            self.queue_pauses.with_label_values(&[reason]);
        }
    }
}

impl IngestMetrics {
    /// Declares them.
    ///
    /// # Errors
    /// Where one is declared already, which is a mistake in the code.
    pub fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let declared = Declared {
            requests: metrics.counter_vec(
                "roomcast_ingest_requests_total",
                "Requests that asked to publish, by door (http, nats, admin, replay, capture, queue).",
                &["door"],
            )?,
            events: metrics.counter_vec(
                "roomcast_ingest_events_total",
                "Events by door and outcome: stored, duplicate, sent (ephemeral), refused.",
                &["door", "outcome"],
            )?,
            refused: metrics.counter_vec(
                "roomcast_ingest_refused_total",
                "Refusals of events and requests by code.",
                &["code"],
            )?,
            dead_letters: metrics.counter_vec(
                "roomcast_ingest_dead_letters_total",
                "Dead letters kept, by reason.",
                &["reason"],
            )?,
            dead_letters_lost: metrics.counter(
                "roomcast_ingest_dead_letters_lost_total",
                "Refused events that could not be kept as dead letters; someone must look at the DLQ stream.",
            )?,
            unauthenticated: metrics.counter_vec(
                "roomcast_ingest_unauthenticated_total",
                "HTTP requests without a valid token, by the check that failed.",
                &["check"],
            )?,
            forged_user: metrics.counter(
                "roomcast_ingest_forged_user_total",
                "Requests with Rc-User from an account other than the gateways'.",
            )?,
            unheard: metrics.counter(
                "roomcast_ingest_unheard_total",
                "NATS requests without a reply subject, worked on with nobody to hear the answer.",
            )?,
            in_flight: metrics.gauge("roomcast_ingest_in_flight", "Requests being worked on.")?,
            full: metrics.counter(
                "roomcast_ingest_full_total",
                "Requests refused because as much as may be was being worked on.",
            )?,
            over_quota: metrics.counter_vec(
                "roomcast_ingest_over_quota_total",
                "Requests refused because a publisher or tenant had its share, by whose (publisher, tenant) and what (rate: events a \
                 second, requests: under way at the same time, letters: bytes of dead letters).",
                &["whose", "what"],
            )?,
            store_seconds: metrics.histogram(
                "roomcast_ingest_store_seconds",
                "Time from the decision to the last acknowledgement of one request's events.",
                &STORE_BUCKETS,
            )?,
            retries: metrics.counter(
                "roomcast_ingest_publish_retries_total",
                "Publishes sent again with the same id because no good acknowledgement came.",
            )?,
            batches: metrics.counter_vec(
                "roomcast_ingest_batches_total",
                "Atomic batches by outcome: stored, or apart (refused or unanswered, so sent one by one).",
                &["outcome"],
            )?,
            services: metrics.counter_vec(
                "roomcast_ingest_service_requests_total",
                "Requests of gateways by what was asked and outcome: done, or the refusal's code. Asked none: a request for no service of ours, \
                 or from an account that is not the gateways'.",
                &["asked", "outcome"],
            )?,
            services_in_flight: metrics.gauge(
                "roomcast_ingest_service_in_flight",
                "Requests of gateways being worked on.",
            )?,
            service_seconds: metrics.histogram(
                "roomcast_ingest_service_seconds",
                "Time from a gateway's request to its answer.",
                &STORE_BUCKETS,
            )?,
            key_values: metrics.counter_vec(
                "roomcast_ingest_key_value_total",
                "Changes of keys by bucket and outcome: written, kept (nothing to write), raced (decided anew because another instance \
                 wrote), resolved (an answer was lost, the key itself told), unknown, unavailable.",
                &["bucket", "outcome"],
            )?,
            may_lose: metrics.gauge(
                "roomcast_ingest_may_lose",
                "1 while NATS writes to disk later than it acknowledges: a power cut would lose acknowledged events.",
            )?,
            hanging: metrics.gauge_vec(
                "roomcast_ingest_writes_hang",
                "1 from the moment a stream's writes are taken to hang until it stores something again.",
                &["stream"],
            )?,
            queue_waiting: metrics.gauge(
                "roomcast_ingest_queue_waiting",
                "Messages that wait in queues (inq.), at the instance that drains them.",
            )?,
            queue_oldest_seconds: metrics.gauge(
                "roomcast_ingest_queue_oldest_seconds",
                "Seconds the oldest queued message has waited, at the instance that drains the queues.",
            )?,
            queue_pauses: metrics.counter_vec(
                "roomcast_ingest_queue_pauses_total",
                "Times a queue was left for a moment with messages in it, by reason: unavailable (a stream takes or answers nothing), rate (its \
                 publisher or tenant has its share), not_listed (its publisher is not in the policy), unsure (nobody says whether rights \
                 have changed).",
                &["reason"],
            )?,
            tenants: Tenants {
                events: metrics.counter_vec(
                    "roomcast_ingest_tenant_events_total",
                    "Events taken of each tenant; of those beyond the first 50 together, as (others).",
                    &["tenant"],
                )?,
                bytes: metrics.counter_vec(
                    "roomcast_ingest_tenant_bytes_total",
                    "Bytes of the events taken of each tenant, as they were sent.",
                    &["tenant"],
                )?,
                named: Mutex::default(),
            },
            streams: StreamGauges {
                bytes: metrics.gauge_vec("roomcast_ingest_stream_bytes", "Bytes that a stream holds.", &["stream"])?,
                bytes_max: metrics.gauge_vec(
                    "roomcast_ingest_stream_max_bytes",
                    "Bytes that a stream may hold.",
                    &["stream"],
                )?,
                messages: metrics.gauge_vec(
                    "roomcast_ingest_stream_messages",
                    "Messages that a stream holds, where their number has a bound.",
                    &["stream"],
                )?,
                messages_max: metrics.gauge_vec(
                    "roomcast_ingest_stream_max_messages",
                    "Messages that a stream may hold, where their number has a bound.",
                    &["stream"],
                )?,
                oldest_seconds: metrics.gauge_vec(
                    "roomcast_ingest_stream_oldest_seconds",
                    "Age of the oldest message of a stream: whoever was away for longer has missed some.",
                    &["stream"],
                )?,
                kept_seconds_max: metrics.gauge_vec(
                    "roomcast_ingest_stream_kept_max_seconds",
                    "Age at which a stream drops its messages, where it has one.",
                    &["stream"],
                )?,
            },
        };
        declared.show_zeros();
        Ok(Self(Arc::new(declared)))
    }

    /// What was counted since the start, for operators.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let of_doors = |outcome: Outcome| {
            let one = |door: &Door| {
                self.events
                    .with_label_values(&[door.as_str(), outcome.as_str()])
                    .get()
            };
            Door::ALL.iter().map(one).sum()
        };
        let refused = |code: &Code| {
            let count = self.refused.with_label_values(&[code.as_str()]).get();
            (count > 0).then_some((code.as_str(), count))
        };
        Totals {
            stored: of_doors(Outcome::Stored),
            duplicate: of_doors(Outcome::Duplicate),
            sent: of_doors(Outcome::Sent),
            refused: Code::ALL.iter().filter_map(refused).collect(),
            retries: self.retries.get(),
            full: self.full.get(),
        }
    }

    /// A tenant's events were taken, of so many bytes together.
    pub fn usage(&self, tenant: &Tenant, events: u64, bytes: u64) {
        self.tenants.add(tenant, events, bytes);
    }

    /// A queue is left for a moment; `reason` comes from a closed set.
    pub fn queue_pause(&self, reason: &'static str) {
        self.queue_pauses.with_label_values(&[reason]).inc();
    }

    /// A request has come.
    pub fn request(&self, door: Door) {
        self.requests.with_label_values(&[door.as_str()]).inc();
    }

    /// An event has its outcome.
    pub fn event(&self, door: Door, outcome: Outcome) {
        self.events
            .with_label_values(&[door.as_str(), outcome.as_str()])
            .inc();
    }

    /// An event or a whole request was refused.
    pub fn refused(&self, code: Code) {
        self.refused.with_label_values(&[code.as_str()]).inc();
    }

    /// A dead letter was kept.
    pub fn dead_letter(&self, reason: Code) {
        self.dead_letters.with_label_values(&[reason.as_str()]).inc();
    }

    /// A token was missing or not valid; `check` comes from the verifier's closed set.
    pub fn unauthenticated(&self, check: &'static str) {
        self.unauthenticated.with_label_values(&[check]).inc();
    }

    /// An atomic batch has ended.
    pub fn batch(&self, stored: bool) {
        self.batches
            .with_label_values(&[if stored { "stored" } else { "apart" }])
            .inc();
    }

    /// A request of a gateway was answered; `service` and `outcome` come from closed sets.
    pub fn service(&self, service: &'static str, outcome: &'static str) {
        self.services.with_label_values(&[service, outcome]).inc();
    }

    /// A change of a key in the bucket behind `stream` has come so far; `outcome` comes from a closed set.
    pub fn key_value(&self, stream: &'static str, outcome: &'static str) {
        let bucket = stream.strip_prefix("KV_").unwrap_or(stream);
        self.key_values.with_label_values(&[bucket, outcome]).inc();
    }

    /// Whether a stream's writes hang; `stream` is one of ours.
    pub fn hanging(&self, stream: &'static str, hanging: bool) {
        self.hanging.with_label_values(&[stream]).set(i64::from(hanging));
    }

    #[cfg(test)]
    pub(crate) fn hanging_now(&self, stream: &'static str) -> i64 {
        self.hanging.with_label_values(&[stream]).get()
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self::new(&Metrics::new("ingest").unwrap()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_beyond_the_first_share_one_line() {
        let registry = Metrics::new("test").unwrap();
        let metrics = IngestMetrics::new(&registry).unwrap();
        for number in 0..TENANTS_MAX + 3 {
            let tenant = Tenant::parse(&format!("tenant-{number}")).unwrap();
            metrics.usage(&tenant, 2, 100);
            metrics.usage(&tenant, 1, 50);
        }
        let page = String::from_utf8(registry.encode().unwrap()).unwrap();
        let value = |name: &str, tenant: &str| {
            let of = |line: &&str| line.starts_with(name) && line.contains(&format!("tenant=\"{tenant}\""));
            page.lines().find(of)?.rsplit(' ').next()?.parse::<u64>().ok()
        };
        for (tenant, events, bytes) in [
            ("tenant-0", Some(3), Some(150)),
            ("tenant-49", Some(3), Some(150)),
            ("tenant-50", None, None),
            (OTHER_TENANTS, Some(9), Some(450)),
        ] {
            assert_eq!(
                value("roomcast_ingest_tenant_events_total", tenant),
                events,
                "{tenant}"
            );
            assert_eq!(
                value("roomcast_ingest_tenant_bytes_total", tenant),
                bytes,
                "{tenant}"
            );
        }
    }
}
