//! What NATS connections count.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::metrics::Metrics;

/// The metrics of all NATS connections of a process; declared once, labelled by connection.
#[derive(Clone, Debug)]
pub struct NatsMetrics {
    pub(super) connected: IntGaugeVec,
    pub(super) events: IntCounterVec,
    /// Publishes waiting for their acknowledgement.
    pub(crate) in_flight: IntGauge,
    /// Time from publish to acknowledgement, in seconds.
    pub(crate) ack_seconds: Histogram,
    /// Publishes that failed, by reason.
    pub(crate) publish_errors: IntCounterVec,
    /// Acknowledgements nobody waited for any more.
    pub(crate) late_acks: IntCounter,
}

impl NatsMetrics {
    /// Declares them.
    ///
    /// # Errors
    /// Where they are declared already.
    pub fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let made = Self {
            connected: metrics.gauge_vec(
                "roomcast_nats_connected",
                "1 while the NATS connection is up.",
                &["connection"],
            )?,
            events: metrics.counter_vec(
                "roomcast_nats_events_total",
                "Events of NATS connections: connected, disconnected, connect_failed, lame_duck, draining, closed, \
                 slow_consumer, server_error, client_error, refused.",
                &["connection", "event"],
            )?,
            in_flight: metrics.gauge(
                "roomcast_nats_publishes_in_flight",
                "JetStream publishes that wait for their acknowledgement.",
            )?,
            ack_seconds: metrics.histogram(
                "roomcast_nats_ack_seconds",
                "Time from a JetStream publish to its acknowledgement.",
                &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0],
            )?,
            publish_errors: metrics.counter_vec(
                "roomcast_nats_publish_errors_total",
                "JetStream publishes without a good acknowledgement: timeout, no_responders, refused, malformed, client.",
                &["reason"],
            )?,
            late_acks: metrics.counter(
                "roomcast_nats_late_acks_total",
                "Acknowledgements that came after their publisher had given up waiting.",
            )?,
        };
        // A rate over what never happened is zero, not "no data"; and the first time counts, too.
        for reason in ["timeout", "no_responders", "refused", "malformed", "client"] {
            made.publish_errors.with_label_values(&[reason]);
        }
        Ok(made)
    }
}
