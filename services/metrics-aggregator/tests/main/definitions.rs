//! Definitions that change: what is counted anew, filled and taken back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::truth::Truth;
use crate::world;
use crate::world::{Aggregator, METRICS};

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_definition_counts_anew_and_takes_back_what_it_no_longer_produces() {
    let Some(world) = world().await else { return };
    let mut truth = Truth::default();
    truth.publish(&world, 60).await;
    let mut a = world.start("a", METRICS);
    let before = world
        .eventually("all numbers", |values| truth.holds(values))
        .await;
    assert_eq!(a.stop(), 0);
    // by_kind counts instead of adding up, customers is gone, revenue moves to another audience.
    let changed = METRICS
        .replace(
            "name: by_kind, from: { room: bookings, type: done }, value: sum(data.amount)",
            "name: by_kind, from: { room: bookings, type: [done, new] }, value: count()",
        )
        .lines()
        .filter(|line| !line.contains("name: customers"))
        .collect::<Vec<_>>()
        .join("\n");
    assert_ne!(changed, METRICS);
    let _a = world.start("a", &changed);
    let kind =
        |values: &BTreeMap<String, Value>, key: &str| values.get(key).map(|data| data["value"].clone());
    let after = world
        .eventually("the new numbers", |values| {
            let without_kind = truth.new.to_string();
            kind(values, "by_kind/null") == Some(json!(without_kind))
                && values.get("customers") == Some(&Value::Null)
        })
        .await;
    assert_eq!(after["revenue"]["value"], before["revenue"]["value"]);
    assert_eq!(after["revenue"]["revision"], before["revenue"]["revision"]);
    assert_eq!(after["status/customers"], Value::Null);
    let revision = |values: &BTreeMap<String, Value>| values["by_kind/property"]["revision"].as_u64();
    assert!(revision(&before) <= revision(&after));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_metric_is_filled_while_the_others_go_on() {
    let Some(world) = world().await else { return };
    let mut truth = Truth::default();
    truth.publish(&world, 300).await;
    let mut a = world.start("a", METRICS);
    world
        .eventually("all numbers", |values| truth.holds(values))
        .await;
    a.kill();
    truth.publish(&world, 30).await;
    // Two more in every shard that has any: of the same room, of a room without events, of another one.
    let mut more = METRICS.to_owned();
    for number in 0..24 {
        let (room, value) = [
            ("bookings", "count()"),
            ("nothing", "count()"),
            ("*", "sum(data.amount)"),
        ][number % 3];
        more += &format!(
            "  - {{ name: more{number}, from: {{ room: {room:?}, type: [new, done] }}, value: {value}, window: {{ total: true }}, publish: {{ room: board, audience: staff, at_most_every: 50ms }} }}\n"
        );
    }
    a = world.start("a", &more);
    a.ready().await;
    truth.publish(&world, 30).await;
    let cents = truth.cents;
    let sum = format!("{}.{:02}", cents / 100, cents % 100);
    let sum = sum.trim_end_matches('0').trim_end_matches('.').to_owned();
    world
        .eventually("old and new numbers", |values| {
            truth.holds(values)
                && (0..24).all(|number| {
                    let wanted = [truth.events.to_string(), "0".to_owned(), sum.clone()];
                    values
                        .get(&format!("more{number}"))
                        .is_some_and(|data| data["value"] == wanted[number % 3])
                })
        })
        .await;
    assert_eq!(a.counter("roomcast_aggregator_incomplete_total"), 0);
    world
        .eventually("nothing is left to fill", |values| {
            a.counter("roomcast_aggregator_filling_events") == 0
                && values["status/more2"]["skipped"]["missing"] == truth.new
        })
        .await;
    // And again from what was stored, with nothing left to fill.
    a.kill();
    truth.publish(&world, 10).await;
    let _a = world.start("a", &more);
    world
        .eventually("all of them after a restart", |values| {
            truth.holds(values) && values["more0"]["value"] == json!(truth.events.to_string())
        })
        .await;
}

/// Waits until the aggregator has looked at so many changed files, with so many metrics in force.
async fn looked(aggregator: &Aggregator, outcome: &str, count: u64, metrics: u64) {
    let reloads = format!("roomcast_aggregator_definitions_reloads_total{{outcome=\"{outcome}\"");
    let until = Instant::now() + Duration::from_secs(60);
    while aggregator.counter(&reloads) != count
        || aggregator.counter("roomcast_aggregator_definitions{") != metrics
    {
        assert!(Instant::now() < until, "{}", aggregator.metrics());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The file changes while the aggregator runs and events come: what is added is filled, what is changed is counted anew, what is removed
/// is withdrawn, what has mistakes changes nothing; and what a change does not concern goes on as if there had been none.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_in_force_without_a_restart_and_a_bad_one_never() {
    let Some(world) = world().await else { return };
    let mut truth = Truth::default();
    truth.publish(&world, 30).await;
    let mut a = world.start("a", METRICS);
    let holds = |truth: &Truth, values: &BTreeMap<String, Value>| truth.holds(values);
    world
        .eventually("all numbers", |values| holds(&truth, values))
        .await;
    let value =
        |values: &BTreeMap<String, Value>, key: &str| values.get(key).map(|data| data["value"].clone());

    // Added.
    let line = "  - { name: more, from: { room: bookings }, value: count(), window: { total: true }, publish: { room: board, audience: staff, at_most_every: 50ms } }\n";
    let more = format!("{METRICS}{line}");
    a.redefine(&more);
    truth.publish(&world, 10).await;
    looked(&a, "taken", 1, 7).await;
    world
        .eventually("the new number and the old ones", |values| {
            holds(&truth, values) && value(values, "more") == Some(json!(truth.events.to_string()))
        })
        .await;

    // Changed: what it counts, and under what it is shown.
    let changed = more.replace(
        "name: more, from: { room: bookings }",
        "name: more, from: { room: bookings, type: new }",
    );
    a.redefine(&changed);
    truth.publish(&world, 10).await;
    looked(&a, "taken", 2, 7).await;
    world
        .eventually("the changed number and the old ones", |values| {
            holds(&truth, values) && value(values, "more") == Some(json!(truth.new.to_string()))
        })
        .await;

    // Mistakes: told, and nothing else.
    a.redefine(&changed.replace("count()", "counts()"));
    looked(&a, "broken", 1, 7).await;
    assert_eq!(a.counter("roomcast_aggregator_definitions_broken"), 1);
    truth.publish(&world, 10).await;
    let as_before = |values: &BTreeMap<String, Value>| {
        holds(&truth, values) && value(values, "more") == Some(json!(truth.new.to_string()))
    };
    world.eventually("the numbers of the good file", as_before).await;
    // No file at all is as bad.
    a.undefine();
    looked(&a, "broken", 2, 7).await;

    // Removed.
    a.redefine(METRICS);
    looked(&a, "taken", 3, 6).await;
    assert_eq!(a.counter("roomcast_aggregator_definitions_broken"), 0);
    truth.publish(&world, 10).await;
    world
        .eventually("the removed one is withdrawn", |values| {
            holds(&truth, values)
                && values.get("more") == Some(&Value::Null)
                && values.get("status/more") == Some(&Value::Null)
        })
        .await;
    assert_eq!(
        a.counter("roomcast_aggregator_restarts_total"),
        0,
        "no shard had an accident"
    );
    assert_eq!(a.counter("roomcast_aggregator_incomplete_total"), 0);
    assert_eq!(a.stop(), 0);
}
