//! Which ids this instance has sent lately: an atomic batch with a repeated id is refused as a whole, so events whose id
//! may be a repeat are kept out of it. A speed path only; de-duplication is the stream's.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Ids kept per generation; two generations of 22 bytes and set overhead are below 8 MiB.
const GENERATION_MAX: usize = 65_536;

/// The last 65,536 to 131,072 message ids. Older ones are forgotten: their batch then goes apart, nothing worse.
#[derive(Debug, Default)]
pub struct Recent {
    generations: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashSet<Box<str>>,
    old: HashSet<Box<str>>,
}

impl Recent {
    /// Remembers an id; answers whether it was not among those remembered.
    pub fn is_new(&self, msg_id: &str) -> bool {
        let mut both = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if both.young.contains(msg_id) || both.old.contains(msg_id) {
            return false;
        }
        if both.young.len() >= GENERATION_MAX {
            both.old = std::mem::take(&mut both.young);
        }
        both.young.insert(msg_id.into());
        true
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
