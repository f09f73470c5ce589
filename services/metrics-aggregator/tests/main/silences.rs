//! Silences of operators, on a real nats-server.

use roomcast_metrics_aggregator::silences::{Failed, Silence, Silences};
use roomcast_proto::event::rfc3339;
use serde_json::json;

use crate::ears::Ears;
use crate::world;
use crate::world::now;

/// What an operator silences is silent on every instance, over kills of all of them and of NATS, until it is taken back; then what
/// still fires is said. Two that change the list at once lose nothing of each other.
#[tokio::test(flavor = "multi_thread")]
async fn silences_hold_over_restarts_until_they_are_taken_back() {
    let Some(mut world) = world().await else { return };
    let ingest = Ears::listen(&world).await;
    let metrics = "version: 1\ntimezone: UTC\nmetrics:\n  - { name: load, from: { room: bookings, type: done }, value: last(data.x), group_by: [data.desk], window: { total: true } }\nrules:\n  - { alert: busy, when: load > 10, notify: { room: bell, audience: staff, title: busy } }\n";
    let silences = Silences::new(world.jetstream.clone());
    let silence = |id: &str, group: &str| Silence {
        id: id.to_owned(),
        alert: Some("busy".to_owned()),
        group: Some(group.to_owned()),
        from: rfc3339(now()),
        until: rfc3339(now() + 3_600_000_000),
        reason: "moved".to_owned(),
        by: "ada".to_owned(),
    };
    let others: Vec<Silence> = (0..8).map(|n| silence(&n.to_string(), "elsewhere")).collect();
    let made = others
        .iter()
        .chain([&silence("s", "north")])
        .cloned()
        .collect::<Vec<_>>();
    for pair in made.chunks(2) {
        let adding = pair.iter().map(|silence| silences.add(silence.clone(), now()));
        for added in futures_util::future::join_all(adding).await {
            added.unwrap();
        }
    }
    assert_eq!(silences.list(now()).await.unwrap().len(), 9);
    assert_eq!(silences.end("absent", now()).await, Err(Failed::Absent));
    let mut id = 0;
    for round in 0..2 {
        let mut a = world.start("a", metrics);
        a.ready().await;
        for (desk, x) in [("north", 20), ("south", if round == 0 { 20 } else { 3 })] {
            id += 1;
            world
                .event(id, "done", &json!({ "x": x, "desk": desk }), now())
                .await;
        }
        let wanted = if round == 0 { "firing" } else { "resolved" };
        ingest
            .eventually(|lines| lines.get("alert/busy/south").is_some_and(|state| state == wanted))
            .await;
        a.kill();
        if round == 0 {
            world.nats.kill();
            world.nats.launch().await;
        }
    }
    assert!(
        ingest
            .heard()
            .values()
            .flatten()
            .all(|body| body["dedupkey"] == "alert/busy/south")
    );
    let mut a = world.start("a", metrics);
    a.ready().await;
    silences.end("s", now()).await.unwrap();
    ingest
        .eventually(|lines| {
            lines
                .get("alert/busy/north")
                .is_some_and(|state| state == "firing")
        })
        .await;
    assert_eq!(a.stop(), 0);
}
