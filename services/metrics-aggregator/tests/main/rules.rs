//! What rules say, through kills.

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
