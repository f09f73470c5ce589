//! Far more than NATS takes: whoever finds no room is told so at once, memory stays what the settings say, and what was acknowledged
//! stands in the stream once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use roomcast_chassis::jetstream::JetStream;
use roomcast_harness::http::Http;
use roomcast_harness::nats::Nats;
use roomcast_harness::token::Signer;
use serde_json::{Value, json};

use crate::fixture::{JSON, POLICY};
use crate::process::Process;

/// Bytes of all requests worked on at the same time.
const IN_FLIGHT_BYTES: &str = "16777216";
/// What a debug build takes idle (some 40 MiB), the bytes in flight as they came and as they are sent, and the buffers of some 200
/// connections.
const PEAK_BYTES_MAX: u64 = 128 << 20;
/// Requests that have an answer when the flood ends.
const ANSWERED_MIN: usize = 3_000;

/// What the publishers were told.
#[derive(Default)]
struct Told {
    answers: BTreeMap<String, usize>,
    acknowledged: Vec<String>,
}

impl Told {
    fn add(&mut self, other: Self) {
        for (answer, count) in other.answers {
            *self.answers.entry(answer).or_default() += count;
        }
        self.acknowledged.extend(other.acknowledged);
    }

    fn count(&mut self, answer: &str) {
        *self.answers.entry(answer.to_owned()).or_default() += 1;
    }
}

fn events(name: &str, count: usize) -> (Vec<String>, String) {
    let ids: Vec<String> = (0..count).map(|n| format!("{name}-{n}")).collect();
    let filler = "x".repeat(1_000);
    let event = |id: &String| json!({ "type": "t", "room": "bookings", "audience": "staff", "id": id, "data": filler });
    let body = ids.iter().map(event).collect::<Vec<Value>>();
    (ids, Value::from(body).to_string())
}

/// Posts batches without ever waiting for room, and follows no hint.
async fn post(url: String, token: String, name: String, stop: Arc<AtomicBool>) -> Told {
    let (http, mut told) = (Http::default(), Told::default());
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (ids, body) = events(&format!("{name}-{n}"), 20);
        let answer = http.post(&url, &token, JSON, body).await.unwrap();
        let said = answer.json();
        told.count(&answer.status.to_string());
        if answer.status != 200 {
            assert!(matches!(answer.status, 429 | 503), "{} {said}", answer.status);
            assert!(
                answer.header("retry-after").is_some() && said["retryAfterMs"].is_u64(),
                "{said}"
            );
            continue;
        }
        for (id, result) in ids.into_iter().zip(said["results"].as_array().unwrap()) {
            if result["status"] == "stored" {
                told.acknowledged.push(id);
                continue;
            }
            let code = result["code"].as_str().unwrap();
            assert_eq!(result["temporary"], true, "{result}");
            told.count(&format!("200 {code}"));
        }
    }
    told
}

/// The same over NATS: a hundred requests at a time on each connection.
async fn request(nats: async_nats::Client, name: String, stop: Arc<AtomicBool>) -> Told {
    let mut told = Told::default();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let asked = (0..100).map(|one| {
            let (ids, body) = events(&format!("{name}-{n}-{one}"), 5);
            let request = async_nats::Request::new()
                .payload(body.into())
                .timeout(Some(Duration::from_secs(60)));
            let nats = nats.clone();
            async move {
                (
                    ids,
                    nats.send_request("in.bookings.staff", request).await.unwrap(),
                )
            }
        });
        for (ids, answer) in futures_util::future::join_all(asked).await {
            let said: Value = serde_json::from_slice(&answer.payload).unwrap();
            let Some(results) = said["results"].as_array() else {
                let code = said["code"].as_str().unwrap();
                assert!(matches!(code, "unavailable" | "quota" | "rate"), "{said}");
                assert!(
                    said["temporary"] == true && said["retryAfterMs"].is_u64(),
                    "{said}"
                );
                told.count(code);
                continue;
            };
            told.count("nats 200");
            for (id, result) in ids.into_iter().zip(results) {
                if result["status"] == "stored" {
                    told.acknowledged.push(id);
                } else {
                    assert_eq!(result["temporary"], true, "{result}");
                    told.count(&format!("nats 200 {}", result["code"]));
                }
            }
        }
    }
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_on_a_slow_nats_is_refused_in_time_and_takes_no_memory() {
    let Some(nats) = Nats::start().await else { return };
    let dir = tempfile::tempdir().unwrap();
    let signer = Signer::new();
    std::fs::write(dir.path().join("policy.yaml"), POLICY).unwrap();
    std::fs::write(dir.path().join("keys.json"), signer.jwks()).unwrap();
    let settings = [
        ("ROOMCAST_REQUESTS_MAX", "96"),
        ("ROOMCAST_PUBLISHER_REQUESTS_MAX", "80"),
        ("ROOMCAST_TENANT_REQUESTS_MAX", "90"),
        ("ROOMCAST_IN_FLIGHT_BYTES_MAX", IN_FLIGHT_BYTES),
    ];
    let process = Process::start(&nats.url(), dir.path(), &settings).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut publishers = Vec::new();
    for n in 0..200 {
        // Several publishers, so that each has its share and all together more than there is.
        let token = signer.token(&format!("desk-{}", n % 4), &["desk"]);
        let url = format!("{}/v1/events", process.url);
        publishers.push(tokio::spawn(post(
            url,
            token,
            format!("http-{n}"),
            Arc::clone(&stop),
        )));
    }
    for n in 0..2 {
        let client = nats.connect("publisher").await;
        publishers.push(tokio::spawn(request(
            client,
            format!("nats-{n}"),
            Arc::clone(&stop),
        )));
    }
    // NATS works one fifth of the time.
    for _ in 0..30 {
        nats.signal("STOP");
        tokio::time::sleep(Duration::from_millis(160)).await;
        nats.signal("CONT");
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut told = Told::default();
    for publisher in publishers {
        told.add(publisher.await.unwrap());
    }
    let peak = process.peak_bytes();
    println!(
        "answers {:?}; acknowledged {}; at most {} MiB",
        told.answers,
        told.acknowledged.len(),
        peak >> 20
    );
    let all: usize = told.answers.values().sum();
    assert!(
        all >= ANSWERED_MIN && !told.acknowledged.is_empty(),
        "{:?}",
        told.answers
    );
    let refused = all - told.answers.get("200").unwrap_or(&0) - told.answers.get("nats 200").unwrap_or(&0);
    assert!(refused > 0, "nobody was refused: {:?}", told.answers);
    assert!(peak < PEAK_BYTES_MAX, "{peak} bytes");

    let streams = JetStream::new(nats.connect("admin").await, "$JS.API");
    let (mut stored, mut next) = (HashMap::new(), 1);
    loop {
        let batch = streams.direct_batch("EVENTS", next, 500, None).await.unwrap();
        let Some(last) = batch.messages.last() else { break };
        next = last.sequence + 1;
        for message in batch.messages {
            let event: Value = serde_json::from_slice(&message.payload).unwrap();
            *stored
                .entry(event["id"].as_str().unwrap().to_owned())
                .or_insert(0) += 1;
        }
    }
    assert!(stored.values().all(|times| *times == 1), "stored twice");
    let lost: Vec<&String> = told
        .acknowledged
        .iter()
        .filter(|id| !stored.contains_key(*id))
        .collect();
    assert!(
        lost.is_empty(),
        "{} acknowledged and not stored: {:?}",
        lost.len(),
        lost.first()
    );
}
