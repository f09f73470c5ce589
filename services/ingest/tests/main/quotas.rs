//! What one publisher and one tenant may have done, at both doors.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fixture::{BATCH, Ingest, JSON, event};

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

/// Whoever sends lines faster than they may is told before the next are taken: none passes those that were refused. They read the whole
/// answer though they go on sending.
#[tokio::test]
async fn no_line_passes_one_that_was_refused_by_rate() {
    let Some(ingest) = Ingest::start_with(crate::fixture::POLICY, &SLOW).await else {
        return;
    };
    let ids: Vec<String> = (0..2_500).map(|n| format!("l{n:04}")).collect();
    let lines: Vec<String> = ids.iter().map(|id| event(id).to_string() + "\n").collect();
    let mut socket = TcpStream::connect(ingest.url.trim_start_matches("http://"))
        .await
        .unwrap();
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n",
        ingest.token("desk")
    );
    let chunk = |lines: &[String]| {
        let text = lines.concat();
        format!("{:x}\r\n{text}\r\n", text.len())
    };
    // Two portions, and the line by which the second is known to be whole.
    let begin = head + &chunk(&lines[..2_001]);
    socket.write_all(begin.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let said = async {
        while !String::from_utf8_lossy(&answer).contains("\"complete\"") {
            assert_ne!(socket.read_buf(&mut answer).await.unwrap(), 0, "no summary");
        }
    };
    tokio::time::timeout(Duration::from_secs(30), said).await.unwrap();
    // More than the way there holds.
    let rest = chunk(&lines[2_001..]);
    for _ in 0..100 {
        socket.write_all(rest.as_bytes()).await.unwrap();
    }
    socket.write_all(b"0\r\n\r\n").await.unwrap();
    socket.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let summary = answer.lines().find(|line| line.contains("\"complete\"")).unwrap();
    let summary: Value = serde_json::from_str(summary).unwrap();
    assert_eq!(summary["complete"], false, "{summary}");
    assert_eq!(
        (&summary["code"], &summary["temporary"], &summary["stored"]),
        (&"rate".into(), &true.into(), &1_000.into()),
        "{summary}"
    );
    assert!(summary["retryAfterMs"].is_u64(), "{summary}");
    let of = |payload: &[u8]| -> Value { serde_json::from_slice::<Value>(payload).unwrap()["id"].clone() };
    let stored = ingest.stored("EVENTS").await;
    let stored: Vec<Value> = stored.iter().map(|message| of(&message.payload)).collect();
    assert_eq!(stored, ids[..1_000]);
}

/// Somebody sends nothing but what cannot be read. Their letters do not push out everybody else's: what is more than their share is
/// theirs to keep.
#[tokio::test]
async fn what_is_refused_as_a_whole_has_its_share_too() {
    let Some(ingest) = Ingest::start_with(crate::fixture::POLICY, &SLOW).await else {
        return;
    };
    let first = ingest.post("desk", JSON, batch("first", 990)).await.json();
    assert_eq!(first["stored"], 990, "{first}");
    let mut told = Vec::new();
    // What is no array of events, and what is none of our types.
    for n in 0..200 {
        let (kind, body) = [(BATCH, "["), ("text/plain", "hello")][n % 2];
        let answer = ingest.post("desk", kind, body).await;
        told.push((answer.status, answer.json()["code"].clone()));
    }
    let kept = ingest.stored("DLQ").await.len();
    let refused = told
        .iter()
        .filter(|(status, _)| [400, 415].contains(status))
        .count();
    assert!(kept == refused && (1..200).contains(&kept), "{kept} of {told:?}");
    assert!(told.contains(&(429, "rate".into())), "{told:?}");
}

/// A NATS user whom the policy does not list may nothing, and that not without end.
#[tokio::test]
async fn a_stranger_has_a_share_too() {
    let policy = crate::fixture::POLICY.replace("main/publisher", "main/another");
    let Some(ingest) = Ingest::start_with(&policy, &SLOW).await else {
        return;
    };
    let nats = ingest.nats.connect("publisher").await;
    let mut told = std::collections::BTreeMap::new();
    for n in 0..1_500 {
        // Also where the subject cannot be read: too short.
        let subject = ["in.bookings.staff", "in.bookings"][n % 2];
        let answer = nats.request(subject, "{}".into()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        *told
            .entry(answer["code"].as_str().unwrap().to_owned())
            .or_insert(0) += 1;
    }
    assert!(told["rate"] > 0, "{told:?}");
    assert_eq!(
        told["forbidden"] + told["bad_request"],
        ingest.stored("DLQ").await.len()
    );
}

/// The same where the rate of events is no bound: large ones. Each publisher has its share, and what is good is taken.
#[tokio::test]
async fn a_publishers_letters_are_bounded_in_bytes() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let nats = ingest.nats.connect("publisher").await;
    let large = "x".repeat(60 << 10);
    let bad = json!({ "type": "t", "room": "nowhere", "audience": "staff", "data": large }).to_string();
    // As a whole, as an event, and by the other door as somebody else.
    let ways = [
        "of the publisher desk more",
        "of the publisher desk more",
        "of the publisher nats/publisher more",
    ];
    let (mut kept, mut refused, mut told) = (0, 0, [false; 3]);
    // 4 MiB at once are 66 of them and more; how many come on top depends on how fast they are sent.
    for sent in 0.. {
        assert!(sent < 15_000, "nothing bounds them: {told:?}");
        let way = sent % ways.len();
        let said = match way {
            0 => ingest.post("desk", BATCH, large.clone()).await.json(),
            1 => ingest.post("desk", JSON, bad.clone()).await.json(),
            _ => {
                let answer = nats.request("in.nowhere.staff", bad.clone().into()).await;
                serde_json::from_slice(&answer.unwrap().payload).unwrap()
            }
        };
        if said["code"] != "rate" {
            kept += 1;
            continue;
        }
        refused += 1;
        let detail = said["detail"]
            .as_str()
            .or_else(|| said["message"].as_str())
            .unwrap_or_default();
        let expected = format!("{} is refused than is kept", ways[way]);
        assert!(detail.starts_with(&expected), "{said}");
        told[way] = true;
        if told == [true; 3] {
            break;
        }
    }
    assert!(kept >= 2 * 66, "{kept}");
    assert_eq!(ingest.stored("DLQ").await.len(), kept);
    // What they hear is what is counted, whichever way it was refused.
    let counted = ingest.metric("roomcast_ingest_refused_total{code=\"rate\"}");
    assert_eq!(counted, f64::from(refused));
    assert_eq!(ingest.publish(&event("good")).await["status"], "stored");
}

/// Whoever has no more room for letters does not send what is refused for nothing.
#[tokio::test]
async fn what_is_refused_and_not_kept_costs_an_event_too() {
    let Some(ingest) = Ingest::start_with(crate::fixture::POLICY, &SLOW).await else {
        return;
    };
    let large = "x".repeat(60 << 10);
    let mut heard = std::collections::BTreeSet::new();
    for sent in 0.. {
        assert!(sent < 4_000, "nothing bounds them: {heard:?}");
        let said = ingest.post("desk", BATCH, large.clone()).await.json();
        let detail = said["detail"].as_str().unwrap();
        heard.extend(
            ["more is refused than is kept", "sends more than 1 events"]
                .map(|words| detail.contains(words).then_some(words)),
        );
        if heard.len() == 3 {
            break;
        }
    }
}

/// Whoever tries doors that are not theirs faster than they may send is on record with every one of them.
#[tokio::test]
async fn whom_a_right_is_missing_is_on_record_also_above_the_rate() {
    let Some(ingest) = Ingest::start_with(crate::fixture::POLICY, &SLOW).await else {
        return;
    };
    let first = ingest.post("desk", JSON, batch("first", 990)).await.json();
    assert_eq!(first["stored"], 990, "{first}");
    let vault = json!({ "type": "t", "room": "vault", "audience": "staff" });
    let body = Value::from(vec![vault; 900]).to_string();
    let told = ingest.post("desk", JSON, body).await.json();
    assert_eq!(told["results"][899]["code"], "rate", "{told}");
    ingest.context.shutdown.request();
    ingest.driven.await.unwrap();
    let audit = ingest.streams.direct_batch("AUDIT", 1, 500, None).await.unwrap();
    let entries = audit.messages.iter();
    let mut entries = entries.map(|entry| serde_json::from_slice::<Value>(&entry.payload).unwrap());
    let refused = entries.find(|entry| entry["kind"] == "refused").unwrap();
    let expected =
        json!({ "what": "publish", "reason": "forbidden", "count": 900, "tenant": "main", "user": "desk" });
    assert_eq!(refused["note"]["refused"], json!([expected]), "{refused}");
}
