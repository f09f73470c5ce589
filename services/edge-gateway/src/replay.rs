//! Decides what a returning client can be given, from its cursor and from what is known: pure, asked under the hub's lock.

use roomcast_proto::cursor::{Cursor, Epoch, Position};

use crate::hub::Gap;

/// What is known when somebody comes back to a room.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Which life of the streams.
    pub epoch: Epoch,
    /// Everything up to here has been handed out.
    pub head: Position,
    /// Positions that are looked through at most.
    pub scan_max: u64,
    /// The oldest event the stream keeps.
    pub first_seq: u64,
    /// From here on every state value is younger than withdrawn ones are kept.
    pub first_rev: u64,
    /// From here on the room's events are in the ring.
    pub ring_from: u64,
    /// From and to: a part of the stream that was read for this room just now.
    pub read: Option<(u64, u64)>,
    /// The room has so many events that those before this position were not read.
    pub unread_before: Option<u64>,
    /// Low bits of the time of the cursor's message: not known yet, or known (0: there is no such message any more).
    pub time_bits: Option<u16>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// No cursor: all state, no events.
    Fresh,
    /// All state, no events, and this reason.
    Incomplete(Gap),
    /// Wait for the streams to get there; after 5 s it is [`Gap::Ahead`].
    Ahead,
    /// Find out when the cursor's message was stored.
    NeedTime,
    /// Read this part of the stream for the room: from, to.
    NeedRead(u64, u64),
    /// Everything missed is at hand.
    Complete,
}

/// Decides.
#[must_use]
pub fn plan(from: Option<Cursor>, known: &Known) -> Plan {
    let Some(from) = from else { return Plan::Fresh };
    if from.epoch != known.epoch {
        return Plan::Incomplete(Gap::Epoch);
    }
    let Position { seq, rev } = from.position;
    if seq > known.head.seq || rev > known.head.rev {
        return Plan::Ahead;
    }
    // A cursor with rev 0 holds no state, so it misses no withdrawal.
    if rev > 0 && rev.saturating_add(1) < known.first_rev {
        return Plan::Incomplete(Gap::Expired);
    }
    let next = seq.saturating_add(1);
    let in_ring = next >= known.ring_from;
    if !in_ring && next < known.first_seq {
        return Plan::Incomplete(Gap::Expired);
    }
    if !in_ring && known.ring_from - next > known.scan_max {
        return Plan::Incomplete(Gap::TooFar);
    }
    if from.time_bits != 0 && seq > 0 {
        match known.time_bits {
            None => return Plan::NeedTime,
            Some(bits) if bits != 0 && bits != from.time_bits => return Plan::Incomplete(Gap::Epoch),
            Some(_) => {}
        }
    }
    let is_read = known
        .read
        .is_some_and(|(read_from, read_to)| read_from <= next && read_to + 1 >= known.ring_from);
    if in_ring || is_read {
        return Plan::Complete;
    }
    if known.unread_before.is_some_and(|unread| next < unread) {
        return Plan::Incomplete(Gap::TooFar);
    }
    // A little more than is missing: the ring moves on while it is read.
    let last = (known.ring_from + READ_MORE).min(known.head.seq);
    match known.read {
        // What was read just now is not read again: only what came after it, or was before.
        Some((read_from, read_to)) if (read_from..=read_to + 1).contains(&next) => {
            Plan::NeedRead(read_to + 1, last)
        }
        Some((read_from, read_to)) if next < read_from && read_to + 1 >= known.ring_from => {
            Plan::NeedRead(next, read_from - 1)
        }
        _ => Plan::NeedRead(next, last),
    }
}

/// Positions read beyond where the ring begins.
const READ_MORE: u64 = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(name: &str) -> Epoch {
        Epoch::of_streams(name, "")
    }

    fn known() -> Known {
        Known {
            epoch: epoch("now"),
            head: Position {
                seq: 100_000,
                rev: 500,
            },
            scan_max: 50_000,
            first_seq: 1_000,
            first_rev: 200,
            ring_from: 90_000,
            read: None,
            unread_before: None,
            time_bits: Some(7),
        }
    }

    #[test]
    fn every_cursor_gets_a_plain_answer() {
        use Plan::{Ahead, Complete, Fresh, Incomplete, NeedRead, NeedTime};
        let at = |seq, rev| {
            Some(Cursor {
                epoch: epoch("now"),
                position: Position { seq, rev },
                time_bits: 7,
            })
        };
        let other = |time_bits| {
            Some(Cursor {
                time_bits,
                ..at(95_000, 400).unwrap()
            })
        };
        let k = known();
        let old_ring = Known { ring_from: 500, ..k };
        let read = |from, to| Known {
            read: Some((from, to)),
            ..k
        };
        let rows: [(Option<Cursor>, Known, Plan); 27] = [
            (None, k, Fresh),
            (
                Some(Cursor {
                    epoch: epoch("then"),
                    ..at(95_000, 400).unwrap()
                }),
                k,
                Incomplete(Gap::Epoch),
            ),
            (at(100_000, 500), k, Complete),
            (at(100_001, 500), k, Ahead),
            (at(100_000, 501), k, Ahead),
            (at(u64::MAX, u64::MAX), k, Ahead),
            (at(95_000, 400), k, Complete),
            (at(89_999, 400), k, Complete),
            (at(89_998, 400), k, NeedRead(89_999, 92_000)),
            (at(39_999, 400), k, NeedRead(40_000, 92_000)),
            (at(39_998, 400), k, Incomplete(Gap::TooFar)),
            (at(998, 400), k, Incomplete(Gap::Expired)),
            (at(600, 400), old_ring, Complete),
            (at(95_000, 199), k, Complete),
            (at(95_000, 198), k, Incomplete(Gap::Expired)),
            (at(95_000, 0), k, Complete),
            (other(8), k, Incomplete(Gap::Epoch)),
            (other(0), k, Complete),
            (
                other(8),
                Known {
                    time_bits: Some(0),
                    ..k
                },
                Complete,
            ),
            (other(8), Known { time_bits: None, ..k }, NeedTime),
            (
                at(80_000, 400),
                Known {
                    read: Some((80_001, 89_999)),
                    ..k
                },
                Complete,
            ),
            // The ring has moved on beyond what was read.
            (at(80_000, 400), read(80_001, 89_998), NeedRead(89_999, 92_000)),
            (at(89_998, 400), read(80_001, 89_998), NeedRead(89_999, 92_000)),
            // Somebody was away for longer than the first of them.
            (at(79_999, 400), read(80_001, 91_000), NeedRead(80_000, 80_000)),
            // What was read is of no use: it is not where it would be needed.
            (at(79_999, 400), read(80_001, 85_000), NeedRead(80_000, 92_000)),
            (at(86_000, 400), read(80_001, 85_000), NeedRead(86_001, 92_000)),
            (
                at(79_999, 400),
                Known {
                    read: Some((80_001, 89_999)),
                    unread_before: Some(80_001),
                    ..k
                },
                Incomplete(Gap::TooFar),
            ),
        ];
        for (number, (from, known, expected)) in rows.into_iter().enumerate() {
            assert_eq!(plan(from, &known), expected, "row {number}: {from:?}");
        }
    }
}
