//! How much of what a database says is taken in at once. Pure.

use std::collections::VecDeque;

use roomcast_capture::follow::{Item, Line};
use roomcast_capture::position::Place;

/// Events of one batch: those of one atomic batch of the store.
const EVENTS_MAX: usize = 256;
/// Bytes of one batch.
const BYTES_MAX: usize = 2 << 20;

/// What is taken in at once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Batch {
    /// The events, in order.
    pub(super) lines: Vec<Line>,
    /// Everything up to here is in this batch or before it.
    pub(super) place: Place,
    /// What may be confirmed once it is stored.
    pub(super) confirm: Option<u64>,
    /// Whether everything that was stored beyond the beginning has come by.
    pub(super) caught_up: bool,
}

/// Cuts off what was not committed before `lsn`; whether everything that was has come.
pub(super) fn cut(items: &mut Vec<Item>, lsn: u64) -> bool {
    let reaches = |item: &Item| match item {
        Item::Event(line) => line.place.lsn >= lsn,
        Item::Passed { confirm, .. } => *confirm >= lsn,
    };
    let Some(at) = items.iter().position(reaches) else {
        return false;
    };
    items.truncate(at);
    true
}

/// Items that wait.
#[derive(Debug, Default)]
pub(super) struct Batches(VecDeque<Item>);

impl Batches {
    pub(super) fn extend(&mut self, items: impl Iterator<Item = Item>) {
        self.0.extend(items);
    }

    /// The next batch; `None` when nothing waits.
    pub(super) fn next(&mut self) -> Option<Batch> {
        let mut batch = Batch::default();
        let mut bytes = 0;
        while let Some(item) = self.0.pop_front() {
            match item {
                Item::Passed {
                    place,
                    confirm,
                    caught_up,
                } => {
                    batch.place = batch.place.max(place);
                    batch.confirm = Some(confirm);
                    batch.caught_up = caught_up;
                }
                Item::Event(line) => {
                    bytes += line.bytes.len();
                    let full = bytes > BYTES_MAX || batch.lines.len() == EVENTS_MAX;
                    if full && !batch.lines.is_empty() {
                        self.0.push_front(Item::Event(line));
                        return Some(batch);
                    }
                    batch.place = batch.place.max(line.place);
                    batch.lines.push(line);
                }
            }
        }
        (batch != Batch::default()).then_some(batch)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn line(index: u64, len: usize) -> Item {
        Item::Event(Line {
            bytes: Bytes::from(vec![b'x'; len]),
            original_bytes: len,
            place: Place { lsn: 1, index },
            number: None,
        })
    }

    fn all(items: Vec<Item>) -> Vec<Batch> {
        let mut batches = Batches::default();
        batches.extend(items.into_iter());
        std::iter::from_fn(|| batches.next()).collect()
    }

    #[test]
    fn a_batch_has_its_bounds() {
        let lens = |items| {
            all(items)
                .iter()
                .map(|batch| batch.lines.len())
                .collect::<Vec<_>>()
        };
        assert_eq!(lens((0..600).map(|i| line(i, 1)).collect()), [256, 256, 88]);
        assert_eq!(lens((0..3).map(|i| line(i, BYTES_MAX / 2)).collect()), [2, 1]);
        assert_eq!(lens(vec![line(0, BYTES_MAX + 1), line(1, 1)]), [1, 1]);
        assert_eq!(lens(Vec::new()), [0; 0]);
    }

    #[test]
    fn what_passed_goes_with_what_was_before_it() {
        let passed = |lsn| Item::Passed {
            place: Place::through(lsn),
            confirm: lsn + 1,
            caught_up: lsn > 1,
        };
        let full = (0..EVENTS_MAX as u64).map(|index| line(index, 1));
        let batches = all(full
            .chain([passed(1), line(0, 1), passed(2), passed(3)])
            .collect());
        assert_eq!(batches.len(), 2);
        assert_eq!(
            (batches[0].place, batches[0].confirm),
            (Place::through(1), Some(2))
        );
        assert_eq!(
            (batches[1].place, batches[1].confirm),
            (Place::through(3), Some(4))
        );
        assert_eq!((batches[0].caught_up, batches[1].caught_up), (false, true));
        let only = all(vec![passed(9)]);
        assert_eq!((only[0].lines.len(), only[0].confirm), (0, Some(10)));
    }

    #[test]
    fn what_was_committed_before_a_place_is_all_that_is_kept() {
        let passed = |lsn, confirm| Item::Passed {
            place: Place::through(lsn),
            confirm,
            caught_up: true,
        };
        let at = |lsn| {
            let Item::Event(line) = line(0, 1) else {
                panic!("it is an event");
            };
            Item::Event(Line {
                place: Place { lsn, index: 0 },
                ..line
            })
        };
        let idle = |confirm| Item::Passed {
            place: Place::default(),
            confirm,
            caught_up: true,
        };
        for (items, kept, reached) in [
            (vec![], 0, false),
            (vec![at(5), passed(5, 7), at(9), passed(9, 12)], 4, false),
            (vec![at(5), passed(5, 7), at(20), passed(20, 22)], 2, true),
            (vec![at(5), passed(5, 7), at(21), passed(21, 22)], 2, true),
            (vec![at(19), passed(19, 20), at(20)], 1, true),
            (vec![at(5), passed(5, 7), idle(19)], 3, false),
            (vec![at(5), passed(5, 7), idle(20)], 2, true),
        ] {
            let mut left = items.clone();
            assert_eq!((cut(&mut left, 20), left.len()), (reached, kept), "{items:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_moved(lens in proptest::collection::vec(1..20_000_usize, 0..900)) {
            let items: Vec<Item> = lens.iter().enumerate().map(|(index, len)| line(index as u64, *len)).collect();
            let mut next = 0;
            for batch in all(items) {
                prop_assert!(!batch.lines.is_empty() && batch.lines.len() <= EVENTS_MAX);
                prop_assert!(batch.lines.iter().map(|line| line.bytes.len()).sum::<usize>() <= BYTES_MAX);
                for line in &batch.lines {
                    prop_assert_eq!(line.place.index, next);
                    next += 1;
                }
            }
            prop_assert_eq!(next, lens.len() as u64);
        }
    }
}
