//! The aggregator's own metrics, each declared once; the help text is their documentation.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use roomcast_chassis::metrics::Metrics;
use schemars::JsonSchema;
use serde::Serialize;

use crate::engine::metric::{Outcome, Reason};

/// What an aggregator has counted since it started.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Events folded; one counts once for each metric it belongs to.
    pub folded: u64,
    /// Values published.
    pub published: u64,
    /// State writes.
    pub flushes: u64,
    /// State writes refused because another instance had written.
    pub conflicts: u64,
    /// Stored messages that are no events.
    pub unreadable: u64,
}

/// A shard as label.
#[must_use]
pub fn shard_label(shard: u32) -> String {
    format!("{shard:02}")
}

/// All of them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Counters {
    folded: IntCounter,
    past: IntCounter,
    skipped: Vec<(Reason, IntCounter)>,
    /// Stored events that are not events: nothing was folded.
    pub unreadable: IntCounter,
    /// Flushes.
    pub flushes: IntCounter,
    /// Bytes written by flushes.
    pub flush_bytes: IntCounter,
    /// How long flushes took.
    pub flush_seconds: Histogram,
    /// Flushes that lost the comparison.
    pub conflicts: IntCounter,
    /// Sessions begun anew, by reason.
    pub restarts: IntCounterVec,
    /// Events behind, by shard.
    pub lag: IntGaugeVec,
    /// Events behind in what is being filled, by shard.
    pub filling: IntGaugeVec,
    /// Shards that no longer share a reader.
    pub cast_off: IntCounter,
    /// Shards worked here.
    pub shards: IntGauge,
    /// State values published.
    pub published: IntCounter,
    /// State values not published because a newer one was there.
    pub stale: IntCounter,
    /// State values not published because the room is full.
    pub keys_refused: IntCounter,
    /// Rooms without watermark, by shard.
    pub rooms_untracked: IntGaugeVec,
    /// Metrics that miss events the stream no longer held.
    pub incomplete: IntCounter,
    /// Groups of rules that fire, by shard.
    pub firing: IntGaugeVec,
    /// Groups that no rule had room for.
    pub unwatched: IntCounter,
    notified: IntCounterVec,
    asked: IntCounterVec,
}

impl Counters {
    /// Declares them.
    ///
    /// # Errors
    /// Where they are declared already.
    pub fn new(metrics: &Metrics) -> Result<Self, prometheus::Error> {
        let skipped = metrics.counter_vec(
            "roomcast_aggregator_skipped_total",
            "Matching events that a metric did not fold, by reason.",
            &["reason"],
        )?;
        let made = Self {
            folded: metrics.counter(
                "roomcast_aggregator_folded_total",
                "Events folded into windows; one event counts once for each metric it belongs to.",
            )?,
            past: metrics.counter(
                "roomcast_aggregator_past_total",
                "Matching events older than every window that is kept.",
            )?,
            skipped: Reason::ALL
                .into_iter()
                .map(|(reason, name)| (reason, skipped.with_label_values(&[name])))
                .collect(),
            unreadable: metrics.counter(
                "roomcast_aggregator_unreadable_total",
                "Stored messages that are no events; ingest writes none.",
            )?,
            flushes: metrics.counter(
                "roomcast_aggregator_flushes_total",
                "State writes that succeeded.",
            )?,
            flush_bytes: metrics
                .counter("roomcast_aggregator_flush_bytes_total", "Bytes of state written.")?,
            flush_seconds: metrics.histogram(
                "roomcast_aggregator_flush_seconds",
                "Time from the begin of a state write to its acknowledgement.",
                &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5],
            )?,
            conflicts: metrics.counter(
                "roomcast_aggregator_conflicts_total",
                "State writes refused because another instance had written; the shard was read again.",
            )?,
            restarts: metrics.counter_vec(
                "roomcast_aggregator_restarts_total",
                "Shards read again from what is stored, by cause: store, reader, publish.",
                &["cause"],
            )?,
            lag: metrics.gauge_vec(
                "roomcast_aggregator_lag_events",
                "Stored events that match a shard's filters and are not yet read.",
                &["shard"],
            )?,
            filling: metrics.gauge_vec(
                "roomcast_aggregator_filling_events",
                "Stored events that new and changed metrics of a shard have yet to read, while its others go on.",
                &["shard"],
            )?,
            cast_off: metrics.counter(
                "roomcast_aggregator_cast_off_total",
                "Times a shard kept the shards that read the same rooms waiting for more than a second, and went on with a reader of its own.",
            )?,
            shards: metrics.gauge("roomcast_aggregator_shards", "Shards this instance works.")?,
            published: metrics.counter(
                "roomcast_aggregator_published_total",
                "State values published and acknowledged.",
            )?,
            stale: metrics.counter(
                "roomcast_aggregator_stale_total",
                "State values not published because a newer one was stored by another instance.",
            )?,
            keys_refused: metrics.counter(
                "roomcast_aggregator_keys_refused_total",
                "State values not published because their room holds as many keys as it may.",
            )?,
            rooms_untracked: metrics.gauge_vec(
                "roomcast_aggregator_rooms_untracked",
                "Events of rooms beyond the number whose watermarks are kept; none of them is late.",
                &["shard"],
            )?,
            incomplete: metrics.counter(
                "roomcast_aggregator_incomplete_total",
                "Times a metric was found to miss events that the stream no longer held.",
            )?,
            firing: metrics.gauge_vec(
                "roomcast_aggregator_rules_firing",
                "Groups of rules that fire at the moment.",
                &["shard"],
            )?,
            unwatched: metrics.counter(
                "roomcast_aggregator_rule_groups_refused_total",
                "Looks at groups that a rule had no room to watch.",
            )?,
            notified: metrics.counter_vec(
                "roomcast_aggregator_notifications_total",
                "Notifications of rules handed to ingest, by outcome: stored, before (by another instance), again (not taken yet), refused.",
                &["outcome"],
            )?,
            asked: metrics.counter_vec(
                "roomcast_aggregator_asked_total",
                "Times gateways asked for one group of a metric, by outcome: windows, absent (no such metric in the room), behind (not current yet), unreadable.",
                &["outcome"],
            )?,
        };
        for outcome in ["windows", "absent", "behind", "unreadable"] {
            made.asked.with_label_values(&[outcome]);
        }
        // A rate over what never happened is zero, not "no data"; and the first time counts, too.
        for cause in ["store", "reader", "publish", "stream"] {
            made.restarts.with_label_values(&[cause]);
        }
        for outcome in ["stored", "before", "again", "refused"] {
            made.notified.with_label_values(&[outcome]);
        }
        Ok(made)
    }

    /// Events behind in a shard.
    #[must_use]
    pub fn lag_of(&self, shard: u32) -> u64 {
        let lag = self.lag.with_label_values(&[shard_label(shard).as_str()]).get();
        u64::try_from(lag).unwrap_or(0)
    }

    /// What was counted since the start, for operators.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            folded: self.folded.get(),
            published: self.published.get(),
            flushes: self.flushes.get(),
            conflicts: self.conflicts.get(),
            unreadable: self.unreadable.get(),
        }
    }

    /// Counts what became of a notification.
    pub fn notified(&self, outcome: &str) {
        self.notified.with_label_values(&[outcome]).inc();
    }

    /// Counts what became of a question about a group.
    pub fn asked(&self, outcome: &str) {
        self.asked.with_label_values(&[outcome]).inc();
    }

    /// Counts events that were folded.
    pub fn folded(&self, count: u64) {
        self.folded.inc_by(count);
    }

    /// Counts what became of one event.
    pub fn count(&self, outcome: Outcome) {
        match outcome {
            Outcome::NotOurs => {}
            Outcome::Folded => self.folded.inc(),
            Outcome::Past => self.past.inc(),
            Outcome::Skipped(reason) => {
                if let Some((_, counter)) = self.skipped.iter().find(|(known, _)| *known == reason) {
                    counter.inc();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_a_shard_is_behind_is_found_again() {
        let counters = Counters::new(&Metrics::new("test").unwrap()).unwrap();
        for shard in 0..16 {
            let label = shard_label(shard);
            counters
                .lag
                .with_label_values(&[&label])
                .set(i64::from(shard) + 1);
            assert_eq!(counters.lag_of(shard), u64::from(shard) + 1, "{shard}");
        }
    }
}
