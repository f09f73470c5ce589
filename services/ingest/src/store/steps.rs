//! The steps of traces that storing takes: one of the request, and one of each event that came with a trace of its own.

use roomcast_chassis::jetstream::Outgoing;
use roomcast_chassis::trace::{self, KeyValue, SpanKind, Step, Trail, messaging};
use roomcast_proto::event::Delivery;
use roomcast_proto::refusal::Refusal;
use roomcast_proto::subject::stream as names;

use super::Placed;
use crate::accept::{Accepted, Placement};

/// Steps under way; what is stored meanwhile names its own.
#[derive(Debug, Default)]
pub(super) struct Steps {
    whole: Step,
    own: Vec<Step>,
}

impl Steps {
    /// Begins them. Events that came with a trace of their own are from now on behind their step.
    pub(super) fn begin(events: &mut [Accepted]) -> Self {
        if !trace::on() {
            return Self::default();
        }
        let mut steps = Self::default();
        for event in events.iter_mut() {
            let Some(trail) = event.trail().filter(|trail| trail.is_kept()) else {
                continue;
            };
            let step = begin(std::slice::from_ref(event), trail);
            if let Some(trail) = step.trail() {
                event.follows(&trail);
            }
            steps.own.push(step);
        }
        if steps.own.len() < events.len()
            && let Some(trail) = trace::current()
        {
            steps.whole = begin(events, &trail);
        }
        steps
    }

    /// The request's, in which the rest is done.
    pub(super) fn whole(&self) -> &Step {
        &self.whole
    }

    /// Says how it ended.
    pub(super) fn end(self, placed: &[Result<Placed, Refusal>]) {
        let Some(refusal) = placed.iter().find_map(|placed| placed.as_ref().err()) else {
            return;
        };
        for step in self.own.iter().chain([&self.whole]) {
            step.failed(refusal.code.as_str());
        }
    }
}

fn begin(events: &[Accepted], trail: &Trail) -> Step {
    let placements = || events.iter().flat_map(|event| &event.placements);
    let destination = match placements().next().map(|placement| placement.class) {
        Some(Delivery::State) => names::STATE,
        Some(Delivery::Ephemeral) => "ephemeral",
        Some(Delivery::Event) | None => names::EVENTS,
    };
    let name = match destination {
        names::STATE => "publish STATE",
        names::EVENTS => "publish EVENTS",
        _ => "publish ephemeral",
    };
    let step = Step::begin(name, SpanKind::Producer, Some(trail));
    step.set(|| messaging("publish", destination));
    if let [event] = events {
        step.set(|| {
            [
                KeyValue::new("cloudevents.event_id", event.id.clone()),
                KeyValue::new("cloudevents.event_type", event.kind.clone()),
                KeyValue::new("roomcast.tenant", event.tenant.to_string()),
            ]
        });
    }
    let mut some = placements();
    match (some.next(), some.next()) {
        (Some(only), None) => step.set(|| {
            let bytes = i64::try_from(only.payload.len()).unwrap_or(i64::MAX);
            [
                KeyValue::new("messaging.message.id", only.msg_id.clone()),
                KeyValue::new("messaging.message.body.size", bytes),
            ]
        }),
        _ => step.set(|| {
            let count = i64::try_from(placements().count()).unwrap_or(i64::MAX);
            [KeyValue::new("messaging.batch.message_count", count)]
        }),
    }
    step
}

/// The message of a placement, behind its event's own step or the one that runs.
pub(super) fn message(placement: &Placement) -> Outgoing {
    let mut message = placement.outgoing();
    if trace::on() {
        let running = || trace::current().map(Box::new);
        if let Some(trail) = placement.trail.clone().or_else(running) {
            trail.write(&mut message.headers);
        }
    }
    message
}
