//! What a metric has to say: updates of its current and closed windows, withdrawals, its status.
//!
//! An update is a function of (metric, group, window, revision, `as_of`): everything in it is read from the state alone. Built just
//! before a flush, published only after it succeeded.

mod asked;
mod content;
mod session;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::mem::take;
use std::sync::Arc;

use roomcast_proto::event::rfc3339;
use roomcast_proto::ids::{Audience, Room};
use roomcast_proto::metric::{
    Group as GroupName, STATUS, Status, UPDATED, Update, closed_key, current_key, status_key,
};

use crate::definition::Publish;
use crate::engine::decimal::Decimal;
use crate::engine::metric::{ALL_SESSIONS, Due, Metric};
use content::{Part, Sums};

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

/// A stored value of a closed window, as [`Metric::closed_published`] keeps it.
#[derive(Debug, Clone)]
pub(crate) struct Closed {
    pub(crate) place: i64,
    pub(crate) group: Arc<str>,
    pub(crate) until: i64,
}

impl Metric {
    /// Says that the value of a closed window is stored already.
    pub(crate) fn adopt(&mut self, closed: Closed) {
        let groups = self.closed_published.entry(closed.place).or_default();
        groups.insert(closed.group, closed.until);
    }

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
        let top = match self.frames.gap() {
            Some(_) => self.open_sessions(),
            None => self.top(place),
        };
        for key in &top {
            let place = self.current_place(key);
            if let Some(place) =
                place.filter(|_| all || changed.contains(key) || !self.published.contains(key))
            {
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
        if self.frames.gap().is_some() {
            self.render_sessions(publish, out);
            return;
        }
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
                if changed || !known.contains_key(key) {
                    let update = self.update(key, place);
                    let key = closed_key(&self.definition.name, key, bounds.start);
                    out.push(self.outgoing(publish, key, update, Some(until)));
                }
            }
            let top: HashMap<Arc<str>, i64> = top.into_iter().map(|key| (key, until)).collect();
            for gone in known.keys().filter(|key| !top.contains_key(*key)) {
                out.push(self.withdrawal(publish, closed_key(&self.definition.name, gone, bounds.start)));
            }
            self.closed_published.insert(place, top);
        }
        self.forget_expired();
    }

    /// Forgets values that the server has dropped by now.
    fn forget_expired(&mut self) {
        let as_of = self.as_of;
        self.closed_published.retain(|_, groups| {
            groups.retain(|_, until| *until > as_of);
            !groups.is_empty()
        });
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
    pub(crate) fn produced(&self) -> BTreeMap<String, Option<Closed>> {
        let name = &self.definition.name;
        let mut keys = BTreeMap::from([(status_key(name), None)]);
        let Some(place) = self.place else { return keys };
        if self.frames.gap().is_some() {
            self.produced_sessions(&mut keys);
            return keys;
        }
        keys.extend(self.top(place).iter().map(|key| (current_key(name, key), None)));
        if self.frames.closes() {
            for closed in self.frames.alive(place, self.as_of) {
                let (Some(bounds), Some(until)) =
                    (self.frames.bounds(closed), self.frames.closed_until(closed))
                else {
                    continue;
                };
                keys.extend(self.top(closed).into_iter().map(|group| {
                    let key = closed_key(name, &group, bounds.start);
                    let place = closed;
                    (key, Some(Closed { place, group, until }))
                }));
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
        let mut ranked = Vec::new();
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
                ranked.push((self.size(&sums), &group.key));
            }
        }
        self.largest(ranked).chain(other).collect()
    }

    /// What groups are ranked by.
    fn size(&self, sums: &Sums<'_>) -> Option<Decimal> {
        let value = self.value(sums, true).ok().flatten();
        let number = value.and_then(|value| value.number())?;
        Some(Decimal::from_units(number.units().saturating_abs()))
    }

    /// The largest groups, as many as are published, ties by name.
    fn largest(&self, mut ranked: Vec<(Option<Decimal>, &Arc<str>)>) -> impl Iterator<Item = Arc<str>> {
        let order = |a: &(Option<Decimal>, &Arc<str>), b: &(Option<Decimal>, &Arc<str>)| {
            b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1))
        };
        let most = self.definition.groups_published_max;
        if ranked.len() > most {
            ranked.select_nth_unstable_by(most, order);
            ranked.truncate(most);
        }
        ranked.sort_unstable_by(order);
        let keys: Vec<Arc<str>> = ranked.into_iter().map(|(_, key)| Arc::clone(key)).collect();
        keys.into_iter()
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
        if self.frames.gap().is_some() {
            let waiting = !self.closed.is_empty() || !self.closed_in_flight.is_empty();
            return waiting.then_some(ALL_SESSIONS).into_iter().collect();
        }
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
