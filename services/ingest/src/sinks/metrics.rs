//! What is sent out, in numbers. Labels are closed.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use roomcast_chassis::metrics::Metrics;
use roomcast_proto::subject::SinkTarget;
use roomcast_sinks::send::LABELS;

/// How a job ends: `sent`; `dead` (nobody took it in the stated time, or never will); `gone` (the device is); `muted` and `read` (the user
/// does not want a push); `superseded` (a newer one, or none, is in its place); `expired`; `forbidden` (the user may not see it any more).
pub const ENDS: [&str; 8] = [
    "sent",
    "dead",
    "gone",
    "muted",
    "read",
    "superseded",
    "expired",
    "forbidden",
];
/// Why something waits: NATS does not answer; as much waits as may; nobody can say what is in force; as many attempts are under way as may.
const PAUSES: [&str; 4] = ["unavailable", "full", "unsure", "busy"];

/// Webhook or push.
#[must_use]
pub fn sink_of(target: &SinkTarget) -> &'static str {
    match target {
        SinkTarget::Webhook(_) => "webhook",
        SinkTarget::Device { .. } => "push",
    }
}

/// All of them.
#[derive(Clone, Debug)]
pub struct SinkMetrics {
    attempts: IntCounterVec,
    ended: IntCounterVec,
    pauses: IntCounterVec,
    waiting: IntGaugeVec,
    hanging: IntGaugeVec,
    /// Seconds for which the oldest job has waited, at the instance that sends.
    pub oldest_seconds: IntGauge,
    /// Users with devices, at the instance that sends.
    pub users: IntGauge,
    /// Devices taken out because their user or token was revoked.
    pub revoked: IntCounter,
}

impl SinkMetrics {
    /// Declares them.
    ///
    /// # Errors
    /// Where one is declared already, which is a mistake in the code.
    pub fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let declared = Self {
            attempts: metrics.counter_vec(
                "roomcast_ingest_sink_attempts_total",
                "Attempts to send a notification by sink (webhook, push) and answer: taken, gone (404, 410), refused (400, 413, 422), status \
                 (any other), redirect, slow, unreachable, address (one that may not be spoken to).",
                &["sink", "answer"],
            )?,
            ended: metrics.counter_vec(
                "roomcast_ingest_sink_ended_total",
                "Notifications for one webhook or device by sink and end: sent, dead (a dead letter), gone (the device), muted, read, \
                 superseded, expired, forbidden.",
                &["sink", "end"],
            )?,
            pauses: metrics.counter_vec(
                "roomcast_ingest_sink_pauses_total",
                "Times sending stood still for a moment, by reason: unavailable (NATS does not answer), full (as much waits as may), unsure \
                 (nobody can say which rights are in force); busy: for some receivers alone, to which as many attempts are under way as may.",
                &["reason"],
            )?,
            waiting: metrics.gauge_vec(
                "roomcast_ingest_sink_waiting",
                "Notifications that wait for a webhook or device, at the instance that sends; 0 at the others.",
                &["sink"],
            )?,
            hanging: metrics.gauge_vec(
                "roomcast_ingest_sink_hanging",
                "Webhooks, and push services by their hosts, that did not answer when they were last spoken to, at the instance that \
                 sends: each is tried with two attempts at a time until it answers.",
                &["sink"],
            )?,
            oldest_seconds: metrics.gauge(
                "roomcast_ingest_sink_oldest_seconds",
                "Seconds for which the oldest notification has waited for its webhook or device, at the instance that sends.",
            )?,
            users: metrics.gauge(
                "roomcast_ingest_sink_users",
                "Users who have registered devices for pushes, at the instance that sends.",
            )?,
            revoked: metrics.counter(
                "roomcast_ingest_sink_devices_revoked_total",
                "Devices taken out because their user or the token that registered them was revoked.",
            )?,
        };
        for sink in ["webhook", "push"] {
            for answer in LABELS {
                declared.attempts.with_label_values(&[sink, answer]);
            }
            for end in ENDS {
                declared.ended.with_label_values(&[sink, end]);
            }
            declared.waiting.with_label_values(&[sink]);
            declared.hanging.with_label_values(&[sink]);
        }
        for reason in PAUSES {
            declared.pauses.with_label_values(&[reason]);
        }
        Ok(declared)
    }

    /// An attempt was answered.
    pub fn attempt(&self, target: &SinkTarget, answer: &'static str) {
        self.attempts.with_label_values(&[sink_of(target), answer]).inc();
    }

    /// A job has ended; `end` is one of [`ENDS`].
    pub fn ended(&self, target: &SinkTarget, end: &'static str) {
        self.ended.with_label_values(&[sink_of(target), end]).inc();
    }

    /// Nothing goes on for a moment.
    pub fn pause(&self, reason: &'static str) {
        self.pauses.with_label_values(&[reason]).inc();
    }

    /// So many more, or fewer, wait.
    pub fn waiting(&self, target: &SinkTarget, more: i64) {
        self.waiting.with_label_values(&[sink_of(target)]).add(more);
    }

    /// So many receivers hang.
    pub fn hanging(&self, webhooks: usize, pushes: usize) {
        for (sink, count) in [("webhook", webhooks), ("push", pushes)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.hanging.with_label_values(&[sink]).set(count);
        }
    }

    /// This instance does not send.
    pub fn idle(&self) {
        for sink in ["webhook", "push"] {
            self.waiting.with_label_values(&[sink]).set(0);
        }
        self.hanging(0, 0);
        self.oldest_seconds.set(0);
        self.users.set(0);
    }
}
