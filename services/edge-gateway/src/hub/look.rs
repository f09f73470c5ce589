//! What operators ask about memory.

use std::sync::Arc;

use super::Hub;
use crate::delivery::Delivery;

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

    /// What is held of one room, by its key: its newest events, and the values of its state. Costs a pointer for each.
    #[must_use]
    pub fn held(&self, key: &str) -> Vec<Arc<Delivery>> {
        let mut stock = self.stock();
        let newest = stock.ring.newest(key).take(LOOKED_THROUGH_MAX);
        let mut held: Vec<_> = newest.map(|(event, _)| Arc::clone(event)).collect();
        let state = stock.state.values_after(key, 0);
        // Counting pointers takes its time; those who deliver wait for the lock.
        drop(stock);
        held.extend(state.iter().take(LOOKED_THROUGH_MAX).map(Arc::clone));
        held
    }
}
