//! What a publisher has stored lately: the memory of a drain that is behind, because then the streams' own is too short. Pure.
//!
//! The streams find a repeated id for 120 s after it was stored. What waited longer may be a repeat, or may have been stored by an ingest
//! that died before it could say so, and neither would be found. So the ids are read back from the stream ([`super::look_back`]) and kept
//! here while the drain is behind.

use std::collections::{HashMap, HashSet};

use super::place::Place;

/// Ids of one generation; two are kept: 131,072 ids of 32 bytes, 8 MiB with the maps' room.
const GENERATION_MAX: usize = 65_536;
/// A message id is 22 characters.
const ID_BYTES: usize = 22;

type Ids = HashMap<[u8; ID_BYTES], u64>;

/// The last 65,536 to 131,072 stored ids of one publisher with their positions, and the dead letters of its queue.
#[derive(Debug, Default)]
pub struct Known {
    young: Ids,
    old: Ids,
    letters: HashSet<Place>,
}

impl Known {
    /// An event with this message id is stored at this position.
    pub fn stored(&mut self, msg_id: &str, seq: u64) {
        let Ok(id) = <[u8; ID_BYTES]>::try_from(msg_id.as_bytes()) else {
            return;
        };
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, seq);
    }

    /// Where an event with this message id is stored.
    #[must_use]
    pub fn position(&self, msg_id: &str) -> Option<u64> {
        let id = <[u8; ID_BYTES]>::try_from(msg_id.as_bytes()).ok()?;
        self.young.get(&id).or_else(|| self.old.get(&id)).copied()
    }

    /// What stood at this place is kept as a dead letter.
    pub fn kept(&mut self, place: Place) {
        // What was drained is asked for no more, so those of a portion are enough; the bound is for what others wrote into the stream.
        if self.letters.len() < GENERATION_MAX {
            self.letters.insert(place);
        }
    }

    /// Whether what stood at this place is kept as a dead letter.
    #[must_use]
    pub fn is_kept(&self, place: &Place) -> bool {
        self.letters.contains(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ids_are_known_and_memory_is_bounded() {
        let id = |n: usize| format!("{n:022}");
        let mut known = Known::default();
        for n in 0..3 * GENERATION_MAX {
            known.stored(&id(n), n as u64);
        }
        assert_eq!(
            known.position(&id(3 * GENERATION_MAX - 1)),
            Some(3 * GENERATION_MAX as u64 - 1)
        );
        assert_eq!(
            known.position(&id(2 * GENERATION_MAX)),
            Some(2 * GENERATION_MAX as u64)
        );
        assert_eq!(known.position(&id(0)), None);
        assert!(known.young.len() <= GENERATION_MAX && known.old.len() <= GENERATION_MAX);
        known.stored("too short", 1);
        assert_eq!(known.position("too short"), None);
    }
}
