//! Servers that acknowledge before they write: refused, allowed by the operator, or met while ingest runs.

use std::time::Duration;

use roomcast_harness::eventually;
use roomcast_harness::nats::Nats;

use crate::fixture::{Ingest, JSON, POLICY, event};
use crate::start::{files, run};

/// Looks at the servers come every 10 s.
const SEEN_WITHIN: Duration = Duration::from_secs(40);

fn late(config: &str) -> String {
    config.replace("sync_interval: always", "sync_interval: \"1s\"")
}

/// What is done to a configuration.
type Change = fn(&str) -> String;

/// A server whose configuration was changed so.
async fn changed(change: Change) -> Option<Nats> {
    let mut nats = Nats::start().await?;
    nats.stop();
    nats.reconfigure(change);
    nats.launch().await;
    Some(nats)
}

#[tokio::test]
async fn a_server_that_writes_later_is_refused_and_so_is_one_that_does_not_say() {
    let rows: [(Change, &[&str]); 2] = [
        (
            late,
            &[
                "every 1 s",
                "a power cut loses",
                "sync_interval: always",
                "ROOMCAST_DURABILITY=may_lose",
            ],
        ),
        (
            |config| config.replace("to: \"servers.jetstream\"", "to: \"servers.other\""),
            &[
                "does not answer servers.jetstream",
                "node.conf.example",
                "ROOMCAST_DURABILITY=may_lose",
            ],
        ),
    ];
    for (change, parts) in rows {
        let Some(nats) = changed(change).await else { return };
        let dir = files(POLICY);
        let (url, path) = (nats.url(), dir.path().to_owned());
        let (code, said) = tokio::task::spawn_blocking(move || run(&path, &url, &[], &[]))
            .await
            .unwrap();
        assert_eq!(code, 69, "{said}");
        parts
            .iter()
            .for_each(|part| assert!(said.contains(part), "{part:?} in {said}"));
    }
}

#[tokio::test]
async fn where_the_operator_allows_it_ingest_runs_and_says_so() {
    let Some(nats) = changed(late).await else { return };
    let ingest = Ingest::on(nats, POLICY, &[("ROOMCAST_DURABILITY", "may_lose")]).await;
    let report = ingest.context.readiness.report();
    assert!(
        report.ready && report.degraded["durability"].contains("every 1 s"),
        "{report:?}"
    );
    assert_eq!(ingest.metric("roomcast_ingest_may_lose"), 1.0);
    assert_eq!(ingest.publish(&event("e1")).await["status"], "stored");
}

/// The server comes back with another configuration: from then on nothing is acknowledged, until it is as it was.
#[tokio::test]
async fn a_server_that_changes_while_ingest_runs_is_noticed() {
    let Some(mut ingest) = Ingest::start().await else {
        return;
    };
    assert_eq!(ingest.metric("roomcast_ingest_may_lose"), 0.0);
    ingest.nats.stop();
    ingest.nats.reconfigure(late);
    ingest.nats.launch().await;
    let readiness = ingest.context.readiness.clone();
    let says = |latch: &str| readiness.report().waiting.get(latch).cloned().unwrap_or_default();
    eventually("it is noticed", SEEN_WITHIN, || {
        let said = says("durability");
        async move { said.contains("every 1 s") }
    })
    .await;
    assert_eq!(ingest.metric("roomcast_ingest_may_lose"), 1.0);
    let answer = ingest.post("desk", JSON, event("e1").to_string()).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert!(answer.text().contains("power cut"), "{}", answer.text());
    ingest.nats.stop();
    ingest
        .nats
        .reconfigure(|config| config.replace("sync_interval: \"1s\"", "sync_interval: always"));
    ingest.nats.launch().await;
    eventually("it is well again", SEEN_WITHIN, || async {
        readiness.is_ready() && ingest.publish(&event("e1")).await["status"] == "stored"
    })
    .await;
    assert_eq!(ingest.metric("roomcast_ingest_may_lose"), 0.0);
}
