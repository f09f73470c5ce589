//! Rules at work: for each group of a rule's metric whether its condition holds, since when, and what was said about it.
//!
//! The shard has them look once a second, writes their state with its own, and hands out what is to be said only after that. So a notice
//! comes from stored state alone, and whoever works the shard next says the same one under the same id, or knows that it was said.

pub(super) mod codec;
mod instance;
mod notice;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use roomcast_proto::ids::{Audience, Room};
use roomcast_proto::metric::Group as GroupName;

use super::codec::Corrupt;
use super::decimal::Decimal;
use super::fnv;
use super::metric::Metric;
use crate::definition::Definition;
use crate::definition::rule::{Condition, Measure, NoData, Rule};
use instance::{Heard, Instance, Outcome};
use notice::Words;
pub use notice::{ALERT, Notice, State};

/// Rules look at their numbers this often.
pub const LOOK_MICROS: i64 = 1_000_000;
/// Groups of a rule that are watched at once; further ones wait until some are quiet again.
pub const GROUPS_MAX: usize = if cfg!(test) { 6 } else { 200 };
/// Notices of a rule that wait to be stored; while there are so many it does not look.
pub const WAITING_MAX: usize = 16;
/// A notification of all groups together is renewed at this distance at least.
const TOGETHER_MICROS: i64 = 60_000_000;

/// The numbers of a group's current window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// `value`
    pub value: Option<Decimal>,
    /// `previous`
    pub previous: Option<Decimal>,
    /// `change`
    pub change: Option<Decimal>,
    /// `change_percent`
    pub change_percent: Option<Decimal>,
    /// `events`
    pub events: u64,
}

impl Reading {
    fn measure(&self, measure: Measure) -> Option<Decimal> {
        match measure {
            Measure::Value => self.value,
            Measure::Previous => self.previous,
            Measure::Change => self.change,
            Measure::ChangePercent => self.change_percent,
            Measure::Events => Some(Decimal::from_count(self.events)),
        }
    }
}

/// What is said of all groups of a rule together.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Together {
    /// When the first of them fired: the name of this notification.
    since: i64,
    /// How often it was renewed.
    renewed: u64,
    /// When it was said last.
    said: i64,
    /// The groups it was about.
    groups: BTreeSet<Arc<str>>,
}

/// One rule with its state.
#[derive(Debug)]
struct Watched {
    /// `None`: it is defined no longer, and ends what it has said.
    rule: Option<Arc<Rule>>,
    alert: String,
    /// Where it has said what is not over.
    target: Option<(Room, Audience)>,
    instances: BTreeMap<Arc<str>, Instance>,
    together: Option<Together>,
    waiting: Vec<Notice>,
    dirty: bool,
    written: u64,
}

/// What operators have silenced, beside what the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silenced {
    /// The rule; `None`: all of them.
    pub alert: Option<String>,
    /// The group of it, as keys name it; `None`: all of them.
    pub group: Option<String>,
    /// From this instant, microseconds.
    pub from: i64,
    /// Until this one.
    pub until: i64,
}

impl Silenced {
    /// Whether a rule, or a group of it, says nothing at an instant. `group` is none where all groups are meant.
    fn covers(&self, alert: &str, group: Option<&str>, now: i64) -> bool {
        let named = self.alert.as_ref().is_none_or(|named| named == alert);
        let grouped = match (&self.group, group) {
            (None, _) => true,
            (Some(named), Some(group)) => *named == GroupName::from_json(group).key(),
            (Some(_), None) => false,
        };
        named && grouped && (self.from..self.until).contains(&now)
    }
}

/// The rules of a shard.
#[derive(Debug, Default)]
pub struct Alerts {
    watched: Vec<Watched>,
    silenced: Arc<[Silenced]>,
    last_look: Option<i64>,
    refused: u64,
}

/// What a head says about a stored rule: its name, and the digest of its chunk.
pub type StoredRule = (String, u64);

/// The name of a rule's chunk; that of a metric ends in a fingerprint and a number.
#[must_use]
pub fn chunk_name(alert: &str) -> String {
    format!("{alert}-rule-0")
}

fn digest(bytes: &[u8]) -> u64 {
    fnv::mix(fnv::hash(bytes))
}

impl Alerts {
    /// The rules of a shard with what is stored of them. One that is stored and defined no longer ends what it has said. `metrics`: those
    /// of the shard, and of which of them counting begins anew.
    ///
    /// # Errors
    /// [`Corrupt`], also where a chunk is not the one the head was written with.
    pub fn load(
        rules: Vec<Arc<Rule>>,
        (metrics, fresh): (&[Metric], &BTreeSet<usize>),
        stored: &[StoredRule],
        chunks: &HashMap<String, Vec<u8>>,
        now: i64,
    ) -> Result<Self, Corrupt> {
        let mut watched = Vec::new();
        let is_new = |rule: &Arc<Rule>| !stored.iter().any(|(name, _)| *name == rule.alert);
        for rule in rules.iter().filter(|rule| is_new(rule)) {
            watched.push(Watched {
                alert: rule.alert.clone(),
                rule: Some(Arc::clone(rule)),
                target: None,
                instances: BTreeMap::new(),
                together: None,
                waiting: Vec::new(),
                dirty: false,
                written: 0,
            });
        }
        for (name, sum) in stored {
            let bytes = chunks.get(&chunk_name(name)).filter(|bytes| !bytes.is_empty());
            let mut known = match bytes {
                Some(bytes) if digest(bytes) == *sum => codec::read(name, bytes)?,
                _ => return Err(Corrupt("a rule is not the one the head was written with")),
            };
            known.written = *sum;
            known.rule = rules.iter().find(|rule| rule.alert == *name).cloned();
            let of = known.rule.as_ref().map(|rule| &rule.metric);
            let place = metrics
                .iter()
                .position(|metric| Some(&metric.definition.name) == of);
            known.settle(place.map(|place| &*metrics[place].definition), now);
            if place.is_some_and(|place| fresh.contains(&place)) {
                known.forget_samples();
            }
            watched.push(known);
        }
        watched.sort_by(|a, b| a.alert.cmp(&b.alert));
        Ok(Self {
            watched,
            silenced: Arc::default(),
            last_look: None,
            refused: 0,
        })
    }

    /// From the next look on this is silent.
    pub fn silence(&mut self, silenced: Arc<[Silenced]>) {
        self.silenced = silenced;
    }

    /// When rules look next; `None` where there are none.
    #[must_use]
    pub fn next_look(&self) -> Option<i64> {
        let any = self.watched.iter().any(|watched| watched.rule.is_some());
        any.then(|| {
            self.last_look
                .map_or(i64::MIN, |last| last.saturating_add(LOOK_MICROS))
        })
    }

    /// Looks at the numbers, where it is time to. Only those of metrics that are current count.
    pub fn look(&mut self, metrics: &[Metric], now: i64) {
        if self.next_look().is_none_or(|at| at > now) {
            return;
        }
        self.last_look = Some(now);
        for watched in &mut self.watched {
            let Some(rule) = watched.rule.clone() else {
                continue;
            };
            let metric = metrics
                .iter()
                .find(|metric| metric.definition.name == rule.metric && metric.live);
            if let Some(metric) = metric.filter(|_| watched.waiting.len() < WAITING_MAX) {
                self.refused += watched.look(&rule, metric, &self.silenced, now);
            }
        }
    }

    /// What waits to be stored; the same until [`Alerts::said`].
    pub fn waiting(&self) -> impl Iterator<Item = &Notice> {
        self.watched.iter().flat_map(|watched| &watched.waiting)
    }

    /// A notice is stored, or refused for good.
    pub fn said(&mut self, id: &str) {
        for watched in &mut self.watched {
            let before = watched.waiting.len();
            watched.waiting.retain(|notice| notice.id != id);
            watched.dirty |= watched.waiting.len() != before;
        }
    }

    /// Whether anything is to be written.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.watched.iter().any(|watched| watched.dirty)
    }

    /// Groups that were not watched because there were too many; cumulative since the start.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Takes at most `max` of the chunks that changed, emptied ones for rules that have nothing left to say.
    pub fn flush(&mut self, max: usize) -> Vec<(String, Vec<u8>)> {
        let mut chunks = Vec::new();
        for watched in self.watched.iter_mut().filter(|watched| watched.dirty).take(max) {
            let bytes = if watched.is_idle() {
                Vec::new()
            } else {
                codec::write(watched)
            };
            watched.dirty = false;
            watched.written = if bytes.is_empty() { 0 } else { digest(&bytes) };
            chunks.push((chunk_name(&watched.alert), bytes));
        }
        self.watched
            .retain(|watched| watched.rule.is_some() || watched.written != 0);
        chunks
    }

    /// What the head says of the rules that have anything stored.
    pub fn stored(&self) -> impl Iterator<Item = (&str, u64)> {
        let written = self.watched.iter().filter(|watched| watched.written != 0);
        written.map(|watched| (watched.alert.as_str(), watched.written))
    }

    /// How many groups fire at the moment.
    #[must_use]
    pub fn firing(&self) -> usize {
        let instances = self.watched.iter().flat_map(|watched| watched.instances.values());
        instances.filter(|instance| instance.is_firing()).count()
    }
}

impl Watched {
    fn is_idle(&self) -> bool {
        self.instances.is_empty() && self.together.is_none() && self.waiting.is_empty()
    }

    /// Ends what was said by a rule that is gone, or that speaks to others or of others now. `definition`: of the metric it looks at.
    fn settle(&mut self, definition: Option<&Definition>, now: i64) {
        let rule = self.rule.clone();
        let stays = rule.as_ref().is_some_and(|rule| {
            let notify = &rule.notify;
            let same =
                |(room, audience): &(Room, Audience)| *room == notify.room && *audience == notify.audience;
            self.target.as_ref().is_none_or(same)
        });
        let together = rule.as_ref().is_some_and(|rule| rule.notify.together);
        let looked_at = |group: &str| match (&rule, definition) {
            (Some(rule), Some(definition)) => looks_at(rule, definition, group),
            (Some(_), None) => true,
            (None, _) => false,
        };
        if let Some((room, audience)) = self.target.clone() {
            let mut over = |of: &str, since: i64, renewed: u64| {
                let notice = Notice::ended(&self.alert, of, (since, renewed), (&room, &audience), now);
                self.waiting.push(notice);
                self.dirty = true;
            };
            if let Some(ended) = self.together.take_if(|_| !stays || !together) {
                over("", ended.since, ended.renewed + 1);
                // Else the next that is said of all together bears the name of this one.
                self.instances
                    .values_mut()
                    .for_each(|instance| instance.begin_again(now));
            }
            for (group, instance) in &mut self.instances {
                let ends = !stays || together || !looked_at(group);
                if let Some(since) = ends.then(|| instance.unsay(now)).flatten() {
                    over(group, since, 1);
                }
            }
        }
        if !stays {
            self.target = None;
            self.dirty = true;
        }
        let before = self.instances.len();
        self.instances.retain(|group, _| looked_at(group));
        self.dirty |= self.instances.len() != before;
    }

    /// Numbers of the past are of what its metric was.
    fn forget_samples(&mut self) {
        for instance in self.instances.values_mut() {
            self.dirty |= !instance.samples.is_empty();
            instance.samples.clear();
        }
    }

    /// Answers how many groups there was no room for.
    fn look(&mut self, rule: &Arc<Rule>, metric: &Metric, silenced: &[Silenced], now: i64) -> u64 {
        let by_operators = |group: Option<&str>| {
            silenced
                .iter()
                .any(|silenced| silenced.covers(&rule.alert, group, now))
        };
        let open = rule.hours.open_since(now);
        let silent = rule
            .silences
            .iter()
            .any(|silence| (silence.from..silence.until).contains(&now))
            || by_operators(None);
        let mut refused = 0;
        for group in self.groups(rule, metric) {
            let reading = metric.reading(&group);
            let known = self.instances.contains_key(&group);
            if !known && self.instances.len() >= GROUPS_MAX {
                refused += 1;
                continue;
            }
            let mut instance = self.instances.remove(&group).unwrap_or_default();
            let before = instance.clone();
            let heard = hear(rule, metric, &mut instance, &reading, open, now);
            // What is not to be said yet waits; so does the end of something, while there is no room to say it.
            let room = self.waiting.len() < WAITING_MAX;
            let outcome = instance.step(rule, heard.holds, heard.ended, now, room);
            if !rule.notify.together {
                let silent = silent || by_operators(Some(&group));
                self.say(rule, &group, &mut instance, outcome, &heard, silent, now);
            }
            self.dirty |= instance != before;
            if instance.is_kept(!is_grouped(rule, &metric.definition) || metric.group(&group).is_some()) {
                self.instances.insert(group, instance);
            }
        }
        if rule.notify.together {
            self.say_together(rule, metric, silent, now);
        }
        refused
    }

    /// The groups there are, and those that are remembered.
    fn groups(&self, rule: &Rule, metric: &Metric) -> BTreeSet<Arc<str>> {
        if !is_grouped(rule, &metric.definition) {
            return BTreeSet::from([GroupName::ALL.into()]);
        }
        let there = metric.groups.iter().map(|group| Arc::clone(&group.key));
        there.chain(self.instances.keys().cloned()).collect()
    }

    #[expect(clippy::too_many_arguments, reason = "all that a notice is made of")]
    fn say(
        &mut self,
        rule: &Rule,
        group: &str,
        instance: &mut Instance,
        outcome: Outcome,
        heard: &Heard,
        silent: bool,
        now: i64,
    ) {
        let words = |state, since, number| Words {
            rule,
            groups: std::slice::from_ref(&group),
            state,
            since,
            number,
            reading: heard.reading,
            measured: heard.measured,
            now,
        };
        match outcome {
            Outcome::Fires(since) if !silent && self.waiting.len() < WAITING_MAX => {
                self.target = Some((rule.notify.room.clone(), rule.notify.audience.clone()));
                self.waiting.push(Notice::new(&words(State::Firing, since, 0)));
                instance.say();
                self.dirty = true;
            }
            Outcome::Ends(since) => {
                self.waiting.push(Notice::new(&words(State::Resolved, since, 1)));
                self.dirty = true;
            }
            _ => {}
        }
    }

    /// One notification of all groups that fire.
    fn say_together(&mut self, rule: &Rule, metric: &Metric, silent: bool, now: i64) {
        let firing: BTreeSet<Arc<str>> = self
            .instances
            .iter()
            .filter(|(_, instance)| instance.is_firing())
            .map(|(group, _)| Arc::clone(group))
            .collect();
        if self.waiting.len() >= WAITING_MAX {
            return;
        }
        let (state, together) = match (self.together.take(), firing.is_empty()) {
            (None, true) => return,
            (None, false) if silent => return,
            (None, false) => {
                let since = self.instances.values().filter_map(Instance::fires_since).min();
                let together = Together {
                    since: since.unwrap_or(now),
                    renewed: 0,
                    said: now,
                    groups: firing,
                };
                (State::Firing, together)
            }
            (Some(mut known), true) => {
                known.renewed += 1;
                (State::Resolved, known)
            }
            (Some(mut known), false) => {
                if known.groups == firing || now - known.said < TOGETHER_MICROS || silent {
                    self.together = Some(known);
                    return;
                }
                known.renewed += 1;
                known.said = now;
                known.groups = firing;
                (State::Firing, known)
            }
        };
        let groups: Vec<&str> = together.groups.iter().map(AsRef::as_ref).collect();
        let reading = groups
            .first()
            .map(|group| metric.reading(group))
            .unwrap_or_default();
        let measured = match rule.when {
            Condition::Test(measured, _) if measured.over.is_none() => reading.measure(measured.of),
            _ => None,
        };
        let words = Words {
            rule,
            groups: &groups,
            state,
            since: together.since,
            number: together.renewed,
            reading,
            measured,
            now,
        };
        self.waiting.push(Notice::new(&words));
        self.target = Some((rule.notify.room.clone(), rule.notify.audience.clone()));
        self.together = (state == State::Firing).then_some(together);
        self.dirty = true;
    }
}

/// Whether a rule looks at each group by itself.
fn is_grouped(rule: &Rule, definition: &Definition) -> bool {
    definition.group_values > 0 && !matches!(rule.when, Condition::Absent(_))
}

/// Whether a group of this name is one that a rule looks at: it has as many values as its metric is grouped by.
fn looks_at(rule: &Rule, definition: &Definition, group: &str) -> bool {
    let values = serde_json::from_str::<Vec<serde::de::IgnoredAny>>(group).map_or(0, |values| values.len());
    match is_grouped(rule, definition) {
        false => group == GroupName::ALL,
        true => group == GroupName::OTHER || values == definition.group_values,
    }
}

/// What a rule's condition says of a group.
fn hear(
    rule: &Rule,
    metric: &Metric,
    instance: &mut Instance,
    reading: &Reading,
    open: Option<i64>,
    now: i64,
) -> Heard {
    let heard = |holds, ended, measured| Heard {
        holds,
        ended,
        measured,
        reading: *reading,
    };
    let test = match rule.when {
        Condition::Absent(span) => {
            let last = metric.last_match.unwrap_or(metric.created);
            let absent = open.is_some_and(|open| now.saturating_sub(last.max(open)) >= span);
            return heard(Some(absent), !absent, None);
        }
        Condition::Test(measured, test) => {
            let number = reading.measure(measured.of);
            let number = match measured.over {
                Some((change, span)) => instance.changed(change, span, number, now),
                None => number,
            };
            number.map(|number| (number, test))
        }
    };
    if open.is_none() {
        return heard(Some(false), true, None);
    }
    match (test, rule.no_data) {
        (Some((number, test)), _) => {
            let holds = test.holds(number);
            let ended = rule.until.map_or(!holds, |until| until.holds(number));
            heard(Some(holds), ended, Some(number))
        }
        (None, NoData::Ok) => heard(Some(false), true, None),
        (None, NoData::Alert) => heard(Some(true), false, None),
        (None, NoData::Keep) => heard(None, false, None),
    }
}

#[cfg(test)]
mod tests;
