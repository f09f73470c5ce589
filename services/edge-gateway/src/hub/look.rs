//! What operators ask about memory.

use std::sync::Arc;

use super::Hub;
use crate::delivery::Delivery;
use crate::place::Place;

/// Events of one room that are looked through at most, the newest first.
const LOOKED_THROUGH_MAX: usize = 10_000;

/// Sizes of what the gateway holds in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Events in the ring.
    pub ring_events: usize,
    /// Their bytes.
    pub ring_bytes: usize,
    /// Rooms whose state is in memory.
    pub state_rooms: usize,
    /// Its values.
    pub state_values: usize,
    /// Its bytes.
    pub state_bytes: usize,
}

/// What is held of one room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomSizes {
    /// Events in the ring.
    pub ring_events: usize,
    /// Their bytes.
    pub ring_bytes: usize,
    /// Events since the room was first in the ring; starts anew when all of them have been pushed out.
    pub events: u64,
    /// Keys and bytes of its state; `None` when it is not in memory.
    pub state: Option<(usize, usize)>,
}

impl Hub {
    /// Sizes of everything.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let stock = self.stock();
        let (state_rooms, state_values, state_bytes) = stock.state.sizes();
        Sizes {
            ring_events: stock.ring.events(),
            ring_bytes: stock.ring.bytes(),
            state_rooms,
            state_values,
            state_bytes,
        }
    }

    /// Sizes of one room, by its key (`<tenant>.<room>`). The lock is held for this room alone: what is looked at must not hold up
    /// what is delivered.
    #[must_use]
    pub fn room_sizes(&self, key: &str) -> RoomSizes {
        let stock = self.stock();
        let (ring_events, ring_bytes, events) = stock.ring.room_sizes(key);
        RoomSizes {
            ring_events,
            ring_bytes,
            events,
            state: stock.state.room_sizes(key),
        }
    }

    /// What is held of one room: its newest events in memory, and the values of its state, which are read where they are not. Costs a
    /// pointer for each.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn held_async(&self, place: &Place, now_millis: impl Fn() -> i64) -> Vec<Arc<Delivery>> {
        let mut held: Vec<_> = {
            let stock = self.stock();
            let newest = stock.ring.newest(&place.key).take(LOOKED_THROUGH_MAX);
            newest.map(|(event, _)| Arc::clone(event)).collect()
        };
        let state = match self.whole_async(place, now_millis).await {
            Ok((_, state)) => state,
            Err(_) => self.stock().state.values_after(&place.key, 0),
        };
        held.extend(state.iter().take(LOOKED_THROUGH_MAX).map(Arc::clone));
        held
    }
}
