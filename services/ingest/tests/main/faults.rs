//! NATS killed, NATS away, too much at once, the end.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use roomcast_chassis::process::Exit;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fixture::{Ingest, JSON, POLICY, event};

/// Publishers that repeat until they are told "stored" or "duplicate", while NATS is killed three times: each event stands in
/// the stream exactly once, and none that was acknowledged is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_nats_loses_nothing_and_doubles_nothing() {
    let Some(mut ingest) = Ingest::start().await else {
        return;
    };
    let stop = Arc::new(AtomicBool::new(false));
    let mut publishers = Vec::new();
    for p in 0..6 {
        let (stop, http, url, token) = (
            Arc::clone(&stop),
            ingest.http.clone(),
            format!("{}/v1/events", ingest.url),
            ingest.token("desk"),
        );
        publishers.push(tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let size = if p % 2 == 0 { 1 } else { 5 };
                let mut left: Vec<String> = (0..size).map(|i| format!("{p}-{n}-{i}")).collect();
                while !left.is_empty() {
                    let batch: Vec<Value> = left.iter().map(|id| event(id)).collect();
                    let answer = http
                        .post(&url, &token, JSON, Value::from(batch).to_string())
                        .await;
                    let results = answer
                        .map(|answer| answer.json()["results"].clone())
                        .unwrap_or_default();
                    let Some(results) = results.as_array() else {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    };
                    let mut again = Vec::new();
                    for (id, result) in left.into_iter().zip(results) {
                        if result["status"] == "refused" {
                            assert_eq!(result["temporary"], true, "{result}");
                            again.push(id);
                        } else {
                            acknowledged.push(id);
                        }
                    }
                    left = again;
                }
            }
            acknowledged
        }));
    }
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        ingest.nats.kill();
        tokio::time::sleep(Duration::from_millis(300)).await;
        ingest.nats.launch().await;
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = HashSet::new();
    for publisher in publishers {
        for id in publisher.await.unwrap() {
            assert!(acknowledged.insert(id.clone()), "{id} acknowledged twice");
        }
    }
    roomcast_harness::eventually("JetStream answers", Duration::from_secs(10), || async {
        ingest.streams.stream_info("EVENTS").await.is_ok()
    })
    .await;
    let mut stored = HashSet::new();
    for message in ingest.stored("EVENTS").await {
        let id = serde_json::from_slice::<Value>(&message.payload).unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(stored.insert(id.clone()), "{id} stored twice");
    }
    println!(
        "acknowledged {}, stored {}, each once",
        acknowledged.len(),
        stored.len()
    );
    assert!(acknowledged.len() > 100);
    assert_eq!(acknowledged, stored);
}

#[tokio::test]
async fn while_nats_is_away_publishers_are_told_to_come_back() {
    let Some(mut ingest) = Ingest::start().await else {
        return;
    };
    ingest.nats.kill();
    let context = ingest.context.clone();
    roomcast_harness::eventually("not ready", Duration::from_secs(5), || async {
        !context.readiness.is_ready()
    })
    .await;
    let answer = ingest.post("desk", JSON, event("e1").to_string()).await;
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (503, Some("unavailable"))
    );
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert_eq!(answer.json()["retryAfterMs"], 1000);
    ingest.nats.launch().await;
    roomcast_harness::eventually("ready again", Duration::from_secs(10), || async {
        context.readiness.is_ready()
    })
    .await;
    roomcast_harness::eventually("stored", Duration::from_secs(10), || async {
        ingest.publish(&event("e1")).await["status"] == "stored"
    })
    .await;
    assert_eq!(ingest.stored("EVENTS").await.len(), 1);
}

#[tokio::test]
async fn a_frozen_nats_ends_in_an_answer_and_the_same_id_in_one_event() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    ingest.nats.signal("STOP");
    let start = std::time::Instant::now();
    let answer = ingest.post("desk", JSON, event("e1").to_string()).await;
    assert!(matches!(answer.status, 503 | 504), "{}", answer.text());
    assert!(answer.header("retry-after").is_some() && start.elapsed() < Duration::from_secs(10));
    if answer.status == 504 {
        assert!(
            answer.json()["detail"].as_str().unwrap().contains("\"e1\""),
            "{}",
            answer.text()
        );
    }
    ingest.nats.signal("CONT");
    roomcast_harness::eventually("known", Duration::from_secs(20), || async {
        matches!(
            ingest.publish(&event("e1")).await["status"].as_str(),
            Some("stored" | "duplicate")
        )
    })
    .await;
    assert_eq!(ingest.stored("EVENTS").await.len(), 1);
}

#[tokio::test]
async fn beyond_the_bound_requests_are_refused_and_memory_is_not_taken() {
    let settings = [("ROOMCAST_REQUESTS_MAX", "1"), ("ROOMCAST_BODY_SECONDS", "5")];
    let Some(ingest) = Ingest::start_with(POLICY, &settings).await else {
        return;
    };
    let mut holder = tokio::net::TcpStream::connect(ingest.url.trim_start_matches("http://"))
        .await
        .unwrap();
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: {JSON}\r\ncontent-length: 33\r\n\r\n",
        ingest.token("desk")
    );
    holder.write_all(head.as_bytes()).await.unwrap();
    roomcast_harness::eventually("the holder is in", Duration::from_secs(5), || async {
        ingest.metric("roomcast_ingest_in_flight") == 1.0
    })
    .await;
    let answer = ingest.post("desk", JSON, event("e1").to_string()).await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    let publisher = ingest.nats.connect("publisher").await;
    let answer = publisher
        .request("in.bookings.all", r#"{"type":"t"}"#.into())
        .await
        .unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(
        (&answer["code"], &answer["temporary"]),
        (&json!("unavailable"), &json!(true))
    );
    holder
        .write_all(br#"{"type":"t","room":"bookings"}   "#)
        .await
        .unwrap();
    let mut answer = [0; 12];
    holder.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    assert_eq!(ingest.metric("roomcast_ingest_full_total"), 2.0);
}

#[tokio::test]
async fn at_the_end_what_is_in_is_finished_and_nothing_more_let_in() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let address = ingest.url.trim_start_matches("http://").to_owned();
    let mut running = tokio::net::TcpStream::connect(&address).await.unwrap();
    let body = event("last").to_string();
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: {JSON}\r\ncontent-length: {}\r\n\r\n",
        ingest.token("desk"),
        body.len()
    );
    running.write_all(head.as_bytes()).await.unwrap();
    roomcast_harness::eventually("it is in", Duration::from_secs(5), || async {
        ingest.metric("roomcast_ingest_in_flight") == 1.0
    })
    .await;
    let readiness = ingest.context.readiness.clone();
    ingest.context.shutdown.request();
    roomcast_harness::eventually("not ready", Duration::from_secs(5), || async {
        !readiness.is_ready()
    })
    .await;
    roomcast_harness::eventually("closed to others", Duration::from_secs(5), || async {
        tokio::net::TcpStream::connect(&address).await.is_err()
    })
    .await;
    running.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    running.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("\"stored\""),
        "{answer}"
    );
    let streams = ingest.streams.clone();
    assert_eq!(ingest.driven.await.unwrap(), Exit::Ok);
    assert_eq!(
        streams
            .stream_info("EVENTS")
            .await
            .unwrap()
            .unwrap()
            .state
            .messages,
        1
    );
}
