//! Writes that hang: a server that can write no more and says nothing, and one that is frozen.

use std::time::Duration;

use futures_util::future::join_all;
use roomcast_harness::eventually;

use crate::fixture::{Ingest, JSON, POLICY, event};

const WITHIN: Duration = Duration::from_secs(30);
const SOON: [(&str, &str); 1] = [("ROOMCAST_WRITE_HANG_SECONDS", "1")];
const GAUGE: &str = "roomcast_ingest_writes_hang{stream=\"EVENTS\"}";

async fn soon() -> Option<Ingest> {
    Ingest::start_with(POLICY, &SOON).await
}

/// Publishes side by side until ingest is not ready because of writes.
async fn publish_until_it_is_noticed(ingest: &Ingest) {
    let readiness = ingest.context.readiness.clone();
    eventually("it is noticed", WITHIN, || async {
        let posts = (0..4).map(|n| ingest.post("desk", JSON, event(&format!("h{n}")).to_string()));
        for answer in join_all(posts).await {
            assert!(matches!(answer.status, 503 | 504), "{}", answer.text());
        }
        readiness.report().waiting.contains_key("writes")
    })
    .await;
}

/// A write of the server fails once, as on a full disk. Then it answers no publish, not even when there is room again, and says what
/// ails it to whoever asks; started anew it goes on where it was.
#[tokio::test]
async fn a_failed_write_is_noticed_named_and_recovered_from() {
    let Some(mut ingest) = soon().await else { return };
    assert_eq!(ingest.publish(&event("before")).await["status"], "stored");
    assert_eq!(ingest.metric(GAUGE), 0.0);
    ingest.nats.limit_files(Some(64));
    publish_until_it_is_noticed(&ingest).await;
    let readiness = ingest.context.readiness.clone();
    eventually("the reason is told", WITHIN, || {
        let said = readiness
            .report()
            .waiting
            .get("writes")
            .cloned()
            .unwrap_or_default();
        async move { said.contains("stream EVENTS takes nothing") && said.contains("must be started again") }
    })
    .await;
    assert_eq!(ingest.metric(GAUGE), 1.0);
    // At once, not after the time-outs; and nothing else is harmed.
    let answer = ingest.post("desk", JSON, event("h9").to_string()).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(answer.json()["code"], "unavailable");
    ingest.nats.limit_files(None);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!readiness.is_ready(), "room alone does not help");
    ingest.nats.kill();
    ingest.nats.launch().await;
    eventually("it stores again", WITHIN, || async {
        readiness.is_ready() && ingest.publish(&event("after")).await["status"] == "stored"
    })
    .await;
    assert_eq!(ingest.metric(GAUGE), 0.0);
    let stored = ingest.stored("EVENTS").await;
    let count = |id: &str| {
        let id = format!("\"id\":\"{id}\"");
        stored
            .iter()
            .filter(|message| String::from_utf8_lossy(&message.payload).contains(&id))
            .count()
    };
    assert_eq!((count("before"), count("after")), (1, 1), "{stored:?}");
}

#[tokio::test]
async fn a_frozen_server_is_noticed_and_ingest_recovers_by_itself() {
    let Some(ingest) = soon().await else { return };
    ingest.nats.signal("STOP");
    publish_until_it_is_noticed(&ingest).await;
    assert_eq!(ingest.metric(GAUGE), 1.0);
    ingest.nats.signal("CONT");
    eventually("it stores again", WITHIN, || async {
        ingest.context.readiness.is_ready() && ingest.publish(&event("after")).await["status"] == "stored"
    })
    .await;
    assert_eq!(ingest.metric(GAUGE), 0.0);
    let mut ids: Vec<String> = ingest
        .stored("EVENTS")
        .await
        .iter()
        .map(|message| {
            serde_json::from_slice::<serde_json::Value>(&message.payload).unwrap()["id"].to_string()
        })
        .collect();
    let stored = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), stored, "each once");
}
