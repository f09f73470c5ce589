//! Rooms that share one cursor: what a client missed in all of them, at one cut and in one order.
//!
//! A stream of server-sent events and a poll have one cursor for all their rooms. It may say "everything up to here" of each of
//! them only because all are recovered under one lock, at one cut, and their events are put into the order of the stream; live
//! events follow in the hub's order. Who comes from elsewhere with a cursor for each room is given none for all of them before
//! everything was given: one room's place would send the others back. Pure.

use std::sync::Arc;

use roomcast_proto::cursor::{Cursor, Position};

use super::answer::{Gap, Outcome, Recovered};
use super::stock::capped;
use crate::delivery::Delivery;

/// A delivery and the room it is of, as an index into what was asked for.
pub type OfRoom = (usize, Arc<Delivery>);

/// How one of the rooms begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// Which of the three answers.
    pub recovery: Outcome,
    /// Where delivery starts.
    pub start: Cursor,
}

/// What was missed in several rooms.
#[derive(Debug, Clone)]
pub struct Together {
    /// The rooms, in the order in which they were asked for.
    pub rooms: Vec<Begun>,
    /// The newest value of each key that changed, by position, without cursors. To be sent behind all events.
    pub state: Vec<OfRoom>,
    /// The cut: where the client stands in all rooms when it has everything.
    pub head: Cursor,
    events: Vec<OfRoom>,
    shared: bool,
    /// No event's cursor may say more of the state than this, because the state comes behind it.
    rev_max: u64,
}

/// The first part of what was missed.
#[derive(Debug, Clone)]
pub struct Page {
    /// Events, ascending.
    pub events: Vec<OfRoom>,
    /// More follow: where each room goes on.
    pub behind: Option<Vec<Cursor>>,
}

impl Together {
    /// Puts rooms together that were recovered at the cut `head`, each from its cursor.
    pub(super) fn new(recovered: Vec<Recovered>, from: &[Option<Cursor>], head: Cursor) -> Self {
        let (mut rooms, mut events, mut state) =
            (Vec::with_capacity(recovered.len()), Vec::new(), Vec::new());
        for (index, room) in recovered.into_iter().enumerate() {
            rooms.push(Begun {
                recovery: room.recovery,
                start: room.start,
            });
            events.extend(room.events.into_iter().map(|event| (index, event)));
            state.extend(room.state.into_iter().map(|value| (index, value)));
        }
        events.sort_by_key(|(_, event)| event.position.seq);
        state.sort_by_key(|(_, value)| value.position.rev);
        let first = from.first().copied().flatten();
        let shared = from.iter().all(|from| *from == first);
        let is_whole = rooms.iter().all(|room| room.recovery == Outcome::Complete);
        // A room's own events hold back for its own state already. Where one room begins anew, its client has forgotten what it had:
        // until all state has followed no cursor may say that it has any.
        let rev_max = match first.filter(|_| shared) {
            Some(_) if !is_whole => 0,
            Some(from) if !state.is_empty() => from.position.rev,
            _ => u64::MAX,
        };
        Self {
            rooms,
            state,
            head,
            events,
            shared,
            rev_max,
        }
    }

    /// Whether all rooms come from the same place: then the cursor of each event counts for all of them.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Whether there is anything to be said: an event, a value, or that something is not there.
    #[must_use]
    pub fn is_news(&self) -> bool {
        !self.events.is_empty() || !self.state.is_empty() || !self.is_complete()
    }

    /// Whether nothing is missing in any room.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.rooms.iter().all(|room| room.recovery == Outcome::Complete)
    }

    /// The client sent a text for this room that is no cursor: it is answered like one of another epoch.
    pub fn say_unreadable(&mut self, room: usize) {
        if let Some(room) = self.rooms.get_mut(room) {
            room.recovery = Outcome::Incomplete { reason: Gap::Epoch };
        }
    }

    /// How many events were missed.
    #[must_use]
    pub fn events(&self) -> usize {
        self.events.len()
    }

    /// The first events, at most `events_max` and at most `bytes_max` of their JSON, but one at least. The state comes behind the
    /// last page.
    #[must_use]
    pub fn page(&self, events_max: usize, bytes_max: usize) -> Page {
        let mut bytes = 0;
        let fits = self
            .events
            .iter()
            .take(events_max.max(1))
            .take_while(|(_, event)| {
                bytes += event.body().len();
                bytes <= bytes_max
            });
        let count = fits.count().max(1).min(self.events.len());
        let first = self.events.iter().take(count);
        let events: Vec<OfRoom> = first
            .map(|(room, event)| (*room, capped(event, self.rev_max)))
            .collect();
        let last = events.last().filter(|_| count < self.events.len());
        let behind = last.and_then(|(_, last)| last.cursor());
        let behind = behind.map(|last| {
            self.rooms
                .iter()
                .map(|room| behind_of(room.start, last))
                .collect()
        });
        Page { events, behind }
    }
}

/// Where a room that started at `start` goes on when everything up to `last` was sent, but no state.
fn behind_of(start: Cursor, last: Cursor) -> Cursor {
    if start.position.seq >= last.position.seq {
        return start;
    }
    Cursor {
        position: Position {
            rev: start.position.rev,
            ..last.position
        },
        ..last
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use roomcast_proto::cursor::{Cursors, Epoch};

    use super::*;
    use crate::delivery::tests::address;
    use crate::delivery::{Kind, Mark};

    fn cursor(seq: u64, rev: u64) -> Cursor {
        Cursor {
            epoch: Epoch::of_streams("a", "b"),
            position: Position { seq, rev },
            time_bits: 7,
        }
    }

    fn delivery(seq: u64, rev: u64, kind: Kind) -> Arc<Delivery> {
        let mark = (kind == Kind::Event).then(|| Mark {
            epoch: Epoch::of_streams("a", "b"),
            time_bits: 7,
            cursors: Cursors::plain(),
        });
        Arc::new(Delivery::new(
            address("a"),
            kind,
            Position { seq, rev },
            mark,
            None,
            b"{}",
        ))
    }

    fn room(events: &[(u64, u64)], values: &[u64]) -> Recovered {
        let value = |rev: &u64| {
            let key = "k".into();
            delivery(
                0,
                *rev,
                Kind::State {
                    key,
                    withdrawn: false,
                },
            )
        };
        Recovered {
            recovery: Outcome::Complete,
            start: cursor(10, 5),
            events: events
                .iter()
                .map(|(seq, rev)| delivery(*seq, *rev, Kind::Event))
                .collect(),
            state: values.iter().map(value).collect(),
            head: cursor(100, 50),
        }
    }

    fn together(rooms: Vec<Recovered>) -> Together {
        let from = vec![Some(cursor(10, 5)); rooms.len()];
        Together::new(rooms, &from, cursor(100, 50))
    }

    fn places(page: &Page) -> Vec<(usize, u64, u64)> {
        let place = |(room, event): &OfRoom| (*room, event.position.seq, event.position.rev);
        page.events.iter().map(place).collect()
    }

    #[test]
    fn events_of_all_rooms_are_in_the_order_of_the_stream() {
        let all = together(vec![
            room(&[(11, 6), (14, 8)], &[]),
            room(&[(12, 6), (13, 7)], &[]),
        ]);
        let page = all.page(10, 1_000);
        assert_eq!(places(&page), [(0, 11, 6), (1, 12, 6), (1, 13, 7), (0, 14, 8)]);
        assert!(page.behind.is_none() && all.is_news() && all.is_shared());
    }

    #[test]
    fn a_value_in_one_room_holds_back_the_cursors_of_all() {
        let all = together(vec![room(&[(11, 6)], &[]), room(&[(12, 8)], &[7, 3])]);
        assert_eq!(places(&all.page(10, 1_000)), [(0, 11, 5), (1, 12, 5)]);
        let state = all.state.iter().map(|(_, value)| value.position.rev);
        assert_eq!(state.collect::<Vec<_>>(), [3, 7]);
    }

    /// The client has forgotten what it had of the room that begins anew: broken off before the state, it must get all of it.
    #[test]
    fn a_room_that_begins_anew_holds_back_the_cursors_of_all() {
        let anew = Recovered {
            recovery: Outcome::Incomplete { reason: Gap::TooFar },
            start: cursor(100, 0),
            ..room(&[], &[1])
        };
        for values in [&[][..], &[7]] {
            let all = together(vec![anew.clone(), room(&[(11, 6), (12, 8)], values)]);
            let page = all.page(1, 1_000);
            assert_eq!(places(&page), [(1, 11, 0)]);
            assert_eq!(page.behind, Some(vec![cursor(100, 0), cursor(11, 5)]));
        }
    }

    #[test]
    fn nothing_is_no_news_and_a_gap_is() {
        assert!(!together(vec![room(&[], &[]), room(&[], &[])]).is_news());
        assert!(together(vec![room(&[], &[]), room(&[], &[1])]).is_news());
        let fresh = Recovered {
            recovery: Outcome::Fresh,
            ..room(&[], &[])
        };
        assert!(together(vec![room(&[], &[]), fresh]).is_news());
        let mut none = together(vec![room(&[], &[])]);
        none.say_unreadable(0);
        assert!(none.is_news() && !none.is_complete());
        assert!(together(vec![]).page(10, 10).events.is_empty());
    }

    #[test]
    fn a_page_ends_by_count_or_by_bytes_and_is_never_empty() {
        let all = together(vec![room(&[(11, 6), (12, 6), (13, 6)], &[9])]);
        for (events_max, bytes_max, count) in [(2, 1_000, 2), (10, 4, 2), (10, 0, 1), (0, 0, 1), (3, 6, 3)] {
            let page = all.page(events_max, bytes_max);
            let behind = (count < 3).then(|| vec![cursor(10 + count, 5)]);
            assert_eq!(
                (page.events.len() as u64, page.behind),
                (count, behind),
                "{events_max} {bytes_max}"
            );
        }
    }

    #[test]
    fn rooms_from_different_places_go_on_from_different_places() {
        let ahead = Recovered {
            start: cursor(12, 9),
            ..room(&[(13, 9), (15, 9)], &[])
        };
        let rooms = vec![room(&[(11, 6), (14, 8)], &[]), ahead];
        let all = Together::new(
            rooms,
            &[Some(cursor(10, 5)), Some(cursor(12, 9))],
            cursor(100, 50),
        );
        assert!(!all.is_shared());
        assert_eq!(
            all.page(1, 1_000).behind,
            Some(vec![cursor(11, 5), cursor(12, 9)])
        );
        assert_eq!(
            all.page(3, 1_000).behind,
            Some(vec![cursor(14, 5), cursor(14, 9)])
        );
        let fresh = Recovered {
            start: cursor(100, 0),
            recovery: Outcome::Fresh,
            ..room(&[], &[1])
        };
        let all = Together::new(
            vec![room(&[(11, 6), (12, 8)], &[]), fresh],
            &[Some(cursor(10, 5)), None],
            cursor(100, 50),
        );
        assert_eq!(
            all.page(1, 1_000).behind,
            Some(vec![cursor(11, 5), cursor(100, 0)])
        );
    }

    proptest! {
        /// Pages, each read from where the last one ended, are everything in order, each event once, wherever each room began.
        #[test]
        fn pages_put_one_behind_the_other_are_everything_in_order(
            owners in prop::collection::vec(0_usize..4, 0..60),
            starts in prop::array::uniform4(10_u64..75),
            size in 1_usize..20,
        ) {
            let missed = |owner: usize, after: u64| -> Vec<(u64, u64)> {
                let seqs = (11_u64..).zip(&owners).filter(|(seq, at)| **at == owner && *seq > after);
                seqs.map(|(seq, _)| (seq, 5)).collect()
            };
            let (mut from, mut seen) = (starts.map(|seq| cursor(seq, 5)).to_vec(), Vec::new());
            loop {
                let at = |owner: usize| Recovered { start: from[owner], ..room(&missed(owner, from[owner].position.seq), &[]) };
                let given: Vec<_> = from.iter().copied().map(Some).collect();
                let all = Together::new((0..4).map(at).collect(), &given, cursor(100, 50));
                let page = all.page(size, usize::MAX);
                seen.extend(page.events.iter().map(|(_, event)| event.position.seq));
                let Some(behind) = page.behind else { break };
                from = behind;
            }
            let all = (11_u64..).zip(&owners).filter(|(seq, owner)| *seq > starts[**owner]);
            prop_assert_eq!(seen, all.map(|(seq, _)| seq).collect::<Vec<_>>());
        }
    }
}
