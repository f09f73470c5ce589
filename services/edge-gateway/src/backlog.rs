//! What waits for all clients together, and who gives way when that is too much: the fattest first.
//!
//! Every outbox has a limit of its own; thousands of them just below it would still be more than the machine has. Shards say once a turn
//! how much waits with them, and hear what of it they are to give up. Frames that many clients wait for are counted for each of
//! them, so memory is never more than what is counted here. Answers over HTTP (`unwritten`) may take half of it. Decided here; shards close
//! whom it names.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use prometheus::IntGauge;

/// What waits in the process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Backlog {
    bytes: Arc<AtomicI64>,
    /// Those of `bytes` that are answers over HTTP.
    answers: Arc<AtomicI64>,
    shown: IntGauge,
    bytes_max: usize,
    shards: usize,
}

impl Backlog {
    /// Nothing waits yet. `bytes_max` is for all of `shards` together.
    #[must_use]
    pub fn new(bytes_max: usize, shards: usize, shown: IntGauge) -> Self {
        Self {
            bytes: Arc::default(),
            answers: Arc::default(),
            shown,
            bytes_max,
            shards: shards.max(1),
        }
    }

    /// Notes that so many bytes more (or fewer) wait with a shard, `own` in all. Answers how many of them it is to give up.
    #[must_use]
    pub fn changed(&self, by: i64, own: usize) -> usize {
        let all = usize::try_from(self.add(by)).unwrap_or(0);
        let answers = usize::try_from(self.answers.load(Ordering::Relaxed)).unwrap_or(0);
        // One that is longer than all may be together takes nothing from sockets.
        let left = self.bytes_max - answers.min(self.answers_max());
        excess(all.saturating_sub(answers), own, left, self.shards)
    }

    /// Notes that so many bytes more (or fewer) are answers over HTTP that are not written.
    pub fn answers_changed(&self, by: i64) {
        self.answers.fetch_add(by, Ordering::Relaxed);
        self.add(by);
    }

    /// What answers over HTTP may hold together.
    #[must_use]
    pub fn answers_max(&self) -> usize {
        self.bytes_max / 2
    }

    /// What waits then.
    fn add(&self, by: i64) -> i64 {
        if by == 0 {
            return self.bytes.load(Ordering::Relaxed);
        }
        let all = self.bytes.fetch_add(by, Ordering::Relaxed) + by;
        self.shown.set(all);
        all
    }
}

/// What a shard gives up: nothing while all is well or it holds no more than its even share; else what is too much, down to its share.
/// All shards together give up at least what is too much, because those above their shares are above them by as much.
fn excess(all: usize, own: usize, bytes_max: usize, shards: usize) -> usize {
    let over = all.saturating_sub(bytes_max);
    over.min(own.saturating_sub(bytes_max / shards))
}

/// Of clients with what waits for each, and since when nothing of it was taken, those who go: the fattest first, of equals the one that
/// has taken nothing for longest, until `excess` bytes are free.
pub fn who_goes(mut waiting: Vec<(usize, u64, u32)>, excess: usize) -> impl Iterator<Item = u32> {
    waiting.sort_unstable_by_key(|(bytes, stuck_at, key)| (Reverse(*bytes), *stuck_at, *key));
    let mut freed = 0;
    waiting
        .into_iter()
        .take_while(move |(bytes, _, _)| {
            let goes = freed < excess;
            freed += bytes;
            goes
        })
        .map(|(_, _, key)| key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_holds_more_than_its_share_gives_up_what_is_too_much() {
        #[track_caller]
        fn check(all: usize, own: usize, expected: usize) {
            assert_eq!(excess(all, own, 100, 2), expected);
        }
        check(100, 100, 0);
        check(0, 0, 0);
        check(110, 110, 10);
        check(110, 90, 10);
        check(110, 55, 5);
        check(110, 50, 0);
        check(110, 20, 0);
        check(300, 150, 100);
    }

    #[test]
    fn what_answers_hold_is_taken_from_sockets_but_no_more_than_half() {
        #[track_caller]
        fn check(answers: i64, own: i64, expected: usize) {
            let backlog = Backlog::new(100, 2, IntGauge::new("waits", "waits").unwrap());
            backlog.answers_changed(answers);
            assert_eq!(backlog.changed(own, usize::try_from(own).unwrap()), expected);
        }
        check(0, 100, 0);
        check(40, 60, 0);
        check(40, 61, 1);
        check(50, 51, 1);
        check(500, 50, 0);
        check(500, 60, 10);
    }

    #[test]
    fn the_fattest_go_first_then_those_who_took_nothing_for_longest() {
        let waiting = vec![(10, 5, 1), (30, 5, 2), (30, 3, 3), (20, 1, 4)];
        let goes = |excess| who_goes(waiting.clone(), excess).collect::<Vec<_>>();
        assert_eq!(goes(0), [] as [u32; 0]);
        assert_eq!(goes(1), [3]);
        assert_eq!(goes(30), [3]);
        assert_eq!(goes(31), [3, 2]);
        assert_eq!(goes(85), [3, 2, 4, 1]);
        assert_eq!(goes(1_000), [3, 2, 4, 1]);
    }

    proptest! {
        /// Whatever the shards hold: after one look of each no more waits than may, and who is within its share loses nobody.
        #[test]
        fn one_look_of_each_shard_is_enough(
            shards in prop::collection::vec(prop::collection::vec(1_usize..60, 0..20), 1..5),
            bytes_max in 10_usize..400,
        ) {
            let sum = |clients: &[usize]| clients.iter().sum::<usize>();
            let all: usize = shards.iter().map(|clients| sum(clients)).sum();
            let mut left = 0;
            for clients in &shards {
                let own = sum(clients);
                let excess = excess(all, own, bytes_max, shards.len());
                let waiting = (0..).zip(clients).map(|(key, bytes)| (*bytes, 0, key)).collect();
                let gone: Vec<u32> = who_goes(waiting, excess).collect();
                prop_assert!(own > bytes_max / shards.len() || gone.is_empty());
                left += own - gone.iter().map(|key| clients[*key as usize]).sum::<usize>();
            }
            prop_assert!(left <= bytes_max, "{left} of {all} wait, {bytes_max} may");
        }
    }
}
