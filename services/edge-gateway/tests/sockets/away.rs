//! A client that was away: what it missed, cursors that are of no use, history, and what has expired.

use std::collections::HashMap;
use std::time::Duration;

use roomcast_harness::client::Client;
use roomcast_harness::token::now;
use serde_json::{Value, json};

use super::{Gateway, ids};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_away_gets_exactly_what_was_missed() {
    let Some(gateway) = Gateway::start(&[("ROOMCAST_RECOVERY_PAGE_EVENTS", "10")]).await else {
        return;
    };
    let token = gateway.signer.token("u1", &["staff"]);
    let (mut client, _) = gateway.client("u1", &["staff"], &["bookings"]).await;
    client.caught_up("bookings").await.unwrap();
    gateway.event("bookings", "all", "seen", json!({})).await;
    client
        .until("the first", SOON, |frame| frame["event"]["event"]["id"] == "seen")
        .await
        .unwrap();
    let cursors = client.cut();
    // More than two pages of recovery, with state between.
    for n in 0..25 {
        gateway
            .event("bookings", "all", &format!("m{n}"), json!({}))
            .await;
    }
    gateway.state("bookings", "all", "k", json!("new")).await;
    let (mut back, connected) = Client::connect(&gateway.url, &token, &["bookings"], &cursors)
        .await
        .unwrap();
    assert_eq!(connected["rooms"][0]["recovery"], "complete");
    assert_eq!(connected["rooms"][0]["cursor"], cursors["bookings"].as_str());
    gateway.event("bookings", "all", "live", json!({})).await;
    let mut frames = back.caught_up("bookings").await.unwrap();
    let missed: Vec<String> = (0..25).map(|n| format!("m{n}")).collect();
    assert!(
        frames
            .iter()
            .any(|frame| frame["event"]["event"]["statekey"] == "k")
    );
    if !ids(&frames, "bookings").contains(&"live".to_owned()) {
        frames.extend(
            back.until("live", SOON, |frame| frame["event"]["event"]["id"] == "live")
                .await
                .unwrap(),
        );
    }
    let events: Vec<String> = ids(&frames, "bookings")
        .into_iter()
        .filter(|id| !id.starts_with("k-"))
        .collect();
    assert_eq!(
        events,
        [missed, vec!["live".to_owned()]].concat(),
        "each once and in order"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors_that_cannot_be_used_are_answered_plainly() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    gateway.event("bookings", "all", "old", json!({})).await;
    gateway.state("bookings", "all", "k", json!(1)).await;
    let token = gateway.signer.token("u1", &["staff"]);
    for cursor in [
        "garbage",
        "00000000.1.1.0",
        "ffffffff.18446744073709551615.0.0",
        "",
    ] {
        let cursors = HashMap::from([("bookings".to_owned(), cursor.to_owned())]);
        let (mut client, connected) = Client::connect(&gateway.url, &token, &["bookings"], &cursors)
            .await
            .unwrap();
        assert_eq!(
            (
                &connected["rooms"][0]["recovery"],
                &connected["rooms"][0]["reason"]
            ),
            (&json!("incomplete"), &json!("epoch"))
        );
        let frames = client.caught_up("bookings").await.unwrap();
        assert_eq!(
            ids(&frames, "bookings"),
            ["k-1"],
            "all state and no old events: {frames:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_read_backwards_in_pages() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    for n in 0..12 {
        gateway
            .event("bookings", "all", &format!("h{n}"), json!({}))
            .await;
    }
    let (mut client, _) = gateway.client("u1", &["staff"], &["bookings"]).await;
    let (mut before, mut seen) = (Value::Null, Vec::new());
    for _ in 0..4 {
        let mut request = json!({ "room": "bookings", "limit": 5 });
        if !before.is_null() {
            request["before"] = before.clone();
        }
        let page = client.request("history", request).await.unwrap();
        let events = page["history"]["events"]
            .as_array()
            .unwrap_or_else(|| panic!("{page}"))
            .clone();
        let page_ids: Vec<String> = events
            .iter()
            .map(|event| event["event"]["id"].as_str().unwrap().to_owned())
            .collect();
        seen.splice(0..0, page_ids);
        before = page["history"]["cursor"].clone();
        if page["history"]["complete"] == true {
            break;
        }
    }
    assert_eq!(seen, (0..12).map(|n| format!("h{n}")).collect::<Vec<_>>());
    let refused = client
        .request("history", json!({ "room": "money" }))
        .await
        .unwrap();
    assert_eq!(refused["error"]["code"], "forbidden");
    let bad = client
        .request("history", json!({ "room": "bookings", "before": "x" }))
        .await
        .unwrap();
    assert_eq!(bad["error"]["code"], "bad_request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_expired_is_delivered() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let (mut client, _) = gateway.client("u1", &["staff"], &["bookings"]).await;
    client.caught_up("bookings").await.unwrap();
    gateway.expiring_event("bookings", "dead", now() * 1000 - 1).await;
    gateway
        .expiring_event("bookings", "alive", now() * 1000 + 60_000)
        .await;
    let frames = client
        .until("alive", SOON, |frame| frame["event"]["event"]["id"] == "alive")
        .await
        .unwrap();
    assert_eq!(ids(&frames, "bookings"), ["alive"]);
}
