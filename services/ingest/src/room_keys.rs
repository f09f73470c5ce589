//! How many state keys a room holds, counted without asking the server each time. Pure: time and counts are arguments.
//!
//! A key counts once per audience that holds it, because that is what readers must keep. The true number is asked for when a
//! room is first written to, and again when this instance has sent as many values as there was room for then: below the cap
//! every value may be sent unseen, since it adds at most one key. Only a room that is nearly full costs a look-up per value.
//! Others write, too (the aggregator, other ingests), so a count is believed for [`BELIEVED`]; by as much as they add
//! meanwhile the cap may be passed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Rooms remembered; the one counted longest ago makes room.
const ROOMS_MAX: usize = 1_024;
/// How long a count is believed.
const BELIEVED: Duration = Duration::from_secs(60);
/// Rooms with less room than this look each value up, instead of counting again and again.
const TIGHT: u64 = 64;

/// What to do before a value is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Nothing: there is room whether the key is new or not.
    Send,
    /// Count the room's keys, tell [`RoomKeys::counted`], ask again.
    Count,
    /// Look whether the key exists; if it does send it, else ask [`RoomKeys::add`].
    LookUp,
}

#[derive(Debug)]
struct Count {
    keys: u64,
    sent: u64,
    at: Instant,
}

/// The counts of the rooms written to lately.
#[derive(Debug)]
pub struct RoomKeys {
    keys_max: u64,
    rooms: HashMap<String, Count>,
}

impl RoomKeys {
    /// `keys_max`: how many keys a room may hold.
    #[must_use]
    pub fn new(keys_max: u64) -> Self {
        Self {
            keys_max,
            rooms: HashMap::new(),
        }
    }

    /// What to do before a value for this room (named by its filter) is sent; counts the value if it may go.
    pub fn ask(&mut self, room: &str, now: Instant) -> Ask {
        let Some(count) = self.rooms.get_mut(room) else {
            return Ask::Count;
        };
        if now.saturating_duration_since(count.at) >= BELIEVED {
            return Ask::Count;
        }
        if count.keys.saturating_add(TIGHT) > self.keys_max {
            return Ask::LookUp;
        }
        if count.keys + count.sent >= self.keys_max {
            return Ask::Count;
        }
        count.sent += 1;
        Ask::Send
    }

    /// The server has counted.
    pub fn counted(&mut self, room: &str, keys: u64, now: Instant) {
        if self.rooms.len() >= ROOMS_MAX && !self.rooms.contains_key(room) {
            let oldest = self
                .rooms
                .iter()
                .min_by_key(|(_, count)| count.at)
                .map(|(room, _)| room.clone());
            oldest.map(|room| self.rooms.remove(&room));
        }
        self.rooms.insert(
            room.to_owned(),
            Count {
                keys,
                sent: 0,
                at: now,
            },
        );
    }

    /// Whether a key that does not exist yet may be added to a nearly full room; counts it if so.
    pub fn add(&mut self, room: &str) -> bool {
        let Some(count) = self.rooms.get_mut(room) else {
            return true;
        };
        let fits = count.keys < self.keys_max;
        count.keys += u64::from(fits);
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roomy_room_is_counted_once_per_what_fits() {
        let now = Instant::now();
        let mut keys = RoomKeys::new(100);
        assert_eq!(keys.ask("r", now), Ask::Count);
        keys.counted("r", 10, now);
        for _ in 0..90 {
            assert_eq!(keys.ask("r", now), Ask::Send);
        }
        assert_eq!(keys.ask("r", now), Ask::Count);
        keys.counted("r", 10, now);
        assert_eq!(keys.ask("r", now), Ask::Send);
        assert_eq!(keys.ask("r", now + BELIEVED), Ask::Count);
    }

    #[test]
    fn a_nearly_full_room_looks_each_value_up_and_ends_at_the_cap() {
        let now = Instant::now();
        let mut keys = RoomKeys::new(100);
        keys.counted("r", 98, now);
        assert_eq!(keys.ask("r", now), Ask::LookUp);
        assert!(keys.add("r"));
        assert!(keys.add("r"));
        assert!(!keys.add("r"));
        assert_eq!(keys.ask("r", now), Ask::LookUp, "existing keys may still change");
    }

    #[test]
    fn rooms_remembered_are_bounded() {
        let start = Instant::now();
        let mut keys = RoomKeys::new(100);
        for n in 0..2 * ROOMS_MAX {
            keys.counted(&n.to_string(), 0, start + Duration::from_millis(n as u64));
        }
        assert_eq!(keys.rooms.len(), ROOMS_MAX);
        assert_eq!(keys.ask("0", start), Ask::Count);
    }
}
