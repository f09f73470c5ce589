//! What becomes of an event, and what each aggregate makes of it.

use super::*;

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
