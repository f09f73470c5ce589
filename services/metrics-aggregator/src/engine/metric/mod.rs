//! One metric: judges events, folds them, moves its windows. Pure; `as_of` is given.
//!
//! Called by the shard for each event in stream order and at each advance of time. What it has to say is built in `render`.

mod elapsed;
mod gauge;
mod place;
mod session;
mod time;
mod value;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use roomcast_proto::metric::{Skipped, Status};

use crate::definition::{Aggregate, Definition, Leg};
use crate::engine::cell::{Cell, Group, within};
use crate::engine::chunk::{Chunks, Slots};
use crate::engine::decimal::Decimal;
use crate::engine::predicate::Verdict;
use crate::engine::render::Outgoing;
use crate::engine::row::{Event, Field, Paths};
use crate::engine::window::Frames;
pub(crate) use session::ALL_SESSIONS;
use value::{carried, digest, key, number};

/// An event may be this much ahead of the time it was stored.
pub const FUTURE_MICROS: i64 = 5 * 60 * 1_000_000;
/// Distinct values of a group per window that are kept one by one; further ones go to a sketch. Few in this crate's own tests, so that
/// random events reach it.
pub const DISTINCT_MAX: u32 = if cfg!(test) { 4 } else { 10_000 };
/// Keys of the gauges of a metric; what stopped holding long ago makes room for others. Few in this crate's own tests.
pub const KEYS_MAX: usize = if cfg!(test) { 5 } else { 200_000 };
/// Longest text that names a group, in bytes.
pub const GROUP_TEXT_BYTES_MAX: usize = 256;
/// Longest value of `first` and `last`, in bytes.
pub const CARRIED_BYTES_MAX: usize = 256;
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
    Number(Decimal),
    Value(u128),
    Carried(Box<str>),
    Key(Box<str>),
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
    /// Events up to here are folded already: of a metric that is being filled all there is to say, else behind the shard's position.
    pub(crate) folded_to: u64,
    /// Whether it is being filled from what the stream keeps, beside the others; see `shard::fill`.
    pub(crate) filling: bool,
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
    /// Sessions that are not closed, by end; one a group at most.
    pub(crate) open: BTreeSet<(i64, u32)>,
    /// When the first of the closed sessions that are state makes room for one that is not.
    pub(crate) room_at: Option<i64>,
    /// Keys of gauges.
    keys: usize,
    /// While no room can be made among them, the highest event time from which on some can.
    keys_full_until: i64,
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
    /// Stored values of closed windows and until when, by place and group; of sessions by start and group.
    pub(crate) closed_published: BTreeMap<i64, HashMap<Arc<str>, i64>>,
    pub(crate) last_published: Option<i64>,
    pub(crate) last_status: Option<(i64, Status)>,
    /// When what changes with time alone was last said to have changed, and the highest event time then.
    pub(crate) last_tick: Option<(i64, Option<i64>)>,
    /// How many parts of the current window were over when that was last said.
    pub(crate) last_parts: Option<u16>,
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
            filling: false,
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
            open: BTreeSet::new(),
            room_at: None,
            keys: 0,
            keys_full_until: i64::MIN,
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
            last_tick: None,
            last_parts: None,
            lag: 0,
            definition,
        }
    }

    /// Whether its numbers are current, so that there is something to say.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live && !self.filling
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
            Aggregate::Count | Aggregate::Rate(_) => Amount::One,
            Aggregate::Sum(place)
            | Aggregate::Avg(place)
            | Aggregate::Min(place)
            | Aggregate::Max(place)
            | Aggregate::Percentile(place, _) => Amount::Number(number(field(place))?),
            Aggregate::First(place) | Aggregate::Last(place) => Amount::Carried(carried(field(place))?),
            Aggregate::Distinct(place) => Amount::Value(digest(field(place))?),
            Aggregate::Top(place, _) => Amount::Key(key(field(place))?),
            Aggregate::Gauge(place) => {
                let key = digest(field(place))?;
                let holds = leg.holds.as_ref().map(|holds| holds.evaluate(field));
                return match holds {
                    Some(Verdict::Error) => Err(Reason::WhereError),
                    holds => self.put_key(index, event, key, holds == Some(Verdict::True)),
                };
            }
        };
        self.put(index, event, amount)
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
}
fn any(slots: &Slots, range: &Range<i64>) -> bool {
    let at = slots.partition_point(|slot| *slot < range.start);
    slots.get(at).is_some_and(|slot| *slot < range.end)
}

/// The cells of a group in a part, for writing.
#[must_use]
pub fn part_cells(group: &Group, leg: usize, part: i64) -> &[Cell] {
    let cells = &group.legs[leg];
    &cells[within(cells, &group.part(part))]
}
