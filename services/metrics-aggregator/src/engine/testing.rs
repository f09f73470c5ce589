//! What the engine's tests make events of.

use serde_json::value::RawValue;

use crate::engine::row::Event;

/// An event with this data in which nothing else matters: first of its stream, at the beginning of time, in room `r`, for all.
pub fn event_of(data: &RawValue) -> Event<'_> {
    Event {
        seq: 1,
        stored_micros: 0,
        time_micros: 0,
        room: "r",
        audience: "all",
        kind: "t",
        source: "s",
        id: "i",
        subject: None,
        priority: "medium",
        data: Some(data.get()),
    }
}
