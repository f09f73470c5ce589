//! What is published, when, and what is taken back.

use super::*;

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

/// Each row: the band, a minute's sum and the next one's, and where that goes.
#[test]
fn what_changes_little_is_flat() {
    for (band, before, now, percent, direction) in [
        ("0", "100", "101", "1", "up"),
        ("0", "100", "100", "0", "flat"),
        // Too little to be shown is a change all the same.
        ("0", "100000000", "100000001", "0", "up"),
        ("1", "100", "101", "1", "flat"),
        ("1", "100", "101.01", "1.01", "up"),
        ("1", "100", "99", "-1", "flat"),
        ("1", "100", "98.99", "-1.01", "down"),
        ("2.5", "-200", "-205", "-2.5", "flat"),
        // Of nothing there are no percent.
        ("100", "0", "1", "null", "up"),
    ] {
        let mut bench = Bench::new(&format!(
            "value: sum(data.x), compare: previous, flat_within_percent: {band}, window: {{ tumbling: minute }}"
        ));
        bench.event(0, &format!("{{\"x\":{before}}}"));
        bench.after(MINUTE);
        bench.event(0, &format!("{{\"x\":{now}}}"));
        let out = bench.after(SECOND);
        let body = out.iter().rfind(|value| value.key == "m").unwrap().body.as_ref();
        let update: Value = serde_json::from_str(body.unwrap()).unwrap();
        let shown = update["change_percent"].as_str().unwrap_or("null");
        assert_eq!(
            (shown, update["direction"].as_str()),
            (percent, Some(direction)),
            "{band} {before} {now}"
        );
    }
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
