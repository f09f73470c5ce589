//! What one publisher and one tenant may have done, at both doors.

use serde_json::Value;

use crate::fixture::{Ingest, JSON, event};

/// At once a batch, then one a second: nothing more within a test.
const SLOW: [(&str, &str); 2] = [
    ("ROOMCAST_PUBLISHER_EVENTS_RATE", "1"),
    ("ROOMCAST_PUBLISHER_EVENTS_BURST", "1000"),
];

fn batch(name: &str, count: usize) -> String {
    let events: Vec<Value> = (0..count).map(|n| event(&format!("{name}-{n}"))).collect();
    Value::from(events).to_string()
}

#[tokio::test]
async fn who_sends_too_fast_is_told_and_others_do_not_notice() {
    let Some(ingest) = Ingest::start_with(crate::fixture::POLICY, &SLOW).await else {
        return;
    };
    let all = ingest.post("desk", JSON, batch("first", 1_000)).await.json();
    assert_eq!(all["stored"], 1_000, "{all}");
    // Good and bad ones alike: nothing is stored, and nothing is kept.
    let bad = Value::from(vec![7; 900]).to_string();
    for body in [batch("more", 900), batch("more", 800), bad] {
        let answer = ingest.post("desk", JSON, body).await;
        let said = answer.json();
        // Turned away at the door, or, when a second has gone by, one by one.
        let refusal = if answer.status == 429 {
            assert!(answer.headers.contains_key("retry-after"));
            &said
        } else {
            assert_eq!(said["stored"], 0, "{said}");
            &said["results"][799]
        };
        assert_eq!(refusal["code"], "rate", "{said}");
        let detail = refusal["detail"].as_str().unwrap();
        assert!(
            detail.starts_with("the publisher desk sends more than 1 events"),
            "{detail}"
        );
    }
    assert_eq!(ingest.stored("EVENTS").await.len(), 1_000);
    assert!(ingest.stored("DLQ").await.is_empty());
    assert!(ingest.metric("roomcast_ingest_over_quota_total{whose=\"publisher\",what=\"rate\"}") >= 3.0);
    // Another publisher of the same tenant, by the other door.
    let nats = ingest.nats.connect("publisher").await;
    let ask = async |name: &str, count: usize| -> Value {
        let body = batch(name, count);
        let answer = nats.request("in.bookings.staff", body.into()).await.unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    };
    assert_eq!(ask("nats", 1_000).await["stored"], 1_000);
    let over = ask("over", 900).await;
    let told = over["code"] == "rate" && over["temporary"] == true;
    let each = over["stored"] == 0 && over["results"][799]["code"] == "rate";
    assert!(told || each, "{over}");
    assert_eq!(ingest.stored("EVENTS").await.len(), 2_000);
}

#[tokio::test]
async fn a_tenant_has_a_rate_over_all_its_publishers() {
    let slow = [
        ("ROOMCAST_TENANT_EVENTS_RATE", "1"),
        ("ROOMCAST_TENANT_EVENTS_BURST", "1000"),
    ];
    let Some(ingest) = Ingest::start_with(crate::fixture::POLICY, &slow).await else {
        return;
    };
    assert_eq!(
        ingest.post("desk", JSON, batch("first", 1_000)).await.json()["stored"],
        1_000
    );
    let url = format!("{}/v1/events", ingest.url);
    let token = ingest.signer.token("another", &["desk"]);
    let answer = ingest
        .http
        .post(&url, &token, JSON, batch("second", 900))
        .await
        .unwrap();
    let said = answer.json();
    let refusal = if answer.status == 429 {
        &said
    } else {
        &said["results"][799]
    };
    assert_eq!(refusal["code"], "rate", "{said}");
    assert!(
        refusal["detail"]
            .as_str()
            .unwrap()
            .starts_with("the tenant main sends"),
        "{said}"
    );
}
