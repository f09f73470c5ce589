//! The metrics of a capture; there where a database is followed.

use prometheus::{IntCounterVec, IntGauge};
use roomcast_capture::follow::Left;
use roomcast_chassis::metrics::Metrics;

/// Why following may end; closed.
const REASONS: [&str; 7] = [
    "problems",
    "stopped",
    "unreachable",
    "refused",
    "stuck",
    "store",
    "position",
];
/// Why a change may make no event; closed.
const LEFT: [&str; 4] = ["not_mapped", "filtered", "undecided", "repeated"];

/// All of them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CaptureMetrics {
    /// Whether this instance follows the database.
    pub following: IntGauge,
    failures: IntCounterVec,
    left: IntCounterVec,
    held: IntGauge,
    unconfirmed: IntGauge,
}

impl CaptureMetrics {
    /// Declares them.
    ///
    /// # Errors
    /// Where one is declared already, which is a mistake in the code.
    pub fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let declared = Self {
            following: metrics.gauge(
                "roomcast_capture_following",
                "1 where this instance follows the database; of several instances one does.",
            )?,
            failures: metrics.counter_vec(
                "roomcast_capture_failures_total",
                "Ends of following a database, by reason: unreachable, refused, problems (the database is not as the mapping needs it), \
                 stopped (an operator has to decide), stuck (the stream cannot be followed), store (NATS does not take changes), position.",
                &["reason"],
            )?,
            left: metrics.counter_vec(
                "roomcast_capture_left_out_total",
                "Changes of rows that made no event, by reason: not_mapped, filtered (where is false), undecided (where cannot be decided), \
                 repeated (stored before).",
                &["reason"],
            )?,
            held: metrics.gauge(
                "roomcast_capture_slot_held_bytes",
                "Bytes of its log that the database keeps for the replication slot.",
            )?,
            unconfirmed: metrics.gauge(
                "roomcast_capture_slot_unconfirmed_bytes",
                "Bytes of the database's log that are not confirmed as stored.",
            )?,
        };
        for reason in REASONS {
            declared.failures.with_label_values(&[reason]);
        }
        for reason in LEFT {
            declared.left.with_label_values(&[reason]);
        }
        Ok(declared)
    }

    /// Following has ended; `reason` comes from a closed set.
    pub fn failed(&self, reason: &'static str) {
        self.failures.with_label_values(&[reason]).inc();
    }

    /// Changes made no event.
    pub fn left(&self, left: Left) {
        let counts = [left.not_mapped, left.filtered, left.undecided, left.repeated];
        for (reason, count) in LEFT.into_iter().zip(counts).filter(|(_, count)| *count > 0) {
            self.left.with_label_values(&[reason]).inc_by(count);
        }
    }

    /// What the slot holds.
    pub fn lag(&self, held: u64, unconfirmed: u64) {
        self.held.set(i64::try_from(held).unwrap_or(i64::MAX));
        self.unconfirmed
            .set(i64::try_from(unconfirmed).unwrap_or(i64::MAX));
    }
}
