//! What is known of the keys of rooms: the last value of each, and how many a room holds. Pure; `now` is given.

use std::collections::HashMap;

use roomcast_proto::ids::Room;

/// A room that seems full is counted anew this often at most: it costs the reading of all its values.
const COUNT_MICROS: i64 = 60_000_000;

/// What is known of the last value of a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) seq: u64,
    pub(super) revision: u64,
    pub(super) as_of: i64,
    /// It is gone by then.
    pub(super) until: Option<i64>,
    pub(super) there: bool,
}

/// The keys of all rooms that are published to.
#[derive(Debug, Default)]
pub(super) struct Keys(HashMap<Room, Held>);

/// The keys of a room by subject.
#[derive(Debug, Default)]
struct Held {
    last: HashMap<String, Last>,
    /// How many of them are there. What others bring meanwhile is in it only once it is counted anew.
    there: usize,
    /// When it was counted anew last.
    counted: Option<i64>,
}

impl Keys {
    /// Says what the last value of a key is.
    pub(super) fn put(&mut self, room: &Room, subject: &str, last: Last) {
        // Most are known: nothing is copied for those.
        let held = match self.0.get_mut(room) {
            Some(held) => held,
            None => self.0.entry(room.clone()).or_default(),
        };
        let before = match held.last.get_mut(subject) {
            Some(known) => std::mem::replace(known, last).there,
            None => {
                held.last.insert(subject.to_owned(), last);
                false
            }
        };
        held.there = held.there + usize::from(last.there) - usize::from(before);
    }

    /// Where the last value of a key is stored; 0 where there is none.
    pub(super) fn seq(&self, room: &Room, subject: &str) -> u64 {
        let last = self.0.get(room).and_then(|held| held.last.get(subject));
        last.map_or(0, |last| last.seq)
    }

    /// Forgets what is gone by now, which makes room for others.
    pub(super) fn forget(&mut self, now: i64) {
        for held in self.0.values_mut() {
            let there = &mut held.there;
            held.last.retain(|_, last| {
                let stays = last.until.is_none_or(|until| until > now);
                *there -= usize::from(!stays && last.there);
                stays
            });
        }
    }

    /// Whether the room has a place for the key, where it may hold `max`.
    pub(super) fn admits(&self, room: &Room, subject: &str, max: usize) -> bool {
        self.0
            .get(room)
            .is_none_or(|held| held.there < max || held.last.get(subject).is_some_and(|last| last.there))
    }

    /// Whether a room that seems full is to be counted anew before anything is refused.
    pub(super) fn wants_count(&self, room: &Room, now: i64) -> bool {
        let counted = self.0.get(room).and_then(|held| held.counted);
        // A clock that was set back is no reason to wait.
        counted.is_none_or(|at| at.abs_diff(now) >= COUNT_MICROS.unsigned_abs())
    }

    /// Takes over which keys a room holds, and leaves all positions as they are: what others have stored since is to win the
    /// comparison, as it would have.
    pub(super) fn count<'s>(
        &mut self,
        room: &Room,
        stored: impl IntoIterator<Item = (&'s str, Last)>,
        now: i64,
    ) {
        let held = self.0.entry(room.clone()).or_default();
        for last in held.last.values_mut() {
            last.there = false;
        }
        for (subject, found) in stored.into_iter().filter(|(_, found)| found.there) {
            let unknown = Last {
                there: false,
                ..Last::default()
            };
            let last = held.last.entry(subject.to_owned()).or_insert(unknown);
            (last.there, last.until) = (true, found.until);
        }
        held.there = held.last.values().filter(|last| last.there).count();
        held.counted = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000;

    fn room() -> Room {
        Room::parse("board").unwrap()
    }

    fn value(seq: u64, until: Option<i64>) -> Last {
        Last {
            seq,
            until,
            there: true,
            ..Last::default()
        }
    }

    #[test]
    fn what_is_gone_makes_room() {
        let mut keys = Keys::default();
        keys.put(&room(), "a", value(1, None));
        keys.put(&room(), "b", value(2, Some(10 * SECOND)));
        assert!(keys.admits(&room(), "b", 2), "it is there already");
        assert!(!keys.admits(&room(), "c", 2));
        keys.forget(10 * SECOND - 1);
        assert!(!keys.admits(&room(), "c", 2));
        keys.forget(10 * SECOND);
        assert!(keys.admits(&room(), "c", 2));
        assert_eq!(keys.seq(&room(), "b"), 0);
        // A withdrawn one takes no place, and its position is known on.
        keys.put(&room(), "c", value(3, None));
        keys.put(
            &room(),
            "a",
            Last {
                there: false,
                ..value(4, None)
            },
        );
        assert!(keys.admits(&room(), "d", 2));
        assert_eq!(keys.seq(&room(), "a"), 4);
    }

    #[test]
    fn a_full_room_is_counted_once_a_minute_and_no_position_moves() {
        let mut keys = Keys::default();
        assert!(keys.wants_count(&room(), 0));
        keys.put(&room(), "a", value(1, None));
        keys.put(&room(), "b", value(2, None));
        // Others have dropped one, have written the other anew, and have brought one.
        keys.count(&room(), [("b", value(7, None)), ("c", value(8, Some(5)))], 0);
        assert!(!keys.admits(&room(), "a", 2));
        assert!(keys.admits(&room(), "a", 3));
        let seqs = ["a", "b", "c"].map(|subject| keys.seq(&room(), subject));
        assert_eq!(seqs, [1, 2, 0]);
        keys.forget(5);
        assert!(keys.admits(&room(), "a", 2));
        assert!(!keys.wants_count(&room(), 60 * SECOND - 1));
        assert!(keys.wants_count(&room(), 60 * SECOND));
        assert!(keys.wants_count(&room(), -60 * SECOND));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put(u8, Last),
        Forget(i64),
        Count(Vec<(u8, Last)>),
    }

    fn last() -> impl Strategy<Value = Last> {
        let until = prop::option::of(0..20_i64);
        (until, any::<bool>()).prop_map(|(until, there)| Last {
            there,
            ..value(1, until)
        })
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..6_u8, last()).prop_map(|(key, last)| Step::Put(key, last)),
            2 => (0..20_i64).prop_map(Step::Forget),
            1 => prop::collection::vec((0..6_u8, last()), 0..6).prop_map(Step::Count),
        ]
    }

    proptest! {
        #[test]
        fn as_many_are_counted_as_are_there(steps in prop::collection::vec(step(), 0..40)) {
            let mut keys = Keys::default();
            for step in steps {
                match step {
                    Step::Put(key, last) => keys.put(&room(), &key.to_string(), last),
                    Step::Forget(now) => keys.forget(now),
                    Step::Count(stored) => {
                        let stored: Vec<_> = stored.iter().map(|(key, last)| (key.to_string(), *last)).collect();
                        keys.count(&room(), stored.iter().map(|(key, last)| (key.as_str(), *last)), 0);
                    }
                }
                if let Some(held) = keys.0.get(&room()) {
                    prop_assert_eq!(held.there, held.last.values().filter(|last| last.there).count());
                }
            }
        }
    }
}
