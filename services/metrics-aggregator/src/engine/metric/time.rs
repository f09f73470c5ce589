//! Moves the windows of a metric: what closes, what rolls on, what is dropped.

use std::collections::BTreeMap;
use std::ops::Range;

use super::session::ALL_SESSIONS;
use super::{Due, Hole, Metric, any};
use crate::definition::{Aggregate, Clock, Leg, SPARK};
use crate::engine::cell::{Group, How, Spread, Wide, ranks, totals};
use crate::engine::chunk::{Slots, part_hash};
use crate::engine::sketch::Sketch;
use crate::engine::window::Frames;
use roomcast_proto::metric::Group as GroupName;

/// What changes with time alone is published at this distance at least.
const TICK_MICROS: i64 = 1_000_000;

impl Metric {
    /// Moves time. `as_of` never goes back.
    pub fn advance(&mut self, now: i64) {
        self.as_of = self.as_of.max(now);
        self.follow();
        if self.next_tick().is_some_and(|at| at <= self.as_of) {
            self.last_tick = Some((self.as_of, self.highest));
            self.all_changed = true;
        }
        let parts = self.parts_over();
        if parts != self.last_parts {
            self.last_parts = parts;
            self.all_changed = true;
        }
        if let Some(after) = self.definition.stalled_after_micros {
            let since = self.last_match.unwrap_or(self.created);
            if !self.stalled && self.as_of.saturating_sub(since) >= after {
                self.stalled = true;
                self.all_changed = true;
            }
        }
    }

    /// The instant at which something changes without an event.
    #[must_use]
    pub fn next_change(&self) -> Option<i64> {
        let end = match self.definition.clock {
            Clock::Wall if self.frames.gap().is_some() => self.open.first().map(|(end, _)| *end),
            Clock::Wall => self.place.and_then(|place| self.frames.end(place)),
            Clock::Event => None,
        };
        let stall = self.definition.stalled_after_micros.filter(|_| !self.stalled);
        let stall = stall.map(|after| self.last_match.unwrap_or(self.created).saturating_add(after));
        end.into_iter()
            .chain(stall)
            .chain(self.room_at)
            .chain(self.next_tick())
            .chain(self.next_part().filter(|_| self.definition.clock == Clock::Wall))
            .min()
    }

    /// When the numbers of the current window change next without an event: a second after they last did, where time is in them
    /// and there is anything to divide by it.
    fn next_tick(&self) -> Option<i64> {
        let rate = |leg: &Leg| matches!(leg.aggregate, Aggregate::Rate(_));
        let moved = |(_, highest): &(i64, Option<i64>)| *highest != self.highest;
        let moves = self.definition.clock == Clock::Wall || self.last_tick.as_ref().is_none_or(moved);
        if !moves || !self.definition.legs.iter().any(rate) {
            return None;
        }
        let there = match self.place.filter(|_| self.frames.gap().is_none()) {
            Some(place) => self.highest? >= self.frames.bounds(place)?.start,
            None => !self.open.is_empty(),
        };
        there.then(|| self.last_tick.map_or(i64::MIN, |(last, _)| last + TICK_MICROS))
    }

    /// Moves the current window to where time and events say.
    pub(super) fn follow(&mut self) {
        let newest = match self.definition.clock {
            Clock::Wall => Some(self.highest.map_or(self.as_of, |highest| highest.max(self.as_of))),
            Clock::Event => self.highest,
        };
        if let Some(newest) = newest {
            let place = self.frames.place(newest);
            if self.frames.gap().is_some() {
                self.close_sessions(place);
            } else if self.place.is_none_or(|before| before < place) {
                self.move_to(place);
            }
        }
    }

    pub(super) fn move_to(&mut self, place: i64) {
        if let Some(before) = self.place {
            self.leave(before, place);
        }
        let before = self.place.replace(place);
        self.all_changed = true;
        if self.frames.rolls() {
            self.roll_on(before, place);
        }
        let horizon = self.frames.horizon(place, self.definition.lateness_micros);
        if horizon > self.horizon {
            self.horizon = horizon;
            self.prune();
        }
    }

    /// What has to be said about windows before they are left.
    pub(super) fn leave(&mut self, before: i64, place: i64) {
        if self.definition.publish.is_none() {
            return;
        }
        if self.frames.closes() {
            // Older ones have expired already.
            let alive = self.frames.alive(place, self.as_of);
            for window in alive.take_while(|window| *window >= before) {
                self.closed.insert(window, Due::All);
            }
        } else if self.live && !self.changed.is_empty() {
            self.render_last();
        }
    }

    /// Moves rolling totals from one window to the next.
    pub(super) fn roll_on(&mut self, before: Option<i64>, place: i64) {
        let frames = &self.frames;
        let near = before.filter(|before| place - before <= frames.steps());
        for group in &mut self.groups {
            match near {
                Some(before) => roll_group(group, frames, before, place),
                None => recount(group, frames, place),
            }
        }
        self.respread(place);
    }

    /// Counts different values per range anew: one pass over all values.
    pub(super) fn respread(&mut self, place: i64) {
        if !self.has_distinct() {
            return;
        }
        for group in &mut self.groups {
            if let Some(rolling) = &mut group.rolling {
                rolling.spread = Default::default();
            }
        }
        for (key, sketch) in self.chunks.list().iter().flat_map(|chunk| &chunk.sketches) {
            let group = self.groups.get_mut(key.group as usize);
            if let Some(rolling) = group.and_then(|group| group.rolling.as_mut()) {
                let wide = &mut rolling.spread[usize::from(key.leg)].wide;
                let shown = |slots: Option<Range<i64>>| slots.is_some_and(|slots| slots.contains(&key.slot));
                if shown(Some(self.frames.slots(place))) || shown(self.frames.previous(place)) {
                    let wide = wide.get_or_insert_default();
                    widen(wide, &self.frames, place, key.slot, &mut |own| own.join(sketch));
                }
            }
        }
        let none = Slots::new();
        for chunk in self.chunks.list() {
            for (key, slots) in &chunk.values {
                let Some(rolling) = self
                    .groups
                    .get_mut(key.group as usize)
                    .and_then(|group| group.rolling.as_mut())
                else {
                    continue;
                };
                let spread = &mut rolling.spread[usize::from(key.leg)];
                let mut seen = none.clone();
                for slot in slots {
                    let block = self.frames.block(*slot);
                    if seen.last().is_none_or(|last| self.frames.block(*last) != block) {
                        *spread.block(block) += 1;
                    }
                    count_value(spread, &self.frames, place, &seen, *slot, key.value);
                    seen.push(*slot);
                }
            }
        }
    }

    /// Drops what no window shows any more, in whole blocks. Stored chunks keep it until they are written for another reason.
    pub(super) fn prune(&mut self) {
        if let Some(gap) = self.frames.gap() {
            self.prune_sessions(gap);
            return;
        }
        let horizon = self.horizon;
        for index in 0..self.chunks.list().len() {
            self.chunks.get_mut(index).values.retain(|_, slots| {
                slots.retain(|slot| *slot >= horizon);
                !slots.is_empty()
            });
            self.chunks
                .get_mut(index)
                .sketches
                .retain(|key, _| key.slot >= horizon);
        }
        self.drop_groups(|_, group| group.drop_before(horizon));
    }

    /// Drops cells of groups, and groups that have none left. `drop` answers a slot whose chunk has to be written.
    pub(super) fn drop_groups(&mut self, mut drop: impl FnMut(usize, &mut Group) -> Option<i64>) {
        let mut moved = Vec::with_capacity(self.groups.len());
        let mut kept = 0_u32;
        let mut touched = Vec::new();
        for (place, group) in self.groups.iter_mut().enumerate() {
            let raised = drop(place, group);
            moved.push((!group.is_empty()).then_some(kept));
            if !group.is_empty() {
                touched.extend(raised.map(|slot| part_hash(group.hash, group.part_of(slot))));
                kept += 1;
            }
        }
        self.groups.retain(|group| !group.is_empty());
        self.renumber(&moved);
        for hash in touched {
            self.chunks.touch(hash);
        }
    }

    /// Brings everything that names groups by place in line with a new order.
    pub(super) fn renumber(&mut self, moved: &[Option<u32>]) {
        let new = |place: &u32| moved.get(*place as usize).copied().flatten();
        self.by_key.retain(|_, place| match new(place) {
            Some(kept) => {
                *place = kept;
                true
            }
            None => false,
        });
        self.changed = self.changed.iter().filter_map(new).collect();
        for due in self.closed.values_mut() {
            if let Due::Some(groups) = due {
                *groups = groups.iter().filter_map(new).collect();
            }
        }
        self.chunks.renumber(&self.groups, moved);
        self.count_blocks();
        self.find_open();
        if self.place.is_some_and(|_| self.frames.rolls()) {
            self.respread(self.place.unwrap_or(0));
        }
    }

    /// Counts the groups of each block from the cells.
    pub(super) fn count_blocks(&mut self) {
        self.block_groups.clear();
        for group in self.groups.iter().filter(|group| &*group.key != GroupName::OTHER) {
            let mut blocks: Vec<i64> = group
                .legs
                .iter()
                .flatten()
                .filter(|_| group.sessions.is_empty())
                .map(|cell| self.frames.block(cell.slot))
                .collect();
            for session in &group.sessions {
                blocks.extend(self.frames.block(session.start)..=self.frames.block(session.last));
            }
            blocks.sort_unstable();
            blocks.dedup();
            for block in blocks {
                *self.block_groups.entry(block).or_default() += 1;
            }
        }
    }

    /// Completes a metric that was decoded: everything that follows from the cells.
    pub(crate) fn restore(&mut self) {
        for group in &mut self.groups {
            for cells in &mut group.legs {
                cells.sort_by_key(|cell| cell.slot);
            }
            group.sessions.sort_by_key(|session| session.slot);
            group.last_seq = group.seq_within(&(i64::MIN..i64::MAX));
        }
        self.chunks.count_rooms();
        self.count_keys();
        if let Some(place) = self.place {
            self.horizon = self.frames.horizon(place, self.definition.lateness_micros);
            self.prune();
            // What is state is looked at once.
            self.room_at = self.frames.gap().map(|_| i64::MIN);
            if self.frames.rolls() {
                self.roll_on(None, place);
            }
        }
        self.all_changed = true;
    }

    /// Says that stored events are missing between two instants.
    pub fn missed(&mut self, hole: Hole) {
        self.hole = Some(match self.hole {
            None => hole,
            Some(known) => Hole {
                since: known.since.min(hole.since),
                until: known.until.max(hole.until),
            },
        });
        self.all_changed = true;
        if self.frames.gap().is_some() && self.definition.publish.is_some() {
            self.closed = BTreeMap::from([(ALL_SESSIONS, Due::All)]);
        }
        if let Some(place) = self
            .place
            .filter(|_| self.frames.closes() && self.definition.publish.is_some())
        {
            for window in self.frames.alive(place, self.as_of) {
                self.closed.insert(window, Due::All);
            }
        }
    }
}

/// Counts a value that is new in `slot` and was seen in `seen`.
pub(super) fn count_value(
    spread: &mut Spread,
    frames: &Frames,
    place: i64,
    seen: &Slots,
    slot: i64,
    value: u128,
) {
    if let Some(wide) = &mut spread.wide {
        widen(wide, frames, place, slot, &mut |sketch| {
            sketch.add(value);
        });
    }
    let current = frames.slots(place);
    if current.contains(&slot) {
        spread.current += u32::from(!any(seen, &current));
        if let Some(part) = frames.spark_part(place, slot) {
            let width = (current.end - current.start) / SPARK;
            let start = current.start + i64::try_from(part).unwrap_or(0) * width;
            spread.spark[part] += u32::from(!any(seen, &(start..start + width)));
        }
    } else if let Some(previous) = frames.previous(place).filter(|slots| slots.contains(&slot)) {
        spread.previous += u32::from(!any(seen, &previous));
    }
}

/// Adds to the sketches of the windows that a slot belongs to.
pub(super) fn widen(
    wide: &mut Wide,
    frames: &Frames,
    place: i64,
    slot: i64,
    add: &mut impl FnMut(&mut Sketch),
) {
    if frames.slots(place).contains(&slot) {
        add(&mut wide.current);
        if let Some(part) = frames.spark_part(place, slot) {
            add(&mut wide.spark[part]);
        }
    } else if frames.previous(place).is_some_and(|slots| slots.contains(&slot)) {
        add(&mut wide.previous);
    }
}

pub(super) fn recount(group: &mut Group, frames: &Frames, place: i64) {
    let Some(rolling) = &mut group.rolling else { return };
    let previous = frames.previous(place).unwrap_or(0..0);
    for leg in 0..2 {
        let how = group.how[leg];
        rolling.current[leg] = totals(&group.legs[leg], &frames.slots(place), how);
        rolling.previous[leg] = totals(&group.legs[leg], &previous, how);
        if how == How::Ranked {
            rolling.ranks[leg] = ranks(&group.legs[leg], &frames.slots(place));
        }
    }
}

pub(super) fn roll_group(group: &mut Group, frames: &Frames, before: i64, place: i64) {
    let Some(rolling) = &mut group.rolling else { return };
    let (old, new) = (frames.slots(before), frames.slots(place));
    let (old_previous, new_previous) = (
        frames.previous(before).unwrap_or(0..0),
        frames.previous(place).unwrap_or(0..0),
    );
    for (leg, cells) in group.legs.iter().enumerate() {
        if cells.is_empty() {
            continue;
        }
        let how = group.how[leg];
        let over = |slots: Range<i64>| totals(cells, &slots, how);
        if how == How::Ranked {
            rolling.ranks[leg].leave(&ranks(cells, &(old.start..new.start)));
            rolling.ranks[leg].join(&ranks(cells, &(old.end..new.end)));
        }
        let left = over(old.start..new.start);
        let current = &mut rolling.current[leg];
        if current.leave(left, how) {
            current.join(over(old.end..new.end), how);
        } else {
            *current = over(new.clone());
        }
        let previous = &mut rolling.previous[leg];
        if previous.leave(over(old_previous.start..new_previous.start), how) {
            previous.join(left, how);
        } else {
            *previous = over(new_previous.clone());
        }
    }
    debug_assert_eq!((old_previous.end, new_previous.end), (old.start, new.start));
}
