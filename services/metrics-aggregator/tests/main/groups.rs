//! Groups that are not state: gateways ask for them, through the accounts that there are.

use std::time::{Duration, Instant};

use roomcast_proto::ids::{Room, Tenant, shard};
use roomcast_proto::metric::Update;
use roomcast_proto::series::{Answer, Question};
use roomcast_proto::subject::series;
use serde_json::json;

use crate::world;
use crate::world::{World, now};

const METRICS: &str = r#"version: 1
timezone: {zone}
metrics:
  - { name: by_desk, from: { room: bookings, type: done }, value: sum(data.x), group_by: [data.desk], groups_published_max: 1, groups_max: 6, window: { tumbling: day }, publish: { room: board, audience: staff, at_most_every: 50ms } }
  - { name: visits, from: { room: bookings, type: done }, value: count(), group_by: [data.desk], groups_published_max: 1, window: { session: 30m }, publish: { room: board, audience: admin, at_most_every: 50ms } }
  - { name: unseen, from: { room: bookings, type: done }, value: count(), group_by: [data.desk], window: { total: true } }
"#;

/// What the aggregator says of a group, asked as a gateway asks; `None` while it is not current.
async fn ask(
    gateway: &async_nats::Client,
    metric: &str,
    room: &str,
    group: &str,
) -> Option<(String, Vec<Update>)> {
    let question = Question {
        metric: metric.to_owned(),
        room: Room::parse(room).unwrap(),
        group: group.to_owned(),
    };
    let tenant = Tenant::default();
    let subject = series(&tenant, shard(&tenant, metric));
    let answer = gateway
        .request(subject, serde_json::to_vec(&question).unwrap().into())
        .await
        .ok()?;
    match serde_json::from_slice(&answer.payload).unwrap() {
        Answer::Windows { audience, events } => {
            let update = |event: &serde_json::value::RawValue| {
                let event: serde_json::Value = serde_json::from_str(event.get()).unwrap();
                assert_eq!(
                    (&event["type"], &event["room"]),
                    (&json!("metric.updated"), &json!(room))
                );
                serde_json::from_value(event["data"].clone()).unwrap()
            };
            Some((
                audience.as_str().to_owned(),
                events.iter().map(|event| update(event)).collect(),
            ))
        }
        Answer::Absent {} => Some(("absent".to_owned(), Vec::new())),
        Answer::Behind {} => None,
    }
}

/// Asks until the numbers of a group, the newest window first, are these.
async fn eventually(
    gateway: &async_nats::Client,
    (metric, room, group): (&str, &str, &str),
    expected: (&str, &[&str]),
) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = ask(gateway, metric, room, group).await;
        let said = answer.map(|(audience, windows)| {
            let values = windows.into_iter().map(|window| window.value.unwrap_or_default());
            (audience, values.collect::<Vec<String>>())
        });
        if said
            .as_ref()
            .is_some_and(|(audience, values)| audience == expected.0 && values == expected.1)
        {
            return;
        }
        assert!(
            Instant::now() < until,
            "{metric} {group}: {said:?} instead of {expected:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Each row: a group, for whom it is, and its numbers, the newest first.
async fn check(world: &World, gateway: &async_nats::Client) {
    let long = roomcast_proto::ids::escape(&"x".repeat(120));
    assert!(long.starts_with("=="), "a value that keys do not show");
    for (metric, room, group, audience, values) in [
        ("by_desk", "board", "north", "staff", &["100"][..]),
        ("by_desk", "board", "south", "staff", &["3"]),
        ("by_desk", "board", "7", "staff", &["4"]),
        ("by_desk", "board", "=227=22", "staff", &["5"]),
        ("by_desk", "board", "null", "staff", &["6"]),
        ("by_desk", "board", &long, "staff", &["7"]),
        ("by_desk", "board", "~other", "staff", &["8"]),
        ("by_desk", "board", "east", "staff", &[]),
        (
            "by_desk",
            "board",
            "==0123456789abcdef0123456789abcdef",
            "staff",
            &[],
        ),
        ("visits", "board", "south", "admin", &["1", "1"]),
        ("by_desk", "elsewhere", "south", "absent", &[]),
        ("unseen", "board", "south", "absent", &[]),
        ("absent", "board", "south", "absent", &[]),
    ] {
        // A metric that is nowhere has a shard, which nobody may work.
        if metric == "absent" && ask(gateway, metric, room, group).await.is_none() {
            continue;
        }
        eventually(gateway, (metric, room, group), (audience, values)).await;
    }
    let values = world.values().await;
    assert!(
        !values.contains_key("by_desk/south"),
        "only the largest is state: {values:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_group_is_answered_whether_or_not_it_is_state() {
    let Some(world) = world().await else { return };
    let gateway = world.nats.connect("gw").await;
    // Two visits of one desk, an hour apart, and both today: where the day has just begun, it is day elsewhere.
    const MINUTE: i64 = 60_000_000;
    let (later, hour) = (now() - 10 * MINUTE, 60 * MINUTE);
    let metrics = METRICS.replace(
        "{zone}",
        match now() / hour % 24 {
            0..2 => "Asia/Tokyo",
            _ => "UTC",
        },
    );
    let desks = [
        json!("north"),
        json!("south"),
        json!(7),
        json!("7"),
        json!(null),
        json!("x".repeat(120)),
        json!("west"),
    ];
    for (id, (desk, x)) in (1_u64..).zip(desks.iter().zip([100, 3, 4, 5, 6, 7, 8])) {
        world
            .event(id, "done", &json!({ "desk": desk, "x": x }), later - hour)
            .await;
    }
    world
        .event(20, "done", &json!({ "desk": "south", "x": 0 }), later)
        .await;
    let mut a = world.start("a", &metrics);
    check(&world, &gateway).await;
    assert!(a.counter("roomcast_aggregator_asked_total") > 0);
    // And by whoever comes next, from what is stored.
    a.kill();
    let _b = world.start("a", &metrics);
    check(&world, &gateway).await;
}
