//! Whether those who want in are a crowd, which is let in in groups.
//!
//! Letting one in runs through more code than the nearest cache of a processor holds: by itself a handshake costs half as much again
//! as one among many, and each message of it wakes the shard. So where many come in each second they are gathered for a moment that
//! none of them notices; one who comes alone is let in at once, as a lone event is written at once.

/// How long a crowd is gathered, milliseconds. With twice as long nothing more is won.
pub(super) const GATHER_MILLIS: u64 = 2;
/// Pieces of handshakes in a slot from which on there is a crowd: some five hundred handshakes a second and shard, of two pieces each.
const CROWD: usize = 16;
/// The length of a slot, milliseconds.
const SLOT_MILLIS: u64 = 16;

/// How many pieces of handshakes were done in this slot of time and in the one before.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    slot: u64,
    now: usize,
    before: usize,
}

impl Crowd {
    /// Counts pieces of handshakes. Whether they are those of a crowd.
    pub(super) fn add(&mut self, millis: u64, pieces: usize) -> bool {
        let slot = millis / SLOT_MILLIS;
        if slot != self.slot {
            let follows = slot == self.slot + 1;
            self.before = if follows { self.now } else { 0 };
            (self.slot, self.now) = (slot, 0);
        }
        self.now += pieces;
        pieces > 0 && self.now.max(self.before) >= CROWD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_alone_is_no_crowd_and_a_crowd_ends() {
        let mut crowd = Crowd::default();
        // When, how many pieces, whether that is a crowd.
        for (millis, pieces, is_crowd) in [
            (0, 15, false),
            (15, 1, true),
            (15, 0, false),
            (16, 1, true),
            (31, 14, true),
            // The slot before had fifteen, this one none yet.
            (32, 1, false),
            (33, 20, true),
            (47, 1, true),
            (48, 1, true),
            // A slot without anybody.
            (80, 1, false),
            (10_000, 16, true),
            (20_000, 15, false),
        ] {
            assert_eq!(crowd.add(millis, pieces), is_crowd, "{pieces} at {millis}");
        }
    }

    #[test]
    fn a_pace_decides() {
        // Handshakes of two pieces, so far apart, milliseconds; whether they become a crowd.
        for (apart, is_crowd) in [(1, true), (3, false), (40, false)] {
            let mut crowd = Crowd::default();
            let any = (0..1_000).any(|number| crowd.add(number * apart, 2));
            assert_eq!(any, is_crowd, "every {apart} ms");
        }
    }
}
