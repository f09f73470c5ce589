//! The gateway's steps in the trace of an event: that it was received, and that a shard wrote it to the sockets of its room.
//!
//! One step per event and one per shard, never one per client.

use roomcast_chassis::trace::{KeyValue, SpanKind, Step, messaging};
use roomcast_proto::subject::{parse_placed, stream};

use crate::delivery::Delivery;
use crate::hub::Incoming;

/// Begins the step of a message that a stream handed over, if its trace is kept; what the shards do with it is behind that step.
#[must_use]
pub fn received(stream: &'static str, sequence: u64, incoming: &mut Incoming) -> Step {
    let Some(trail) = incoming.trail.take() else {
        return Step::default();
    };
    let name = match stream {
        stream::EVENTS => "process EVENTS",
        stream::STATE => "process STATE",
        _ => "process ephemeral",
    };
    let step = Step::begin(name, SpanKind::Consumer, Some(&trail));
    step.set(|| messaging("process", stream));
    step.set(|| {
        let place = parse_placed(&incoming.subject);
        let (tenant, room) = place.map_or(("", ""), |place| (place.tenant, place.room));
        let bytes = i64::try_from(incoming.payload.len()).unwrap_or(i64::MAX);
        [
            KeyValue::new("messaging.message.body.size", bytes),
            KeyValue::new(
                "messaging.nats.stream_sequence",
                i64::try_from(sequence).unwrap_or(i64::MAX),
            ),
            KeyValue::new("roomcast.tenant", tenant.to_owned()),
            KeyValue::new("roomcast.room", room.to_owned()),
        ]
    });
    incoming.trail = step.trail().map(Box::new);
    let entered = step.enter();
    tracing::debug!(
        stream,
        sequence,
        "message {sequence} of {stream} is handed to the shards"
    );
    drop(entered);
    step
}

/// A shard's writing of events of one room.
pub struct Written {
    steps: Vec<Step>,
    deliveries: u64,
}

impl Written {
    /// Begins a step of each event whose trace is kept, if there is any and anybody it could be for. `deliveries`: what the shard has
    /// written so far.
    #[must_use]
    pub fn begin<D: AsRef<Delivery>>(
        events: &[D],
        deliveries: u64,
        anybody: impl FnOnce() -> bool,
    ) -> Option<Self> {
        let mut trails = events
            .iter()
            .filter_map(|event| event.as_ref().trail.as_deref())
            .peekable();
        if trails.peek().is_none() || !anybody() {
            return None;
        }
        let steps = trails.map(|trail| Step::begin("deliver", SpanKind::Internal, Some(trail)));
        Some(Self {
            steps: steps.collect(),
            deliveries,
        })
    }

    /// Ends them, and says to how many was written.
    pub fn end(self, events: usize, deliveries: u64, streams: bool) {
        let written = deliveries - self.deliveries;
        for step in self.steps {
            step.set(|| {
                [
                    KeyValue::new("roomcast.deliveries", i64::try_from(written).unwrap_or(i64::MAX)),
                    KeyValue::new("roomcast.events", i64::try_from(events).unwrap_or(i64::MAX)),
                    KeyValue::new("roomcast.transport", if streams { "sse" } else { "websocket" }),
                ]
            });
        }
    }
}
