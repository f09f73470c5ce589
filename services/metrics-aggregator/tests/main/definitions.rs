//! Definitions that change: what is counted anew, filled and taken back.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::truth::Truth;
use crate::world;
use crate::world::METRICS;

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
