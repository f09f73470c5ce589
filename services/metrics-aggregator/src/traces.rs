//! The aggregator's steps in the traces of events: that an event was folded and written, and that values were published with it.

use std::time::Duration;

use roomcast_chassis::trace::{KeyValue, SpanKind, Step, Trail, messaging};
use roomcast_proto::subject::stream;
use tokio::time::Instant;

use crate::delivered::Delivered;

/// Events between two flushes of a shard whose traces are followed; those beyond are folded without.
const TRACED_MAX: usize = 32;

/// How long the values of an event may be held back, by `at_most_every` of their metric, and still be told of its trace.
const HELD_BACK_MAX: Duration = Duration::from_secs(5);

/// Events whose traces are kept, until the values that they changed are published.
#[derive(Debug, Default)]
pub struct Traced {
    /// Folded and not yet written.
    folded: Vec<Folded>,
    /// Written, with the time of that; nothing was published since.
    waiting: Vec<(Trail, Instant)>,
}

#[derive(Debug)]
struct Folded {
    step: Step,
    seq: u64,
}

impl Traced {
    /// Remembers an event whose trace is kept.
    pub fn take(&mut self, delivered: &Delivered) {
        let Some(trail) = &delivered.trail else { return };
        if self.folded.len() < TRACED_MAX {
            self.folded.push(Folded {
                step: Step::begin("process EVENTS", SpanKind::Consumer, Some(trail)),
                seq: delivered.seq,
            });
        }
    }

    /// They are written: ends the step of each, and begins the one that publishes `values` values. That one is behind the first and
    /// linked to the others, because a value is made of all of them.
    pub fn written(&mut self, shard: u32, values: usize) -> Step {
        let now = Instant::now();
        self.waiting
            .retain(|(_, since)| now.duration_since(*since) < HELD_BACK_MAX);
        let folded = self.folded.drain(..).map(|Folded { step, seq }| {
            step.set(|| messaging("process", stream::EVENTS));
            step.set(|| {
                [
                    KeyValue::new(
                        "messaging.nats.stream_sequence",
                        i64::try_from(seq).unwrap_or(i64::MAX),
                    ),
                    KeyValue::new("roomcast.shard", i64::from(shard)),
                ]
            });
            let _entered = step.enter();
            tracing::debug!(shard, sequence = seq, "event {} is counted and written", seq);
            Some((step.trail()?, now))
        });
        self.waiting.extend(folded.flatten());
        self.waiting.truncate(TRACED_MAX);
        if values == 0 {
            return Step::default();
        }
        let trails: Vec<Trail> = self.waiting.drain(..).map(|(trail, _)| trail).collect();
        let Some((first, others)) = trails.split_first() else {
            return Step::default();
        };
        let step = Step::begin("publish STATE", SpanKind::Producer, Some(first)).and_behind(others);
        step.set(|| messaging("publish", stream::STATE));
        step.set(|| {
            [KeyValue::new(
                "messaging.batch.message_count",
                i64::try_from(values).unwrap_or(i64::MAX),
            )]
        });
        step
    }

    /// The newest event whose values nobody has seen yet; what a rule says now follows from it or from one before.
    pub fn newest(&self) -> Option<Trail> {
        self.waiting.last().map(|(trail, _)| trail.clone())
    }
}
