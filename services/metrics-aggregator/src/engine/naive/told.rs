//! What a recomputed metric must show.

use super::metric::top_of;
use super::*;

impl Naive {
    pub(super) fn value(&self, group: &str, window: Option<&Range<i64>>, own: bool) -> (Option<Number>, u64) {
        let inside =
            |fact: &&Fact| fact.group == group && window.is_none_or(|window| window.contains(&fact.time));
        let leg = |leg: usize| {
            let facts: Vec<&Fact> = self
                .facts
                .iter()
                .filter(inside)
                .filter(|fact| fact.leg == leg)
                .collect();
            let sum = || {
                facts
                    .iter()
                    .fold(Decimal::ZERO, |sum, fact| sum.checked_add(fact.amount).unwrap())
            };
            let count = Decimal::from_count(facts.len() as u64);
            let plain = |number: Decimal| (number.to_string(), Some(number));
            let carried = |fact: &&Fact| (fact.value.clone(), Decimal::parse(&fact.value).ok());
            let rank = |fact: &&&Fact| (fact.time, fact.seq);
            let value = match self.definition.legs[leg].aggregate {
                Aggregate::Count => Some(plain(count)),
                Aggregate::Rate(per) => {
                    // Every window of this test has a length that 24 divides.
                    let window = window.unwrap();
                    let over = window.end.min(self.newest.unwrap()) - window.start;
                    let minutes = Decimal::from_units(i128::from(over.max(0)));
                    let count = Decimal::from_units(i128::from(per) * facts.len() as i128);
                    let there = !facts.is_empty();
                    there.then(|| count.ratio(minutes, 12)).flatten().map(plain)
                }
                Aggregate::Sum(_) => Some(plain(sum())),
                Aggregate::Avg(_) => sum().ratio(count, 12).map(plain),
                Aggregate::Min(_) => facts.iter().map(|fact| fact.amount).min().map(plain),
                Aggregate::Max(_) => facts.iter().map(|fact| fact.amount).max().map(plain),
                Aggregate::First(_) => facts.iter().min_by_key(rank).map(carried),
                Aggregate::Last(_) => facts.iter().max_by_key(rank).map(carried),
                Aggregate::Percentile(_, percent) => {
                    let mut numbers: Vec<Decimal> = facts.iter().map(|fact| fact.amount).collect();
                    numbers.sort_unstable();
                    let last = numbers.len().checked_sub(1);
                    let element = last.map(|last| numbers[last * usize::from(percent) / 100]);
                    // How near that is to the element is a property of its own.
                    element.map(|number| plain(shown(range_of(number))))
                }
                Aggregate::Top(..) => top_of(&facts)
                    .first()
                    .map(|(_, count)| plain(Decimal::from_count(*count))),
                Aggregate::Gauge(_) => {
                    let of_leg = self.facts.iter().filter(|fact| fact.leg == leg);
                    let mut latest: BTreeMap<&str, &Fact> = BTreeMap::new();
                    for fact in of_leg {
                        let known = latest.entry(&fact.value).or_insert(fact);
                        if (known.time, known.seq) < (fact.time, fact.seq) {
                            *known = fact;
                        }
                    }
                    let held = |fact: &&&Fact| fact.group == group && fact.amount != Decimal::ZERO;
                    let count = latest.values().filter(held).count();
                    (!facts.is_empty()).then(|| plain(Decimal::from_count(count as u64)))
                }
                Aggregate::Distinct(_) => {
                    let values: BTreeSet<_> = facts.iter().map(|fact| &fact.value).collect();
                    Some(plain(Decimal::from_count(values.len() as u64)))
                }
            };
            (value, facts.len() as u64)
        };
        let (first, mut events) = leg(0);
        let value = match self.definition.join {
            Some(join) => {
                let (second, more) = leg(1);
                events += more;
                let numbers = first.and_then(|of| of.1).zip(second.and_then(|to| to.1));
                let joined = numbers.and_then(|(of, with)| match join {
                    Join::Ratio(scale) => of.ratio(with, scale),
                    Join::Plus => of.checked_add(with),
                    Join::Minus => of.checked_sub(with),
                    Join::Times => of.checked_mul(with),
                });
                let nothing = events == 0 && !own && !matches!(join, Join::Ratio(_));
                joined
                    .filter(|_| !nothing)
                    .map(|joined| (joined.to_string(), Some(joined)))
            }
            None if events == 0 && !own => None,
            None => first,
        };
        (value, events)
    }

    pub(super) fn top_shown(&self, group: &str, window: Option<&Range<i64>>) -> Option<Vec<Counted>> {
        let Aggregate::Top(_, n) = self.definition.legs[0].aggregate else {
            return None;
        };
        let inside =
            |fact: &&Fact| fact.group == group && window.is_none_or(|window| window.contains(&fact.time));
        let facts: Vec<&Fact> = self.facts.iter().filter(inside).collect();
        let top = top_of(&facts).into_iter().take(n);
        Some(top.map(|(key, count)| Counted { key, count }).collect())
    }

    pub(super) fn update(&self, group: &str, window: Option<Range<i64>>, current: bool) -> Update {
        let (value, events) = self.value(group, window.as_ref(), true);
        let previous = window
            .as_ref()
            .map(|window| {
                let before = self.compared(group, window);
                match (self.definition.window, self.definition.compare) {
                    (Window::Tumbling(unit), Some(Compare::PreviousElapsed)) if current => {
                        let over = self.newest.unwrap() - window.start;
                        let part = unit.part_micros();
                        before.start..before.end.min(before.start + over / part * part)
                    }
                    _ => before,
                }
            })
            .and_then(|window| self.value(group, Some(&window), false).0);
        let number = |value: &Option<Number>| value.as_ref().and_then(|value| value.1);
        let change = number(&value)
            .zip(number(&previous))
            .and_then(|(value, previous)| value.checked_sub(previous));
        let percent = change
            .zip(number(&previous))
            .and_then(|(change, previous)| change.percent_of(previous));
        let band = self.definition.flat_within_percent.units();
        let near = band > 0 && percent.is_some_and(|percent| (-band..=band).contains(&percent.units()));
        let spark = self.spark(group, window.as_ref());
        let last = spark.len() - 1;
        let sliding = matches!(self.definition.window, Window::Sliding { .. });
        let text = |number: Option<Decimal>| number.map(|number| number.to_string());
        let shown = |time: i64| {
            spark
                .iter()
                .any(|part| part.as_ref().is_none_or(|part| part.contains(&time)))
        };
        let revision = self
            .facts
            .iter()
            .filter(|fact| fact.group == group && (current || shown(fact.time)))
            .map(|fact| fact.seq)
            .chain(
                self.moves
                    .iter()
                    .filter(|(moved, _)| moved == group)
                    .map(|(_, seq)| *seq),
            )
            .max()
            .unwrap_or(0);
        let instant = |at: i64| roomcast_proto::event::rfc3339(at);
        let stalled = self.as_of - self.last_match.unwrap_or(self.created)
            >= self.definition.stalled_after_micros.unwrap_or(i64::MAX);
        Update {
            metric: self.definition.name.clone(),
            group: GroupName::from_json(group),
            window: roomcast_proto::metric::Span {
                start: window.as_ref().map(|window| instant(window.start)),
                end: window.as_ref().map(|window| {
                    let newest = self.newest.unwrap();
                    let inside = i64::from(self.highest == Some(newest));
                    let now = current && self.definition.to_date;
                    instant(if now { newest + inside } else { window.end })
                }),
            },
            value: value.map(|value| value.0),
            previous: previous.map(|value| value.0),
            change: text(change),
            change_percent: text(percent),
            direction: change.map(|change| match change.cmp(&Decimal::ZERO) {
                _ if near => roomcast_proto::metric::Direction::Flat,
                std::cmp::Ordering::Less => roomcast_proto::metric::Direction::Down,
                std::cmp::Ordering::Equal => roomcast_proto::metric::Direction::Flat,
                std::cmp::Ordering::Greater => roomcast_proto::metric::Direction::Up,
            }),
            sparkline: spark
                .iter()
                .enumerate()
                .map(|(i, part)| {
                    let own = i == last && !sliding;
                    self.value(group, part.as_ref(), own).0.map(|value| value.0)
                })
                .collect(),
            top: self.top_shown(group, window.as_ref()),
            events,
            as_of: String::new(),
            revision,
            approximate: self.capped.iter().any(|(_, capped, _, time)| {
                capped == group && window.as_ref().is_none_or(|w| w.contains(time))
            }) || self.facts.iter().any(|fact| {
                fact.group == group
                    && window.as_ref().is_none_or(|w| w.contains(&fact.time))
                    && matches!(
                        self.definition.legs[fact.leg].aggregate,
                        Aggregate::Percentile(..)
                    )
            }),
            error: None,
            stalled: current && stalled,
            no_data: current && self.last_match.is_none(),
            incomplete_since: None,
        }
    }

    /// Every value that sessions must show now.
    pub(super) fn expect_sessions(&self, expected: &mut BTreeMap<String, Update>) {
        let Some(newest) = self.newest else { return };
        let name = &self.definition.name;
        let most = self.definition.groups_published_max;
        let groups: BTreeSet<&str> = self.times().map(|(group, _)| group).collect();
        let all: Vec<(&str, Range<i64>)> = groups
            .into_iter()
            .flat_map(|group| {
                let sessions = self.sessions(group, None);
                sessions.into_iter().map(move |session| (group, session))
            })
            .collect();
        let (mut open, mut closed): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(_, session)| session.end > newest);
        let size = |(group, session): &(&str, Range<i64>)| {
            let value = self.value(group, Some(session), true).0.and_then(|value| value.1);
            value.map(|number| number.units().abs())
        };
        open.sort_by(|a, b| size(b).cmp(&size(a)).then(a.0.cmp(b.0)));
        let other = open.iter().position(|(group, _)| *group == GroupName::OTHER);
        let other = other.map(|at| open.remove(at));
        open.truncate(most);
        for (group, session) in open.into_iter().chain(other) {
            expected.insert(current_key(name, group), self.update(group, Some(session), true));
        }
        closed.retain(|(_, session)| {
            session.end + (24 * (session.end - session.start)).clamp(HOUR, 7 * DAY) > self.as_of
        });
        closed.sort_by(|a, b| b.1.end.cmp(&a.1.end).then(a.0.cmp(b.0)));
        for (group, session) in closed.into_iter().take(most) {
            let key = closed_key(name, group, session.start);
            expected.insert(key, self.update(group, Some(session), false));
        }
    }

    /// The groups that are state in a window.
    pub(super) fn top(&self, window: Option<&Range<i64>>, current: bool) -> Vec<String> {
        if self.definition.group_values == 0 {
            return vec!["[]".to_owned()];
        }
        let before = window.filter(|_| current).map(|window| self.compared("", window));
        let shown = |fact: &&Fact| {
            window.is_none_or(|window| window.contains(&fact.time))
                || before.as_ref().is_some_and(|b| b.contains(&fact.time))
        };
        let groups: BTreeSet<&str> = self
            .facts
            .iter()
            .filter(shown)
            .map(|fact| fact.group.as_str())
            .collect();
        let other = groups.contains(GroupName::OTHER);
        let mut ranked: Vec<(Option<i128>, &str)> = groups
            .into_iter()
            .filter(|group| *group != GroupName::OTHER)
            .map(|group| {
                let value = self.value(group, window, true).0.and_then(|value| value.1);
                (value.map(|number| number.units().abs()), group)
            })
            .collect();
        ranked.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        ranked.truncate(self.definition.groups_published_max);
        let mut top: Vec<String> = ranked.into_iter().map(|(_, group)| group.to_owned()).collect();
        if other {
            top.push(GroupName::OTHER.to_owned());
        }
        top
    }
}
