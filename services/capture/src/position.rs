//! How far a database's changes are stored: what a capture that starts again goes on from. Pure.
//!
//! A change is named by the timeline, the position of its transaction's commit, and its place in the transaction. A fail-over begins a
//! new timeline; what the old one had beyond the fork never was, as far as the database knows, so positions of it are cut back.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::mapping::{Mapping, Name};

/// Ranges of outbox numbers kept at most: gaps that never close (transactions rolled back) are given up, the oldest first.
const RANGES_MAX: usize = 64;

/// The place of a change. Ordered within a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize)]
pub struct Place {
    /// Position of the commit in the database's log.
    pub lsn: u64,
    /// Place in the transaction, from 0. [`Place::WHOLE`]: all of it.
    pub index: u64,
}

impl Place {
    /// Index behind every change of a transaction.
    pub const WHOLE: u64 = u64::MAX;

    /// The whole transaction that was committed at `lsn`, and all before it.
    #[must_use]
    pub const fn through(lsn: u64) -> Self {
        Self {
            lsn,
            index: Self::WHOLE,
        }
    }
}

/// A position in the log as PostgreSQL writes it: `16/B374D848`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl Lsn {
    /// Reads `16/B374D848`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let part = |text: &str| u32::from_str_radix(text, 16).ok();
        Some(Self(u64::from(part(high)?) << 32 | u64::from(part(low)?)))
    }
}

/// Which timeline held which part of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timelines {
    /// Earlier ones with the position at which the next began, oldest first.
    before: Vec<(u32, u64)>,
    now: u32,
}

impl Timelines {
    /// The present timeline, and the text of its history file if it is not the first.
    #[must_use]
    pub fn new(now: u32, history: &str) -> Self {
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            let timeline = words.next()?.parse().ok()?;
            Some((timeline, Lsn::parse(words.next()?)?.0))
        };
        Self {
            before: history.lines().filter_map(line).collect(),
            now,
        }
    }

    /// The timeline on which something was committed at `lsn`.
    #[must_use]
    pub fn of(&self, lsn: u64) -> u32 {
        let held = self.before.iter().find(|(_, end)| lsn <= *end);
        held.map_or(self.now, |(timeline, _)| *timeline)
    }

    /// The present one.
    #[must_use]
    pub fn now(&self) -> u32 {
        self.now
    }

    /// Where the present log left the one of `timeline`, if that is behind `place`: what lies between was lost by the database.
    #[must_use]
    pub fn cut(&self, timeline: u32, place: Place) -> Option<u64> {
        let (_, end) = self.before.iter().find(|(known, _)| *known == timeline)?;
        (place.lsn > *end).then_some(*end)
    }
}

/// Numbers that were published, as ranges.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Numbers(Vec<(u64, u64)>);

impl Numbers {
    /// Whether `number` was published, or is too old to be told from those that were.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= number);
        after.checked_sub(1).is_some_and(|at| number <= self.0[at].1)
    }

    /// Adds a number.
    pub fn insert(&mut self, number: u64) {
        if self.contains(number) {
            return;
        }
        let at = self.0.partition_point(|(first, _)| *first <= number);
        self.0.insert(at, (number, number));
        let touches = |left: (u64, u64), right: (u64, u64)| left.1.checked_add(1) == Some(right.0);
        if at + 1 < self.0.len() && touches(self.0[at], self.0[at + 1]) {
            self.0[at].1 = self.0.remove(at + 1).1;
        }
        if at > 0 && touches(self.0[at - 1], self.0[at]) {
            self.0[at - 1].1 = self.0.remove(at).1;
        }
        if self.0.len() > RANGES_MAX {
            let second = self.0.remove(1);
            self.0[0].1 = second.1;
        }
    }

    /// Everything below it was published, was rolled back, or is given up.
    #[must_use]
    pub fn first_open(&self) -> u64 {
        self.0.first().map_or(0, |(_, last)| last.saturating_add(1))
    }
}

/// What is stored about a capture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Which database cluster it is of.
    pub system: String,
    /// The timeline of `place`.
    pub timeline: u32,
    /// Everything up to here is stored.
    pub place: Place,
    /// Position in `EVENTS` when this was written: what is stored of us and not covered by `place` is behind it.
    pub events_seq: u64,
    /// Whether the rows of before have been published once; of which tables is in [`Snapshots`].
    pub snapshot_done: bool,
    /// The outbox rows that were published.
    #[serde(default)]
    pub outbox: Numbers,
}

/// The tables whose rows of before have been published, the outbox among them. It is stored beside the position and not in it, so that an
/// ingest of a version before goes on by the position.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Snapshots(BTreeSet<String>);

impl Snapshots {
    /// All that the mapping asks for.
    #[must_use]
    pub fn all(mapping: &Mapping) -> Self {
        let tables = mapping.snapshots().map(|table| &table.name);
        Self(tables.chain(&mapping.outbox).map(Name::to_string).collect())
    }

    /// Whether the rows of this one have been published.
    #[must_use]
    pub fn contains(&self, name: &Name) -> bool {
        self.0.contains(&name.to_string())
    }

    /// They have been.
    pub fn insert(&mut self, name: &Name) {
        self.0.insert(name.to_string());
    }

    /// Whether nothing is left that the mapping asks for.
    #[must_use]
    pub fn has_all(&self, mapping: &Mapping) -> bool {
        Self::all(mapping).0.is_subset(&self.0)
    }

    /// Without what the mapping does not ask for: of a table that comes back to it, changes have passed meanwhile.
    #[must_use]
    pub fn of(mut self, mapping: &Mapping) -> Self {
        let all = Self::all(mapping);
        self.0.retain(|name| all.0.contains(name));
        self
    }
}

/// The id of a change's event.
#[must_use]
pub fn event_id(timeline: u32, place: Place) -> String {
    format!("{timeline}-{:X}-{}", place.lsn, place.index)
}

/// The place behind an event's id, with its timeline.
#[must_use]
pub fn parse_event_id(id: &str) -> Option<(u32, Place)> {
    let (timeline, rest) = id.split_once('-')?;
    let (lsn, index) = rest.split_once('-')?;
    let place = Place {
        lsn: u64::from_str_radix(lsn, 16).ok()?,
        index: index.parse().ok()?,
    };
    Some((timeline.parse().ok()?, place))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn positions_are_written_as_postgresql_does() {
        for (text, lsn) in [
            ("16/B374D848", Some(0x16_B374_D848)),
            ("0/0", Some(0)),
            ("16", None),
            ("x/0", None),
        ] {
            assert_eq!(Lsn::parse(text).map(|lsn| lsn.0), lsn, "{text}");
            if let Some(lsn) = lsn {
                assert_eq!(Lsn(lsn).to_string(), text);
            }
        }
    }

    #[test]
    fn a_fail_over_cuts_back_what_the_database_lost() {
        let history =
            "1\t0/3000000\tno recovery target specified\n\n2\t0/5000000\tno recovery target specified\n";
        let timelines = Timelines::new(3, history);
        let at = |lsn| timelines.of(lsn);
        assert_eq!(
            (at(0x0200_0000), at(0x0300_0000), at(0x0300_0001), at(0x0600_0000)),
            (1, 1, 2, 3)
        );
        let cut = |timeline, lsn| timelines.cut(timeline, Place::through(lsn));
        assert_eq!(cut(1, 0x0200_0000), None);
        assert_eq!(cut(1, 0x0400_0000), Some(0x0300_0000));
        assert_eq!(cut(2, 0x0400_0000), None);
        assert_eq!(cut(3, 0x9900_0000), None);
        assert_eq!(Timelines::new(1, "").of(77), 1);
    }

    proptest! {
        #[test]
        fn ids_name_their_place(timeline in 1..100_u32, lsn: u64, index: u64) {
            let place = Place { lsn, index };
            prop_assert_eq!(parse_event_id(&event_id(timeline, place)), Some((timeline, place)));
        }

        #[test]
        fn numbers_are_a_set(inserted in proptest::collection::vec(0..60_u64, 0..80)) {
            let mut numbers = Numbers::default();
            let mut set = BTreeSet::new();
            for number in inserted {
                numbers.insert(number);
                set.insert(number);
                let all: Vec<bool> = (0..61).map(|number| numbers.contains(number)).collect();
                let expected: Vec<bool> = (0..61).map(|number| set.contains(&number)).collect();
                prop_assert_eq!(all, expected);
            }
        }
    }

    #[test]
    fn gaps_that_never_close_are_given_up() {
        let mut numbers = Numbers::default();
        (0..200).for_each(|number| numbers.insert(number * 2));
        assert_eq!(numbers.0.len(), RANGES_MAX);
        assert!(numbers.contains(1), "the oldest gap is given up");
        assert!(!numbers.contains(397), "the newest is open");
        assert_eq!(numbers.first_open(), 2 * (200 - RANGES_MAX as u64) + 1);
    }
}
