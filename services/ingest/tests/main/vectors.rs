//! The events that are written down as refused, sent through the doors: the answer's code and pointer, and the letter's bytes.

use std::path::Path;

use bytes::Bytes;
use http_body_util::Full;
use roomcast_proto::event::{Completion, Draft};
use roomcast_proto::ids::{Audience, Room, Tenant};
use serde_json::Value;

use crate::fixture::{EVENT, Ingest, POLICY};

fn vectors(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../proto/vectors")
        .join(file);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn hex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap();
    (0..text.len() / 2).map(byte).collect()
}

/// The input of a vector: `text`, or `hex` where the bytes are not text, or `repeat` where they are many.
fn input(vector: &Value) -> Vec<u8> {
    if let Some(text) = vector["text"].as_str() {
        return text.as_bytes().to_vec();
    }
    if let Some(bytes) = vector["hex"].as_str() {
        return hex(bytes);
    }
    let repeat = &vector["repeat"];
    let part = |name: &str| repeat[name].as_str().unwrap_or_default();
    let times = usize::try_from(repeat["times"].as_u64().unwrap()).unwrap();
    let (unit, after) = (part("unit").repeat(times), part("unitAfter").repeat(times));
    [part("before"), &unit, part("after"), &after, part("end")]
        .concat()
        .into_bytes()
}

/// An ingest where the room of the vectors exists.
async fn start() -> Option<Ingest> {
    let room = "rooms:\n  - { room: a, subscribe: news.view, publish: bookings.publish }\n";
    Ingest::start_with(&POLICY.replace("rooms:\n", room), &[]).await
}

/// Compares an answer and the letter that was kept with what is written down.
async fn check(ingest: &Ingest, what: &str, answer: &Value, code: &str, pointer: Option<&str>, bytes: &[u8]) {
    assert_eq!(answer["code"].as_str(), Some(code), "{what}: {answer}");
    assert_eq!(answer["pointer"].as_str(), pointer, "{what}: {answer}");
    let letter = ingest.dead_letter(code).await;
    assert!(letter.is_some(), "{what}: no letter");
    let letter = letter.unwrap();
    assert_eq!(letter.payload.as_ref(), bytes, "{what}");
    let reason = letter.headers.get_last("Rc-Reason").map(|value| value.as_str());
    assert_eq!(reason, Some(code), "{what}");
}

#[tokio::test]
async fn refused_events_are_refused_over_http_as_written_down() {
    let Some(ingest) = start().await else { return };
    let mut count = 0;
    for vector in vectors("events_refused.json") {
        if vector["subject"].is_object() {
            continue;
        }
        let (name, bytes) = (vector["name"].as_str().unwrap(), input(&vector));
        let answer = ingest.post("desk", EVENT, bytes.clone()).await.json();
        let (code, pointer) = (vector["code"].as_str().unwrap(), vector["pointer"].as_str());
        check(&ingest, name, &answer, code, pointer, &bytes).await;
        count += 1;
    }
    assert!(count > 60, "{count}");
    assert_eq!(ingest.stored("DLQ").await.len(), count);
    assert!(ingest.stored("EVENTS").await.is_empty() && ingest.stored("STATE").await.is_empty());
}

/// On NATS the subject says the room and the audience; what that changes is what the contract's reader says.
#[tokio::test]
async fn refused_events_are_refused_over_nats_as_written_down() {
    let Some(ingest) = start().await else { return };
    let publisher = ingest.nats.connect("publisher").await;
    let (tenant, room, audience) = (Tenant::default(), Room::parse("a").unwrap(), Audience::all());
    let completion = Completion {
        tenant: &tenant,
        publisher: "erp",
        room: Some(&room),
        audience: Some(&audience),
        now_micros: 1_769_868_300_250_000,
    };
    let (mut refused, mut named) = (0, 0);
    for vector in vectors("events_refused.json") {
        let (name, bytes) = (vector["name"].as_str().unwrap(), input(&vector));
        // A list is a batch, and judged as one.
        if bytes.trim_ascii().starts_with(b"[") {
            continue;
        }
        let Err(expected) = Draft::parse(&bytes).and_then(|draft| draft.complete(&completion)) else {
            // No room where the subject says it.
            continue;
        };
        if vector["subject"].is_object() {
            assert_eq!(Some(expected.code.as_str()), vector["code"].as_str(), "{name}");
            named += 1;
        }
        let answer = publisher
            .request("in.a.all", Bytes::from(bytes.clone()))
            .await
            .unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        // An answer over NATS has no pointer.
        check(&ingest, name, &answer, expected.code.as_str(), None, &bytes).await;
        refused += 1;
    }
    assert!(refused > 60 && named == 3, "{refused} {named}");
    assert_eq!(ingest.stored("DLQ").await.len(), refused);
    assert!(ingest.stored("EVENTS").await.is_empty() && ingest.stored("STATE").await.is_empty());
}

#[tokio::test]
async fn refused_events_in_binary_mode_are_refused_as_written_down() {
    let Some(ingest) = start().await else { return };
    let mut count = 0;
    for vector in vectors("events_binary.json") {
        let (Some(code), name) = (vector["code"].as_str(), vector["name"].as_str().unwrap()) else {
            continue;
        };
        let body = match vector["bodyHex"].as_str() {
            Some(bytes) => hex(bytes),
            None => vector["body"].as_str().unwrap_or_default().as_bytes().to_vec(),
        };
        let mut request = http::Request::post(format!("{}/v1/events", ingest.url))
            .header("authorization", format!("Bearer {}", ingest.token("desk")));
        if let Some(kind) = vector["contentType"].as_str() {
            request = request.header("content-type", kind);
        }
        for (attribute, value) in vector["headers"].as_object().unwrap() {
            request = request.header(format!("ce-{attribute}"), value.as_str().unwrap());
        }
        let request = request.body(Full::new(Bytes::from(body.clone()))).unwrap();
        let answer = ingest.http.send(request).await.unwrap().json();
        assert_eq!(answer["code"].as_str(), Some(code), "{name}: {answer}");
        assert_eq!(answer["pointer"], vector["pointer"], "{name}: {answer}");
        let letter = ingest.dead_letter(code).await.unwrap();
        assert!(letter.payload.ends_with(&body), "{name}");
        let head = String::from_utf8_lossy(&letter.payload[..letter.payload.len() - body.len()]).into_owned();
        for (attribute, value) in vector["headers"].as_object().unwrap() {
            let line = format!("ce-{attribute}: {}\r\n", value.as_str().unwrap());
            assert!(head.contains(&line), "{name}: {head}");
        }
        count += 1;
    }
    assert!(count >= 12, "{count}");
    assert_eq!(ingest.stored("DLQ").await.len(), count);
    assert!(ingest.stored("EVENTS").await.is_empty());
}
