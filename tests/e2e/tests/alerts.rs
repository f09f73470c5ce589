//! Rules end to end: through ingest to a client's bell, once, while aggregators are killed; and the same file tried over past events.

use std::collections::HashMap;
use std::time::Duration;

use roomcast_harness::client::Client;
use roomcast_harness::stack::{Options, Stack};
use roomcast_harness::{binary, repository};
use serde_json::{Value, json};
use tokio::process::Command;

const METRICS: &str = "version: 1
timezone: Europe/Istanbul
metrics:
  - { name: waiting, from: { room: bookings, type: queue }, value: last(data.waiting), window: { total: true }, publish: { room: os_dashboard, audience: staff } }
rules:
  - { alert: queue, when: waiting > 10, notify: { room: notifications, audience: admin, priority: critical, title: '{{ measured }} are waiting' } }
";
const SOON: Duration = Duration::from_secs(60);

/// The next notification of the rule.
async fn bell(client: &mut Client) -> anyhow::Result<Value> {
    let frames = client
        .until("an alert", SOON, |frame| {
            frame["event"]["event"]["type"] == "notification.alert"
        })
        .await?;
    let frame = frames.last().cloned().unwrap_or_default();
    Ok(frame["event"]["event"].clone())
}

async fn run() -> anyhow::Result<()> {
    let folder = roomcast_harness::folder();
    let metrics = folder.path().join("metrics.yaml");
    std::fs::write(&metrics, METRICS)?;
    let options = Options {
        policy: Some(repository().join("deploy/scenarios/bookings/policy.yaml")),
        metrics: Some(metrics.clone()),
        aggregators: 2,
        restart: true,
        ..Options::default()
    };
    let Some(stack) = Stack::start(&options) else {
        return Ok(());
    };
    let gateway = &stack.gateways()[0];
    let (mut boss, _) = Client::connect(
        gateway,
        &stack.signer.token("boss", &["admin"]),
        &[],
        &HashMap::new(),
    )
    .await?;
    let (mut clerk, _) = Client::connect(
        gateway,
        &stack.signer.token("clerk", &["staff"]),
        &[],
        &HashMap::new(),
    )
    .await?;
    boss.caught_up("notifications").await?;
    let desk = stack.signer.token("desk", &["desk"]);
    let mut ids = Vec::new();
    for round in 0..3_u64 {
        for (waiting, state, title) in [
            (12, "firing", "12 are waiting"),
            (4, "resolved", "Over: 4 are waiting"),
        ] {
            let event = json!({
                "id": format!("queue-{round}-{waiting}"), "room": "bookings", "audience": "staff", "type": "queue", "data": { "waiting": waiting },
            });
            let answer = stack.publish(0, &desk, &event).await?;
            assert_eq!(answer.status, 200, "{}", answer.text());
            // Whichever works the shard: both are killed while they have something to say.
            if round > 0 {
                stack.signal(
                    if round == 1 {
                        "aggregator-1"
                    } else {
                        "aggregator-2"
                    },
                    "KILL",
                );
            }
            let event = bell(&mut boss).await?;
            assert_eq!(
                (&event["data"]["state"], &event["data"]["title"]),
                (&json!(state), &json!(title)),
                "{event}"
            );
            assert_eq!(event["statekey"], "notification/alert/queue");
            assert_eq!(event["source"], "roomcast://main/rules");
            ids.push(event["id"].as_str().unwrap_or_default().to_owned());
        }
    }
    let said = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), said, "each is said once");
    // It is for administrators; the clerk's bell stays quiet.
    while let Some(frame) = clerk.next(Duration::from_millis(500)).await? {
        assert_ne!(frame["event"]["event"]["type"], "notification.alert", "{frame}");
    }
    // What these rules would have said over the same events, by somebody who changes nothing.
    let output = Command::new(binary("roomcast"))
        .args(["metrics", "try", "--from", "1h", "--json"])
        .arg(&metrics)
        .current_dir(stack.folder())
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(report["metrics"][0]["folded"], 6, "{report}");
    assert_eq!(report["metrics"][0]["values"][0]["value"], "4");
    assert!(report["metrics"][0]["state_bytes"].as_u64() > Some(0));
    assert!(report["rules"][0]["count"].as_u64() >= Some(2), "{report}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_rings_once_for_those_it_is_for() {
    run().await.unwrap();
}
