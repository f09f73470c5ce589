//! What a metric has to say: updates of its current and closed windows, withdrawals, its status.
//!
//! An update is a function of (metric, group, window, revision, `as_of`): everything in it is read from the state alone. Built just
//! before a flush, published only after it succeeded.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::mem::take;
use std::ops::Range;
use std::sync::Arc;

use roomcast_proto::event::rfc3339;
use roomcast_proto::ids::{Audience, Room};
use roomcast_proto::metric::{
    Direction, Group as GroupName, STATUS, Span, Status, UPDATED, Update, closed_key, current_key, status_key,
};

use crate::definition::{Aggregate, Publish};
use crate::engine::cell::{Carried, Group, Totals, carried};
use crate::engine::decimal::{DECIMALS, Decimal};
use crate::engine::metric::{Due, Metric};

/// Statuses follow each other at this distance at least.
const STATUS_EVERY_MICROS: i64 = 1_000_000;

/// One state value to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Where.
    pub room: Room,
    /// For whom.
    pub audience: Audience,
    /// Under which key.
    pub key: String,
    /// CloudEvents `type`.
    pub kind: &'static str,
    /// The data as JSON; `None` withdraws the key.
    pub body: Option<String>,
    /// Until when it holds; `None`: until replaced.
    pub expires_micros: Option<i64>,
    /// Its revision.
    pub revision: u64,
    /// The instant it is true for.
    pub as_of: i64,
}

/// Which slots of a group are asked for.
#[derive(Clone)]
enum Part {
    Current,
    Previous,
    Spark(usize, Range<i64>),
    Slots(Range<i64>),
}

/// A number, or the fact that it does not fit.
type Number = Result<Option<Decimal>, Overflow>;

/// What a group's legs come to over some slots.
#[derive(Default)]
struct Sums<'a> {
    totals: [Totals; 2],
    /// The first or last value, of a metric that carries one.
    carried: Option<&'a Carried>,
}

impl Sums<'_> {
    fn events(&self) -> u64 {
        self.totals[0].events + self.totals[1].events
    }
}

/// A value to be shown.
enum Value<'a> {
    Number(Decimal),
    Carried(&'a Carried),
}

impl Value<'_> {
    /// What it is compared and ranked by; text that is no number has none.
    fn number(&self) -> Option<Decimal> {
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
struct Overflow;

impl Metric {
    /// When something is ready to be published; `None` while there is nothing.
    #[must_use]
    pub fn render_at(&self, position: u64) -> Option<i64> {
        let publish = self.definition.publish.as_ref().filter(|_| self.live)?;
        if !self.finals.is_empty() {
            return Some(i64::MIN);
        }
        let values = self.all_changed || !self.changed.is_empty() || !self.closed.is_empty();
        let values = values.then(|| {
            self.last_published
                .map_or(i64::MIN, |last| last + publish.at_most_every_micros)
        });
        let status = self
            .last_status
            .as_ref()
            .map_or(Some(i64::MIN), |(last, status)| {
                let changed = !same(status, &self.status(position));
                changed.then_some(last + STATUS_EVERY_MICROS)
            });
        values.into_iter().chain(status).min()
    }

    /// Takes what is due at `as_of`. What was taken counts as published once [`Metric::settled`] is called.
    pub fn render(&mut self, position: u64) -> Vec<Outgoing> {
        let Some(publish) = self.definition.publish.clone().filter(|_| self.live) else {
            return Vec::new();
        };
        let mut out = take(&mut self.finals);
        let rested = self
            .last_published
            .is_none_or(|last| self.as_of >= last + publish.at_most_every_micros);
        let waiting = self.all_changed || !self.changed.is_empty() || !self.closed.is_empty();
        if rested && waiting {
            self.last_published = Some(self.as_of);
            self.render_closed(&publish, &mut out);
            self.render_current(&publish, &mut out);
        }
        self.render_status(&publish, position, &mut out);
        out
    }

    /// Everything taken was acknowledged.
    pub fn settled(&mut self) {
        self.closed_in_flight.clear();
    }

    /// The last values of the window that is about to be left, which `at_most_every` held back.
    pub(crate) fn render_last(&mut self) {
        let (Some(publish), Some(place)) = (self.definition.publish.clone(), self.place) else {
            return;
        };
        for group in take(&mut self.changed) {
            let group = &mut self.groups[group as usize];
            group.changed = false;
            let key = Arc::clone(&group.key);
            if self.published.contains(&key) {
                let update = self.update(&key, place);
                self.finals.push(self.outgoing(
                    &publish,
                    current_key(&self.definition.name, &key),
                    update,
                    None,
                ));
            }
        }
    }

    fn render_current(&mut self, publish: &Publish, out: &mut Vec<Outgoing>) {
        let all = take(&mut self.all_changed);
        let mut changed = HashSet::new();
        for group in take(&mut self.changed) {
            let group = &mut self.groups[group as usize];
            group.changed = false;
            changed.insert(Arc::clone(&group.key));
        }
        let Some(place) = self.place else { return };
        let top = self.top(place);
        for key in &top {
            if all || changed.contains(key) || !self.published.contains(key) {
                let update = self.update(key, place);
                out.push(self.outgoing(publish, current_key(&self.definition.name, key), update, None));
            }
        }
        let top: HashSet<Arc<str>> = top.into_iter().collect();
        for gone in self.published.difference(&top) {
            out.push(self.withdrawal(publish, current_key(&self.definition.name, gone)));
        }
        self.published = top;
    }

    fn render_closed(&mut self, publish: &Publish, out: &mut Vec<Outgoing>) {
        for (place, due) in take(&mut self.closed) {
            let (Some(bounds), Some(until)) = (self.frames.bounds(place), self.frames.closed_until(place))
            else {
                continue;
            };
            if until <= self.as_of || bounds.is_empty() {
                continue;
            }
            self.closed_in_flight.insert(place);
            let top = self.top(place);
            let known = self.closed_published.remove(&place).unwrap_or_default();
            for key in &top {
                let changed = match &due {
                    Due::All => true,
                    Due::Some(groups) => groups
                        .iter()
                        .any(|group| self.groups[*group as usize].key == *key),
                };
                if changed || !known.contains(key) {
                    let update = self.update(key, place);
                    let key = closed_key(&self.definition.name, key, bounds.start);
                    out.push(self.outgoing(publish, key, update, Some(until)));
                }
            }
            let top: HashSet<Arc<str>> = top.into_iter().collect();
            for gone in known.difference(&top) {
                out.push(self.withdrawal(publish, closed_key(&self.definition.name, gone, bounds.start)));
            }
            self.closed_published.insert(place, top);
        }
        let as_of = self.as_of;
        let frames = &self.frames;
        self.closed_published
            .retain(|place, _| frames.closed_until(*place).is_some_and(|until| until > as_of));
    }

    fn render_status(&mut self, publish: &Publish, position: u64, out: &mut Vec<Outgoing>) {
        let status = self.status(position);
        let due = self
            .last_status
            .as_ref()
            .is_none_or(|(last, known)| self.as_of >= last + STATUS_EVERY_MICROS && !same(known, &status));
        if due {
            out.push(Outgoing {
                room: publish.room.clone(),
                audience: publish.audience.clone(),
                key: status_key(&self.definition.name),
                kind: STATUS,
                body: serde_json::to_string(&status).ok(),
                expires_micros: None,
                revision: position.max(self.floor),
                as_of: self.as_of,
            });
            self.last_status = Some((self.as_of, status));
        }
    }

    fn status(&self, position: u64) -> Status {
        Status {
            metric: self.definition.name.clone(),
            skipped: self.skipped,
            lag: self.lag,
            stalled: self.stalled,
            incomplete_since: self.hole.map(|hole| rfc3339(hole.since)),
            as_of: rfc3339(self.as_of),
            revision: position.max(self.floor),
        }
    }

    /// The keys under which this metric has values now, closed windows included.
    pub(crate) fn produced(&self) -> BTreeMap<String, Option<(i64, Arc<str>)>> {
        let name = &self.definition.name;
        let mut keys = BTreeMap::from([(status_key(name), None)]);
        let Some(place) = self.place else { return keys };
        keys.extend(self.top(place).iter().map(|key| (current_key(name, key), None)));
        if self.frames.closes() {
            for closed in self.frames.alive(place, self.as_of) {
                let Some(bounds) = self.frames.bounds(closed) else {
                    continue;
                };
                keys.extend(
                    self.top(closed)
                        .into_iter()
                        .map(|key| (closed_key(name, &key, bounds.start), Some((closed, key)))),
                );
            }
        }
        keys
    }

    /// The groups that are state: the largest by absolute value, ties by name, and `~other`. One group where nothing is grouped.
    fn top(&self, place: i64) -> Vec<Arc<str>> {
        if self.definition.group_values == 0 {
            return vec![GroupName::ALL.into()];
        }
        let current = self.place == Some(place);
        let own = if current {
            Part::Current
        } else {
            Part::Slots(self.frames.slots(place))
        };
        let mut ranked: Vec<(Option<Decimal>, &Arc<str>)> = Vec::new();
        let mut other = None;
        for group in &self.groups {
            let sums = self.part(Some(group), &own);
            let here = sums.events() > 0;
            let before = || current && self.part(Some(group), &Part::Previous).events() > 0;
            if !(here || before()) {
                continue;
            }
            if &*group.key == GroupName::OTHER {
                other = Some(Arc::clone(&group.key));
            } else {
                let size = self
                    .value(&sums, true)
                    .ok()
                    .flatten()
                    .and_then(|value| value.number());
                ranked.push((
                    size.map(|number| Decimal::from_units(number.units().saturating_abs())),
                    &group.key,
                ));
            }
        }
        let order = |a: &(Option<Decimal>, &Arc<str>), b: &(Option<Decimal>, &Arc<str>)| {
            b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1))
        };
        let most = self.definition.groups_published_max;
        if ranked.len() > most {
            ranked.select_nth_unstable_by(most, order);
            ranked.truncate(most);
        }
        ranked.sort_unstable_by(order);
        ranked
            .into_iter()
            .map(|(_, key)| Arc::clone(key))
            .chain(other)
            .collect()
    }

    /// The update of a group in a window.
    #[must_use]
    pub fn update(&self, key: &str, place: i64) -> Update {
        let group = self.group(key);
        let current = self.place == Some(place);
        let (own, before) = if current && self.frames.rolls() {
            (Part::Current, Some(Part::Previous))
        } else {
            (
                Part::Slots(self.frames.slots(place)),
                self.frames.previous(place).map(Part::Slots),
            )
        };
        let sums = self.part(group, &own);
        let value = self.value(&sums, true);
        let before = before.filter(|_| self.definition.compare_previous);
        let previous = before.and_then(|part| self.value(&self.part(group, &part), false).ok().flatten());
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
        let bounds = self.frames.bounds(place);
        let (revision, spark) = self.revision_and_spark(key, group, place);
        Update {
            metric: self.definition.name.clone(),
            group: GroupName::from_json(key),
            window: Span {
                start: bounds.as_ref().map(|bounds| rfc3339(bounds.start)),
                end: bounds.as_ref().map(|bounds| rfc3339(bounds.end)),
            },
            value: value.map(Value::into_text),
            previous: previous.map(Value::into_text),
            change: text(change),
            change_percent: text(percent),
            direction: change.map(|change| match change.cmp(&Decimal::ZERO) {
                std::cmp::Ordering::Greater => Direction::Up,
                std::cmp::Ordering::Less => Direction::Down,
                std::cmp::Ordering::Equal => Direction::Flat,
            }),
            sparkline: spark,
            events: sums.events(),
            as_of: rfc3339(self.as_of),
            revision,
            approximate: sums.totals.iter().any(|sum| sum.capped > 0),
            error: error.then(|| "overflow".to_owned()),
            stalled: current && self.stalled,
            no_data: current && self.last_match.is_none(),
            incomplete_since: self.incomplete(bounds),
        }
    }

    fn revision_and_spark(&self, key: &str, group: Option<&Group>, place: i64) -> (u64, Vec<Option<String>>) {
        let ranges = self.frames.spark(place);
        let current = self.place == Some(place);
        let revision = match group {
            Some(group) if !current => ranges
                .iter()
                .map(|slots| group.seq_within(slots))
                .max()
                .unwrap_or(0),
            Some(group) if key != GroupName::ALL => group.last_seq,
            _ if current => self.last_seq,
            _ => 0,
        };
        let last = ranges.len() - 1;
        let spark = ranges.into_iter().enumerate().map(|(i, slots)| {
            let own = i == last && !self.frames.rolls();
            let part = if self.frames.rolls() {
                Part::Spark(i, slots)
            } else {
                Part::Slots(slots)
            };
            self.value(&self.part(group, &part), own)
                .ok()
                .flatten()
                .map(Value::into_text)
        });
        (revision.max(self.floor), spark.collect())
    }

    /// Since when events are missing in this window or the one it is compared with.
    fn incomplete(&self, bounds: Option<Range<i64>>) -> Option<String> {
        let hole = self.hole?;
        let touched = bounds.is_none_or(|bounds| {
            let reach = if self.definition.compare_previous {
                bounds.end - bounds.start
            } else {
                0
            };
            hole.until > bounds.start - reach && hole.since < bounds.end
        });
        touched.then(|| rfc3339(hole.since))
    }

    /// The legs of a group added up over some slots.
    fn part<'g>(&self, group: Option<&'g Group>, part: &Part) -> Sums<'g> {
        let Some(group) = group else {
            return Sums::default();
        };
        let place = self.place.unwrap_or(0);
        let rolling = group.rolling.as_deref();
        let slots = match part {
            Part::Current => Some(self.frames.slots(place)),
            Part::Previous => self.frames.previous(place),
            Part::Spark(_, slots) | Part::Slots(slots) => Some(slots.clone()),
        };
        let Some(slots) = slots else {
            return Sums::default();
        };
        let mut sums = match (part, rolling) {
            (Part::Current, Some(rolling)) => rolling.current,
            (Part::Previous, Some(rolling)) => rolling.previous,
            _ => [group.totals(0, &slots), group.totals(1, &slots)],
        };
        for (leg, definition) in self.definition.legs.iter().enumerate() {
            if let (Aggregate::Distinct(_), Some(rolling)) = (definition.aggregate, rolling) {
                let spread = &rolling.spread[leg];
                let count = match part {
                    Part::Current => Some(spread.current),
                    Part::Previous => Some(spread.previous),
                    Part::Spark(i, _) => Some(spread.spark[*i]),
                    Part::Slots(_) => None,
                };
                sums[leg].sum = count.map_or(sums[leg].sum, i128::from);
            }
        }
        Sums {
            totals: sums,
            carried: carried(&group.legs[0], &slots, group.how[0]),
        }
    }

    /// The metric's value. `own`: the window's own one, which is 0 for counts and sums where nothing was folded; else there is none.
    fn value<'s>(&self, sums: &Sums<'s>, own: bool) -> Result<Option<Value<'s>>, Overflow> {
        if let Some(carried) = sums.carried {
            return Ok(Some(Value::Carried(carried)));
        }
        if self.definition.ratio_scale.is_none() && sums.events() == 0 && !own {
            return Ok(None);
        }
        Ok(self.number(sums)?.map(Value::Number))
    }

    /// The metric's number, a ratio's included; `None` where there is none.
    fn number(&self, sums: &Sums<'_>) -> Number {
        let leg = |index: usize| {
            let totals = &sums.totals[index];
            let there = totals.events > 0;
            match self.definition.legs.get(index).map(|leg| leg.aggregate) {
                Some(Aggregate::Sum(_)) => Ok(Some(Decimal::from_units(totals.sum))),
                Some(Aggregate::Distinct(_)) => {
                    Ok(Some(Decimal::from_count(u64::try_from(totals.sum).unwrap_or(0))))
                }
                Some(Aggregate::Count) => Ok(Some(Decimal::from_count(totals.events))),
                Some(Aggregate::Avg(_)) if there => Decimal::from_units(totals.sum)
                    .ratio(Decimal::from_count(totals.events), DECIMALS)
                    .map(Some)
                    .ok_or(Overflow),
                Some(Aggregate::Min(_) | Aggregate::Max(_)) if there => {
                    Ok(Some(Decimal::from_units(totals.sum)))
                }
                _ => Ok(None),
            }
        };
        let Some(scale) = self.definition.ratio_scale else {
            return leg(0);
        };
        match (leg(0)?, leg(1)?) {
            (Some(of), Some(to)) if to != Decimal::ZERO => of.ratio(to, scale).map(Some).ok_or(Overflow),
            _ => Ok(None),
        }
    }

    fn outgoing(
        &self,
        publish: &Publish,
        key: String,
        update: Update,
        expires_micros: Option<i64>,
    ) -> Outgoing {
        Outgoing {
            room: publish.room.clone(),
            audience: publish.audience.clone(),
            key,
            kind: UPDATED,
            revision: update.revision,
            body: serde_json::to_string(&update).ok(),
            expires_micros,
            as_of: self.as_of,
        }
    }

    fn withdrawal(&self, publish: &Publish, key: String) -> Outgoing {
        Outgoing {
            room: publish.room.clone(),
            audience: publish.audience.clone(),
            key,
            kind: UPDATED,
            body: None,
            expires_micros: None,
            revision: self.last_seq.max(self.floor),
            as_of: self.as_of,
        }
    }

    /// Closed windows whose publication is not acknowledged yet: what a successor has to publish again.
    pub(crate) fn outbox(&self) -> BTreeSet<i64> {
        self.closed
            .keys()
            .chain(&self.closed_in_flight)
            .copied()
            .collect()
    }
}

/// Whether two statuses say the same, whenever they were made.
fn same(a: &Status, b: &Status) -> bool {
    a.skipped == b.skipped
        && a.lag == b.lag
        && a.stalled == b.stalled
        && a.incomplete_since == b.incomplete_since
}
