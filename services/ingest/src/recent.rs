//! Which ids this instance has sent lately: an atomic batch with a repeated id is refused as a whole, so events whose id
//! may be a repeat are kept out of it. A speed path only; de-duplication is the stream's.

use std::collections::HashSet;
use std::hash::BuildHasher as _;
use std::sync::{Mutex, PoisonError};

use foldhash::fast::RandomState;

/// Ids kept per generation; two generations of 8 bytes and set overhead are below 4 MiB.
const GENERATION_MAX: usize = 65_536;

/// The last 65,536 to 131,072 message ids, by a hash of each: text for each would be a piece of memory that every event takes anew and
/// finds cold. Older ones are forgotten, and of two with the same hash one counts as a repeat: their batch then goes apart, or one did for
/// nothing; nothing worse.
#[derive(Debug, Default)]
pub struct Recent {
    generations: Mutex<Generations>,
    hashes: RandomState,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashSet<u64, RandomState>,
    old: HashSet<u64, RandomState>,
}

impl Recent {
    /// Remembers an id; answers whether it was not among those remembered.
    pub fn is_new(&self, msg_id: &str) -> bool {
        let hash = self.hashes.hash_one(msg_id);
        let mut both = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if both.old.contains(&hash) || both.young.contains(&hash) {
            return false;
        }
        if both.young.len() >= GENERATION_MAX {
            both.old = std::mem::take(&mut both.young);
        }
        both.young.insert(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_seen_and_memory_is_bounded() {
        let recent = Recent::default();
        assert!(recent.is_new("a"));
        assert!(!recent.is_new("a"));
        for n in 0..3 * GENERATION_MAX {
            recent.is_new(&n.to_string());
        }
        assert!(recent.is_new("a"), "forgotten after two generations");
        let both = recent.generations.lock().unwrap();
        assert!(both.young.len() <= GENERATION_MAX && both.old.len() <= GENERATION_MAX);
    }
}
