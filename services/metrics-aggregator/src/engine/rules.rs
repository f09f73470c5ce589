//! The rules one by one, as tables: what random histories meet too seldom, or what is easier to read here.

use std::collections::HashMap;

use proptest::prelude::*;
use roomcast_proto::ids::{Audience, Room, Tenant, shard as shard_of};
use roomcast_proto::metric::{Update, metric_of_key};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::definition::Definitions;
use crate::engine::metric::{Outcome, Reason};
use crate::engine::render::Outgoing;
use crate::engine::row::Event;
use crate::engine::shard::{Flush, Head, Known, Shard};

const NOON: i64 = 1_780_315_200_000_000; // 2026-06-01T12:00:00Z
const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const DAY: i64 = 24 * 60 * MINUTE;

/// A shard with one metric `m`: `spec` is what stands behind its name.
struct Bench {
    definitions: Definitions,
    shard: Shard,
    seq: u64,
    now: i64,
}

impl Bench {
    fn new(spec: &str) -> Self {
        let text = format!(
            "version: 1\ntimezone: UTC\nmetrics:\n  - {{ name: m, from: {{ room: r, type: t }}, publish: {{ room: board, audience: all, at_most_every: 250ms }}, {spec} }}\n"
        );
        let definitions = Definitions::parse(&text, "m", None).unwrap_or_else(|wrong| panic!("{wrong:?}"));
        let mut shard = Shard::load(definitions.metrics.clone(), None, NOON).unwrap();
        shard.go_live();
        Self {
            definitions,
            shard,
            seq: 0,
            now: NOON,
        }
    }

    /// Folds one event of a time relative to now.
    fn event(&mut self, shift: i64, data: &str) -> Outcome {
        self.seq += 1;
        let data: Box<RawValue> = serde_json::from_str(data).unwrap();
        let event = Event {
            seq: self.seq,
            stored_micros: self.now,
            time_micros: self.now + shift,
            room: "r",
            audience: "all",
            kind: "t",
            source: "s",
            id: "i",
            subject: None,
            priority: "medium",
            data: Some(&data),
        };
        let mut outcome = Outcome::NotOurs;
        self.shard.fold(&event, &mut |told| outcome = told);
        outcome
    }

    /// Lets time pass and takes what is due, statuses aside.
    fn after(&mut self, time: i64) -> Vec<Outgoing> {
        self.now += time;
        self.shard.advance(self.now);
        let mut out = self.shard.render();
        self.shard.settled();
        out.retain(|value| !value.key.starts_with("status/"));
        out
    }

    fn update(out: &[Outgoing], key: &str) -> Update {
        let found = out.iter().rfind(|value| value.key == key);
        let body = found
            .and_then(|value| value.body.as_ref())
            .unwrap_or_else(|| panic!("no {key} in {out:?}"));
        serde_json::from_str(body).unwrap()
    }
}

fn keys(out: &[Outgoing]) -> Vec<&str> {
    out.iter().map(|value| value.key.as_str()).collect()
}

#[test]
fn the_first_test_that_fails_names_the_reason() {
    let spec = "value: sum(data.x), group_by: [data.g], where: data.k == 1 || data.x == null, window: { tumbling: day }";
    let late = -11 * MINUTE;
    let rows: [(i64, &str, Outcome); 12] = [
        (0, r#"{"k":1,"x":1,"g":"a"}"#, Outcome::Folded),
        (0, r#"{"k":2,"x":1}"#, Outcome::NotOurs),
        (0, r#"{"k":2}"#, Outcome::Skipped(Reason::WhereError)),
        (6 * MINUTE, r#"{"k":1,"g":[]}"#, Outcome::Skipped(Reason::Future)),
        (late, r#"{"k":1,"g":[]}"#, Outcome::Skipped(Reason::Late)),
        (0, r#"{"k":1,"g":[]}"#, Outcome::Skipped(Reason::NotAScalar)),
        (
            0,
            r#"{"k":1,"g":{"a":1},"x":"y"}"#,
            Outcome::Skipped(Reason::NotAScalar),
        ),
        (
            0,
            r#"{"k":1,"g":1e30,"x":1}"#,
            Outcome::Skipped(Reason::OutOfRange),
        ),
        (0, r#"{"k":1,"x":null}"#, Outcome::Skipped(Reason::Missing)),
        (0, r#"{"k":1,"x":"1 "}"#, Outcome::Skipped(Reason::NotANumber)),
        (0, r#"{"k":1,"x":1e18}"#, Outcome::Skipped(Reason::OutOfRange)),
        (-10 * MINUTE, r#"{"k":1,"x":"1.50"}"#, Outcome::Folded),
    ];
    let mut bench = Bench::new(spec);
    for (shift, data, expected) in rows {
        assert_eq!(bench.event(shift, data), expected, "{data}");
    }
    // What was skipped for its value moved the watermark all the same.
    assert_eq!(
        bench.event(4 * MINUTE, r#"{"k":1,"x":null}"#),
        Outcome::Skipped(Reason::Missing)
    );
    assert_eq!(
        bench.event(-7 * MINUTE, r#"{"k":1,"x":1}"#),
        Outcome::Skipped(Reason::Late)
    );
}

/// The value, the events, what is shown, what an empty window shows.
type Row = (
    &'static str,
    &'static [(i64, &'static str)],
    &'static str,
    Option<&'static str>,
);

/// Each row: the value, the events as (minutes from now, x), what is shown then, and what an empty window shows.
#[test]
fn each_aggregate_says_what_its_name_says() {
    let rows: [Row; 15] = [
        ("count()", &[(0, "null"), (0, "1")], "2", Some("0")),
        ("sum(data.x)", &[(0, "1.10"), (0, "\"2.2\"")], "3.3", Some("0")),
        (
            "distinct(data.x)",
            &[(0, "1"), (0, "1.0"), (0, "\"1\"")],
            "2",
            Some("0"),
        ),
        (
            "avg(data.x)",
            &[(0, "1"), (0, "0"), (0, "1")],
            "0.666666666667",
            None,
        ),
        // Half of the last place goes to the even neighbour, on both sides of zero.
        ("avg(data.x)", &[(0, "0.000000000001"), (0, "0")], "0", None),
        (
            "avg(data.x)",
            &[(0, "-0.000000000003"), (0, "0")],
            "-0.000000000002",
            None,
        ),
        ("min(data.x)", &[(0, "3"), (-5, "-1.50"), (0, "2")], "-1.5", None),
        (
            "max(data.x)",
            &[(0, "-3"), (-5, "-1.50"), (0, "-2")],
            "-1.5",
            None,
        ),
        // By time, then by position; as written.
        (
            "first(data.x)",
            &[(0, "1"), (-5, "2.50"), (-5, "3")],
            "2.50",
            None,
        ),
        (
            "last(data.x)",
            &[(0, "1"), (-5, "2"), (0, "1e3"), (-1, "4")],
            "1e3",
            None,
        ),
        // Element ⌊q · (n − 1)⌋, a number of few digits near it.
        ("p50(data.x)", &[(0, "19.9"), (0, "-3"), (-5, "\"5\"")], "5", None),
        ("p90(data.x)", &[(0, "1"), (0, "4250.50")], "1", None),
        ("p99(data.x)", &[(0, "4250.50")], "4250", None),
        ("last(data.x)", &[(0, "\"paid\"")], "paid", None),
        ("first(data.x)", &[(0, "false")], "false", None),
    ];
    for (value, events, expected, empty) in rows {
        let mut bench = Bench::new(&format!(
            "value: {value}, compare: previous, window: {{ tumbling: day }}"
        ));
        let before = Bench::update(&bench.after(0), "m");
        assert_eq!(before.value.as_deref(), empty, "{value} of nothing");
        for (minutes, x) in events {
            let outcome = bench.event(minutes * MINUTE, &format!("{{\"x\":{x}}}"));
            assert_eq!(outcome, Outcome::Folded, "{value} of {x}");
        }
        let update = Bench::update(&bench.after(SECOND), "m");
        assert_eq!(update.value.as_deref(), Some(expected), "{value} of {events:?}");
    }
}

/// Minutes from now, the row of a ticket, what becomes of it, then how many are open here and there.
type Ticket = (
    i64,
    &'static str,
    Outcome,
    Option<&'static str>,
    Option<&'static str>,
);

#[test]
fn a_gauge_counts_the_things_whose_latest_row_satisfies() {
    let mut bench = Bench::new(
        "value: 'gauge(data.id, data.status == \"open\")', group_by: [data.shop], window: { total: true }",
    );
    let rows: [Ticket; 9] = [
        (
            0,
            r#"{"id":1,"status":"open","shop":"a"}"#,
            Outcome::Folded,
            Some("1"),
            None,
        ),
        (
            0,
            r#"{"id":2,"status":"open","shop":"a"}"#,
            Outcome::Folded,
            Some("2"),
            None,
        ),
        // The same row again, as a second copy from the database.
        (
            0,
            r#"{"id":2,"status":"open","shop":"a"}"#,
            Outcome::Folded,
            Some("2"),
            None,
        ),
        // It moves to the other shop, and one is done.
        (
            0,
            r#"{"id":1,"status":"open","shop":"b"}"#,
            Outcome::Folded,
            Some("1"),
            Some("1"),
        ),
        (
            0,
            r#"{"id":2,"status":"done","shop":"a"}"#,
            Outcome::Folded,
            Some("0"),
            Some("1"),
        ),
        // What happened before the latest row changes nothing.
        (
            -5,
            r#"{"id":2,"status":"open","shop":"a"}"#,
            Outcome::Past,
            Some("0"),
            Some("1"),
        ),
        (
            -5,
            r#"{"id":3,"status":"open","shop":"a"}"#,
            Outcome::Folded,
            Some("1"),
            Some("1"),
        ),
        (
            0,
            r#"{"id":3,"shop":"a"}"#,
            Outcome::Skipped(Reason::WhereError),
            Some("1"),
            Some("1"),
        ),
        (
            0,
            r#"{"status":"open","shop":"a"}"#,
            Outcome::Skipped(Reason::Missing),
            Some("1"),
            Some("1"),
        ),
    ];
    let (mut a, mut b) = (None, None);
    for (minutes, data, outcome, in_a, in_b) in rows {
        assert_eq!(bench.event(minutes * MINUTE, data), outcome, "{data}");
        let out = bench.after(SECOND);
        for (key, shown) in [("m/a", &mut a), ("m/b", &mut b)] {
            if keys(&out).contains(&key) {
                *shown = Bench::update(&out, key).value;
            }
        }
        assert_eq!((a.as_deref(), b.as_deref()), (in_a, in_b), "{data}");
    }
}

/// Each row: the value, what it is of two sessions, what of the one that a late event makes of them.
#[test]
fn a_late_event_joins_two_sessions() {
    let events = [
        (0, r#"{"x":4,"c":"a"}"#),
        (6, r#"{"x":1,"c":"b"}"#),
        (10, r#"{"x":"9","c":"a"}"#),
    ];
    let late = (3, r#"{"x":2,"c":"c"}"#);
    for (value, first, second, both) in [
        ("count()", "1", "2", "4"),
        ("sum(data.x)", "4", "10", "16"),
        ("avg(data.x)", "4", "5", "4"),
        ("min(data.x)", "4", "1", "1"),
        ("max(data.x)", "4", "9", "9"),
        ("first(data.x)", "4", "1", "4"),
        ("last(data.x)", "4", "9", "9"),
        ("distinct(data.c)", "1", "2", "3"),
    ] {
        let mut bench = Bench::new(&format!(
            "value: {value}, compare: previous, lateness: 1h, window: {{ session: 5m }}"
        ));
        for (minute, data) in events {
            bench.after(NOON + minute * MINUTE - bench.now);
            assert_eq!(bench.event(0, data), Outcome::Folded);
        }
        let out = bench.after(SECOND);
        let second_start = "m@2026-06-01T12:06:00Z";
        let update = Bench::update(&out, "m");
        assert_eq!(update.value.as_deref(), Some(second), "{value}");
        assert_eq!(update.previous.as_deref(), Some(first), "{value}");
        assert_eq!(
            (update.window.start.as_deref(), update.window.end.as_deref()),
            (Some("2026-06-01T12:06:00Z"), Some("2026-06-01T12:15:00Z"))
        );
        // Closed, and named by its start.
        let out = bench.after(5 * MINUTE);
        assert_eq!(keys(&out), [second_start, "m"], "{value}");
        assert!(out[1].body.is_none(), "there is no current session");
        assert_eq!(Bench::update(&out, second_start).value.as_deref(), Some(second));
        // What joins them leaves one, under the earlier start.
        assert_eq!(
            bench.event(NOON + late.0 * MINUTE - bench.now, late.1),
            Outcome::Folded
        );
        let out = bench.after(SECOND);
        assert_eq!(keys(&out), ["m@2026-06-01T12:00:00Z", second_start], "{value}");
        assert!(out[1].body.is_none(), "the one that was swallowed is withdrawn");
        let update = Bench::update(&out, "m@2026-06-01T12:00:00Z");
        assert_eq!(update.value.as_deref(), Some(both), "{value}");
        assert_eq!(update.previous, None);
        // A distinct value that both had is one.
        bench.event(NOON + MINUTE - bench.now, r#"{"x":4,"c":"a"}"#);
        let update = Bench::update(&bench.after(SECOND), "m@2026-06-01T12:00:00Z");
        assert_eq!(update.events, 5, "{value}");
        if value.starts_with("distinct") {
            assert_eq!(update.value.as_deref(), Some("3"));
        }
    }
}

#[test]
fn a_session_opens_again_and_moves_its_start() {
    let mut bench = Bench::new("value: count(), lateness: 1h, window: { session: 5m }");
    bench.event(0, "{}");
    assert_eq!(keys(&bench.after(SECOND)), ["m"]);
    assert_eq!(bench.shard.next_wake(), Some(NOON + 5 * MINUTE));
    let out = bench.after(5 * MINUTE);
    assert_eq!(keys(&out), ["m@2026-06-01T12:00:00Z", "m"]);
    // 24 of its length.
    assert_eq!(out[0].expires_micros, Some(NOON + 125 * MINUTE));
    bench.event(-2 * MINUTE, "{}");
    let out = bench.after(SECOND);
    assert_eq!(keys(&out), ["m@2026-06-01T12:00:00Z", "m"]);
    assert!(out[0].body.is_none(), "it is not closed any more");
    assert_eq!(
        Bench::update(&out, "m").window.start.as_deref(),
        Some("2026-06-01T12:00:00Z")
    );
    bench.after(10 * MINUTE);
    bench.event(NOON - MINUTE - bench.now, "{}");
    let out = bench.after(SECOND);
    assert_eq!(keys(&out), ["m@2026-06-01T11:59:00Z", "m@2026-06-01T12:00:00Z"]);
    assert!(out[1].body.is_none(), "its start has moved");
    assert_eq!(
        Bench::update(&out, "m@2026-06-01T11:59:00Z").value.as_deref(),
        Some("3")
    );
}

#[test]
fn as_many_closed_sessions_are_state_as_groups_may_be() {
    let mut bench =
        Bench::new("value: count(), group_by: [data.g], groups_published_max: 2, window: { session: 5m }");
    for (group, minute) in [("a", 0), ("b", 1), ("c", 2)] {
        bench.after(NOON + minute * MINUTE - bench.now);
        bench.event(0, &format!("{{\"g\":{group:?}}}"));
    }
    let out = bench.after(20 * MINUTE);
    let closed = ["m/c@2026-06-01T12:02:00Z", "m/b@2026-06-01T12:01:00Z"];
    assert_eq!(keys(&out)[..2], closed, "those that ended last");
    // The first to expire makes room for one that ended before.
    assert_eq!(bench.shard.next_wake(), Some(NOON + 126 * MINUTE));
}

#[test]
fn a_rate_falls_with_time_and_is_told_once_a_second() {
    let mut bench = Bench::new("value: rate(minute), window: { tumbling: hour }");
    assert_eq!(
        Bench::update(&bench.after(0), "m").value,
        None,
        "nothing is over yet"
    );
    assert!(bench.after(MINUTE).is_empty(), "nothing to divide");
    bench.event(0, "{}");
    let value = |out: &[Outgoing], key: &str| Bench::update(out, key).value;
    assert_eq!(value(&bench.after(MINUTE), "m").as_deref(), Some("0.5"));
    assert_eq!(bench.shard.next_wake(), Some(bench.now + SECOND));
    assert!(bench.after(SECOND / 2).is_empty(), "too soon");
    assert_eq!(
        value(&bench.after(SECOND / 2), "m").as_deref(),
        Some("0.495867768595")
    );
    let out = bench.after(NOON + 60 * MINUTE + SECOND - bench.now);
    assert_eq!(
        value(&out, "m@2026-06-01T12:00:00Z").as_deref(),
        Some("0.016666666667")
    );
    assert_eq!(value(&out, "m"), None, "nothing came in this hour");
    assert!(bench.after(10 * SECOND).is_empty());
}

/// Each row: when it is now, hour and minute, then what is compared with: the day before has one event at 10:02 and one at 12:00.
#[test]
fn as_much_of_the_day_before_as_is_over_is_compared_with() {
    let mut bench = Bench::new("value: count(), compare: previous_elapsed, window: { to_date: day }");
    bench.event(118 * -MINUTE, "{}");
    bench.event(0, "{}");
    let midnight = NOON + 12 * 60 * MINUTE;
    for (hour, minute, previous) in [
        (0, 0, None),
        (10, 4, None),
        (10, 5, Some("1")),
        (12, 4, Some("1")),
        (12, 5, Some("2")),
        (23, 59, Some("2")),
    ] {
        let now = midnight + (hour * 60 + minute) * MINUTE;
        let update = Bench::update(&bench.after(now - bench.now), "m");
        assert_eq!(update.previous.as_deref(), previous, "{hour}:{minute}");
        assert_eq!(update.window.end, Some(roomcast_proto::event::rfc3339(now)));
    }
    bench.after(MINUTE);
    let out = bench.after(SECOND);
    assert!(out.is_empty(), "what is over changes every five minutes: {out:?}");
}

#[test]
fn the_same_weekday_is_seven_local_days_earlier() {
    for (days, previous) in [(1, None), (6, None), (7, Some("1")), (8, None)] {
        let mut bench = Bench::new("value: count(), compare: same_weekday, window: { tumbling: day }");
        bench.event(0, "{}");
        let update = Bench::update(&bench.after(days * DAY), "m");
        assert_eq!(update.previous.as_deref(), previous, "{days}");
    }
}

#[test]
fn a_group_that_was_silent_for_a_month_begins_anew() {
    for (days, previous) in [(30, Some("1")), (33, None)] {
        let mut bench = Bench::new("value: count(), compare: previous, window: { session: 5m }");
        bench.event(0, "{}");
        bench.after(days * DAY);
        bench.event(0, "{}");
        let update = Bench::update(&bench.after(SECOND), "m");
        assert_eq!(update.previous.as_deref(), previous, "{days}");
    }
}

#[test]
fn what_cannot_be_carried_is_skipped() {
    let mut bench = Bench::new("value: last(data.x), window: { tumbling: hour }");
    let long = "x".repeat(257);
    for (data, reason) in [
        ("{}".to_owned(), Reason::Missing),
        (r#"{"x":null}"#.to_owned(), Reason::Missing),
        (r#"{"x":[1]}"#.to_owned(), Reason::NotAScalar),
        (format!("{{\"x\":\"{long}\"}}"), Reason::OutOfRange),
    ] {
        assert_eq!(bench.event(0, &data), Outcome::Skipped(reason), "{data}");
    }
}

#[test]
fn text_is_compared_with_nothing() {
    let mut bench = Bench::new("value: last(data.x), compare: previous, window: { tumbling: minute }");
    for (x, previous, change) in [
        ("5", None, None),
        ("\"7.5\"", Some("5"), Some("2.5")),
        ("\"open\"", Some("7.5"), None),
        ("1", Some("open"), None),
    ] {
        bench.event(0, &format!("{{\"x\":{x}}}"));
        let update = Bench::update(&bench.after(SECOND), "m");
        assert_eq!(update.previous.as_deref(), previous, "{x}");
        assert_eq!(update.change.as_deref(), change, "{x}");
        bench.after(MINUTE - SECOND);
    }
}

#[test]
fn the_least_of_a_sliding_window_goes_when_it_leaves() {
    let mut bench = Bench::new("value: min(data.x), compare: previous, window: { sliding: 3m, step: 1m }");
    let rows = [
        ("1", "1", None),
        ("5", "1", None),
        ("3", "1", None),
        ("4", "3", Some("1")),
        ("4", "3", Some("1")),
        ("6", "4", Some("1")),
        ("6", "4", Some("3")),
    ];
    for (x, value, previous) in rows {
        bench.event(0, &format!("{{\"x\":{x}}}"));
        let update = Bench::update(&bench.after(SECOND), "m");
        assert_eq!(
            (update.value.as_deref(), update.previous.as_deref()),
            (Some(value), previous),
            "{x}"
        );
        bench.after(MINUTE - SECOND);
    }
}

#[test]
fn a_sum_that_does_not_fit_is_left_as_it_is() {
    let mut bench = Bench::new("value: sum(data.x), window: { total: true }");
    let most = "999999999999999999.999999999999";
    let mut folded = 0_u64;
    while bench.event(0, &format!("{{\"x\":{most}}}")) == Outcome::Folded {
        folded += 1;
        if folded == 200 {
            break;
        }
    }
    assert_eq!(folded, 200, "2^127 units take 170 million of the largest numbers");
    let out = bench.after(0);
    assert_eq!(
        Bench::update(&out, "m").value.unwrap(),
        "199999999999999999999.9999999998"
    );
    // A sliding window of many slots has as much less room per slot.
    let mut bench = Bench::new("value: sum(data.x), window: { sliding: 1499s, step: 1s }");
    let outcomes: Vec<Outcome> = (0..6000)
        .map(|_| bench.event(0, &format!("{{\"x\":{most}}}")))
        .collect();
    let fits = outcomes
        .iter()
        .filter(|outcome| **outcome == Outcome::Folded)
        .count();
    assert!((4_000..5_000).contains(&fits), "{fits}");
    assert_eq!(outcomes[5_999], Outcome::Skipped(Reason::Overflow));
    assert_eq!(
        bench.event(0, r#"{"x":-1}"#),
        Outcome::Folded,
        "what makes it smaller still fits"
    );
}

#[test]
fn a_day_is_published_once_when_it_closes_and_at_each_correction() {
    let mut bench = Bench::new("value: count(), compare: previous, lateness: 20h, window: { tumbling: day }");
    bench.event(0, "{}");
    assert_eq!(keys(&bench.after(SECOND)), ["m"]);
    let out = bench.after(DAY / 2);
    assert_eq!(keys(&out), ["m@2026-06-01T00:00:00Z", "m"]);
    let closed = Bench::update(&out, "m@2026-06-01T00:00:00Z");
    assert_eq!(
        (closed.value.as_deref(), closed.previous, closed.events),
        (Some("1"), None, 1)
    );
    let current = Bench::update(&out, "m");
    assert_eq!(
        (current.value.as_deref(), current.previous.as_deref()),
        (Some("0"), Some("1"))
    );
    assert_eq!(current.change_percent.as_deref(), Some("-100"));
    assert_eq!(
        out[0].expires_micros,
        Some(NOON + DAY / 2 + 7 * DAY),
        "24 days, but at most 7"
    );
    assert!(bench.after(DAY / 4).is_empty(), "nothing changed");
    bench.event(-DAY / 2, "{}");
    let out = bench.after(SECOND);
    assert_eq!(keys(&out), ["m@2026-06-01T00:00:00Z", "m"]);
    assert_eq!(
        Bench::update(&out, "m@2026-06-01T00:00:00Z").value.as_deref(),
        Some("2")
    );
    assert_eq!(Bench::update(&out, "m").previous.as_deref(), Some("2"));
    assert_eq!(Bench::update(&out, "m").revision, 2);
}

#[test]
fn at_most_every_drops_updates_in_between_and_never_a_windows_last() {
    let mut bench = Bench::new("value: count(), window: { sliding: 1h, step: 1m }");
    bench.event(0, "{}");
    assert_eq!(keys(&bench.after(59 * SECOND)), ["m"]);
    bench.event(0, "{}");
    assert_eq!(keys(&bench.after(SECOND / 10)), Vec::<&str>::new(), "too soon");
    // Before its turn comes the window is over.
    bench.event(0, "{}");
    let out = bench.after(9 * SECOND / 10);
    assert_eq!(keys(&out), ["m", "m"]);
    let last: Update = serde_json::from_str(out[0].body.as_ref().unwrap()).unwrap();
    assert_eq!(
        (last.value.as_deref(), last.window.end.as_deref()),
        (Some("3"), Some("2026-06-01T12:01:00Z"))
    );
    assert_eq!(
        Bench::update(&out, "m").window.end.as_deref(),
        Some("2026-06-01T12:02:00Z")
    );
}

#[test]
fn only_the_largest_groups_are_state_and_who_falls_out_is_withdrawn() {
    let mut bench = Bench::new(
        "value: sum(data.x), group_by: [data.g], groups_max: 3, groups_published_max: 2, window: { total: true }",
    );
    for (group, amount) in [("a", 1), ("b", -5), ("c", 3), ("d", 100), ("e", 1)] {
        bench.event(0, &format!("{{\"g\":{group:?},\"x\":{amount}}}"));
    }
    let out = bench.after(SECOND);
    assert_eq!(keys(&out), ["m/b", "m/c", "m/~other"]);
    assert_eq!(Bench::update(&out, "m/~other").value.as_deref(), Some("101"));
    assert_eq!(Bench::update(&out, "m/~other").group.as_json(), "\"~other\"");
    bench.event(0, r#"{"g":"a","x":10}"#);
    let out = bench.after(SECOND);
    assert_eq!(keys(&out), ["m/a", "m/c"]);
    assert_eq!(out[1].body, None, "c is withdrawn");
}

#[test]
fn stalled_comes_with_time_and_goes_with_the_next_event() {
    let mut bench = Bench::new("value: count(), window: { total: true }, stalled_after: 5m");
    let state = |out: &[Outgoing]| {
        let update = Bench::update(out, "m");
        (update.stalled, update.no_data)
    };
    assert_eq!(state(&bench.after(SECOND)), (false, true));
    assert_eq!(state(&bench.after(5 * MINUTE)), (true, true));
    bench.event(0, "{}");
    assert_eq!(state(&bench.after(SECOND)), (false, false));
    assert!(bench.after(4 * MINUTE).is_empty());
    assert_eq!(
        bench.shard.next_wake(),
        Some(NOON + 5 * MINUTE + SECOND + 5 * MINUTE)
    );
    assert_eq!(state(&bench.after(MINUTE)), (true, false));
}

#[test]
fn missing_events_are_told_where_a_window_can_show_them() {
    let check = |window: &str, ago: i64, expected: bool| {
        let mut bench = Bench::new(&format!("value: count(), compare: previous, window: {window}"));
        bench.shard.missed(100, NOON - ago);
        let update = Bench::update(&bench.after(SECOND), "m");
        assert_eq!(update.incomplete_since.is_some(), expected, "{window} {ago}");
    };
    check("{ total: true }", 1000 * DAY, true);
    check("{ tumbling: day }", DAY, true);
    check("{ tumbling: day }", 2 * DAY, false);
    check("{ sliding: 24h, step: 1m }", DAY, true);
    check("{ sliding: 24h, step: 1m }", 3 * DAY, false);
}

#[test]
fn what_nothing_produces_any_more_is_an_orphan_of_its_own_shard_alone() {
    let mut bench = Bench::new("value: count(), window: { tumbling: day }");
    bench.event(0, "{}");
    bench.after(DAY);
    let known = |room: &str, key: &str| Known {
        room: Room::parse(room).unwrap(),
        audience: Audience::all(),
        key: key.to_owned(),
        revision: 1,
    };
    let all = [
        known("board", "m"),
        known("board", "status/m"),
        known("board", "m@2026-06-01T00:00:00Z"),
        known("board", "m@2026-05-01T00:00:00Z"),
        known("board", "m/car"),
        known("board", "gone"),
        known("former", "m"),
    ];
    let tenant = Tenant::default();
    let mut orphans = Vec::new();
    for number in 0..16 {
        for orphan in bench.shard.orphans(number, &tenant, &all) {
            assert_eq!(shard_of(&tenant, metric_of_key(&orphan.key)), number);
            orphans.push(format!("{} {}", orphan.room, orphan.key));
        }
    }
    orphans.sort();
    assert_eq!(
        orphans,
        [
            "board gone",
            "board m/car",
            "board m@2026-05-01T00:00:00Z",
            "former m"
        ]
    );
}

/// Everything a shard stores, after some thousand events of many groups and customers: it is split into many chunks.
fn large() -> (Bench, Flush) {
    let mut bench =
        Bench::new("value: count(), group_by: [data.g], groups_max: 5000, window: { tumbling: day }");
    for i in 0..3_000 {
        bench.event(0, &format!("{{\"g\":\"group number {i}\"}}"));
    }
    let flush = bench.shard.flush();
    (bench, flush)
}

#[test]
fn state_is_cut_into_chunks_and_a_fold_rewrites_one() {
    let (mut bench, first) = large();
    assert!(first.chunks.len() > 4, "{}", first.chunks.len());
    assert!(first.chunks.iter().all(|(_, bytes)| bytes.len() <= 16 * 1024));
    bench.event(0, r#"{"g":"group number 7"}"#);
    let second = bench.shard.flush();
    // The group's chunk, and that of the room's watermark if it is another.
    assert!(second.chunks.len() <= 2, "{}", second.chunks.len());
    let mut chunks: HashMap<String, Vec<u8>> = first.chunks.into_iter().collect();
    chunks.extend(second.chunks);
    let head = Head::read(&second.head).unwrap();
    let again = Shard::load(
        bench.definitions.metrics.clone(),
        Some((head, &chunks)),
        bench.now,
    )
    .unwrap();
    assert_eq!(again.position(), 3_001);
    let (metric, before) = (again.metric("m").unwrap(), bench.shard.metric("m").unwrap());
    let place = before.place.unwrap();
    for group in ["[\"group number 7\"]", "[\"group number 2999\"]"] {
        assert_eq!(metric.update(group, place), before.update(group, place));
    }
}

#[test]
fn what_a_node_that_lags_gives_out_later_is_folded() {
    let again = |bench: &mut Bench| {
        let flush = bench.shard.flush();
        let chunks: HashMap<String, Vec<u8>> = flush.chunks.into_iter().collect();
        let head = Head::read(&flush.head).unwrap();
        Shard::load(bench.definitions.metrics.clone(), Some((head, &chunks)), NOON).unwrap()
    };
    let mut bench = Bench::new("value: count(), window: { total: true }");
    bench.event(0, "{}");
    bench.shard.believe(9);
    assert_eq!((bench.shard.position(), bench.shard.believed()), (1, 9));
    // Event 2 lies before what was believed, here and after a restart.
    assert_eq!(bench.event(0, "{}"), Outcome::Folded);
    bench.shard = again(&mut bench);
    assert_eq!((bench.shard.position(), bench.shard.believed()), (2, 9));
    assert_eq!(bench.event(0, "{}"), Outcome::Folded);
    // What the stream drops up to there was not missed; what it drops behind it was.
    assert_eq!(bench.shard.missed(10, NOON), 0);
    assert_eq!(bench.shard.position(), 9);
    assert_eq!(bench.shard.missed(12, NOON), 1);
}

#[test]
fn a_chunk_of_another_moment_is_found() {
    let (bench, flush) = large();
    let mut chunks: HashMap<String, Vec<u8>> = flush.chunks.iter().cloned().collect();
    let load = |chunks: &HashMap<String, Vec<u8>>| {
        let head = Head::read(&flush.head).unwrap();
        Shard::load(bench.definitions.metrics.clone(), Some((head, chunks)), bench.now).is_ok()
    };
    assert!(load(&chunks));
    let (name, bytes) = flush.chunks[0].clone();
    chunks.remove(&name);
    assert!(!load(&chunks), "a chunk is missing");
    chunks.insert(name.clone(), flush.chunks[1].1.clone());
    assert!(!load(&chunks), "a chunk is another's");
    chunks.insert(name, bytes);
    assert!(load(&chunks));
}

#[test]
fn chunks_of_former_definitions_are_emptied() {
    let (bench, flush) = large();
    let chunks: HashMap<String, Vec<u8>> = flush.chunks.iter().cloned().collect();
    let other = Bench::new("value: count(), window: { total: true }");
    let head = Head::read(&flush.head).unwrap();
    assert!(head.chunk_names(&other.definitions.metrics).is_empty());
    let mut shard = Shard::load(
        other.definitions.metrics.clone(),
        Some((head, &chunks)),
        bench.now,
    )
    .unwrap();
    assert_eq!(
        shard.position(),
        0,
        "a changed metric is filled from the beginning"
    );
    let mut emptied = Vec::new();
    for _ in 0..10 {
        emptied.extend(
            shard
                .flush()
                .chunks
                .into_iter()
                .filter(|(_, bytes)| bytes.is_empty())
                .map(|(name, _)| name),
        );
    }
    emptied.sort();
    let mut stored: Vec<String> = chunks.into_keys().collect();
    stored.sort();
    assert_eq!(emptied, stored);
    let metric = shard.metric("m").unwrap();
    assert_eq!(
        metric.update("[]", metric.place.unwrap()).revision,
        3_000,
        "revisions never go back"
    );
}

#[test]
fn a_stream_made_anew_begins_anew_under_other_names() {
    let (mut bench, _) = large();
    bench.shard.set_stream(NOON);
    for i in 0..3_000 {
        bench.event(0, &format!("{{\"g\":\"group number {i}\"}}"));
    }
    let flush = bench.shard.flush();
    let chunks: HashMap<String, Vec<u8>> = flush.chunks.into_iter().collect();
    let load = |created: i64| {
        let mut head = Head::read(&flush.head).unwrap();
        let anew = head.meet(created);
        let shard = Shard::load(
            bench.definitions.metrics.clone(),
            Some((head, &chunks)),
            bench.now,
        );
        (anew, shard.unwrap())
    };
    let (anew, same) = load(NOON);
    assert!(!anew);
    assert_eq!(same.position(), 6_000);
    let (anew, mut other) = load(NOON + SECOND);
    assert!(anew);
    assert_eq!(other.position(), 0);
    let metric = other.metric("m").unwrap();
    let update = metric.update("[\"group number 7\"]", metric.place.unwrap());
    assert_eq!((update.events, update.revision), (0, 6_000));
    assert_eq!(update.incomplete_since.as_deref(), Some("2026-06-01T12:00:01Z"));
    let mut emptied = std::collections::BTreeSet::new();
    for _ in 0..10 {
        for (name, bytes) in other.flush().chunks {
            assert_eq!(bytes.is_empty(), chunks.contains_key(&name), "{name}");
            emptied.extend(bytes.is_empty().then_some(name));
        }
    }
    assert_eq!(emptied.len(), chunks.len(), "old chunks are emptied");
    // What was begun anew goes on: it has met this stream.
    let mut head = Head::read(&other.flush().head).unwrap();
    assert!(!head.meet(NOON + SECOND));
}

#[test]
fn an_update_says_what_the_contract_says() {
    let mut bench = Bench::new("value: sum(data.x), compare: previous, window: { sliding: 24h, step: 1h }");
    bench.event(0, r#"{"x":"4250.50"}"#);
    let out = bench.after(0);
    let value: Value = serde_json::from_str(out[0].body.as_ref().unwrap()).unwrap();
    let spark: Vec<Value> = std::iter::repeat_n(Value::Null, 23)
        .chain([Value::from("4250.5")])
        .collect();
    let expected = serde_json::json!({
        "metric": "m", "group": [], "window": { "start": "2026-05-31T13:00:00Z", "end": "2026-06-01T13:00:00Z" },
        "value": "4250.5", "previous": null, "change": null, "change_percent": null, "direction": null,
        "sparkline": spark, "events": 1, "as_of": "2026-06-01T12:00:00Z", "revision": 1,
    });
    assert_eq!(value, expected);
}

proptest! {
    #[test]
    fn damaged_heads_are_refused_and_never_panic(at in 0..200_usize, byte: u8, cut in 0..200_usize) {
        let mut bench = Bench::new("value: count(), window: { total: true }");
        bench.event(0, "{}");
        let mut bytes = bench.shard.flush().head;
        let len = bytes.len();
        bytes[at % len] = byte;
        let _ = Head::read(&bytes);
        bytes.truncate(cut % len);
        prop_assert!(Head::read(&bytes).is_err());
    }
}
