//! Everything that is not a delivery is done piece by piece, and before each next piece goes what is to be delivered.
//!
//! Letting somebody in, a page of a long recovery, a client's request: each costs as much as dozens of deliveries, and after a break there
//! are thousands of them. So a delivery waits for one piece at most, however many there are, unless there is a flood of deliveries;
//! and however many deliveries there are, a part of each turn is left for pieces.

use std::time::{Duration, Instant};

use super::Shard;

/// What of one turn pieces of one kind may take, deliveries in between not counted. One that has begun is finished.
const PART: Duration = Duration::from_micros(500);
/// Messages that are taken between the pieces of one turn. In a flood the sockets have to be asked more often than pieces are done:
/// what cannot be written at once would fill the outboxes of clients who read.
pub(super) const BETWEEN: usize = 64;

impl Shard {
    /// Does pieces until there are none, or their part of the turn is over: whether it is. `piece` does one, and says whether there was
    /// one.
    pub(super) fn piece_by_piece(&mut self, piece: impl FnMut(&mut Self) -> bool) -> bool {
        let begun = Instant::now();
        by_pieces(self, piece, Self::attend, |_| begun.elapsed())
    }

    /// Delivers what is to be delivered, if there is anything.
    pub(super) fn attend(&mut self) {
        if self.between == 0 || !self.inlet.waits() {
            return;
        }
        self.now = self.clock.now();
        // Nothing is written under rights that are over.
        self.decide_again();
        self.more = self.take_inbox(self.between);
        self.between -= self.inlet.taken();
        self.flush_due();
    }
}

/// See [`Shard::piece_by_piece`]. `clock`: the time since any instant.
fn by_pieces<S>(
    shard: &mut S,
    mut piece: impl FnMut(&mut S) -> bool,
    mut attend: impl FnMut(&mut S),
    clock: impl Fn(&S) -> Duration,
) -> bool {
    let mut spent = Duration::ZERO;
    while spent < PART {
        let begun = clock(shard);
        if !piece(shard) {
            return false;
        }
        spent += clock(shard).saturating_sub(begun);
        attend(shard);
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A shard that only passes time.
    #[derive(Default)]
    struct Clock {
        micros: u64,
        /// What pieces take.
        pieces: Vec<u64>,
        done: usize,
        /// When deliveries come, and what writing each takes.
        deliveries: Vec<(u64, u64)>,
        delivered: usize,
        /// Pieces that were begun while a delivery waited.
        too_early: usize,
    }

    impl Clock {
        /// What writing the next delivery takes, if it has come.
        fn waiting(&self) -> Option<u64> {
            let (at, takes) = self.deliveries.get(self.delivered)?;
            (*at <= self.micros).then_some(*takes)
        }

        fn piece(&mut self) -> bool {
            let Some(takes) = self.pieces.get(self.done) else {
                return false;
            };
            self.too_early += usize::from(self.waiting().is_some());
            self.micros += takes;
            self.done += 1;
            true
        }

        fn attend(&mut self) {
            while let Some(takes) = self.waiting() {
                self.micros += takes;
                self.delivered += 1;
            }
        }
    }

    proptest! {
        /// Whatever pieces and deliveries take and whenever those come: each waits for one piece at most, pieces get their part, and
        /// no more than that and the last of them.
        #[test]
        fn a_delivery_waits_for_one_piece_and_pieces_have_their_part(
            pieces in prop::collection::vec(1_u64..300, 0..40),
            deliveries in prop::collection::vec((0_u64..3_000, 1_u64..2_000), 0..10),
        ) {
            let mut deliveries = deliveries;
            deliveries.sort_unstable();
            let mut clock = Clock { pieces, deliveries, ..Clock::default() };
            let micros = |clock: &Clock| Duration::from_micros(clock.micros);
            clock.attend();
            let is_over = by_pieces(&mut clock, Clock::piece, Clock::attend, micros);
            prop_assert_eq!(clock.too_early, 0, "a delivery waits for the piece in which it came");
            let took = |count: usize| Duration::from_micros(clock.pieces[..count].iter().sum());
            prop_assert_eq!(is_over, took(clock.done) >= PART);
            prop_assert!(is_over || clock.done == clock.pieces.len(), "deliveries take nothing from pieces");
            prop_assert!(clock.done == 0 || took(clock.done - 1) < PART);
        }
    }
}
