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
use crate::engine::testing::event_of;

mod metric;
mod told;

use metric::{Fact, Naive, Number};

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
                ", group_by: [data.category], groups_max: 3, groups_published_max: 2, flat_within_percent: 40",
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
                    kind: KINDS[made.kind],
                    ..event_of(&raw)
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
