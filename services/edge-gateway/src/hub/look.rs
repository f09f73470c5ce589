//! What operators ask about memory.

use super::Hub;

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
}
