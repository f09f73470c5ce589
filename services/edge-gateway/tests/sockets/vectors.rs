//! The frames that are written down as refused, sent to a gateway: what is answered, and whether the socket lives on.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use roomcast_harness::client::{Client, Encoding};
use serde_json::{Value, json};

use super::Gateway;

const SOON: Duration = Duration::from_secs(20);

/// The frames that are refused in an encoding, as they are sent.
fn frames(encoding: Encoding) -> Vec<(Vec<u8>, Value)> {
    let file = match encoding {
        Encoding::Json => "client_frames_refused.json",
        Encoding::Protobuf => "client_frames_protobuf_refused.json",
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../proto/vectors")
        .join(file);
    let all: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let bytes = |vector: Value| match (vector["text"].as_str(), vector["hex"].as_str()) {
        (Some(text), _) => (text.as_bytes().to_vec(), vector),
        (None, Some(hex)) => {
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            ((0..hex.len()).step_by(2).map(byte).collect(), vector)
        }
        (None, None) => {
            let repeat = &vector["repeat"];
            let part = |name: &str| repeat[name].as_str().unwrap_or_default();
            let times = usize::try_from(repeat["times"].as_u64().unwrap()).unwrap();
            let (unit, after) = (part("unit").repeat(times), part("unitAfter").repeat(times));
            let text = [part("before"), &unit, part("after"), &after, part("end")].concat();
            (text.into_bytes(), vector)
        }
    };
    all.into_iter().map(bytes).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_frames_are_answered_as_written_down() {
    for (encoding, least) in [(Encoding::Json, 10), (Encoding::Protobuf, 5)] {
        check(encoding, least).await;
    }
}

/// Sends each; at least so many leave the socket alone, and so many end it.
async fn check(encoding: Encoding, least: usize) {
    let limits = [
        ("ROOMCAST_CONNECTIONS_PER_ADDRESS_MAX", "1000"),
        ("ROOMCAST_CONNECT_BURST_PER_ADDRESS", "1000"),
        ("ROOMCAST_CONNECTIONS_PER_USER_MAX", "1000"),
    ];
    let Some(gateway) = Gateway::start(&limits).await else {
        return;
    };
    let (mut lives, mut ends) = (0, 0);
    let token = gateway.signer.token("u1", &["staff"]);
    for (bytes, vector) in frames(encoding) {
        let shown = match vector["name"].as_str() {
            Some(name) => name.to_owned(),
            None => String::from_utf8_lossy(&bytes).chars().take(80).collect(),
        };
        let (mut client, _) = Client::connect_as(encoding, &gateway.url, &token, &[], &HashMap::new())
            .await
            .unwrap();
        client.raw.clear();
        match encoding {
            Encoding::Json => client.send_text(std::str::from_utf8(&bytes).unwrap()).await,
            Encoding::Protobuf => client.send_bytes(bytes).await,
        }
        .unwrap();
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
    assert!(lives >= least && ends >= least, "{lives} live, {ends} end");
    let mut beside = Client::open(&gateway.url).await.unwrap();
    let token = gateway.signer.token("u2", &["staff"]);
    beside
        .begin(&token, &["bookings"], &Default::default())
        .await
        .unwrap();
}
