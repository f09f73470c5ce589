//! Input that cannot be counted, and files that are none: each refused with its reason, and nothing else touched.

use serde_json::{Value, json};

use crate::world;
use crate::world::now;

const METRICS: &str = "version: 1
timezone: UTC
metrics:
  - { name: total, from: { room: bookings, type: done }, where: data.ok == true, value: sum(data.amount), group_by: [data.kind], window: { total: true }, publish: { room: board, audience: staff, at_most_every: 50ms } }
  - { name: beside, from: { room: bookings, type: done }, value: count(), window: { total: true }, publish: { room: board, audience: staff, at_most_every: 50ms } }
";
const HOUR: i64 = 3_600_000_000;

/// Each row: what is wrong, the data, when it happened from now, the reason it is counted under. `overflow` needs a sum of 10²⁶ and is
/// met beside the engine.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_folded_is_counted_and_told() {
    let Some(world) = world().await else { return };
    let a = world.start("a", METRICS);
    a.ready().await;
    let good = |amount: &str| json!({ "ok": true, "kind": "car", "amount": amount });
    let rows: [(&str, Value, i64, Option<&str>); 14] = [
        ("good", good("1.25"), 0, None),
        (
            "a missing field",
            json!({ "ok": true, "kind": "car" }),
            0,
            Some("missing"),
        ),
        (
            "null",
            json!({ "ok": true, "kind": "car", "amount": null }),
            0,
            Some("missing"),
        ),
        (
            "text where a number belongs",
            good("much"),
            0,
            Some("not_a_number"),
        ),
        (
            "true where a number belongs",
            json!({ "ok": true, "kind": "car", "amount": true }),
            0,
            Some("not_a_number"),
        ),
        (
            "a number that is too large",
            good("1e18"),
            0,
            Some("out_of_range"),
        ),
        (
            "too many decimals",
            good("0.0000000000001"),
            0,
            Some("out_of_range"),
        ),
        (
            "a list for a number",
            json!({ "ok": true, "kind": "car", "amount": [1] }),
            0,
            Some("not_a_number"),
        ),
        (
            "a list for a group",
            json!({ "ok": true, "kind": [1], "amount": 1 }),
            0,
            Some("not_a_scalar"),
        ),
        (
            "a condition about what is not there",
            json!({ "kind": "car", "amount": 1 }),
            0,
            Some("where_error"),
        ),
        ("the far future", good("1"), HOUR, Some("future")),
        ("the far past", good("1"), -HOUR, Some("late")),
        ("years ago", good("1"), -50_000 * HOUR, Some("late")),
        ("good", good("2.5"), 0, None),
    ];
    for (id, (_, data, shift, _)) in (1..).zip(&rows) {
        world.event(id, "done", data, now() + shift).await;
    }
    let counts = |values: &std::collections::BTreeMap<String, Value>, metric: &str| {
        values
            .get(&format!("status/{metric}"))
            .map(|status| status["skipped"].clone())
    };
    let expected = |reason: &str| rows.iter().filter(|(.., why)| *why == Some(reason)).count();
    let values = world
        .eventually(
            "each is counted under its reason, and the sum is that of the good ones",
            |values| {
                values
                    .get("total/car")
                    .is_some_and(|car| car["value"] == "3.75" && car["events"] == 2)
                    && counts(values, "total")
                        .is_some_and(|skipped| skipped["late"] == 2 && skipped["where_error"] == 1)
                    && counts(values, "beside").is_some_and(|skipped| skipped["late"] == 2)
            },
        )
        .await;
    let skipped = counts(&values, "total").unwrap();
    for (what, .., reason) in &rows {
        let Some(reason) = reason else { continue };
        assert_eq!(skipped[reason], expected(reason), "{what}: {skipped}");
        let counted = a.counter(&format!("roomcast_aggregator_skipped_total{{reason=\"{reason}\""));
        assert!(
            counted >= expected(reason) as u64,
            "{what}: {counted} on the aggregator's own page"
        );
    }
    assert_eq!(skipped["overflow"], 0);
    assert!(
        values
            .keys()
            .all(|key| !key.starts_with("total/") || key == "total/car"),
        "{values:#?}"
    );
    // Who counts the same events and asks for none of this misses only what no metric takes.
    let beside = counts(&values, "beside").unwrap();
    assert_eq!(
        (&beside["late"], &beside["future"], &beside["missing"]),
        (&json!(2), &json!(1), &json!(0))
    );
    assert_eq!(values["beside"]["value"], (rows.len() - 3).to_string());
}

/// Each row: a file, and what is said of it; the start ends with what a file with mistakes ends with, before anything is touched.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_mistakes_ends_the_start() {
    let Some(world) = world().await else { return };
    for (file, says) in [
        ("", ":1:1: the file is empty"),
        ("version: [1\n", ":1:10: unclosed bracket"),
        (
            "version: 1\ntimezone: Mars\nmetrics: []\n",
            ":2:11: no time zone \"Mars\"",
        ),
        (
            "version: 1\ntimezone: UTC\nmetrics:\n  - { name: m, from: { room: r }, value: smu(data.x), window: { total: true } }\n",
            "did you mean \"sum\"?",
        ),
        (
            "version: 1\ntimezone: UTC\nmetrics:\n  - { name: m, from: { room: r }, where: data.x = 1, value: count(), window: { total: true } }\n",
            ":4:49: `=` is not supported",
        ),
        (
            "version: 1\ntimezone: UTC\nmetrics: []\nrules:\n  - { alert: a, when: m > 1, notify: { room: r, audience: all, title: t } }\n",
            "no metric \"m\"",
        ),
    ] {
        let a = world.start("a", file);
        assert_eq!(a.exit(), 65, "{file}");
        let failure = a.context.shutdown.failure().unwrap().to_string();
        assert!(failure.contains(says), "{file}: {failure}");
    }
    assert!(world.values().await.is_empty());
}
