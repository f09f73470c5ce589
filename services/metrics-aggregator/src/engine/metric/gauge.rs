//! Gauges: how many keys there are whose latest event satisfies a condition.
//!
//! The latest event of each key is known by time and position, so an event that comes late changes nothing that a later one has said. A
//! key is one of the whole metric: when its latest event is of another group it leaves the one it was in.

use super::{KEYS_MAX, Metric, Outcome, Reason};
use crate::definition::{Aggregate, Leg};
use crate::engine::cell::find;
use crate::engine::chunk::{Latest, value_hash};
use crate::engine::row::Event;

const DAY_MICROS: i64 = 24 * 3_600_000_000;
/// Gauges are of all time, which is one slot.
const SLOT: i64 = 0;

impl Metric {
    /// Takes over what an event says about a key, where none is later. `self.key` names the group.
    pub(super) fn put_key(
        &mut self,
        leg: usize,
        event: &Event<'_>,
        key: u128,
        holds: bool,
    ) -> Result<Outcome, Reason> {
        let id = (u8::from(leg == 1), key);
        let hash = value_hash(0, id.0, key);
        let index = self.chunks.index(hash);
        let known = self.chunks.list()[index].keys.get(&id).copied();
        if known.is_some_and(|known| (known.time, known.seq) > (event.time_micros, event.seq)) {
            return Ok(Outcome::Past);
        }
        let full = known.is_none() && self.keys >= KEYS_MAX && !self.make_room();
        let place = self.admit(SLOT);
        let found = find(&self.groups[place as usize].legs[leg], SLOT);
        let cell = self.cell(place, leg, SLOT, found);
        if full {
            cell.rare().capped = true;
            self.touched(place, SLOT);
            return Err(Reason::Overflow);
        }
        cell.sum += i128::from(holds);
        cell.events += 1;
        if let Some(before) = known {
            self.change_count(before.group, leg, event.seq, -i128::from(before.holds));
        } else {
            self.keys += 1;
        }
        self.change_count(place, leg, event.seq, 0);
        let latest = Latest {
            group: place,
            time: event.time_micros,
            seq: event.seq,
            holds,
        };
        self.chunks.touch(hash).keys.insert(id, latest);
        if !holds {
            let until = event.time_micros.saturating_add(self.keep_micros());
            self.keys_full_until = self.keys_full_until.min(until);
        }
        self.last_seq = event.seq;
        Ok(Outcome::Folded)
    }

    /// Changes how many keys of a group hold, by an event at a position.
    fn change_count(&mut self, place: u32, leg: usize, seq: u64, by: i128) {
        let group = &mut self.groups[place as usize];
        if let Some(cell) = group.legs[leg].first_mut() {
            cell.sum += by;
            cell.seq = seq;
        }
        group.last_seq = seq;
        self.touched(place, SLOT);
    }

    /// Forgets keys that do not hold and of which no event can come any more that is not late: a day and the lateness before the
    /// highest event time. False where there are none.
    fn make_room(&mut self) -> bool {
        let highest = self.highest.unwrap_or(i64::MIN);
        if highest <= self.keys_full_until {
            return false;
        }
        let keep = self.keep_micros();
        let mut next = i64::MAX;
        let mut gone = Vec::new();
        for chunk in self.chunks.list() {
            for ((leg, key), latest) in chunk.keys.iter().filter(|(_, latest)| !latest.holds) {
                let until = latest.time.saturating_add(keep);
                if until < highest {
                    gone.push((*leg, *key));
                } else {
                    next = next.min(until);
                }
            }
        }
        self.keys_full_until = if gone.is_empty() { next } else { i64::MIN };
        self.keys -= gone.len();
        let made = !gone.is_empty();
        for id in gone {
            self.chunks.touch(value_hash(0, id.0, id.1)).keys.remove(&id);
        }
        made
    }

    /// How long a key that does not hold is remembered at least.
    fn keep_micros(&self) -> i64 {
        self.definition.lateness_micros + DAY_MICROS
    }

    /// Whether a leg is a gauge.
    pub(crate) fn has_gauge(&self) -> bool {
        let gauge = |leg: &Leg| matches!(leg.aggregate, Aggregate::Gauge(_));
        self.definition.legs.iter().any(gauge)
    }

    /// Whether a leg counts different values.
    pub(crate) fn has_distinct(&self) -> bool {
        let distinct = |leg: &Leg| matches!(leg.aggregate, Aggregate::Distinct(_));
        self.definition.legs.iter().any(distinct)
    }

    /// Counts the keys of gauges that were decoded.
    pub(super) fn count_keys(&mut self) {
        self.keys = self.chunks.list().iter().map(|chunk| chunk.keys.len()).sum();
    }
}
