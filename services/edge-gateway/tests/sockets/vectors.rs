//! The frames that are written down as refused, sent to a gateway: what is answered, and whether the socket lives on.

use std::path::Path;
use std::time::Duration;

use roomcast_harness::client::Client;
use serde_json::{Value, json};

use super::Gateway;

const SOON: Duration = Duration::from_secs(20);

/// The frames of `client_frames_refused.json` as text.
fn frames() -> Vec<(String, Value)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/vectors/client_frames_refused.json");
    let all: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let text = |vector: Value| match vector["text"].as_str() {
        Some(text) => (text.to_owned(), vector),
        None => {
            let repeat = &vector["repeat"];
            let part = |name: &str| repeat[name].as_str().unwrap_or_default();
            let times = usize::try_from(repeat["times"].as_u64().unwrap()).unwrap();
            let (unit, after) = (part("unit").repeat(times), part("unitAfter").repeat(times));
            let text = [part("before"), &unit, part("after"), &after, part("end")].concat();
            (text, vector)
        }
    };
    all.into_iter().map(text).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_frames_are_answered_as_written_down() {
    let limits = [
        ("ROOMCAST_CONNECTIONS_PER_ADDRESS_MAX", "1000"),
        ("ROOMCAST_CONNECT_BURST_PER_ADDRESS", "1000"),
        ("ROOMCAST_CONNECTIONS_PER_USER_MAX", "1000"),
    ];
    let Some(gateway) = Gateway::start(&limits).await else {
        return;
    };
    let (mut lives, mut ends) = (0, 0);
    for (text, vector) in frames() {
        let shown: String = text.chars().take(80).collect();
        let (mut client, _) = gateway.client("u1", &["staff"], &[]).await;
        client.raw.clear();
        client.send_text(&text).await.unwrap();
        let frames = client
            .until("error", SOON, |frame| frame["error"].is_object())
            .await
            .unwrap();
        let error = frames.last().unwrap();
        assert_eq!(error["error"]["code"], vector["code"], "{shown}: {error}");
        assert_eq!(error["id"], vector["id"], "{shown}: {error}");
        if vector["id"].is_u64() || vector["code"] != "bad_frame" {
            let answer = client
                .request("subscribe", json!({ "room": "bookings" }))
                .await
                .unwrap();
            assert!(answer["subscribed"].is_object(), "{shown}: {answer}");
            lives += 1;
        } else {
            while client.next(SOON).await.unwrap().is_some() {}
            assert_eq!(
                client.closed.clone().map(|closed| closed.0),
                Some(4503),
                "{shown}"
            );
            ends += 1;
        }
    }
    assert!(lives > 10 && ends > 10, "{lives} live, {ends} end");
    let mut beside = Client::open(&gateway.url).await.unwrap();
    let token = gateway.signer.token("u2", &["staff"]);
    beside
        .begin(&token, &["bookings"], &Default::default())
        .await
        .unwrap();
}
