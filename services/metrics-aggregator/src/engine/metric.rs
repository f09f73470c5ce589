//! One metric: judges events, folds them, moves its windows. Pure; `as_of` is given.
//!
//! Called by the shard for each event in stream order and at each advance of time. What it has to say is built in `render`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use roomcast_proto::metric::{Group as GroupName, Skipped, Status};

use crate::definition::{Aggregate, Clock, Definition, Leg};
use crate::engine::cell::{Cell, Group, Totals, find, totals, within};
use crate::engine::chunk::{Chunks, Slots, ValueKey, part_hash, part_of, value_hash};
use crate::engine::decimal::{Decimal, Unfit};
use crate::engine::predicate::Verdict;
use crate::engine::render::Outgoing;
use crate::engine::row::{Event, Field, Paths};
use crate::engine::window::Frames;

/// An event may be this much ahead of the time it was stored.
pub const FUTURE_MICROS: i64 = 5 * 60 * 1_000_000;
/// Distinct values of a group per window; more do not fit. Few in this crate's own tests, so that random events reach it.
pub const DISTINCT_MAX: u32 = if cfg!(test) { 4 } else { 10_000 };
/// Longest text that names a group, in bytes.
pub const GROUP_TEXT_BYTES_MAX: usize = 256;
/// Rooms of one metric whose watermarks are kept; in further ones nothing is late. Counted in [`Metric::rooms_untracked`].
pub const ROOMS_MAX: usize = 100_000;

/// Why an event was not folded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// `late`
    Late,
    /// `future`
    Future,
    /// `where_error`
    WhereError,
    /// `missing`
    Missing,
    /// `not_a_number`
    NotANumber,
    /// `not_a_scalar`
    NotAScalar,
    /// `out_of_range`
    OutOfRange,
    /// `overflow`
    Overflow,
}

impl Reason {
    /// All reasons with their names.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::Late, "late"),
        (Self::Future, "future"),
        (Self::WhereError, "where_error"),
        (Self::Missing, "missing"),
        (Self::NotANumber, "not_a_number"),
        (Self::NotAScalar, "not_a_scalar"),
        (Self::OutOfRange, "out_of_range"),
        (Self::Overflow, "overflow"),
    ];

    fn count(self, skipped: &mut Skipped) -> &mut u64 {
        match self {
            Self::Late => &mut skipped.late,
            Self::Future => &mut skipped.future,
            Self::WhereError => &mut skipped.where_error,
            Self::Missing => &mut skipped.missing,
            Self::NotANumber => &mut skipped.not_a_number,
            Self::NotAScalar => &mut skipped.not_a_scalar,
            Self::OutOfRange => &mut skipped.out_of_range,
            Self::Overflow => &mut skipped.overflow,
        }
    }
}

/// What became of one event in one leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It does not come from there, or the condition does not hold.
    NotOurs,
    /// It is in a window.
    Folded,
    /// It matches, and its window is older than all that are kept.
    Past,
    /// It matches and was not folded.
    Skipped(Reason),
}

/// Events are missing that were stored between these instants, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// Since when.
    pub since: i64,
    /// From here on nothing is missing.
    pub until: i64,
}

/// What an event adds to its cell.
enum Amount {
    One,
    Sum(Decimal),
    Value(u128),
}

/// Groups of a closed window that are to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// Whatever belongs to its top.
    All,
    /// Those that changed, as far as they belong to its top.
    Some(BTreeSet<u32>),
}

/// One metric with its state.
#[derive(Debug)]
pub struct Metric {
    /// What it is.
    pub definition: Arc<Definition>,
    pub(crate) frames: Frames,
    /// Places of each leg's fields in the shard's row.
    places: Vec<Vec<usize>>,
    /// Events up to here are folded already; more than the shard's position while others catch up.
    pub(crate) folded_to: u64,
    pub(crate) created: i64,
    pub(crate) as_of: i64,
    /// The current window; `None` before the first event when the clock is `event`.
    pub(crate) place: Option<i64>,
    pub(crate) highest: Option<i64>,
    /// When the last matching event was stored.
    pub(crate) last_match: Option<i64>,
    pub(crate) last_seq: u64,
    /// No revision is below this: positions used before the definition changed.
    pub(crate) floor: u64,
    pub(crate) skipped: Skipped,
    pub(crate) folded: u64,
    pub(crate) rooms_untracked: u64,
    pub(crate) hole: Option<Hole>,
    pub(crate) groups: Vec<Group>,
    by_key: HashMap<Arc<str>, u32>,
    block_groups: HashMap<i64, usize>,
    pub(crate) chunks: Chunks,
    horizon: i64,
    key: String,
    // What is to be published; see `render`.
    pub(crate) live: bool,
    pub(crate) stalled: bool,
    pub(crate) all_changed: bool,
    pub(crate) changed: Vec<u32>,
    pub(crate) closed: BTreeMap<i64, Due>,
    pub(crate) closed_in_flight: BTreeSet<i64>,
    pub(crate) finals: Vec<Outgoing>,
    pub(crate) published: HashSet<Arc<str>>,
    pub(crate) closed_published: BTreeMap<i64, HashSet<Arc<str>>>,
    pub(crate) last_published: Option<i64>,
    pub(crate) last_status: Option<(i64, Status)>,
    pub(crate) lag: u64,
}

impl Metric {
    /// A metric that has seen nothing. `paths` is the shard's list of fields, to which this metric's are added.
    #[must_use]
    pub fn new(definition: Arc<Definition>, paths: &mut Paths, as_of: i64) -> Self {
        let places = definition
            .legs
            .iter()
            .map(|leg| leg.paths.iter().map(|path| paths.place(path)).collect())
            .collect();
        Self {
            frames: Frames::new(&definition),
            places,
            folded_to: 0,
            created: as_of,
            as_of,
            place: None,
            highest: None,
            last_match: None,
            last_seq: 0,
            floor: 0,
            skipped: Skipped::default(),
            folded: 0,
            rooms_untracked: 0,
            hole: None,
            groups: Vec::new(),
            by_key: HashMap::new(),
            block_groups: HashMap::new(),
            chunks: Chunks::default(),
            horizon: i64::MIN,
            key: String::new(),
            live: false,
            stalled: false,
            all_changed: true,
            changed: Vec::new(),
            closed: BTreeMap::new(),
            closed_in_flight: BTreeSet::new(),
            finals: Vec::new(),
            published: HashSet::new(),
            closed_published: BTreeMap::new(),
            last_published: None,
            last_status: None,
            lag: 0,
            definition,
        }
    }

    /// Folds one event; `told` hears what became of it in each leg.
    pub fn fold(&mut self, event: &Event<'_>, row: &[Field<'_>], told: &mut impl FnMut(Outcome)) {
        if event.seq <= self.folded_to {
            return;
        }
        let definition = Arc::clone(&self.definition);
        for (index, leg) in definition.legs.iter().enumerate() {
            if !leg.rooms.fits(event.room)
                || !(leg.types.is_empty() || leg.types.iter().any(|kind| kind == event.kind))
            {
                continue;
            }
            let outcome = match self.judge(index, leg, event, row) {
                Ok(outcome) => outcome,
                Err(reason) => {
                    *reason.count(&mut self.skipped) += 1;
                    Outcome::Skipped(reason)
                }
            };
            self.folded += u64::from(outcome == Outcome::Folded);
            told(outcome);
        }
    }

    /// The tests in their documented order: where, future, late, group, value.
    fn judge(
        &mut self,
        index: usize,
        leg: &Leg,
        event: &Event<'_>,
        row: &[Field<'_>],
    ) -> Result<Outcome, Reason> {
        let places = std::mem::take(&mut self.places[index]);
        let field = |place: usize| &row[places[place]];
        let result = self.judge_fields(index, leg, event, &field);
        self.places[index] = places;
        result
    }

    fn judge_fields<'f, 'r: 'f>(
        &mut self,
        index: usize,
        leg: &Leg,
        event: &Event<'_>,
        field: &impl Fn(usize) -> &'f Field<'r>,
    ) -> Result<Outcome, Reason> {
        match leg
            .condition
            .as_ref()
            .map_or(Verdict::True, |condition| condition.evaluate(field))
        {
            Verdict::True => {}
            Verdict::False => return Ok(Outcome::NotOurs),
            Verdict::Error => return Err(Reason::WhereError),
        }
        if event.time_micros > event.stored_micros.saturating_add(FUTURE_MICROS) {
            return Err(Reason::Future);
        }
        self.matched(event);
        if self.late(index, event) {
            return Err(Reason::Late);
        }
        self.group_name(leg, field)?;
        let amount = match leg.aggregate {
            Aggregate::Count => Amount::One,
            Aggregate::Sum(place) => Amount::Sum(number(field(place))?),
            Aggregate::Distinct(place) => Amount::Value(digest(field(place))?),
        };
        self.put(index, event, &amount)
    }

    /// A matching event came: the metric is not stalled, and time may have moved.
    fn matched(&mut self, event: &Event<'_>) {
        self.all_changed |= self.last_match.is_none() || self.stalled;
        self.stalled = false;
        self.last_match = self.last_match.max(Some(event.stored_micros));
        if self.highest.is_none_or(|highest| highest < event.time_micros) {
            self.highest = Some(event.time_micros);
            self.follow();
        }
    }

    /// Whether the event is behind the watermark of its room; raises the watermark.
    fn late(&mut self, leg: usize, event: &Event<'_>) -> bool {
        let known = self.chunks.marks(event.room);
        let mut marks = known.unwrap_or([i64::MIN; 2]);
        let late = event.time_micros < marks[leg].saturating_sub(self.definition.lateness_micros);
        if event.time_micros > marks[leg] {
            if known.is_none() && self.chunks.rooms() >= ROOMS_MAX {
                self.rooms_untracked += 1;
            } else {
                marks[leg] = event.time_micros;
                self.chunks.set_marks(event.room, marks);
            }
        }
        late
    }

    /// Writes the canonical name of the event's group to `self.key`.
    fn group_name<'f, 'r: 'f>(
        &mut self,
        leg: &Leg,
        field: &impl Fn(usize) -> &'f Field<'r>,
    ) -> Result<(), Reason> {
        use std::fmt::Write as _;
        self.key.clear();
        self.key.push('[');
        for (i, place) in leg.group_by.iter().enumerate() {
            if i > 0 {
                self.key.push(',');
            }
            match field(*place) {
                Field::Absent | Field::Null => self.key.push_str("null"),
                Field::Flag(flag) => self.key.push_str(if *flag { "true" } else { "false" }),
                Field::Number(text) => {
                    let number = Decimal::parse(text).map_err(|_| Reason::OutOfRange)?;
                    let _ = write!(self.key, "{number}");
                }
                Field::Text(text) if text.len() > GROUP_TEXT_BYTES_MAX => return Err(Reason::OutOfRange),
                Field::Text(text) => {
                    if text.bytes().any(|b| b < 0x20 || b == b'"' || b == b'\\') {
                        self.key
                            .push_str(&serde_json::to_string(text).map_err(|_| Reason::OutOfRange)?);
                    } else {
                        self.key.push('"');
                        self.key.push_str(text);
                        self.key.push('"');
                    }
                }
                Field::Compound => return Err(Reason::NotAScalar),
            }
        }
        self.key.push(']');
        Ok(())
    }

    fn put(&mut self, leg: usize, event: &Event<'_>, amount: &Amount) -> Result<Outcome, Reason> {
        let slot = self.frames.slot(event.time_micros);
        if slot < self.horizon {
            return Ok(Outcome::Past);
        }
        let place = self.admit(slot);
        let group = &mut self.groups[place as usize];
        let cells = &mut group.legs[leg];
        let found = find(cells, slot);
        let mut added = 0;
        match amount {
            Amount::One => {}
            Amount::Sum(number) => {
                added = number.units();
                let before = found.map_or(0, |at| cells[at].sum);
                let limit = i128::MAX / i128::from(self.frames.slots_per_window());
                before
                    .checked_add(added)
                    .filter(|sum| sum.unsigned_abs() <= limit.unsigned_abs())
                    .ok_or(Reason::Overflow)?;
            }
            Amount::Value(value) => match self.put_value(
                ValueKey {
                    group: place,
                    leg: u8::from(leg == 1),
                    value: *value,
                },
                slot,
            ) {
                Some(new) => added = i128::from(new),
                None => {
                    self.cell(place, leg, slot, found).capped = true;
                    self.recount(place);
                    self.touched(place, slot);
                    return Err(Reason::Overflow);
                }
            },
        }
        let cell = self.cell(place, leg, slot, found);
        cell.sum += added;
        cell.events += 1;
        cell.seq = event.seq;
        self.roll(
            place,
            leg,
            slot,
            Totals {
                events: 1,
                sum: added,
                capped: 0,
            },
        );
        self.groups[place as usize].last_seq = event.seq;
        self.last_seq = event.seq;
        self.touched(place, slot);
        Ok(Outcome::Folded)
    }

    /// The group that `self.key` names, or `~other` where the window of this slot holds as many as it may.
    fn admit(&mut self, slot: i64) -> u32 {
        let known = self.by_key.get(self.key.as_str()).copied();
        if self.definition.group_values == 0 {
            return known.unwrap_or_else(|| self.add_group(GroupName::ALL));
        }
        let block = self.frames.block(slot);
        let slots = self.frames.block_start(block)..self.frames.block_start(block + 1);
        if let Some(place) = known.filter(|place| self.groups[*place as usize].has(&slots)) {
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

    fn add_group(&mut self, key: &str) -> u32 {
        let place = u32::try_from(self.groups.len()).unwrap_or(u32::MAX);
        let group = Group::new(key, self.frames.rolls());
        self.by_key.insert(Arc::clone(&group.key), place);
        self.groups.push(group);
        place
    }

    /// The cell of a slot, made if it is not there, and listed in its chunk then.
    fn cell(&mut self, place: u32, leg: usize, slot: i64, found: Result<usize, usize>) -> &mut Cell {
        let group = &mut self.groups[place as usize];
        let at = match found {
            Ok(at) => at,
            Err(at) => {
                let part = part_of(slot);
                let slots =
                    part * crate::engine::cell::PART_SLOTS..(part + 1) * crate::engine::cell::PART_SLOTS;
                if !group.has(&slots) {
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
    fn touched(&mut self, place: u32, slot: i64) {
        let group = &mut self.groups[place as usize];
        self.chunks.touch(part_hash(group.hash, part_of(slot)));
        if self.definition.publish.is_none() {
            return;
        }
        if !group.changed {
            group.changed = true;
            self.changed.push(place);
        }
        if let Some(current) = self.place {
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

    /// Adds a value to a slot. `Some(true)`: it is new there; `None`: the window holds as many as it may.
    fn put_value(&mut self, key: ValueKey, slot: i64) -> Option<bool> {
        let group = &mut self.groups[key.group as usize];
        let hash = value_hash(group.hash, key.leg, key.value);
        let index = self.chunks.index(hash);
        let block = self.frames.block(slot);
        let block_slots = self.frames.block_start(block)..self.frames.block_start(block + 1);
        let known = self.chunks.list()[index].values.get(&key);
        let none = Slots::new();
        let seen = known.unwrap_or(&none);
        if seen.binary_search(&slot).is_ok() {
            return Some(false);
        }
        let new_to_block = !any(seen, &block_slots);
        let leg = usize::from(key.leg);
        if new_to_block && block_count(group, leg, block, &block_slots) >= DISTINCT_MAX {
            return None;
        }
        if let Some(rolling) = &mut group.rolling {
            let spread = &mut rolling.spread[leg];
            if new_to_block {
                *spread.block(block) += 1;
            }
            if let Some(place) = self.place {
                count_value(spread, &self.frames, place, seen, slot);
            }
        }
        let slots = self.chunks.touch(hash).values.entry(key).or_default();
        if let Err(at) = slots.binary_search(&slot) {
            slots.insert(at, slot);
        }
        Some(true)
    }

    /// Adds to the rolling totals what was added to a slot.
    fn roll(&mut self, place: u32, leg: usize, slot: i64, came: Totals) {
        let (Some(rolling), Some(current)) = (&mut self.groups[place as usize].rolling, self.place) else {
            return;
        };
        if self.frames.slots(current).contains(&slot) {
            rolling.current[leg].roll(came, Totals::default());
        } else if self
            .frames
            .previous(current)
            .is_some_and(|slots| slots.contains(&slot))
        {
            rolling.previous[leg].roll(came, Totals::default());
        }
    }

    /// Counts a group's rolling totals anew from its cells.
    fn recount(&mut self, place: u32) {
        let Some(current) = self.place else { return };
        recount(&mut self.groups[place as usize], &self.frames, current);
    }

    /// Moves time. `as_of` never goes back.
    pub fn advance(&mut self, now: i64) {
        self.as_of = self.as_of.max(now);
        self.follow();
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
            Clock::Wall => self.place.and_then(|place| self.frames.end(place)),
            Clock::Event => None,
        };
        let stall = self.definition.stalled_after_micros.filter(|_| !self.stalled);
        let stall = stall.map(|after| self.last_match.unwrap_or(self.created).saturating_add(after));
        end.into_iter().chain(stall).min()
    }

    /// Moves the current window to where time and events say.
    fn follow(&mut self) {
        let newest = match self.definition.clock {
            Clock::Wall => Some(self.highest.map_or(self.as_of, |highest| highest.max(self.as_of))),
            Clock::Event => self.highest,
        };
        if let Some(newest) = newest {
            let place = self.frames.place(newest);
            if self.place.is_none_or(|before| before < place) {
                self.move_to(place);
            }
        }
    }

    fn move_to(&mut self, place: i64) {
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
    fn leave(&mut self, before: i64, place: i64) {
        if self.definition.publish.is_none() {
            return;
        }
        if self.frames.closes() {
            // Older ones have expired already, or will never have been asked for.
            let oldest = before.max(place - crate::definition::SPARK);
            for window in (oldest..place).filter(|window| self.frames.exists(*window)) {
                if self
                    .frames
                    .closed_until(window)
                    .is_some_and(|until| until > self.as_of)
                {
                    self.closed.insert(window, Due::All);
                }
            }
        } else if self.live && !self.changed.is_empty() {
            self.render_last();
        }
    }

    /// Moves rolling totals from one window to the next.
    fn roll_on(&mut self, before: Option<i64>, place: i64) {
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
    fn respread(&mut self, place: i64) {
        if !self
            .definition
            .legs
            .iter()
            .any(|leg| matches!(leg.aggregate, Aggregate::Distinct(_)))
        {
            return;
        }
        for group in &mut self.groups {
            if let Some(rolling) = &mut group.rolling {
                rolling.spread = Default::default();
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
                    count_value(spread, &self.frames, place, &seen, *slot);
                    seen.push(*slot);
                }
            }
        }
    }

    /// Drops what no window shows any more, in whole blocks. Stored chunks keep it until they are written for another reason.
    fn prune(&mut self) {
        let horizon = self.horizon;
        for index in 0..self.chunks.list().len() {
            self.chunks.get_mut(index).values.retain(|_, slots| {
                slots.retain(|slot| *slot >= horizon);
                !slots.is_empty()
            });
        }
        let mut moved = Vec::with_capacity(self.groups.len());
        let mut kept = 0_u32;
        let mut touched = Vec::new();
        for group in &mut self.groups {
            let raised = group.drop_before(horizon);
            moved.push((!group.is_empty()).then_some(kept));
            if !group.is_empty() {
                touched.extend(raised.map(|slot| part_hash(group.hash, part_of(slot))));
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
    fn renumber(&mut self, moved: &[Option<u32>]) {
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
        if self.place.is_some_and(|_| self.frames.rolls()) {
            self.respread(self.place.unwrap_or(0));
        }
    }

    /// Counts the groups of each block from the cells.
    fn count_blocks(&mut self) {
        self.block_groups.clear();
        for group in self.groups.iter().filter(|group| &*group.key != GroupName::OTHER) {
            let mut blocks: Vec<i64> = group
                .legs
                .iter()
                .flatten()
                .map(|cell| self.frames.block(cell.slot))
                .collect();
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
            group.last_seq = group.seq_within(&(i64::MIN..i64::MAX));
        }
        self.chunks.count_rooms();
        if let Some(place) = self.place {
            self.horizon = self.frames.horizon(place, self.definition.lateness_micros);
            self.prune();
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
        if let Some(place) = self
            .place
            .filter(|_| self.frames.closes() && self.definition.publish.is_some())
        {
            for window in
                (place - crate::definition::SPARK..place).filter(|window| self.frames.exists(*window))
            {
                self.closed.insert(window, Due::All);
            }
        }
    }
}

/// A JSON number, or a text that is exactly one.
fn number(field: &Field<'_>) -> Result<Decimal, Reason> {
    let text = match field {
        Field::Absent | Field::Null => return Err(Reason::Missing),
        Field::Number(text) => text,
        Field::Text(text) => text.as_ref(),
        Field::Flag(_) | Field::Compound => return Err(Reason::NotANumber),
    };
    Decimal::parse(text).map_err(|unfit| match unfit {
        Unfit::NotANumber => Reason::NotANumber,
        Unfit::OutOfRange => Reason::OutOfRange,
    })
}

/// A value's identity: type and value, so that 1 and 1.0 are one and "1" is another. 128 bits of SHA-256.
fn digest(field: &Field<'_>) -> Result<u128, Reason> {
    let (kind, text): (u8, std::borrow::Cow<'_, str>) = match field {
        Field::Absent | Field::Null => return Err(Reason::Missing),
        Field::Compound => return Err(Reason::NotAScalar),
        Field::Flag(flag) => (b'b', if *flag { "true".into() } else { "false".into() }),
        Field::Number(text) => {
            let exact = crate::engine::decimal::Exact::parse(text).ok_or(Reason::NotANumber)?;
            (b'n', exact.canonical().into())
        }
        Field::Text(text) => (b's', text.as_ref().into()),
    };
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    context.update(&[kind]);
    context.update(text.as_bytes());
    let sum = context.finish();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&sum.as_ref()[..16]);
    Ok(u128::from_le_bytes(bytes))
}

fn any(slots: &Slots, range: &Range<i64>) -> bool {
    let at = slots.partition_point(|slot| *slot < range.start);
    slots.get(at).is_some_and(|slot| *slot < range.end)
}

/// Different values of a group in a block.
fn block_count(group: &mut Group, leg: usize, block: i64, slots: &Range<i64>) -> u32 {
    match &mut group.rolling {
        Some(rolling) => *rolling.spread[leg].block(block),
        None => u32::try_from(totals(&group.legs[leg], slots).sum).unwrap_or(u32::MAX),
    }
}

/// Counts a value that is new in `slot` and was seen in `seen`.
fn count_value(
    spread: &mut crate::engine::cell::Spread,
    frames: &Frames,
    place: i64,
    seen: &Slots,
    slot: i64,
) {
    let current = frames.slots(place);
    if current.contains(&slot) {
        spread.current += u32::from(!any(seen, &current));
        if let Some(part) = frames.spark_part(place, slot) {
            let width = (current.end - current.start) / crate::definition::SPARK;
            let start = current.start + i64::try_from(part).unwrap_or(0) * width;
            spread.spark[part] += u32::from(!any(seen, &(start..start + width)));
        }
    } else if let Some(previous) = frames.previous(place).filter(|slots| slots.contains(&slot)) {
        spread.previous += u32::from(!any(seen, &previous));
    }
}

fn recount(group: &mut Group, frames: &Frames, place: i64) {
    let Some(rolling) = &mut group.rolling else { return };
    let previous = frames.previous(place).unwrap_or(0..0);
    for leg in 0..2 {
        rolling.current[leg] = totals(&group.legs[leg], &frames.slots(place));
        rolling.previous[leg] = totals(&group.legs[leg], &previous);
    }
}

fn roll_group(group: &mut Group, frames: &Frames, before: i64, place: i64) {
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
        let left = totals(cells, &(old.start..new.start));
        rolling.current[leg].roll(totals(cells, &(old.end..new.end)), left);
        rolling.previous[leg].roll(left, totals(cells, &(old_previous.start..new_previous.start)));
    }
    debug_assert_eq!((old_previous.end, new_previous.end), (old.start, new.start));
}

/// The cells of a group in a part, for writing.
#[must_use]
pub fn part_cells(group: &Group, leg: usize, part: i64) -> &[Cell] {
    let slots = part * crate::engine::cell::PART_SLOTS..(part + 1) * crate::engine::cell::PART_SLOTS;
    let cells = &group.legs[leg];
    &cells[within(cells, &slots)]
}
