//! Sessions, rates, and what windows are compared with.

use super::*;

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
