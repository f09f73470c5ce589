//! What an update says: the value of a group in a window, what it is compared with, its sparkline.

use std::cmp::Ordering;
use std::ops::Range;

use roomcast_proto::event::rfc3339;
use roomcast_proto::metric::{Counted, Direction, Group as GroupName, Span, Update};

use crate::definition::{Aggregate, Compare, Join, Leg, SPARK};
use crate::engine::alert::Reading;
use crate::engine::cell::{Carried, Cell, Group, How, Totals, carried, find, ranks, top};
use crate::engine::chunk::SketchKey;
use crate::engine::decimal::{DECIMALS, Decimal};
use crate::engine::metric::Metric;
use crate::engine::ranks::shown;
use crate::engine::sketch::Sketch;

/// What an update is made from.
pub(super) struct View {
    /// Whether the window is the group's current one.
    pub(super) current: bool,
    /// The window; `None` for all time.
    pub(super) bounds: Option<Range<i64>>,
    /// The window's own slots.
    pub(super) own: Part,
    /// What it is compared with.
    pub(super) before: Option<Part>,
    /// The sparkline, oldest first; `None` where there is no window.
    pub(super) spark: Vec<Option<Part>>,
    /// What was missed since this instant is missing here.
    pub(super) reach: i64,
}

/// Which slots of a group are asked for.
#[derive(Clone)]
pub(super) enum Part {
    Current,
    Previous,
    Spark(usize, Range<i64>),
    Slots(Range<i64>),
    /// The first parts of one slot.
    Parts(i64, u16),
}

/// A number, or the fact that it does not fit.
type Number = Result<Option<Decimal>, Overflow>;

/// What a group's legs come to over some slots.
#[derive(Default)]
pub(super) struct Sums<'a> {
    pub(super) totals: [Totals; 2],
    /// The first or last value, of a metric that carries one.
    carried: Option<&'a Carried>,
    /// Of legs that are percentiles.
    percentiles: [Option<Decimal>; 2],
    /// Of a metric that is a top.
    top: Option<Vec<(&'a str, u64)>>,
    /// How much of the time is over, in 24ths of a microsecond; for rates.
    lasted: i128,
}

impl Sums<'_> {
    pub(super) fn events(&self) -> u64 {
        self.totals[0].events + self.totals[1].events
    }
}

/// A value to be shown.
pub(super) enum Value<'a> {
    Number(Decimal),
    Carried(&'a Carried),
}

impl Value<'_> {
    /// What it is compared and ranked by; text that is no number has none.
    pub(super) fn number(&self) -> Option<Decimal> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Carried(carried) => Decimal::parse(&carried.text).ok(),
        }
    }

    fn into_text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Carried(carried) => carried.text.to_string(),
        }
    }
}

/// A quotient of more than 128 bits.
#[derive(Clone, Copy)]
pub(super) struct Overflow;

impl Metric {
    /// The place of a group's current window.
    pub(crate) fn current_place(&self, key: &str) -> Option<i64> {
        match self.frames.gap() {
            Some(_) => self.open_session(self.group(key)?),
            None => self.place,
        }
    }

    /// The slots that a window is compared with; those of the one before where it is compared with nothing.
    pub(super) fn compared(&self, place: i64) -> Option<Range<i64>> {
        match self.definition.compare {
            Some(Compare::SameWeekday) => self.frames.same_weekday(place),
            _ => self.frames.previous(place),
        }
    }

    fn view(&self, group: Option<&Group>, place: i64) -> View {
        if let Some(gap) = self.frames.gap() {
            return self.session_view(group, place, gap);
        }
        let current = self.place == Some(place);
        let rolls = self.frames.rolls();
        let (own, before) = self.own_and_before(place);
        let spark = self.frames.spark(place).into_iter().enumerate();
        let bounds = self.frames.bounds(place);
        let reach = bounds
            .as_ref()
            .map_or(i64::MIN, |bounds| match self.definition.compare {
                Some(Compare::Previous | Compare::PreviousElapsed) => {
                    bounds.start - (bounds.end - bounds.start)
                }
                Some(Compare::SameWeekday) => self.frames.bounds(place - 7).map_or(i64::MIN, |day| day.start),
                None => bounds.start,
            });
        let bounds =
            bounds.map(
                |bounds| match self.newest().filter(|_| current && self.definition.to_date) {
                    // The highest event lies inside.
                    Some(newest) => bounds.start..newest + i64::from(self.highest == Some(newest)),
                    None => bounds,
                },
            );
        View {
            current,
            bounds,
            own,
            before,
            spark: spark
                .map(|(i, slots)| {
                    Some(if rolls {
                        Part::Spark(i, slots)
                    } else {
                        Part::Slots(slots)
                    })
                })
                .collect(),
            reach,
        }
    }

    /// The window's own slots, and those it is compared with.
    fn own_and_before(&self, place: i64) -> (Part, Option<Part>) {
        let current = self.place == Some(place);
        if current && self.frames.rolls() {
            return (Part::Current, Some(Part::Previous));
        }
        let before = self
            .compared(place)
            .map(|slots| match self.parts_over().filter(|_| current) {
                Some(over) => Part::Parts(slots.start, over),
                None => Part::Slots(slots),
            });
        (Part::Slots(self.frames.slots(place)), before)
    }

    /// The numbers of a group's current window, as its update says them; of windows that are always there.
    pub(crate) fn reading(&self, key: &str) -> Reading {
        let Some(place) = self.place else {
            return Reading::default();
        };
        let group = self.group(key);
        let (own, before) = self.own_and_before(place);
        let sums = self.part(group, &own);
        let value = self.value(&sums, true).ok().flatten();
        let value = value.as_ref().and_then(Value::number);
        let previous = before
            .filter(|_| self.definition.compare.is_some())
            .and_then(|part| {
                let value = self.value(&self.part(group, &part), false).ok().flatten();
                value.as_ref().and_then(Value::number)
            });
        let change = value
            .zip(previous)
            .and_then(|(value, previous)| value.checked_sub(previous));
        Reading {
            value,
            previous,
            change,
            change_percent: change
                .zip(previous)
                .and_then(|(change, previous)| change.percent_of(previous)),
            events: sums.events(),
        }
    }

    /// The update of a group in a window; of sessions, the one with this slot.
    #[must_use]
    pub fn update(&self, key: &str, place: i64) -> Update {
        let group = self.group(key);
        let view = self.view(group, place);
        let current = view.current;
        let sums = self.part(group, &view.own);
        let value = self.value(&sums, true);
        let before = view.before.as_ref().filter(|_| self.definition.compare.is_some());
        let previous = before.and_then(|part| self.value(&self.part(group, part), false).ok().flatten());
        let error = value.is_err();
        let value = value.ok().flatten();
        let number = |value: &Option<Value<'_>>| value.as_ref().and_then(Value::number);
        let change = number(&value)
            .zip(number(&previous))
            .and_then(|(value, previous)| value.checked_sub(previous));
        let percent = change
            .zip(number(&previous))
            .and_then(|(change, previous)| change.percent_of(previous));
        let text = |number: Option<Decimal>| number.map(|number| number.to_string());
        let bounds = view.bounds.as_ref();
        Update {
            metric: self.definition.name.clone(),
            group: GroupName::from_json(key),
            window: Span {
                start: bounds.map(|bounds| rfc3339(bounds.start)),
                end: bounds.map(|bounds| rfc3339(bounds.end)),
            },
            value: value.map(Value::into_text),
            previous: previous.map(Value::into_text),
            change: text(change),
            change_percent: text(percent),
            direction: change.map(|change| self.direction(change, percent)),
            sparkline: self.sparkline(group, &view),
            top: self.shown_top(&sums),
            events: sums.events(),
            as_of: rfc3339(self.as_of),
            revision: self.revision(key, group, &view),
            approximate: sums.totals.iter().any(|sum| sum.capped > 0)
                || sums.percentiles.iter().any(Option::is_some),
            error: error.then(|| "overflow".to_owned()),
            stalled: current && self.stalled,
            no_data: current && self.last_match.is_none(),
            incomplete_since: self.incomplete(&view),
        }
    }

    /// Where a change goes, small ones nowhere.
    fn direction(&self, change: Decimal, percent: Option<Decimal>) -> Direction {
        let band = self.definition.flat_within_percent;
        let small = percent.is_some_and(|percent| percent.units().abs() <= band.units());
        match change.cmp(&Decimal::ZERO) {
            Ordering::Equal => Direction::Flat,
            _ if small && band > Decimal::ZERO => Direction::Flat,
            Ordering::Greater => Direction::Up,
            Ordering::Less => Direction::Down,
        }
    }

    /// What a top shows; empty where nothing came.
    fn shown_top(&self, sums: &Sums<'_>) -> Option<Vec<Counted>> {
        let is_top = |leg: &Leg| matches!(leg.aggregate, Aggregate::Top(..));
        self.definition.legs.first().filter(|leg| is_top(leg))?;
        let shown = sums.top.iter().flatten();
        Some(
            shown
                .map(|(key, count)| Counted {
                    key: (*key).to_owned(),
                    count: *count,
                })
                .collect(),
        )
    }

    fn revision(&self, key: &str, group: Option<&Group>, view: &View) -> u64 {
        let revision = match group {
            Some(group) if !view.current => {
                let parts = view.spark.iter().flatten().filter_map(|part| self.slots(part));
                parts.map(|slots| group.seq_within(&slots)).max().unwrap_or(0)
            }
            Some(group) if key != GroupName::ALL => group.last_seq,
            _ if view.current => self.last_seq,
            _ => 0,
        };
        revision.max(self.floor)
    }

    fn sparkline(&self, group: Option<&Group>, view: &View) -> Vec<Option<String>> {
        let last = view.spark.len() - 1;
        let spark = view.spark.iter().enumerate().map(|(i, part)| {
            let own = i == last && !self.frames.rolls();
            let value = self.value(&self.part(group, part.as_ref()?), own);
            value.ok().flatten().map(Value::into_text)
        });
        spark.collect()
    }

    /// Since when events are missing in this window or the one it is compared with.
    fn incomplete(&self, view: &View) -> Option<String> {
        let hole = self.hole?;
        let before_end = view.bounds.as_ref().is_none_or(|bounds| hole.since < bounds.end);
        (hole.until > view.reach && before_end).then(|| rfc3339(hole.since))
    }

    fn slots(&self, part: &Part) -> Option<Range<i64>> {
        let place = self.place.unwrap_or(0);
        match part {
            Part::Current => Some(self.frames.slots(place)),
            Part::Previous => self.compared(place),
            Part::Spark(_, slots) | Part::Slots(slots) => Some(slots.clone()),
            Part::Parts(slot, _) => Some(*slot..*slot + 1),
        }
    }

    /// The legs of a group added up over some slots.
    pub(super) fn part<'g>(&self, group: Option<&'g Group>, part: &Part) -> Sums<'g> {
        let Some(group) = group else {
            return Sums::default();
        };
        let rolling = group.rolling.as_deref();
        let Some(slots) = self.slots(part) else {
            return Sums::default();
        };
        let mut sums = match (part, rolling) {
            (Part::Current, Some(rolling)) => rolling.current,
            (Part::Previous, Some(rolling)) => rolling.previous,
            (Part::Parts(slot, over), _) => {
                [0, 1].map(|leg| first_parts(&group.legs[leg], *slot, *over, group.how[leg]))
            }
            _ => [group.totals(0, &slots), group.totals(1, &slots)],
        };
        for (leg, definition) in self.definition.legs.iter().enumerate() {
            if let Aggregate::Distinct(_) = definition.aggregate {
                sums[leg].sum = self.different(group, leg, part, &slots, sums[leg]);
            }
        }
        let mut percentiles = [None; 2];
        for (leg, definition) in self.definition.legs.iter().enumerate() {
            if let Aggregate::Percentile(_, percent) = definition.aggregate {
                let range = match (part, rolling) {
                    (Part::Current, Some(rolling)) => rolling.ranks[leg].at(percent),
                    _ => ranks(&group.legs[leg], &slots).at(percent),
                };
                percentiles[leg] = range.map(shown);
            }
        }
        let rate = |leg: &Leg| matches!(leg.aggregate, Aggregate::Rate(_));
        let lasted = if self.definition.legs.iter().any(rate) {
            let whole = self.lasted(group, &slots);
            match (part, self.part_micros()) {
                (Part::Parts(_, over), Some(micros)) => {
                    whole.min(i128::from(*over) * i128::from(micros) * i128::from(SPARK))
                }
                _ => whole,
            }
        } else {
            0
        };
        let top = match self.definition.legs.first().map(|leg| leg.aggregate) {
            Some(Aggregate::Top(_, n)) => Some(top(&group.legs[0], &slots, n)),
            _ => None,
        };
        Sums {
            top,
            lasted,
            percentiles,
            totals: sums,
            carried: carried(&group.legs[0], &slots, group.how[0]),
        }
    }

    /// How many different values a leg of a group has in a part; nearly, where not all are kept one by one.
    fn different(&self, group: &Group, leg: usize, part: &Part, slots: &Range<i64>, totals: Totals) -> i128 {
        let Some(rolling) = group.rolling.as_deref() else {
            // One slot: what is in its sketch is nowhere else.
            let Some(place) = self.group_at(group).filter(|_| totals.capped > 0) else {
                return totals.sum;
            };
            let key = SketchKey {
                group: place,
                leg: u8::from(leg == 1),
                slot: slots.start,
            };
            let sketch = self.chunks.sketch(group.hash, &key);
            return totals.sum + sketch.map_or(0, |sketch| sketch.estimate().into());
        };
        let spread = &rolling.spread[leg];
        let (exact, sketch) = match part {
            Part::Current => (spread.current, spread.wide.as_ref().map(|wide| &wide.current)),
            Part::Previous => (spread.previous, spread.wide.as_ref().map(|wide| &wide.previous)),
            Part::Spark(i, _) => (spread.spark[*i], spread.wide.as_ref().map(|wide| &wide.spark[*i])),
            Part::Slots(_) | Part::Parts(..) => return totals.sum,
        };
        let told = sketch.filter(|_| totals.capped > 0).map_or(0, Sketch::estimate);
        i128::from(told.max(exact.into()))
    }

    /// How much of some slots is over, in 24ths of a microsecond; 0 where nothing is.
    fn lasted(&self, group: &Group, slots: &Range<i64>) -> i128 {
        let newest = self.newest();
        let fine = |micros: i64| i128::from(micros) * i128::from(SPARK);
        let span = match self.frames.gap() {
            Some(gap) => group
                .session(slots.start)
                .and_then(|at| group.sessions.get(at))
                .map(|session| fine(session.start)..fine(session.last + gap)),
            None => self.frames.span(slots),
        };
        span.zip(newest).map_or(0, |(span, newest)| {
            (span.end.min(fine(newest)) - span.start).max(0)
        })
    }

    /// The metric's value. `own`: the window's own one, which is 0 for counts and sums where nothing was folded; else there is none.
    pub(super) fn value<'s>(&self, sums: &Sums<'s>, own: bool) -> Result<Option<Value<'s>>, Overflow> {
        if let Some(carried) = sums.carried {
            return Ok(Some(Value::Carried(carried)));
        }
        let ratio = matches!(self.definition.join, Some(Join::Ratio(_)));
        if !ratio && sums.events() == 0 && !own {
            return Ok(None);
        }
        Ok(self.number(sums)?.map(Value::Number))
    }

    /// The metric's number, a ratio's included; `None` where there is none.
    fn number(&self, sums: &Sums<'_>) -> Number {
        let count = |sum: i128| Decimal::from_count(u64::try_from(sum).unwrap_or(0));
        let leg = |index: usize| {
            let totals = &sums.totals[index];
            let there = totals.events > 0;
            match self.definition.legs.get(index).map(|leg| leg.aggregate) {
                Some(Aggregate::Sum(_)) => Ok(Some(Decimal::from_units(totals.sum))),
                Some(Aggregate::Distinct(_)) => Ok(Some(count(totals.sum))),
                Some(Aggregate::Gauge(_)) if there => Ok(Some(count(totals.sum))),
                Some(Aggregate::Count) => Ok(Some(Decimal::from_count(totals.events))),
                Some(Aggregate::Avg(_)) if there => Decimal::from_units(totals.sum)
                    .ratio(Decimal::from_count(totals.events), DECIMALS)
                    .map(Some)
                    .ok_or(Overflow),
                Some(Aggregate::Min(_) | Aggregate::Max(_)) if there => {
                    Ok(Some(Decimal::from_units(totals.sum)))
                }
                Some(Aggregate::Rate(_)) if !there || sums.lasted == 0 => Ok(None),
                Some(Aggregate::Rate(per)) => i128::from(totals.events)
                    .checked_mul(i128::from(per) * i128::from(SPARK))
                    .and_then(|count| {
                        Decimal::from_units(count).ratio(Decimal::from_units(sums.lasted), DECIMALS)
                    })
                    .map(Some)
                    .ok_or(Overflow),
                Some(Aggregate::Percentile(..)) => Ok(sums.percentiles[index]),
                Some(Aggregate::Top(..)) => {
                    let first = sums.top.as_ref().and_then(|top| top.first());
                    Ok(first.map(|(_, count)| Decimal::from_count(*count)))
                }
                _ => Ok(None),
            }
        };
        let Some(join) = self.definition.join else {
            return leg(0);
        };
        let (Some(of), Some(with)) = (leg(0)?, leg(1)?) else {
            return Ok(None);
        };
        let number = match join {
            Join::Ratio(_) if with == Decimal::ZERO => return Ok(None),
            Join::Ratio(scale) => of.ratio(with, scale),
            Join::Plus => of.checked_add(with),
            Join::Minus => of.checked_sub(with),
            Join::Times => of.checked_mul(with),
        };
        number.map(Some).ok_or(Overflow)
    }
}

/// What came in the first parts of a slot.
fn first_parts(cells: &[Cell], slot: i64, over: u16, how: How) -> Totals {
    find(cells, slot).map_or_else(|_| Totals::default(), |at| cells[at].first_parts(over, how))
}
