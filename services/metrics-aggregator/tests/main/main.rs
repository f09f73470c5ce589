//! The aggregator on a real nats-server: exact numbers under kills and zombies, empty and trimmed streams, changed definitions.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod ears;
mod memory;
mod reading;
mod replicas;
mod silences;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ears::Ears;
use roomcast_chassis::jetstream::JetStream;
use roomcast_harness::nats::Nats;
use roomcast_metrics_aggregator::definition::Definitions;
use roomcast_metrics_aggregator::engine::shard::Shard;
use roomcast_metrics_aggregator::store::{self, StoreError};
use roomcast_proto::stream::Sizing;
use serde_json::{Value, json};
use world::{METRICS, World, now};

/// Publishes events and knows what every number must be then.
#[derive(Default)]
struct Truth {
    events: u64,
    cents: u64,
    by_kind: BTreeMap<&'static str, u64>,
    customers: BTreeSet<String>,
    new: u64,
    done: u64,
}

impl Truth {
    async fn publish(&mut self, world: &World, count: u64) {
        for _ in 0..count {
            self.events += 1;
            let i = self.events;
            let kind = ["car", "tour", "property"][usize::try_from(i / 3 % 3).unwrap()];
            let customer = format!("c{}", i * 7 % 53);
            if i.is_multiple_of(3) {
                let cents = i * 37 % 1000;
                self.cents += cents;
                *self.by_kind.entry(kind).or_default() += cents;
                self.done += 1;
                let amount = format!("{}.{:02}", cents / 100, cents % 100);
                world
                    .event(i, "done", &json!({ "kind": kind, "amount": amount }), now())
                    .await;
            } else {
                self.customers.insert(customer.clone());
                self.new += 1;
                world
                    .event(i, "new", &json!({ "customer": customer }), now())
                    .await;
            }
        }
    }

    /// Whether what is published is what must be.
    fn holds(&self, values: &BTreeMap<String, Value>) -> bool {
        let money = |cents: u64| {
            let text = format!("{}.{:02}", cents / 100, cents % 100);
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        };
        let ratio = (self.done * 20_000 / self.new).div_ceil(2);
        let ratio = format!("{}.{:04}", ratio / 10_000, ratio % 10_000);
        let value = |key: &str| values.get(key).map(|data| data["value"].clone());
        value("revenue") == Some(json!(money(self.cents)))
            && value("customers") == Some(json!(self.customers.len().to_string()))
            && value("conversion") == Some(json!(ratio.trim_end_matches('0').trim_end_matches('.')))
            && self
                .by_kind
                .iter()
                .all(|(kind, cents)| value(&format!("by_kind/{kind}")) == Some(json!(money(*cents))))
    }
}

/// `None`, said aloud, where there is no nats-server.
async fn world() -> Option<World> {
    Some(World::new(Nats::start().await?).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_exact_under_kills_of_aggregators_and_of_nats() {
    let Some(mut world) = world().await else { return };
    let mut truth = Truth::default();
    let mut a = world.start("a", METRICS);
    let mut b = world.start("b", METRICS);
    a.ready().await;
    for round in 0..6 {
        truth.publish(&world, 150).await;
        match round {
            0 => {
                a.kill();
                a = world.start("a", METRICS);
            }
            1 => b.kill(),
            2 => {
                b = world.start("b", METRICS);
                world.nats.kill();
                world.nats.launch().await;
            }
            3 => {
                a.kill();
                b.kill();
                truth.publish(&world, 50).await;
                a = world.start("a", METRICS);
                b = world.start("c", METRICS);
            }
            4 => assert_eq!(b.stop(), 0),
            _ => {}
        }
    }
    world
        .eventually("every number equals the sum of what was stored", |values| {
            truth.holds(values)
        })
        .await;
    assert_eq!(a.counter("roomcast_aggregator_unreadable_total"), 0);
    // A server that comes back has not made its streams anew.
    assert_eq!(a.counter("roomcast_aggregator_incomplete_total"), 0);
    assert_eq!(
        world.values().await["status/revenue"]["incomplete_since"],
        Value::Null
    );
    assert_eq!(a.stop(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_both_believe_they_are_alone_count_nothing_twice() {
    let Some(world) = world().await else { return };
    let mut truth = Truth::default();
    let a = world.start("same", METRICS);
    let mut b = world.start("same", METRICS);
    let conflicts =
        |aggregator: &world::Aggregator| aggregator.counter("roomcast_aggregator_conflicts_total");
    // The second believes that leases in its name are left from before only until it has seen one renewed; where that happens before
    // its own write, it leaves all to the first, rightly, and another second one has to come. By the clock, because a fast machine
    // stores thousands of events before they meet and a busy one takes seconds for a hundred.
    let (begun, mut came) = (Instant::now(), Instant::now());
    let mut rounds = 0;
    while rounds < 10 || conflicts(&a) + conflicts(&b) < 3 {
        truth.publish(&world, 50).await;
        rounds += 1;
        if conflicts(&a) + conflicts(&b) == 0 && came.elapsed() > Duration::from_secs(5) {
            b.kill();
            b = world.start("same", METRICS);
            came = Instant::now();
        }
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "they never met: {} and {} conflicts in {rounds} rounds",
            conflicts(&a),
            conflicts(&b)
        );
    }
    world
        .eventually("every number equals the sum of what was stored", |values| {
            truth.holds(values)
        })
        .await;
}

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
async fn what_cannot_be_folded_is_counted_and_told() {
    let Some(world) = world().await else { return };
    let a = world.start("a", METRICS);
    a.ready().await;
    let hour = 3_600_000_000;
    for (id, (data, shift)) in [
        (json!({ "amount": 1, "kind": "car" }), 0),
        (json!({ "amount": null, "kind": "car" }), 0),
        (json!({ "amount": "much", "kind": "car" }), 0),
        (json!({ "amount": 1e20, "kind": "car" }), 0),
        (json!({ "amount": 1, "kind": "car" }), hour),
        (json!({ "amount": 1, "kind": "car" }), -hour),
        (json!({ "amount": 1, "kind": [] }), 0),
    ]
    .into_iter()
    .enumerate()
    {
        world.event(id as u64 + 1, "done", &data, now() + shift).await;
    }
    let values = world
        .eventually("all reasons", |values| {
            values
                .get("status/by_kind")
                .is_some_and(|status| status["skipped"]["not_a_scalar"] == 1)
        })
        .await;
    let skipped = &values["status/by_kind"]["skipped"];
    for (reason, count) in [
        ("late", 1),
        ("future", 1),
        ("missing", 1),
        ("not_a_number", 1),
        ("out_of_range", 1),
        ("overflow", 0),
    ] {
        assert_eq!(skipped[reason], count, "{reason}");
    }
    world
        .eventually("the sum is untouched", |values| {
            values["by_kind/car"]["value"] == "1"
        })
        .await;
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
            values.get("mean").is_some_and(|data| data["previous"] == "3.25")
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
async fn a_write_on_an_old_head_is_refused_whole() {
    let Some(world) = world().await else { return };
    let jetstream: JetStream = world.jetstream.clone();
    let definitions = Definitions::parse(METRICS, "m", None).unwrap();
    let number = definitions.metrics[0].shard;
    let metrics = definitions.of_shard(number);
    let mut ours = Shard::load(metrics.clone(), None, now()).unwrap();
    let mut zombie = Shard::load(metrics.clone(), None, now()).unwrap();
    ours.reached(10);
    zombie.reached(5);
    let head = store::write(&jetstream, number, ours.flush(), 0).await.unwrap();
    assert!(matches!(
        store::write(&jetstream, number, zombie.flush(), 0).await,
        Err(StoreError::Conflict)
    ));
    let stored = store::load(&jetstream, number, &metrics).await.unwrap();
    assert_eq!(stored.head_seq, head);
    let (read, chunks) = stored.state.unwrap();
    assert_eq!(
        Shard::load(metrics, Some((read, &chunks)), now())
            .unwrap()
            .position(),
        10
    );
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

/// What rules say is said once: of every episode one notice that it fires and one that it is over, through kills of aggregators and an
/// ingest that answers late, not at all, or after it has stored.
#[tokio::test(flavor = "multi_thread")]
async fn what_rules_say_is_said_once_through_kills() {
    let Some(world) = world().await else { return };
    let ingest = Ears::listen(&world).await;
    let metrics = "version: 1\ntimezone: UTC\nmetrics:\n  - { name: load, from: { room: bookings, type: done }, value: last(data.x), group_by: [data.desk], window: { total: true } }\nrules:\n  - { alert: busy, when: load > 10, notify: { room: bell, audience: staff, title: 'Desk {{ group }} has {{ measured }}' } }\n";
    let mut a = world.start("a", metrics);
    let mut b = world.start("b", metrics);
    a.ready().await;
    let mut id = 0;
    for round in 0..6_usize {
        for x in [20, 3] {
            for desk in ["north", "south"] {
                id += 1;
                world
                    .event(id, "done", &json!({ "x": x, "desk": desk }), now())
                    .await;
            }
            match round {
                1 | 3 if x == 20 => {
                    a.kill();
                    a = world.start("a", metrics);
                }
                2 | 4 if x == 3 => {
                    b.kill();
                    b = world.start("b", metrics);
                }
                _ => {}
            }
            // Each desk's line says what is so, before it changes again.
            let wanted = if x == 20 { "firing" } else { "resolved" };
            ingest
                .eventually(|lines| {
                    ["alert/busy/north", "alert/busy/south"]
                        .iter()
                        .all(|line| lines.get(*line).is_some_and(|state| state == wanted))
                })
                .await;
        }
    }
    let heard = ingest.heard();
    assert_eq!(
        heard.len(),
        6 * 2 * 2,
        "one id for each beginning and each end: {:#?}",
        heard.keys()
    );
    for (id, bodies) in &heard {
        assert!(
            bodies.iter().all(|body| body == &bodies[0]),
            "{id} is the same whenever it is said: {bodies:#?}"
        );
    }
    let first = heard
        .values()
        .flatten()
        .find(|body| body["data"]["state"] == "firing")
        .unwrap();
    assert_eq!(first["type"], "notification.alert");
    assert!(first["data"]["title"].as_str().unwrap().starts_with("Desk "));
    assert_eq!(a.stop(), 0);
    assert_eq!(b.stop(), 0);
    // The rule goes: nothing fires, so nothing is said, and nothing of it is left.
    let without = metrics.split("rules:").next().unwrap();
    let c = world.start("c", without);
    c.ready().await;
    assert_eq!(ingest.heard().len(), heard.len());
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
