//! Streams that are empty, trimmed, made anew, or not ours.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use roomcast_harness::nats::Nats;
use roomcast_proto::stream::Sizing;
use serde_json::{Value, json};

use crate::truth::Truth;
use crate::world;
use crate::world::{METRICS, World, now};

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_stream_gives_zeros_soon() {
    let Some(world) = world().await else { return };
    let begun = Instant::now();
    let a = world.start("a", METRICS);
    a.ready().await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(3), "ready after {took:?}");
    let values = world
        .eventually("zeros", |values| {
            values.contains_key("revenue") && values.contains_key("conversion")
        })
        .await;
    assert_eq!(values["revenue"]["value"], "0");
    assert_eq!(values["revenue"]["no_data"], true);
    assert_eq!(values["revenue"]["window"], json!({ "start": null, "end": null }));
    assert_eq!(values["conversion"]["value"], Value::Null);
    assert_eq!(values["customers"]["previous"], Value::Null);
    assert_eq!(values["customers"]["direction"], Value::Null);
    assert_eq!(values["customers"]["sparkline"].as_array().unwrap().len(), 24);
    assert_eq!(values["status/revenue"]["skipped"]["late"], 0);
    assert!(!values.contains_key("count"), "it has no publish");
    // One event, and the number is there within the pace of flushes and publishes.
    world
        .event(1, "done", &json!({ "amount": 12.5, "kind": "car" }), now())
        .await;
    let begun = Instant::now();
    let values = world
        .eventually("one booking", |values| values["revenue"]["value"] == "12.5")
        .await;
    assert!(
        begun.elapsed() < Duration::from_millis(1500),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(values["revenue"].get("no_data"), None);
    assert_eq!(values["revenue"]["revision"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_lost_its_beginning_is_said_to_have() {
    let sizing = Sizing {
        events_bytes: 60_000,
        ..Sizing::DEVELOPMENT
    };
    let Some(nats) = Nats::start_with(&sizing).await else {
        return;
    };
    let world = World::new(nats).await;
    let mut truth = Truth::default();
    truth.publish(&world, 400).await;
    let a = world.start("a", METRICS);
    a.ready().await;
    let values = world
        .eventually("incomplete", |values| {
            values
                .get("revenue")
                .is_some_and(|v| v.get("incomplete_since").is_some())
        })
        .await;
    assert!(values["status/revenue"]["incomplete_since"].is_string());
    assert!(a.counter("roomcast_aggregator_incomplete_total") > 0);
    assert!(!truth.holds(&values), "the test has lost events");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_made_anew_is_counted_anew_without_an_operator() {
    let Some(world) = world().await else { return };
    let mut truth = Truth::default();
    truth.publish(&world, 120).await;
    let mut a = world.start("a", METRICS);
    let mut before = world
        .eventually("all numbers", |values| truth.holds(values))
        .await;
    // Once while the aggregator runs, once while it does not.
    for running in [true, false] {
        if !running {
            assert_eq!(a.stop(), 0);
        }
        world.renew_events().await;
        if !running {
            a = world.start("a", METRICS);
        }
        truth = Truth::default();
        truth.publish(&world, 60).await;
        let after = world
            .eventually("the numbers of the new stream alone", |values| {
                truth.holds(values)
                    && ["revenue", "by_kind/car", "status/revenue"].iter().all(|key| {
                        values
                            .get(*key)
                            .is_some_and(|value| value["incomplete_since"].is_string())
                    })
            })
            .await;
        for key in ["revenue", "by_kind/car", "status/revenue"] {
            let revision = |values: &BTreeMap<String, Value>| values[key]["revision"].as_u64();
            assert!(
                revision(&before) <= revision(&after),
                "{key}: the revision went back"
            );
        }
        before = after;
    }
    // What was counted anew is kept.
    a.kill();
    truth.publish(&world, 30).await;
    let _a = world.start("a", METRICS);
    world
        .eventually("the numbers after a restart", |values| truth.holds(values))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_differ_end_the_start() {
    let Some(nats) = Nats::start_empty().await else {
        return;
    };
    let world = World::new(nats).await;
    let a = world.start("a", METRICS);
    assert_eq!(a.exit(), 69);
    let failure = a.context.shutdown.failure().unwrap().to_string();
    assert!(
        failure.contains("stream EVENTS does not exist") && failure.contains("stream KV_agg"),
        "{failure}"
    );
}
