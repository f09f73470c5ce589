//! Windows over restarts: late events, closed ones, sessions.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::world;
use crate::world::now;

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_has_its_mean_and_a_late_event_corrects_the_one_before() {
    let Some(world) = world().await else { return };
    let metric = |name: &str, value: &str| {
        format!(
            "  - {{ name: {name}, from: {{ room: bookings, type: done }}, value: {value}, window: {{ tumbling: hour }}, compare: previous, lateness: 3h, publish: {{ room: board, audience: staff, at_most_every: 50ms }} }}\n"
        )
    };
    let metrics = format!(
        "version: 1\ntimezone: Asia/Kolkata\nmetrics:\n{}{}{}",
        metric("mean", "avg(data.amount)"),
        metric("least", "min(data.amount)"),
        metric("state", "last(data.state)"),
    );
    let mut a = world.start("a", &metrics);
    a.ready().await;
    let hour = 3_600_000_000;
    let at = now();
    // Half past, by the clock of London, is when an hour begins in Kolkata.
    let start = (at + hour / 2).div_euclid(hour) * hour - hour / 2;
    let events = [
        (at, json!({ "amount": 10, "state": "open" })),
        (at, json!({ "amount": "0.00", "state": "paid" })),
        (start - 1, json!({ "amount": 7.5, "state": "1.50" })),
        (at, json!({ "amount": 10, "state": true })),
    ];
    for (id, (time, data)) in (1..).zip(events) {
        world.event(id, "done", &data, time).await;
    }
    let closed = |name: &str| roomcast_proto::metric::closed_key(name, "[]", start - hour);
    let holds = |values: &BTreeMap<String, Value>| {
        let shows = |key: &str, value: &str, previous: &str| {
            values
                .get(key)
                .is_some_and(|data| data["value"] == value && data["previous"] == previous)
        };
        shows("mean", "6.666666666667", "7.5")
            && shows("least", "0", "7.5")
            && shows("state", "true", "1.50")
            && values
                .get(&closed("mean"))
                .is_some_and(|data| data["value"] == "7.5")
            && values
                .get(&closed("state"))
                .is_some_and(|data| data["value"] == "1.50")
    };
    world.eventually("hours", holds).await;
    assert_eq!(a.stop(), 0);
    let _a = world.start("b", &metrics);
    world
        .event(9, "done", &json!({ "amount": -1, "state": "late" }), start - 2)
        .await;
    let values = world
        .eventually("a correction after a restart", |values| {
            let is = |key: &str, value: &str| values.get(key).is_some_and(|data| data["value"] == value);
            values.get("mean").is_some_and(|data| data["previous"] == "3.25")
                && is(&closed("mean"), "3.25")
                && is(&closed("least"), "-1")
        })
        .await;
    assert_eq!(values[&closed("mean")]["value"], "3.25");
    assert_eq!(values[&closed("least")]["value"], "-1");
    assert_eq!(
        values[&closed("state")]["value"],
        "1.50",
        "the late one is earlier"
    );
    assert_eq!(values["state"]["value"], "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_over_a_restart_and_closes_when_it_is_over() {
    let Some(world) = world().await else { return };
    let metrics = "version: 1\ntimezone: UTC\nmetrics:\n  - { name: visit, from: { room: bookings, type: done }, value: distinct(data.page), group_by: [data.user], window: { session: 1m }, compare: previous, lateness: 1h, publish: { room: board, audience: staff, at_most_every: 50ms } }\n";
    let mut a = world.start("a", metrics);
    a.ready().await;
    let second = 1_000_000;
    let at = now();
    // One visit that is over, one that ends in twenty seconds.
    let visit = |user: &str, page: u32| json!({ "user": user, "page": page });
    let first = at - 300 * second;
    world.event(1, "done", &visit("ada", 1), first).await;
    world.event(2, "done", &visit("ada", 2), at - 45 * second).await;
    let key = |start: i64| format!("visit/ada@{}", roomcast_proto::event::rfc3339(start));
    world
        .eventually("a closed and an open visit", |values| {
            values.get(&key(first)).is_some_and(|data| data["value"] == "1")
                && values
                    .get("visit/ada")
                    .is_some_and(|data| data["value"] == "1" && data["previous"] == "1")
        })
        .await;
    a.kill();
    world.event(3, "done", &visit("ada", 2), at - 44 * second).await;
    world.event(4, "done", &visit("ada", 3), at - 43 * second).await;
    let _a = world.start("a", metrics);
    let values = world
        .eventually("the same visit after a restart", |values| {
            values
                .get("visit/ada")
                .is_some_and(|data| data["value"] == "2" && data["events"] == 3)
        })
        .await;
    assert_eq!(
        values["visit/ada"]["window"]["start"],
        roomcast_proto::event::rfc3339(at - 45 * second)
    );
    let start = at - 45 * second;
    let values = world
        .eventually("the visit is over", |values| {
            values.get("visit/ada") == Some(&Value::Null)
        })
        .await;
    assert_eq!(values[&key(start)]["value"], "2");
    assert_eq!(values[&key(start)]["sparkline"][22], "1");
}
