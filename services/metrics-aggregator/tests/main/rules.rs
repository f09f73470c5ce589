//! What rules say, through kills.

use std::collections::HashSet;
use std::time::Duration;

use async_nats::HeaderMap;
use roomcast_chassis::jetstream::JetStream;
use roomcast_chassis::metrics::Metrics;
use roomcast_metrics_aggregator::counters::Counters;
use roomcast_metrics_aggregator::engine::alert::Notice;
use roomcast_metrics_aggregator::notify::Speaker;
use roomcast_proto::event::{Priority, StateEvent};
use roomcast_proto::ids::{Audience, Room};
use roomcast_proto::subject::{header, state};
use serde_json::json;

use crate::ears::Ears;
use crate::world;
use crate::world::now;

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

/// Each row: how old a notice is, what its line says by now, as (its id, who said it, seconds after it), and whether it is said. Who slept
/// longer than ingest finds repeats said an old one again, over what is so by now.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_notice_is_not_said_over_a_later_one() {
    let Some(world) = world().await else { return };
    let ingest = Ears::listen(&world).await;
    let jetstream = JetStream::new(world.nats.connect("agg").await, "core.JS.API");
    let rules = format!("roomcast://{}/rules", world.tenant);
    let (room, audience) = (Room::parse("bell").unwrap(), Audience::parse("staff").unwrap());
    for (row, (age, line, said)) in [
        (70, None, true),
        (70, Some(("later", rules.as_str(), 5)), false),
        (70, Some(("same", &rules, 0)), false),
        (70, Some(("earlier", &rules, -5)), true),
        (70, Some(("withdrawn", "roomcast://somebody", 5)), true),
        // Ingest finds a repeat of this one.
        (10, Some(("same", &rules, 0)), true),
    ]
    .into_iter()
    .enumerate()
    {
        let (dedup, key) = (format!("alert/a/{row}"), format!("notification/alert/a/{row}"));
        let notice = Notice {
            id: format!("{row}/same"),
            dedup,
            room: room.clone(),
            audience: audience.clone(),
            priority: Priority::High,
            time_micros: now() - age * 1_000_000,
            data: json!({ "title": "x", "state": "firing" }).to_string(),
        };
        if let Some((id, source, after)) = line {
            let event = StateEvent {
                id: &format!("{row}/{id}"),
                source,
                kind: "notification.alert",
                time_micros: notice.time_micros + after * 1_000_000,
                room: &room,
                audience: &audience,
                statekey: &key,
                expires_micros: None,
                data: Some(&notice.data),
            };
            let mut headers = HeaderMap::new();
            headers.insert(header::KEY, format!("{key:?}").as_str());
            let subject = state(&world.tenant, &room, &audience, &key);
            let stored = world
                .jetstream
                .publish(subject, headers, event.to_json(), Duration::from_secs(2));
            stored.await.unwrap();
        }
        let counters = Counters::new(&Metrics::new("test").unwrap()).unwrap();
        let mut speaker = Speaker::start(jetstream.clone(), world.tenant.clone(), counters);
        speaker.hand([&notice].into_iter(), &HashSet::new(), None);
        let over = tokio::time::timeout(Duration::from_secs(30), speaker.said()).await;
        assert_eq!(over.unwrap(), notice.id);
        assert_eq!(ingest.heard().contains_key(&notice.id), said, "row {row}");
    }
}
