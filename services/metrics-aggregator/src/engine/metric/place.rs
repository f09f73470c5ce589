//! Puts what an event adds into the cell of its group and slot, and marks what that alters.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use roomcast_proto::metric::Group as GroupName;

use super::time::{count_value, widen};
use super::{Amount, DISTINCT_MAX, Due, Metric, Outcome, Reason, any};
use crate::engine::cell::{Carried, Cell, Group, How, Totals, find};
use crate::engine::chunk::{Slots, ValueKey, part_hash, value_hash};
use crate::engine::ranks::range_of;
use crate::engine::row::Event;

/// More parts than any window has.
const PARTS_MAX: i128 = 1_024;

/// What became of a distinct value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// It is new in its slot.
    New,
    /// It was there.
    Known,
    /// It found no room, and is counted nearly.
    Sketched,
}

impl Metric {
    pub(super) fn put(&mut self, leg: usize, event: &Event<'_>, amount: Amount) -> Result<Outcome, Reason> {
        let mut slot = self.frames.slot(event.time_micros);
        if slot < self.horizon {
            return Ok(Outcome::Past);
        }
        let place = self.admit(slot);
        if let Some(gap) = self.frames.gap() {
            slot = self.join(place, slot, gap);
        }
        let part = self.part_of(slot, event.time_micros);
        let group = &mut self.groups[place as usize];
        let cells = &mut group.legs[leg];
        let found = find(cells, slot);
        let how = group.how[leg];
        let (mut added, mut carried, mut range, mut key) = (0, None, None, None);
        let mut sketched = false;
        match amount {
            Amount::One => {}
            Amount::Key(text) => key = Some(text),
            Amount::Number(number) if how == How::Ranked => {
                range = Some(range_of(number));
                let full = |cell: &Cell| {
                    cell.ranks()
                        .is_some_and(|ranks| !ranks.has_room(range_of(number)))
                };
                if found.is_ok_and(|at| full(&cells[at])) {
                    return Err(Reason::Overflow);
                }
            }
            Amount::Number(number) => {
                added = number.units();
                if how == How::Add {
                    let before = found.map_or(0, |at| cells[at].sum);
                    let limit = i128::MAX / i128::from(self.frames.cells_per_window());
                    before
                        .checked_add(added)
                        .filter(|sum| sum.unsigned_abs() <= limit.unsigned_abs())
                        .ok_or(Reason::Overflow)?;
                    // A part may hold more than the whole, where others hold the opposite.
                    let before = found
                        .ok()
                        .zip(part)
                        .map_or(0, |(at, part)| cells[at].part(part).sum);
                    before
                        .checked_add(added)
                        .filter(|sum| sum.unsigned_abs() <= (i128::MAX / PARTS_MAX).unsigned_abs())
                        .ok_or(Reason::Overflow)?;
                }
            }
            Amount::Carried(text) => {
                carried = Some(Carried {
                    time: event.time_micros,
                    seq: event.seq,
                    text,
                });
            }
            Amount::Value(value) => {
                let key = ValueKey {
                    group: place,
                    leg: u8::from(leg == 1),
                    value,
                };
                match self.put_value(key, slot) {
                    Kept::New => added = 1,
                    Kept::Known => {}
                    Kept::Sketched => sketched = true,
                }
            }
        }
        let came = Totals {
            events: 1,
            sum: added,
            capped: 0,
        };
        let cell = self.cell(place, leg, slot, found);
        let mut sum = Totals::from(&*cell);
        sum.join(came, how);
        cell.sum = sum.sum;
        cell.events = sum.events;
        cell.seq = event.seq;
        if let Some(carried) = carried {
            cell.carry(how, carried);
        }
        if let Some(range) = range {
            cell.rare().ranks.add(range);
        }
        let gave_way = key.is_some_and(|key| cell.rare().top.add(key, 1));
        let capped = (gave_way || sketched) && !cell.capped();
        if capped {
            cell.rare().capped = true;
        }
        let came = Totals {
            capped: u32::from(capped),
            ..came
        };
        if let Some(part) = part {
            cell.add_part(part, came, how);
        }
        self.roll(place, leg, slot, came, range);
        self.groups[place as usize].last_seq = event.seq;
        self.last_seq = event.seq;
        self.touched(place, slot);
        Ok(Outcome::Folded)
    }

    /// The group that `self.key` names, or `~other` where the window of this slot holds as many as it may.
    pub(super) fn admit(&mut self, slot: i64) -> u32 {
        let known = self.by_key.get(self.key.as_str()).copied();
        if self.definition.group_values == 0 {
            return known.unwrap_or_else(|| self.add_group(GroupName::ALL));
        }
        let block = self.frames.block(slot);
        let slots = self.frames.block_start(block)..self.frames.block_start(block + 1);
        let there = |group: &Group| match self.frames.gap() {
            Some(_) => group.was_there(&slots),
            None => group.has(&slots),
        };
        if let Some(place) = known.filter(|place| there(&self.groups[*place as usize])) {
            return place;
        }
        let count = self.block_groups.entry(block).or_default();
        if *count >= self.definition.groups_max {
            let other = self.by_key.get(GroupName::OTHER).copied();
            return other.unwrap_or_else(|| self.add_group(GroupName::OTHER));
        }
        *count += 1;
        match known {
            Some(place) => place,
            None => {
                let key = std::mem::take(&mut self.key);
                let place = self.add_group(&key);
                self.key = key;
                place
            }
        }
    }

    /// The group's place, added if it is new.
    pub(crate) fn group_place(&mut self, key: &str) -> u32 {
        self.by_key
            .get(key)
            .copied()
            .unwrap_or_else(|| self.add_group(key))
    }

    /// The group of this name.
    pub(crate) fn group(&self, key: &str) -> Option<&Group> {
        self.by_key
            .get(key)
            .and_then(|place| self.groups.get(*place as usize))
    }

    /// The place of a group of this metric.
    pub(crate) fn group_at(&self, group: &Group) -> Option<u32> {
        self.by_key.get(&group.key).copied()
    }

    pub(super) fn add_group(&mut self, key: &str) -> u32 {
        let place = u32::try_from(self.groups.len()).unwrap_or(u32::MAX);
        let mut how = [How::default(); 2];
        for (how, leg) in how.iter_mut().zip(&self.definition.legs) {
            *how = leg.aggregate.into();
        }
        let group = Group::new(key, self.frames.rolls(), how, self.in_parts());
        self.by_key.insert(Arc::clone(&group.key), place);
        self.groups.push(group);
        place
    }

    /// The cell of a slot, made if it is not there, and listed in its chunk then.
    pub(super) fn cell(
        &mut self,
        place: u32,
        leg: usize,
        slot: i64,
        found: Result<usize, usize>,
    ) -> &mut Cell {
        let group = &mut self.groups[place as usize];
        let at = match found {
            Ok(at) => at,
            Err(at) => {
                let part = group.part_of(slot);
                if !group.has(&group.part(part)) {
                    self.chunks
                        .touch(part_hash(group.hash, part))
                        .parts
                        .push((place, part));
                }
                if group.legs[leg].is_empty() {
                    // Most groups of a tumbling window have one cell; doubling would begin with four.
                    group.legs[leg].reserve_exact(1);
                }
                group.legs[leg].insert(at, Cell::new(slot));
                at
            }
        };
        &mut group.legs[leg][at]
    }

    /// Marks what a change in a slot alters: its chunk, its group, and the closed windows that show it.
    pub(super) fn touched(&mut self, place: u32, slot: i64) {
        let group = &mut self.groups[place as usize];
        self.chunks.touch(part_hash(group.hash, group.part_of(slot)));
        if self.definition.publish.is_none() {
            return;
        }
        if !group.changed {
            group.changed = true;
            self.changed.push(place);
        }
        if self.frames.gap().is_some() {
            self.sessions_altered(place, slot);
        } else if let Some(current) = self.place {
            for window in self.frames.altered(slot, current) {
                match self
                    .closed
                    .entry(window)
                    .or_insert_with(|| Due::Some(BTreeSet::new()))
                {
                    Due::All => {}
                    Due::Some(groups) => {
                        groups.insert(place);
                    }
                }
            }
        }
    }

    /// Adds a value to a slot: as it is, or to its sketch, where the window holds as many as it may.
    pub(super) fn put_value(&mut self, key: ValueKey, slot: i64) -> Kept {
        let group = &mut self.groups[key.group as usize];
        let hash = value_hash(group.hash, key.leg, key.value);
        let index = self.chunks.index(hash);
        let block = self.frames.block(slot);
        let block_slots = self.frames.bounded(slot);
        let known = self.chunks.list()[index].values.get(&key);
        let none = Slots::new();
        let seen = known.unwrap_or(&none);
        if seen.binary_search(&slot).is_ok() {
            return Kept::Known;
        }
        let new_to_block = !any(seen, &block_slots);
        let leg = usize::from(key.leg);
        let full = new_to_block && block_count(group, leg, block, &block_slots) >= DISTINCT_MAX;
        // Sessions that were joined may have all they had in a sketch, and few or none one by one.
        if full || (group.rolling.is_none() && self.chunks.sketch(group.hash, &key.sketch(slot)).is_some()) {
            self.sketch_value(key, slot);
            return Kept::Sketched;
        }
        if let Some(rolling) = &mut group.rolling {
            let spread = &mut rolling.spread[leg];
            if new_to_block {
                *spread.block(block) += 1;
            }
            if let Some(place) = self.place {
                count_value(spread, &self.frames, place, seen, slot, key.value);
            }
        }
        let slots = self.chunks.touch(hash).values.entry(key).or_default();
        if let Err(at) = slots.binary_search(&slot) {
            slots.insert(at, slot);
        }
        Kept::New
    }

    fn sketch_value(&mut self, key: ValueKey, slot: i64) {
        let hash = self.groups[key.group as usize].hash;
        self.chunks.add_to_sketch(hash, key.sketch(slot), key.value);
        let (Some(place), Some(rolling)) = (self.place, &mut self.groups[key.group as usize].rolling) else {
            return;
        };
        match &mut rolling.spread[usize::from(key.leg)].wide {
            Some(wide) => widen(wide, &self.frames, place, slot, &mut |sketch| {
                sketch.add(key.value);
            }),
            // The first of these windows: all values of them are needed, once.
            None => self.respread(place),
        }
    }

    /// Adds to the rolling totals what was added to a slot.
    pub(super) fn roll(&mut self, place: u32, leg: usize, slot: i64, came: Totals, range: Option<i16>) {
        let group = &mut self.groups[place as usize];
        let how = group.how[leg];
        let (Some(rolling), Some(current)) = (&mut group.rolling, self.place) else {
            return;
        };
        if self.frames.slots(current).contains(&slot) {
            rolling.current[leg].join(came, how);
            if let Some(range) = range {
                rolling.ranks[leg].add(range);
            }
        } else if self
            .frames
            .previous(current)
            .is_some_and(|slots| slots.contains(&slot))
        {
            rolling.previous[leg].join(came, how);
        }
    }
}

/// Different values of a group in a block.
fn block_count(group: &mut Group, leg: usize, block: i64, slots: &Range<i64>) -> u32 {
    match &mut group.rolling {
        Some(rolling) => *rolling.spread[leg].block(block),
        None => u32::try_from(group.totals(leg, slots).sum).unwrap_or(u32::MAX),
    }
}
