//! Sessions: events of one group that follow each other at less than a gap are one window.
//!
//! Each group has its own. Between two sessions of a group lies at least the gap, so an event touches two of them at most. What is
//! kept of a session is the cell of its *slot*: the time of whichever of its events came first, which does not change when an earlier
//! one comes late. A session is shown under its *start*, which does.

use std::ops::Range;

use crate::engine::cell::Group;

const DAY_MICROS: i64 = 24 * 3_600_000_000;
/// A group without an event for this long is forgotten: its next session is its first.
pub const SILENCE_MICROS: i64 = 31 * DAY_MICROS;
/// The groups of this long, or of the gap where that is longer, are bounded together.
pub const BLOCK_MICROS: i64 = DAY_MICROS;

/// One session of one group. Times are Unix microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Where its cells are; never changes.
    pub slot: i64,
    /// Its first event.
    pub start: i64,
    /// Its last event.
    pub last: i64,
}

/// The sessions to which an event at `at` belongs: none, one, or two that it joins. `sessions` ascend.
#[must_use]
pub fn touched(sessions: &[Session], at: i64, gap: i64) -> Range<usize> {
    let first = sessions.partition_point(|session| session.last.saturating_add(gap) <= at);
    let count = sessions[first..]
        .iter()
        .take_while(|session| session.start.saturating_sub(gap) < at)
        .count();
    first..first + count
}

impl Group {
    /// The place of a session among the group's.
    #[must_use]
    pub fn session(&self, slot: i64) -> Option<usize> {
        self.sessions
            .binary_search_by_key(&slot, |session| session.slot)
            .ok()
    }

    /// Whether the group has an event in these instants. Exact where they are a block: no session reaches over one without an event.
    #[must_use]
    pub fn was_there(&self, instants: &Range<i64>) -> bool {
        let at = self
            .sessions
            .partition_point(|session| session.last < instants.start);
        self.sessions
            .get(at)
            .is_some_and(|session| session.start < instants.end)
    }

    /// Forgets the oldest sessions; answers a slot whose chunk has to be written, as [`Group::drop_before`].
    pub fn forget(&mut self, count: usize) -> Option<i64> {
        self.sessions.drain(..count);
        let first = self.sessions.first().map_or(i64::MAX, |session| session.slot);
        self.drop_before(first)
    }

    /// Forgets what lies before a silence. Answers how many sessions that were.
    #[must_use]
    pub fn before_silence(&self) -> usize {
        let silent = |pair: &[Session]| pair[1].start.saturating_sub(pair[0].last) > SILENCE_MICROS;
        self.sessions
            .windows(2)
            .rposition(silent)
            .map_or(0, |before| before + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_touches_what_is_nearer_than_the_gap() {
        let sessions = [(100, 100), (110, 125), (140, 140)].map(|(start, last)| Session {
            slot: start,
            start,
            last,
        });
        for (at, expected) in [
            (89, 0..0),
            (90, 0..0),
            (91, 0..1),
            (100, 0..1),
            (105, 0..2),
            (110, 1..2),
            (134, 1..3),
            (135, 2..3),
            (150, 3..3),
        ] {
            assert_eq!(touched(&sessions, at, 10), expected, "{at}");
        }
    }
}
