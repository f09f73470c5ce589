//! The engine against a recomputation that keeps every event: random events, orders, late arrivals, restarts, exact equality.
//!
//! The recomputation shares no arithmetic with the engine: it works on instants, not slots, on lists, not totals.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use proptest::prelude::*;
use roomcast_proto::metric::{Counted, Group as GroupName, Update, closed_key, current_key};
use serde_json::value::RawValue;

use crate::definition::{Aggregate, Clock, Compare, Definition, Definitions, Join, Unit, Window};
use crate::engine::decimal::Decimal;
use crate::engine::metric::{DISTINCT_MAX, FUTURE_MICROS, KEYS_MAX};
use crate::engine::ranks::{range_of, shown};
use crate::engine::row::Event;
use crate::engine::shard::{Head, Shard};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// What an event is made from; an index into the tables below.
#[derive(Debug, Clone)]
struct Made {
    after: i64,
    shift: i64,
    room: usize,
    kind: usize,
    amount: usize,
    category: usize,
    customer: usize,
}

#[derive(Debug, Clone)]
enum Step {
    Event(Made),
    Wait(i64),
    Restart,
}

const ROOMS: [&str; 3] = ["shop.a", "shop.b", "other"];
const KINDS: [&str; 3] = ["new", "done", "noise"];
const AMOUNTS: [&str; 12] = [
    "\"amount\":10.25,",
    "\"amount\":-3,",
    "\"amount\":\"7.000000000001\",",
    "\"amount\":0,",
    "\"amount\":1e3,",
    "\"amount\":null,",
    "",
    "\"amount\":\"x\",",
    "\"amount\":true,",
    "\"amount\":1e18,",
    "\"amount\":{\"a\":1},",
    "\"amount\":0.0000000000001,",
];
const CATEGORIES: [&str; 8] = [
    "\"category\":\"car\",",
    "\"category\":\"tour\",",
    "\"category\":\"a/b\",",
    "\"category\":42,",
    "\"category\":\"42\",",
    "\"category\":null,",
    "",
    "\"category\":[1],",
];
const CUSTOMERS: [&str; 12] = [
    "1", "1.0", "\"1\"", "true", "\"a\"", "\"b\"", "\"c\"", "\"d\"", "\"e\"", "\"f\"", "null", "{}",
];

fn step() -> impl Strategy<Value = Step> {
    let shift = prop_oneof![
        6 => -12 * MINUTE..MINUTE,
        1 => -3 * HOUR..0,
        1 => 4 * MINUTE..7 * MINUTE,
    ];
    let after = prop_oneof![5 => 0..2 * MINUTE, 2 => 0..2 * HOUR, 1 => 0..30 * HOUR];
    let wait = prop_oneof![4 => after.clone(), 1 => 0..40 * 24 * HOUR];
    let mostly = || prop_oneof![6 => 0..2_usize, 1 => Just(2_usize)];
    let made = (
        after.clone(),
        shift,
        mostly(),
        mostly(),
        0..12_usize,
        0..8_usize,
        0..12_usize,
    );
    prop_oneof![
        12 => made.prop_map(|(after, shift, room, kind, amount, category, customer)| Step::Event(Made { after, shift, room, kind, amount, category, customer })),
        2 => wait.prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

/// Events so near to each other, of so few groups and values, that sessions touch, join and open again.
fn near_step() -> impl Strategy<Value = Step> {
    let made = (
        0..7 * MINUTE,
        -10 * MINUTE..0,
        0..2_usize,
        0..2_usize,
        0..3_usize,
        0..2_usize,
        0..8_usize,
    );
    prop_oneof![
        12 => made.prop_map(|(after, shift, room, kind, amount, category, customer)| Step::Event(Made { after, shift, room, kind, amount, category, customer })),
        1 => (0..3 * HOUR).prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

/// Windows; the sliding ones are such that parts of the sparkline cut steps.
const WINDOWS: [(&str, &str, &str); 22] = [
    ("day", "{ tumbling: day }", "wall"),
    ("total", "{ total: true }", "wall"),
    ("slide", "{ sliding: 3h, step: 10m }", "wall"),
    ("short", "{ sliding: 7m, step: 1m }", "event"),
    ("dayevent", "{ tumbling: day }", "event"),
    ("long", "{ sliding: 24h, step: 1h }", "wall"),
    ("minute", "{ tumbling: minute }", "wall"),
    ("hour", "{ tumbling: hour }", "wall"),
    ("hourevent", "{ tumbling: hour }", "event"),
    ("week", "{ tumbling: week }", "wall"),
    ("month", "{ tumbling: month }", "wall"),
    ("monthevent", "{ tumbling: month }", "event"),
    ("quarter", "{ tumbling: quarter }", "wall"),
    ("year", "{ tumbling: year }", "wall"),
    ("session", "{ session: 5m }", "wall"),
    ("sessionlong", "{ session: 2h }", "wall"),
    ("sessionevent", "{ session: 15m }", "event"),
    ("weekday", "{ tumbling: day }", "wall"),
    ("todate", "{ to_date: week }", "wall"),
    ("elapsed", "{ tumbling: day }", "wall"),
    ("elapsedhour", "{ to_date: hour }", "event"),
    ("elapsedmonth", "{ to_date: month }", "wall"),
];

/// Aggregates with the type they are of.
const VALUES: [(&str, &str, &str); 14] = [
    ("count", "count()", "new"),
    ("sum", "sum(data.amount)", "done"),
    ("distinct", "distinct(data.customer)", "new"),
    ("avg", "avg(data.amount)", "done"),
    ("min", "min(data.amount)", "done"),
    ("max", "max(data.amount)", "new"),
    ("first", "first(data.amount)", "new"),
    ("last", "last(data.amount)", "done"),
    ("rate", "rate(minute)", "done"),
    ("p50", "p50(data.amount)", "done"),
    ("p95", "p95(data.amount)", "new"),
    ("gauge", "gauge(data.customer, has(data.amount))", "new"),
    ("gauge2", "gauge(data.customer, has(data.category))", "done"),
    ("top", "top(2, data.category)", "new"),
];
/// Metrics made of two, where both are there.
const JOINTS: [(&str, &str, &str); 8] = [
    ("sum", "ratio: { scale: 3, to: ", "count"),
    ("distinct", "ratio: { scale: 3, to: ", "count"),
    ("max", "ratio: { scale: 3, to: ", "avg"),
    ("p50", "ratio: { scale: 3, to: ", "sum"),
    ("rate", "arithmetic: { minus: ", "count"),
    ("sum", "arithmetic: { times: ", "min"),
    ("avg", "arithmetic: { plus: ", "count"),
    ("gauge", "arithmetic: { minus: ", "gauge2"),
];

/// Whether an aggregate can be computed over a window.
fn fits(name: &str, window: &str) -> bool {
    match name {
        "rate" => window != "total",
        "gauge" | "gauge2" => window == "total",
        "distinct" | "first" | "last" | "p50" | "p95" | "top" => !window.starts_with("elapsed"),
        _ => true,
    }
}

/// Some aggregates, what is made of two of them, each grouped and not, for some windows.
fn definitions(zone: &str, windows: &[usize], values: &[usize]) -> Definitions {
    let mut text = format!("version: 1\ntimezone: {zone}\nmetrics:\n");
    let values: Vec<_> = values.iter().map(|value| VALUES[*value]).collect();
    for (window, spec, clock) in windows.iter().map(|window| WINDOWS[*window]) {
        let compare = match window {
            "weekday" => "same_weekday",
            _ if window.starts_with("elapsed") => "previous_elapsed",
            _ => "previous",
        };
        for (grouped, group) in [
            ("", ""),
            (
                "_by",
                ", group_by: [data.category], groups_max: 3, groups_published_max: 2",
            ),
        ] {
            for (name, value, kind) in &values {
                if !fits(name, window) {
                    continue;
                }
                text += &format!(
                    "  - {{ name: {name}_{window}{grouped}, from: {{ room: shop.*, type: {kind} }}, where: 'data.customer != true', value: '{value}', window: {spec}, clock: {clock}, compare: {compare}, stalled_after: 1h{group}, publish: {{ room: r, audience: all, at_most_every: 50ms }} }}\n"
                );
            }
            let there =
                |wanted: &str| fits(wanted, window) && values.iter().any(|(name, ..)| *name == wanted);
            for (of, how, with) in JOINTS {
                if there(of) && there(with) {
                    let most = if grouped.is_empty() {
                        ""
                    } else {
                        ", groups_published_max: 2"
                    };
                    text += &format!(
                        "  - {{ name: {of}_{with}_{window}{grouped}, {how}{with}_{window}{grouped}, of: {of}_{window}{grouped} }}, publish: {{ room: r, audience: all, at_most_every: 50ms }}{most} }}\n"
                    );
                }
            }
        }
    }
    Definitions::parse(&text, "m", None).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"))
}

/// One folded event of one leg.
#[derive(Debug, Clone)]
struct Fact {
    leg: usize,
    group: String,
    time: i64,
    seq: u64,
    amount: Decimal,
    value: String,
}

/// No time at all.
const NEVER: Range<i64> = i64::MIN..i64::MIN;

/// A value as it is shown, and as a number if it is one.
type Number = (String, Option<Decimal>);

/// How often each value came, most often first.
fn top_of(facts: &[&Fact]) -> Vec<(String, u64)> {
    let values: BTreeSet<&str> = facts.iter().map(|fact| fact.value.as_str()).collect();
    let count = |value: &str| facts.iter().filter(|fact| fact.value == value).count() as u64;
    let mut counts: Vec<(String, u64)> = values
        .into_iter()
        .map(|value| (value.to_owned(), count(value)))
        .collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.as_bytes().cmp(b.0.as_bytes())));
    counts
}

/// What is known of a gauge's key.
#[derive(Debug, Clone)]
struct Key {
    rank: (i64, u64),
    group: String,
    holds: bool,
}

/// One metric, recomputed from all its facts.
struct Naive {
    definition: std::sync::Arc<Definition>,
    facts: Vec<Fact>,
    /// (leg, group, block) in which a distinct value found no room.
    capped: BTreeSet<(usize, String, i64, i64)>,
    /// Keys of gauges by leg, those that are not forgotten.
    keys: HashMap<(usize, String), Key>,
    /// Groups that a key was in, and the event that said so.
    moves: Vec<(String, u64)>,
    marks: HashMap<(usize, String), i64>,
    highest: Option<i64>,
    last_match: Option<i64>,
    created: i64,
    skipped: BTreeMap<&'static str, u64>,
    as_of: i64,
    /// The newest instant the current window had to contain.
    newest: Option<i64>,
    /// Windows by minute; all these zones move their clocks at whole minutes.
    windows: RefCell<HashMap<i64, Range<i64>>>,
}

impl Naive {
    fn follow(&mut self) {
        let newest = match self.definition.clock {
            Clock::Wall => Some(self.highest.unwrap_or(i64::MIN).max(self.as_of)),
            Clock::Event => self.highest,
        };
        self.newest = self.newest.max(newest);
        if let (Window::Session { .. }, Some(horizon)) = (self.definition.window, self.horizon()) {
            let groups: BTreeSet<String> = self.times().map(|(group, _)| group.to_owned()).collect();
            for group in groups {
                let last = self
                    .times()
                    .filter(|(g, _)| *g == group)
                    .map(|(_, time)| time)
                    .max();
                if last.unwrap() + 31 * DAY < horizon {
                    self.facts.retain(|fact| fact.group != group);
                    self.capped.retain(|(_, capped, ..)| *capped != group);
                }
            }
        }
    }

    /// All events that belong to sessions, those that did not fit among them.
    fn times(&self) -> impl Iterator<Item = (&str, i64)> {
        let capped = self
            .capped
            .iter()
            .map(|(_, group, _, time)| (group.as_str(), *time));
        self.facts
            .iter()
            .map(|fact| (fact.group.as_str(), fact.time))
            .chain(capped)
    }

    /// What is older belongs to no session; whole days, or gaps where they are longer.
    fn horizon(&self) -> Option<i64> {
        let oldest = self.newest? - HOUR - FUTURE_MICROS;
        Some(oldest - oldest.rem_euclid(DAY))
    }

    /// The sessions of a group, as if one more event came.
    fn sessions(&self, group: &str, more: Option<i64>) -> Vec<Range<i64>> {
        let Window::Session { gap } = self.definition.window else {
            return Vec::new();
        };
        let mut times: Vec<i64> = self
            .times()
            .filter(|(g, _)| *g == group)
            .map(|(_, time)| time)
            .chain(more)
            .collect();
        times.sort_unstable();
        let mut sessions: Vec<Range<i64>> = Vec::new();
        for time in times {
            match sessions.last_mut() {
                Some(session) if time < session.end => session.end = time + gap,
                _ => {
                    if sessions
                        .last()
                        .is_some_and(|session| time - (session.end - gap) > 31 * DAY)
                    {
                        sessions.clear();
                    }
                    sessions.push(time..time + gap);
                }
            }
        }
        sessions
    }

    fn zone(&self) -> &TimeZone {
        &self.definition.zone
    }

    /// The window whose newest instant is `at`.
    fn window(&self, at: i64) -> Option<Range<i64>> {
        match self.definition.window {
            Window::Total | Window::Session { .. } => None,
            Window::Sliding { size, step } => {
                let end = (at.div_euclid(step) + 1) * step;
                Some(end - size..end)
            }
            Window::Tumbling(unit) => {
                let minute = at.div_euclid(MINUTE);
                if let Some(known) = self.windows.borrow().get(&minute) {
                    return Some(known.clone());
                }
                let window = match unit {
                    Unit::Minute | Unit::Hour => self.clock_window(unit, minute * MINUTE),
                    _ => self.date_window(unit, at),
                };
                self.windows.borrow_mut().insert(minute, window.clone());
                Some(window)
            }
        }
    }

    /// All minutes around this one that show the same floor of their local time, less their offset.
    fn clock_window(&self, unit: Unit, at: i64) -> Range<i64> {
        let floor = |at: i64| {
            let zoned = Timestamp::from_microsecond(at)
                .unwrap()
                .to_zoned(self.zone().clone());
            let local = zoned.datetime();
            let cut = local.with().second(0).subsec_nanosecond(0);
            let cut = if unit == Unit::Hour { cut.minute(0) } else { cut };
            at - i64::try_from(local.duration_since(cut.build().unwrap()).as_micros()).unwrap()
        };
        let (mut start, mut end) = (at, at + MINUTE);
        while floor(start - MINUTE) == floor(at) {
            start -= MINUTE;
        }
        while floor(end) == floor(at) {
            end += MINUTE;
        }
        start..end
    }

    fn date_window(&self, unit: Unit, at: i64) -> Range<i64> {
        let date = self
            .zone()
            .to_datetime(Timestamp::from_microsecond(at).unwrap())
            .date();
        let (first, span) = match unit {
            Unit::Week => {
                let days = i64::from(date.weekday().to_monday_zero_offset());
                (date.checked_sub(days.days()).unwrap(), 1.week())
            }
            Unit::Month => (date.first_of_month(), 1.month()),
            Unit::Quarter => {
                let month = (date.month() - 1) / 3 * 3 + 1;
                (
                    date.first_of_month().with().month(month).build().unwrap(),
                    3.months(),
                )
            }
            Unit::Year => (date.first_of_year(), 1.year()),
            _ => (date, 1.day()),
        };
        let start = |date: jiff::civil::Date| {
            let zoned = date.to_zoned(self.zone().clone()).unwrap();
            zoned.timestamp().as_microsecond()
        };
        start(first)..start(first.checked_add(span).unwrap())
    }

    fn before(&self, group: &str, window: &Range<i64>) -> Range<i64> {
        match self.definition.window {
            Window::Tumbling(_) => self.window(window.start - 1).unwrap(),
            Window::Session { .. } => {
                let sessions = self.sessions(group, None);
                let before = sessions.into_iter().rfind(|session| session.end <= window.start);
                before.unwrap_or(NEVER)
            }
            _ => window.start - (window.end - window.start)..window.start,
        }
    }

    fn compared(&self, group: &str, window: &Range<i64>) -> Range<i64> {
        if self.definition.compare != Some(Compare::SameWeekday) {
            return self.before(group, window);
        }
        let date = |at: i64| {
            self.zone()
                .to_datetime(Timestamp::from_microsecond(at).unwrap())
                .date()
        };
        let start = |date: jiff::civil::Date| {
            let zoned = date.to_zoned(self.zone().clone()).unwrap();
            zoned.timestamp().as_microsecond()
        };
        let week_ago = date(window.start).checked_sub(7.days()).unwrap();
        start(week_ago)..start(week_ago.tomorrow().unwrap())
    }

    fn spark(&self, group: &str, window: Option<&Range<i64>>) -> Vec<Option<Range<i64>>> {
        let Some(window) = window else { return vec![None] };
        if matches!(
            self.definition.window,
            Window::Tumbling(_) | Window::Session { .. }
        ) {
            let mut days = vec![window.clone()];
            while days.len() < 24 {
                let before = self.before(group, days.last().unwrap());
                days.push(before);
            }
            return days.into_iter().rev().map(Some).collect();
        }
        let size = window.end - window.start;
        (0..24)
            .map(|i| Some(window.start + size * i / 24..window.start + size * (i + 1) / 24))
            .collect()
    }

    /// What groups and distinct values are bounded by.
    fn block(&self, at: i64) -> i64 {
        match self.definition.window {
            Window::Total => 0,
            Window::Session { .. } => at.div_euclid(DAY),
            Window::Sliding { size, .. } => at.div_euclid(size),
            Window::Tumbling(_) => self.window(at).unwrap().start,
        }
    }

    fn event(&mut self, event: &Event<'_>, data: &serde_json::Value, as_of: i64) {
        self.as_of = self.as_of.max(as_of);
        let definition = std::sync::Arc::clone(&self.definition);
        for (index, leg) in definition.legs.iter().enumerate() {
            if !event.room.starts_with("shop.") || leg.types[0] != event.kind {
                continue;
            }
            if let Err(reason) = self.judge(index, leg.aggregate, event, data) {
                *self.skipped.entry(reason).or_default() += 1;
            }
        }
    }

    fn judge(
        &mut self,
        leg: usize,
        aggregate: Aggregate,
        event: &Event<'_>,
        data: &serde_json::Value,
    ) -> Result<(), &'static str> {
        match data.get("customer") {
            None => return Err("where_error"),
            Some(serde_json::Value::Bool(true)) => return Ok(()),
            _ => {}
        }
        if event.time_micros > event.stored_micros + FUTURE_MICROS {
            return Err("future");
        }
        self.last_match = self.last_match.max(Some(event.stored_micros));
        self.highest = self.highest.max(Some(event.time_micros));
        self.follow();
        let mark = self.marks.entry((leg, event.room.to_owned())).or_insert(i64::MIN);
        let late = event.time_micros < mark.saturating_sub(10 * MINUTE);
        *mark = (*mark).max(event.time_micros);
        if late {
            return Err("late");
        }
        let mut group = "[]".to_owned();
        if self.definition.group_values > 0 {
            group = match data.get("category") {
                None | Some(serde_json::Value::Null) => "[null]".to_owned(),
                Some(serde_json::Value::Array(_)) => return Err("not_a_scalar"),
                Some(value) => format!("[{value}]"),
            };
        }
        let (mut amount, mut value) = (Decimal::ZERO, String::new());
        match aggregate {
            Aggregate::Count | Aggregate::Rate(_) => {}
            Aggregate::Sum(_)
            | Aggregate::Avg(_)
            | Aggregate::Min(_)
            | Aggregate::Max(_)
            | Aggregate::Percentile(..) => {
                amount = match data.get("amount") {
                    None | Some(serde_json::Value::Null) => return Err("missing"),
                    Some(serde_json::Value::Number(number)) => {
                        Decimal::parse(&number.to_string()).map_err(|_| "out_of_range")?
                    }
                    Some(serde_json::Value::String(text)) => {
                        Decimal::parse(text).map_err(|_| "not_a_number")?
                    }
                    Some(_) => return Err("not_a_number"),
                }
            }
            Aggregate::First(_) | Aggregate::Last(_) => {
                value = match data.get("amount") {
                    None | Some(serde_json::Value::Null) => return Err("missing"),
                    Some(serde_json::Value::Object(_)) => return Err("not_a_scalar"),
                    Some(serde_json::Value::String(text)) => text.clone(),
                    Some(_) => {
                        let raw: HashMap<&str, &RawValue> =
                            serde_json::from_str(event.data.unwrap().get()).unwrap();
                        raw["amount"].get().to_owned()
                    }
                }
            }
            Aggregate::Top(..) => {
                value = match data.get("category") {
                    None | Some(serde_json::Value::Null) => return Err("missing"),
                    Some(serde_json::Value::Array(_)) => return Err("not_a_scalar"),
                    Some(serde_json::Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                }
            }
            Aggregate::Distinct(_) | Aggregate::Gauge(_) => {
                value = match data.get("customer") {
                    None | Some(serde_json::Value::Null) => return Err("missing"),
                    Some(serde_json::Value::Object(_)) => return Err("not_a_scalar"),
                    Some(serde_json::Value::Number(number)) => format!("n{}", number.as_f64().unwrap()),
                    Some(other) => other.to_string(),
                }
            }
        }
        // What is older than everything any window can still show is not folded.
        let newest = self.newest.unwrap_or(i64::MIN);
        let past = match self.definition.window {
            Window::Sliding { size, .. } => {
                self.block(event.time_micros) < self.block(self.window(newest).unwrap().end - 2 * size)
            }
            // An hour of closed minutes and the near future, and what their sparklines show.
            Window::Tumbling(Unit::Minute) => {
                let oldest = self.window(newest).unwrap().start - HOUR - FUTURE_MICROS;
                event.time_micros < self.window(oldest).unwrap().start - 24 * MINUTE
            }
            Window::Session { .. } => event.time_micros < self.horizon().unwrap(),
            _ => false,
        };
        if past {
            return Ok(());
        }
        let block = self.block(event.time_micros);
        if self.definition.group_values > 0 {
            let in_block: BTreeSet<&str> = self
                .times()
                .filter(|(group, time)| self.block(*time) == block && *group != GroupName::OTHER)
                .map(|(group, _)| group)
                .collect();
            if !in_block.contains(group.as_str()) && in_block.len() >= self.definition.groups_max {
                group = GroupName::OTHER.to_owned();
            }
        }
        if matches!(aggregate, Aggregate::Gauge(_)) {
            // The two gauges are of two types.
            let field = if event.kind == "new" { "amount" } else { "category" };
            let holds = data.get(field).is_some();
            amount = Decimal::from_count(u64::from(holds));
            let (id, rank) = ((leg, value.clone()), (event.time_micros, event.seq));
            let known = self.keys.get(&id);
            if known.is_some_and(|known| known.rank > rank) {
                return Ok(());
            }
            if known.is_none() && self.keys.len() >= KEYS_MAX {
                let highest = self.highest.unwrap();
                self.keys
                    .retain(|_, key| key.holds || key.rank.0 + 10 * MINUTE + DAY >= highest);
                if self.keys.len() >= KEYS_MAX {
                    self.capped.insert((leg, group, block, event.time_micros));
                    return Err("overflow");
                }
            }
            let now = Key {
                rank,
                group: group.clone(),
                holds,
            };
            if let Some(before) = self.keys.insert(id, now) {
                self.moves.push((before.group, event.seq));
            }
        }
        if matches!(aggregate, Aggregate::Distinct(_)) {
            let session = self
                .sessions(&group, Some(event.time_micros))
                .into_iter()
                .find(|session| session.contains(&event.time_micros));
            let together = |fact: &Fact| match &session {
                Some(session) => session.contains(&fact.time),
                None => self.block(fact.time) == block,
            };
            let values: BTreeSet<&str> = self
                .facts
                .iter()
                .filter(|fact| fact.leg == leg && fact.group == group && together(fact))
                .map(|fact| fact.value.as_str())
                .collect();
            if !values.contains(value.as_str()) && values.len() >= DISTINCT_MAX as usize {
                self.capped.insert((leg, group, block, event.time_micros));
                return Err("overflow");
            }
        }
        self.facts.push(Fact {
            leg,
            group,
            time: event.time_micros,
            seq: event.seq,
            amount,
            value,
        });
        Ok(())
    }

    fn value(&self, group: &str, window: Option<&Range<i64>>, own: bool) -> (Option<Number>, u64) {
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

    fn top_shown(&self, group: &str, window: Option<&Range<i64>>) -> Option<Vec<Counted>> {
        let Aggregate::Top(_, n) = self.definition.legs[0].aggregate else {
            return None;
        };
        let inside =
            |fact: &&Fact| fact.group == group && window.is_none_or(|window| window.contains(&fact.time));
        let facts: Vec<&Fact> = self.facts.iter().filter(inside).collect();
        let top = top_of(&facts).into_iter().take(n);
        Some(top.map(|(key, count)| Counted { key, count }).collect())
    }

    fn update(&self, group: &str, window: Option<Range<i64>>, current: bool) -> Update {
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
    fn expect_sessions(&self, expected: &mut BTreeMap<String, Update>) {
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
    fn top(&self, window: Option<&Range<i64>>, current: bool) -> Vec<String> {
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

/// Everything published so far, by key, as a client would hold it.
type Shown = BTreeMap<String, (Update, Option<i64>)>;

fn publish(shard: &mut Shard, shown: &mut Shown) {
    for out in shard.render() {
        match out.body {
            Some(body) if out.kind == roomcast_proto::metric::UPDATED => {
                let update: Update = serde_json::from_str(&body).unwrap();
                if let Some((before, _)) = shown.get(&out.key) {
                    assert!(
                        before.revision <= update.revision,
                        "{}: the revision went back",
                        out.key
                    );
                    assert!(
                        before.as_of <= update.as_of || before.as_of.len() != update.as_of.len(),
                        "{}: as_of went back",
                        out.key
                    );
                }
                shown.insert(out.key, (update, out.expires_micros));
            }
            Some(_) => {}
            None => {
                assert!(
                    shown.remove(&out.key).is_some(),
                    "{} was withdrawn and never published",
                    out.key
                );
            }
        }
    }
    shard.settled();
}

fn check(naive: &Naive, shown: &Shown, first_newest: Option<i64>, after: &str) {
    let name = &naive.definition.name;
    let of_metric = |key: &&String| roomcast_proto::metric::metric_of_key(key) == name;
    let blank = |update: &Update| Update {
        as_of: String::new(),
        ..update.clone()
    };
    let mut expected: BTreeMap<String, Update> = BTreeMap::new();
    if let Window::Session { .. } = naive.definition.window {
        naive.expect_sessions(&mut expected);
    } else if let Some(newest) = naive.newest {
        let window = naive.window(newest);
        for group in naive.top(window.as_ref(), true) {
            expected.insert(
                current_key(name, &group),
                naive.update(&group, window.clone(), true),
            );
        }
        if matches!(naive.definition.window, Window::Tumbling(_)) {
            let first = naive.window(first_newest.unwrap_or(newest)).unwrap();
            let mut day = naive.before("", &window.unwrap());
            while day.end + 7 * 24 * HOUR > naive.as_of
                && day.end > newest - 100 * MINUTE.max(day.end - day.start)
            {
                let altered = naive
                    .facts
                    .iter()
                    .any(|fact| fact.time < day.end && fact.time < first.start);
                let until = day.end + (24 * (day.end - day.start)).clamp(3_600 * SECOND, 7 * 24 * HOUR);
                if until > naive.as_of && (day.start >= first.start || altered) {
                    for group in naive.top(Some(&day), false) {
                        let key = closed_key(name, &group, day.start);
                        let known = shown.contains_key(&key);
                        if day.start >= first.start || known {
                            expected.insert(key, naive.update(&group, Some(day.clone()), false));
                        }
                    }
                }
                day = naive.before("", &day);
            }
        }
    }
    let got: BTreeMap<String, Update> = shown
        .iter()
        .filter(|(key, (_, expires))| of_metric(key) && expires.is_none_or(|at| at > naive.as_of))
        .map(|(key, (update, _))| {
            let mut update = blank(update);
            // Where minutes or sessions are dropped, the newest one that stays takes the last revision over.
            if let Some(wanted) = expected.get(key)
                && matches!(
                    naive.definition.window,
                    Window::Tumbling(Unit::Minute) | Window::Session { .. }
                )
            {
                assert!(
                    update.revision >= wanted.revision,
                    "{key}: the revision went back"
                );
                update.revision = wanted.revision;
            }
            // A window to date ends when it was published; time alone is no reason to publish it again.
            if let Some(wanted) = expected
                .get(key)
                .filter(|_| naive.definition.to_date && !key.contains('@'))
            {
                let instant =
                    |update: &Update| update.window.end.as_ref().unwrap().parse::<Timestamp>().unwrap();
                assert!(instant(&update) <= instant(wanted), "{key} ends in the future");
                update.window.end.clone_from(&wanted.window.end);
            }
            (key.clone(), update)
        })
        .collect();
    let keys: BTreeSet<&String> = expected.keys().chain(got.keys()).collect();
    for key in keys {
        assert_eq!(got.get(key), expected.get(key), "{key} after {after}");
    }
}

fn run(zone: &str, start: &str, windows: &[usize], values: &[usize], steps: &[Step]) {
    let definitions = definitions(zone, windows, values);
    let start = start.parse::<Timestamp>().unwrap().as_microsecond();
    let mut now = start;
    let mut shard = Shard::load(definitions.metrics.clone(), None, now).unwrap();
    shard.go_live();
    let mut naive: Vec<(Naive, Option<i64>)> = definitions
        .metrics
        .iter()
        .map(|definition| {
            let mut naive = Naive {
                definition: definition.clone(),
                facts: Vec::new(),
                capped: BTreeSet::new(),
                keys: HashMap::new(),
                moves: Vec::new(),
                marks: HashMap::new(),
                highest: None,
                last_match: None,
                created: now,
                skipped: BTreeMap::new(),
                as_of: now,
                newest: None,
                windows: RefCell::default(),
            };
            naive.follow();
            let first = naive.newest;
            (naive, first)
        })
        .collect();
    let mut shown = Shown::new();
    let mut chunks: HashMap<String, Vec<u8>> = HashMap::new();
    publish(&mut shard, &mut shown);
    let mut seq = 0;
    for step in steps {
        match step {
            Step::Event(made) => {
                now += made.after;
                seq += 1 + u64::try_from(made.customer).unwrap() % 3;
                let text = format!(
                    "{{{}{}\"customer\":{}}}",
                    AMOUNTS[made.amount], CATEGORIES[made.category], CUSTOMERS[made.customer]
                );
                let text = if made.customer == 11 && made.amount == 3 {
                    "{}".to_owned()
                } else {
                    text
                };
                let raw: Box<RawValue> = serde_json::from_str(&text).unwrap();
                let data: serde_json::Value = serde_json::from_str(&text).unwrap();
                let event = Event {
                    seq,
                    stored_micros: now,
                    time_micros: now + made.shift,
                    room: ROOMS[made.room],
                    audience: "all",
                    kind: KINDS[made.kind],
                    source: "s",
                    id: "i",
                    subject: None,
                    priority: "medium",
                    data: Some(&raw),
                };
                shard.advance(now);
                shard.fold(&event, &mut |_| {});
                shard.fold(&event, &mut |_| panic!("an event is folded once"));
                for (naive, first) in &mut naive {
                    naive.as_of = now;
                    naive.follow();
                    naive.event(&event, &data, now);
                    *first = first.or(naive.newest);
                }
            }
            Step::Wait(time) => now += time,
            Step::Restart => {
                let flush = shard.flush();
                chunks.extend(flush.chunks);
                let head = Head::read(&flush.head).unwrap();
                for name in head.chunk_names(&definitions.metrics) {
                    assert!(chunks.get(&name).is_none_or(|bytes| bytes.len() < 64 * 1024));
                }
                shard = Shard::load(definitions.metrics.clone(), Some((head, &chunks)), now).unwrap();
                shard.go_live();
                // A new process does not know what the old one published; with its first values the sweep tells it.
                publish(&mut shard, &mut shown);
                let known: Vec<crate::engine::shard::Known> = shown
                    .iter()
                    .map(|(key, (update, _))| crate::engine::shard::Known {
                        room: roomcast_proto::ids::Room::parse("r").unwrap(),
                        audience: roomcast_proto::ids::Audience::all(),
                        key: key.clone(),
                        revision: update.revision,
                    })
                    .collect();
                for number in 0..16 {
                    for orphan in shard.orphans(number, &roomcast_proto::ids::Tenant::default(), &known) {
                        let expired = shown
                            .get(&orphan.key)
                            .is_some_and(|(_, at)| at.is_some_and(|at| at <= now));
                        let falling = !orphan.key.contains('@');
                        assert!(expired || falling, "{} is an orphan after a restart", orphan.key);
                        shown.remove(&orphan.key);
                    }
                }
            }
        }
        now += SECOND;
        shard.advance(now);
        publish(&mut shard, &mut shown);
        for (naive, first) in &mut naive {
            naive.as_of = now;
            naive.follow();
            *first = first.or(naive.newest);
            check(naive, &shown, *first, &format!("{step:?} at {now}"));
        }
    }
    for (naive, _) in &naive {
        let metric = shard.metric(&naive.definition.name).unwrap();
        let skipped = serde_json::to_value(metric.skipped).unwrap();
        for (reason, count) in skipped.as_object().unwrap() {
            assert_eq!(
                count.as_u64().unwrap(),
                naive.skipped.get(reason.as_str()).copied().unwrap_or(0),
                "{} {reason}",
                naive.definition.name
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn every_number_equals_its_recomputation(
        zone in prop::sample::select(vec![
            ("Europe/Istanbul", "2026-06-01T12:00:00Z"),
            ("America/New_York", "2026-03-07T12:00:00Z"),
            ("America/New_York", "2026-10-31T12:00:00Z"),
            ("Pacific/Apia", "2011-12-28T12:00:00Z"),
            ("Australia/Lord_Howe", "2026-04-04T12:00:00Z"),
            ("Australia/Lord_Howe", "2026-10-03T12:00:00Z"),
            ("Europe/Istanbul", "2026-12-30T12:00:00Z"),
        ]),
        windows in prop::sample::subsequence((0..WINDOWS.len()).collect::<Vec<_>>(), 3),
        values in prop::sample::subsequence((0..VALUES.len()).collect::<Vec<_>>(), 5),
        steps in prop::collection::vec(step(), 1..70),
    ) {
        run(zone.0, zone.1, &windows, &values, &steps);
    }

    #[test]
    fn every_session_equals_its_recomputation(
        values in prop::sample::subsequence((0..VALUES.len()).collect::<Vec<_>>(), 5),
        steps in prop_oneof![
            2 => prop::collection::vec(near_step(), 1..50),
            1 => prop::collection::vec(step(), 1..70),
        ],
    ) {
        run("UTC", "2026-06-01T12:00:00Z", &[14, 15, 16], &values, &steps);
    }

    #[test]
    fn every_gauge_equals_its_recomputation(steps in prop::collection::vec(prop_oneof![1 => near_step(), 1 => step()], 1..70)) {
        run("UTC", "2026-06-01T12:00:00Z", &[1], &[0, 11, 12], &steps);
    }
}
