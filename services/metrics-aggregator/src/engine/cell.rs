//! What is kept of the events of one group in one slot, and how slots add up.

use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::definition::{Aggregate, SPARK_PARTS};
use crate::engine::ranks::Ranks;
use crate::engine::session::Session;
use crate::engine::sketch::Sketch;
use crate::engine::top::{Top, most};

/// Slots that one item of stored state holds; what a fold changes is written in pieces of this size. Where cells have ranks it is one.
const PART_SLOTS: i64 = 128;

/// How cells add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum How {
    /// By addition.
    #[default]
    Add,
    /// The least counts.
    Min,
    /// The greatest counts.
    Max,
    /// The first cell's value counts; [`Cell::sum`] means nothing.
    First,
    /// The last cell's value counts; [`Cell::sum`] means nothing.
    Last,
    /// Percentiles are read from [`Rare::ranks`]; [`Cell::sum`] means nothing.
    Ranked,
    /// Keys are read from [`Rare::top`]; [`Cell::sum`] means nothing.
    Top,
}

impl From<Aggregate> for How {
    fn from(aggregate: Aggregate) -> Self {
        match aggregate {
            Aggregate::Count
            | Aggregate::Rate(_)
            | Aggregate::Sum(_)
            | Aggregate::Avg(_)
            | Aggregate::Distinct(_)
            | Aggregate::Gauge(_) => Self::Add,
            Aggregate::Min(_) => Self::Min,
            Aggregate::Max(_) => Self::Max,
            Aggregate::First(_) => Self::First,
            Aggregate::Last(_) => Self::Last,
            Aggregate::Percentile(..) => Self::Ranked,
            Aggregate::Top(..) => Self::Top,
        }
    }
}

/// A value carried as it is, with what decides whether it is the first or the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// Its event's time.
    pub time: i64,
    /// Its event's position.
    pub seq: u64,
    /// A number as it was written, a text, `true` or `false`.
    pub text: Box<str>,
}

/// What few cells have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rare {
    /// Whether a key of a gauge or a top found no room, or not every distinct value is kept one by one.
    pub capped: bool,
    /// The first or last value.
    pub carried: Option<Carried>,
    /// How many numbers lie where.
    pub ranks: Ranks,
    /// What came in which part of the window, ascending; only where windows are kept in parts.
    pub parts: Vec<(u16, Totals)>,
    /// How often each key came.
    pub top: Top,
}

/// One leg of one group in one slot: 48 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// Sum, least or greatest in units of 10^-12; of a distinct leg, the number of different values in this slot that are kept one by
    /// one, of a gauge that of the keys that hold.
    pub sum: i128,
    /// Which slot.
    pub slot: i64,
    /// Events folded.
    pub events: u64,
    /// Position of the last of them.
    pub seq: u64,
    /// What few cells have.
    pub rare: Option<Box<Rare>>,
}

impl Cell {
    /// An empty cell.
    #[must_use]
    pub fn new(slot: i64) -> Self {
        Self {
            sum: 0,
            slot,
            events: 0,
            seq: 0,
            rare: None,
        }
    }

    /// Whether its number is not exact; see [`Rare::capped`].
    #[must_use]
    pub fn capped(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.capped)
    }

    /// The first or last value.
    #[must_use]
    pub fn carried(&self) -> Option<&Carried> {
        self.rare.as_ref()?.carried.as_ref()
    }

    /// How many numbers lie where.
    #[must_use]
    pub fn ranks(&self) -> Option<&Ranks> {
        Some(&self.rare.as_ref()?.ranks)
    }

    /// What came in the first parts of the window; see [`Rare::parts`].
    #[must_use]
    pub fn first_parts(&self, count: u16, how: How) -> Totals {
        let mut totals = Totals::default();
        let parts = self.rare.as_ref().map_or(&[][..], |rare| &rare.parts);
        for (_, part) in parts.iter().take_while(|(at, _)| *at < count) {
            totals.join(*part, how);
        }
        totals
    }

    /// What came in one part of the window.
    #[must_use]
    pub fn part(&self, at: u16) -> Totals {
        let parts = self.rare.as_ref().map_or(&[][..], |rare| &rare.parts);
        let found = parts.binary_search_by_key(&at, |(known, _)| *known);
        found.map_or_else(|_| Totals::default(), |found| parts[found].1)
    }

    /// Counts what came in a part of the window.
    pub fn add_part(&mut self, at: u16, came: Totals, how: How) {
        let parts = &mut self.rare().parts;
        match parts.binary_search_by_key(&at, |(known, _)| *known) {
            Ok(found) => parts[found].1.join(came, how),
            Err(free) => parts.insert(free, (at, came)),
        }
    }

    /// What few cells have, for writing.
    pub fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Takes a value over where it is earlier or later than the one it has.
    pub fn carry(&mut self, how: How, new: Carried) {
        let known = &mut self.rare().carried;
        let rank = |carried: &Carried| (carried.time, carried.seq);
        let replaces = known.as_ref().is_none_or(|known| match how {
            How::First => rank(&new) < rank(known),
            _ => rank(&new) > rank(known),
        });
        if replaces {
            *known = Some(new);
        }
    }
}

/// Some cells added up. They never overflow: a cell holds at most 2^127 / slots of a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Events folded.
    pub events: u64,
    /// As [`Cell::sum`]; meaningless for several slots of a distinct leg, see [`Spread`].
    pub sum: i128,
    /// Cells that are capped.
    pub capped: u32,
}

impl From<&Cell> for Totals {
    fn from(cell: &Cell) -> Self {
        Self {
            events: cell.events,
            sum: cell.sum,
            capped: u32::from(cell.capped()),
        }
    }
}

impl Totals {
    /// Takes in what is not counted yet.
    pub fn join(&mut self, came: Self, how: How) {
        self.sum = match how {
            How::Add => self.sum.wrapping_add(came.sum),
            // Without an event there is no number.
            _ if came.events == 0 => self.sum,
            _ if self.events == 0 => came.sum,
            How::Min => self.sum.min(came.sum),
            How::Max => self.sum.max(came.sum),
            How::First | How::Last | How::Ranked | How::Top => 0,
        };
        self.events += came.events;
        self.capped += came.capped;
    }

    /// Takes out what was counted. False where that cannot be known from the totals alone, because the least or greatest may have
    /// left: count anew.
    #[must_use]
    pub fn leave(&mut self, left: Self, how: How) -> bool {
        self.events -= left.events;
        self.capped -= left.capped;
        match how {
            How::Add => {
                self.sum = self.sum.wrapping_sub(left.sum);
                true
            }
            How::Min | How::Max => left.events == 0 || left.sum != self.sum,
            How::First | How::Last | How::Ranked | How::Top => true,
        }
    }
}

/// Where `slot` is among cells in ascending order, or where it belongs. The newest is nearly always meant.
pub fn find(cells: &[Cell], slot: i64) -> Result<usize, usize> {
    match cells.last() {
        None => Err(0),
        Some(last) if last.slot == slot => Ok(cells.len() - 1),
        Some(last) if last.slot < slot => Err(cells.len()),
        Some(_) => cells.binary_search_by_key(&slot, |cell| cell.slot),
    }
}

/// The cells of a range of slots.
#[must_use]
pub fn within(cells: &[Cell], slots: &Range<i64>) -> Range<usize> {
    let start = cells.partition_point(|cell| cell.slot < slots.start);
    let end = start + cells[start..].partition_point(|cell| cell.slot < slots.end);
    start..end
}

/// A range of slots added up.
#[must_use]
pub fn totals(cells: &[Cell], slots: &Range<i64>, how: How) -> Totals {
    let mut totals = Totals::default();
    for cell in &cells[within(cells, slots)] {
        totals.join(cell.into(), how);
    }
    totals
}

/// The first or last value of a range of slots.
#[must_use]
pub fn carried<'a>(cells: &'a [Cell], slots: &Range<i64>, how: How) -> Option<&'a Carried> {
    let cells = &cells[within(cells, slots)];
    match how {
        How::First => cells.iter().find_map(Cell::carried),
        How::Last => cells.iter().rev().find_map(Cell::carried),
        How::Add | How::Min | How::Max | How::Ranked | How::Top => None,
    }
}

/// The numbers of a range of slots.
#[must_use]
pub fn ranks(cells: &[Cell], slots: &Range<i64>) -> Ranks {
    let mut ranks = Ranks::default();
    for cell in &cells[within(cells, slots)] {
        ranks.join(cell.ranks().unwrap_or(&Ranks::default()));
    }
    ranks
}

/// The keys that came most often in a range of slots.
#[must_use]
pub fn top<'a>(cells: &'a [Cell], slots: &Range<i64>, n: usize) -> Vec<(&'a str, u64)> {
    let cells = cells[within(cells, slots)].iter();
    most(cells.filter_map(|cell| Some(&cell.rare.as_ref()?.top)), n)
}

/// Different values per range of a sliding window; values cannot be added up, so each range has its own count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spread {
    /// In the current window.
    pub current: u32,
    /// In the one before.
    pub previous: u32,
    /// In the parts of the sparkline.
    pub spark: [u32; SPARK_PARTS],
    /// In each block that is still kept; this is what the bound holds for.
    pub blocks: SmallVec<[(i64, u32); 4]>,
    /// All values, where not every one of these windows is kept one by one.
    pub wide: Option<Box<Wide>>,
}

/// As [`Spread`], nearly: a value that is kept one by one in one slot and not in another is counted once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wide {
    /// In the current window.
    pub current: Sketch,
    /// In the one before.
    pub previous: Sketch,
    /// In the parts of the sparkline.
    pub spark: [Sketch; SPARK_PARTS],
}

impl Spread {
    /// The count of a block.
    pub fn block(&mut self, block: i64) -> &mut u32 {
        let at = match self.blocks.iter().position(|(known, _)| *known == block) {
            Some(at) => at,
            None => {
                self.blocks.push((block, 0));
                self.blocks.len() - 1
            }
        };
        &mut self.blocks[at].1
    }
}

/// Totals of a sliding window, kept up to date with each event and each step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rolling {
    /// Of the current window, by leg.
    pub current: [Totals; 2],
    /// Of the one before, by leg.
    pub previous: [Totals; 2],
    /// Different values, by leg; only of distinct legs.
    pub spread: [Spread; 2],
    /// Numbers of the current window, by leg; only of ranked legs.
    pub ranks: [Ranks; 2],
}

/// One group of a metric.
#[derive(Debug, Clone)]
pub struct Group {
    /// Canonical JSON, see `roomcast_proto::metric::Group`.
    pub key: Arc<str>,
    /// Hash of the key; chooses chunks.
    pub hash: u64,
    /// Position of the last event folded into this group.
    pub last_seq: u64,
    /// Whether it changed since it was last published.
    pub changed: bool,
    /// How the cells of each leg add up.
    pub how: [How; 2],
    /// Cells by leg, ascending slots.
    pub legs: [Vec<Cell>; 2],
    /// Sliding windows only.
    pub rolling: Option<Box<Rolling>>,
    /// Session windows only: ascending.
    pub sessions: Vec<Session>,
    /// Whether each slot is an item of stored state of its own, because its cells are large.
    pub alone: bool,
}

impl Group {
    /// A group without cells.
    #[must_use]
    pub fn new(key: &str, rolls: bool, how: [How; 2], in_parts: bool) -> Self {
        let hash = crate::engine::fnv::hash(key.as_bytes());
        let rolling = rolls.then(Box::default);
        Self {
            key: key.into(),
            hash,
            last_seq: 0,
            changed: false,
            how,
            legs: [Vec::new(), Vec::new()],
            rolling,
            sessions: Vec::new(),
            alone: in_parts || how.contains(&How::Ranked) || how.contains(&How::Top),
        }
    }

    /// The part of stored state a slot belongs to.
    #[must_use]
    pub fn part_of(&self, slot: i64) -> i64 {
        slot.div_euclid(self.part_slots())
    }

    /// The slots of a part.
    #[must_use]
    pub fn part(&self, part: i64) -> Range<i64> {
        part * self.part_slots()..(part + 1) * self.part_slots()
    }

    fn part_slots(&self) -> i64 {
        if self.alone { 1 } else { PART_SLOTS }
    }

    /// Whether any leg has a cell in these slots.
    #[must_use]
    pub fn has(&self, slots: &Range<i64>) -> bool {
        self.legs.iter().any(|cells| !within(cells, slots).is_empty())
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.legs.iter().all(Vec::is_empty)
    }

    /// A leg added up over some slots.
    #[must_use]
    pub fn totals(&self, leg: usize, slots: &Range<i64>) -> Totals {
        totals(&self.legs[leg], slots, self.how[leg])
    }

    /// The last position that changed anything in these slots.
    #[must_use]
    pub fn seq_within(&self, slots: &Range<i64>) -> u64 {
        let newest = |cells: &Vec<Cell>| cells[within(cells, slots)].iter().map(|cell| cell.seq).max();
        self.legs.iter().filter_map(newest).max().unwrap_or(0)
    }

    /// Drops the cells before a slot. Where the newest change was in one of them, the newest cell that stays takes its position
    /// over, so that a revision never goes back; answers that cell's slot.
    pub fn drop_before(&mut self, slot: i64) -> Option<i64> {
        for cells in &mut self.legs {
            let keep = cells.partition_point(|cell| cell.slot < slot);
            cells.drain(..keep);
        }
        let kept = self.seq_within(&(i64::MIN..i64::MAX));
        if self.is_empty() || kept >= self.last_seq {
            return None;
        }
        let newest = self
            .legs
            .iter_mut()
            .filter_map(|cells| cells.last_mut())
            .max_by_key(|cell| cell.slot)?;
        newest.seq = self.last_seq;
        Some(newest.slot)
    }
}
