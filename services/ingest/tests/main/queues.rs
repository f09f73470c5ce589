//! What publishers leave in NATS is drained in order and once: with ingest killed, stopped for a while, twice there, and flooded.

use std::collections::HashSet;
use std::time::Duration;

use async_nats::Client;
use roomcast_chassis::jetstream::{JetStream, StoredMessage};
use roomcast_harness::eventually;
use roomcast_harness::nats::{Nats, change_stream};
use roomcast_harness::token::Signer;
use roomcast_proto::ids::{Tenant, time_of_id};
use roomcast_proto::stream::{Sizing, queue};
use serde_json::{Value, json};

use crate::fixture::{Ingest, POLICY, aged_id, header};
use crate::process::Process;

const QUEUE: &str = "INQ_main_publisher";
const SUBJECT: &str = "inq.publisher.bookings.staff";
const PURGE: &str = "\"$JS.API.STREAM.PURGE.INQ_main_publisher\"";
const WITHIN: Duration = Duration::from_secs(30);

async fn open_queue(streams: &JetStream, publisher: &str) {
    let config = queue(&Sizing::DEVELOPMENT, &Tenant::default(), publisher).unwrap();
    streams.create_stream(&config).await.unwrap();
}

/// Puts a message into the publisher's queue and waits until NATS has it.
async fn put(publisher: &Client, subject: &str, body: &Value) {
    let answer = publisher
        .request(subject.to_owned(), body.to_string().into())
        .await
        .unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert!(answer["seq"].is_u64(), "{answer}");
}

fn event(id: &str) -> Value {
    json!({ "type": "booking:new", "id": id, "data": { "n": id } })
}

async fn waiting(streams: &JetStream, queue: &str) -> u64 {
    streams.stream_info(queue).await.unwrap().unwrap().state.messages
}

async fn until_empty(streams: &JetStream, queue: &str) {
    eventually("the queue is empty", WITHIN, || async {
        streams
            .stream_info(queue)
            .await
            .is_ok_and(|info| info.is_some_and(|info| info.state.messages == 0))
    })
    .await;
}

fn ids(stored: &[StoredMessage]) -> Vec<String> {
    let id = |message: &StoredMessage| {
        let event: Value = serde_json::from_slice(&message.payload).unwrap();
        event["id"].as_str().unwrap().to_owned()
    };
    stored.iter().map(id).collect()
}

/// What an array holds comes out one by one, what is bad is kept with its reason and its bytes, and the rest is stored in order.
#[tokio::test]
async fn a_queue_is_drained_in_order_and_what_is_bad_is_kept() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let publisher = ingest.nats.connect("publisher").await;
    open_queue(&ingest.streams, "publisher").await;
    let state = |id: &str, data: u32| json!({ "type": "t", "id": id, "delivery": "state", "statekey": "k", "data": data });
    let late = aged_id(100);
    let all = [
        (SUBJECT, event("e1")),
        (SUBJECT, json!([event("e2"), { "type": "" }, event("e3")])),
        ("inq.publisher.bookings.nobody", event("nobody")),
        ("inq.publisher.vault.staff", event("vault")),
        ("inq.publisher.bo$kings.staff", event("room")),
        (SUBJECT, json!({ "type": "t", "delivery": "ephemeral" })),
        (SUBJECT, event(&late)),
        (SUBJECT, state("s1", 1)),
        (SUBJECT, event("e1")),
        (SUBJECT, json!({ "type": "other", "id": "e1" })),
        (SUBJECT, state("s2", 2)),
        (SUBJECT, json!({ "type": "nameless" })),
        (SUBJECT, json!(1)),
        (SUBJECT, event("e4")),
    ];
    for (subject, body) in &all {
        put(&publisher, subject, body).await;
    }
    until_empty(&ingest.streams, QUEUE).await;
    let stored = ingest.stored("EVENTS").await;
    let found = ids(&stored);
    let nameless = found[3].clone();
    assert!(time_of_id(&nameless).is_some(), "{nameless}");
    assert_eq!(found, ["e1", "e2", "e3", &nameless, "e4"]);
    assert_eq!(header(&stored[0], "Rc-Publisher"), Some("\"nats/publisher\""));
    let values = ingest.stored("STATE").await;
    assert_eq!(ids(&values), ["s2"]);
    let mut letters: Vec<(String, String)> = ingest
        .stored("DLQ")
        .await
        .iter()
        .map(|letter| {
            let reason = header(letter, "Rc-Reason").unwrap().to_owned();
            (reason, String::from_utf8(letter.payload.to_vec()).unwrap())
        })
        .collect();
    letters.sort();
    let mut expected = vec![
        ("bad_event", json!({ "type": "" })),
        ("unknown_audience", event("nobody")),
        ("forbidden", event("vault")),
        ("bad_room", event("room")),
        ("bad_event", json!({ "type": "t", "delivery": "ephemeral" })),
        ("late", event(&late)),
        ("conflict", json!({ "type": "other", "id": "e1" })),
        ("bad_json", json!(1)),
    ]
    .into_iter()
    .map(|(reason, body)| (reason.to_owned(), body.to_string()))
    .collect::<Vec<_>>();
    expected.sort();
    assert_eq!(letters, expected);
    assert_eq!(
        ingest.metric("roomcast_ingest_events_total{door=\"queue\",outcome=\"refused\"}"),
        8.0
    );
    assert_eq!(ingest.metric("roomcast_ingest_queue_waiting"), 0.0);
}

/// Of what waits in a queue every letter is kept, whatever they take, and what comes after them does not wait.
#[tokio::test]
async fn large_letters_do_not_hold_a_queue_up() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let publisher = ingest.nats.connect("publisher").await;
    open_queue(&ingest.streams, "publisher").await;
    // More than is kept of one publisher at once that can send it again: 4 MiB.
    let large = "x".repeat(60 << 10);
    for _ in 0..90 {
        put(&publisher, SUBJECT, &json!({ "type": "", "data": large })).await;
    }
    put(&publisher, SUBJECT, &event("good")).await;
    until_empty(&ingest.streams, QUEUE).await;
    assert_eq!(ids(&ingest.stored("EVENTS").await), ["good"]);
    assert_eq!(ingest.stored("DLQ").await.len(), 90);
    let pauses = ingest.metric("roomcast_ingest_queue_pauses_total{reason=\"rate\"}");
    assert_eq!(pauses, 0.0);
}

#[tokio::test]
async fn a_queue_fills_while_no_ingest_runs_and_its_events_are_of_when_they_were_queued() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let publisher = ingest.nats.connect("publisher").await;
    open_queue(&ingest.streams, "publisher").await;
    ingest.context.shutdown.request();
    ingest.driven.await.unwrap();
    let before = jiff_now();
    let expected: Vec<String> = (0..40).map(|n| format!("e{n}")).collect();
    for id in &expected {
        put(&publisher, SUBJECT, &event(id)).await;
    }
    let after = jiff_now();
    assert_eq!(waiting(&ingest.streams, QUEUE).await, 40);
    let again = ingest.nats.url();
    let dir = files(POLICY);
    let process = Process::start(&again, dir.path(), &[]).await;
    until_empty(&ingest.streams, QUEUE).await;
    let stored = all(&ingest.streams, "EVENTS").await;
    assert_eq!(ids(&stored), expected);
    for message in &stored {
        let event: Value = serde_json::from_slice(&message.payload).unwrap();
        let time = event["time"].as_str().unwrap();
        assert!(
            before.as_str() <= time && time <= after.as_str(),
            "{before} {time} {after}"
        );
    }
    process.kill().await;
}

fn jiff_now() -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    roomcast_proto::event::rfc3339(i64::try_from(now.as_micros()).unwrap())
}

fn files(policy: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("policy.yaml"), policy).unwrap();
    std::fs::write(dir.path().join("keys.json"), Signer::new().jwks()).unwrap();
    dir
}

/// All messages of a stream, by position.
async fn all(streams: &JetStream, stream: &str) -> Vec<StoredMessage> {
    let (mut found, mut next) = (Vec::new(), 1);
    loop {
        let batch = streams.direct_batch(stream, next, 500, None).await.unwrap();
        let Some(last) = batch.messages.last() else {
            return found;
        };
        next = last.sequence + 1;
        found.extend(batch.messages);
    }
}

/// Two processes, killed again and again at whatever step they are, while the publisher goes on: every event once, in its order, and
/// every bad one kept once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_two_ingests_at_any_step_loses_doubles_and_reorders_nothing() {
    let Some(nats) = Nats::start().await else { return };
    let streams = JetStream::new(nats.connect("admin").await, "$JS.API");
    open_queue(&streams, "publisher").await;
    let dir = files(POLICY);
    let publisher = nats.connect("publisher").await;
    let publishing = tokio::spawn(async move {
        for portion in 0..150 {
            let mut events: Vec<Value> = (0..8).map(|n| event(&format!("{portion:03}-{n}"))).collect();
            // One is bad, one has no id, and one is a repeat.
            events.insert(3, json!({ "type": "", "id": format!("bad-{portion}") }));
            events.push(json!({ "type": "nameless", "data": portion }));
            events.push(event(&format!("{portion:03}-0")));
            put(&publisher, SUBJECT, &Value::from(events)).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let url = nats.url();
    let mut running = vec![Process::start(&url, dir.path(), &[]).await];
    running.push(Process::start(&url, dir.path(), &[]).await);
    for round in 0..8_u64 {
        // Somewhere within a portion: reading, storing, keeping, taking away.
        tokio::time::sleep(Duration::from_millis(150 + (round * 67) % 230)).await;
        // The lease of a killed holder ends by itself; without it a test would take 10 s a round.
        running.remove(0).kill().await;
        let request = json!({ "filter": "$KV.commands.CORE.queues" }).to_string();
        nats.connect("admin")
            .await
            .request("$JS.API.STREAM.PURGE.KV_commands", request.into())
            .await
            .unwrap();
        running.push(Process::start(&url, dir.path(), &[]).await);
    }
    publishing.await.unwrap();
    until_empty(&streams, QUEUE).await;
    let stored = all(&streams, "EVENTS").await;
    let (mut named, mut nameless) = (Vec::new(), Vec::new());
    for message in &stored {
        let event: Value = serde_json::from_slice(&message.payload).unwrap();
        match event["type"].as_str() {
            Some("nameless") => nameless.push(event["data"].as_u64().unwrap()),
            _ => named.push(event["id"].as_str().unwrap().to_owned()),
        }
    }
    let expected: Vec<String> = (0..150)
        .flat_map(|portion| (0..8).map(move |n| format!("{portion:03}-{n}")))
        .collect();
    assert_eq!(named, expected);
    assert_eq!(nameless, (0..150).collect::<Vec<u64>>());
    let letters = all(&streams, "DLQ").await;
    let bad: HashSet<&[u8]> = letters.iter().map(|letter| letter.payload.as_ref()).collect();
    assert_eq!((letters.len(), bad.len()), (150, 150));
    assert_eq!(ids(&letters)[0], "bad-0");
}

/// An ingest stored what it had read and died before it could take it away, and nobody came for so long that the streams have forgotten
/// the ids. What is read again was stored before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_ingest_stored_before_it_died_is_found_after_the_streams_have_forgotten() {
    let Some(nats) = Nats::start().await else { return };
    let streams = JetStream::new(nats.connect("admin").await, "$JS.API");
    open_queue(&streams, "publisher").await;
    let dir = files(POLICY);
    let publisher = nats.connect("publisher").await;
    let url = nats.url();
    let first = Process::start(&url, dir.path(), &[]).await;
    put(&publisher, SUBJECT, &event("first")).await;
    until_empty(&streams, QUEUE).await;
    // It holds the lease; a second one waits.
    let second = Process::start(&url, dir.path(), &[]).await;
    let allowed = std::fs::read_to_string(nats.dir().join("nats.conf")).unwrap();
    assert!(allowed.contains(PURGE));
    reload(&nats, &allowed.replace(PURGE, "\"nothing\"")).await;
    let state = |id: &str, data: u32| json!({ "type": "t", "id": id, "delivery": "state", "statekey": "k", "data": data });
    for body in [
        event("e1"),
        json!({ "type": "nameless" }),
        state("s1", 1),
        state("s2", 2),
        json!({ "type": "", "id": "bad" }),
        event("e2"),
    ] {
        put(&publisher, SUBJECT, &body).await;
    }
    eventually("all is stored", WITHIN, || async {
        all(&streams, "EVENTS").await.len() == 4 && all(&streams, "DLQ").await.len() == 1
    })
    .await;
    assert_eq!(waiting(&streams, QUEUE).await, 6);
    let revision = streams
        .stream_info("STATE")
        .await
        .unwrap()
        .unwrap()
        .state
        .last_seq;
    // A minute's wait made short: the streams forget at once, and the queue's head is as old as what counts as behind.
    let admin = nats.connect("admin").await;
    for stream in ["EVENTS", "STATE", "DLQ"] {
        change_stream(&admin, stream, "duplicate_window", 100_000_000.into())
            .await
            .unwrap();
    }
    let head = all(&streams, QUEUE).await[0].time_micros;
    eventually("the queue is behind", WITHIN, || async {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        i64::try_from(now.as_micros()).unwrap() - head > 15_000_000
    })
    .await;
    first.kill().await;
    // A repeat by the publisher, which heard nothing of the first one, either.
    put(&publisher, SUBJECT, &event("first")).await;
    reload(&nats, &allowed).await;
    put(&publisher, SUBJECT, &event("e3")).await;
    until_empty(&streams, QUEUE).await;
    let stored = all(&streams, "EVENTS").await;
    let found = ids(&stored);
    assert_eq!(
        (&found[..2], &found[3..]),
        (
            &["first".to_owned(), "e1".to_owned()][..],
            &["e2".to_owned(), "e3".to_owned()][..]
        )
    );
    assert_eq!(all(&streams, "DLQ").await.len(), 1);
    let state = streams.stream_info("STATE").await.unwrap().unwrap().state;
    assert_eq!(state.last_seq, revision, "no value was set back");
    second.kill().await;
}

/// Puts another configuration in force.
async fn reload(nats: &Nats, config: &str) {
    let before = nats.log().matches("Reloaded server configuration").count();
    std::fs::write(nats.dir().join("nats.conf"), config).unwrap();
    nats.signal("HUP");
    eventually("the configuration is in force", WITHIN, || async {
        nats.log().matches("Reloaded server configuration").count() > before
    })
    .await;
}

#[tokio::test]
async fn a_flood_that_has_waited_is_drained_within_bounded_memory() {
    let Some(nats) = Nats::start().await else { return };
    let streams = JetStream::new(nats.connect("admin").await, "$JS.API");
    open_queue(&streams, "publisher").await;
    let publisher = nats.connect("publisher").await;
    // 48 MiB of the 64 the queue takes: as arrays of events of 2 KiB.
    let filler = "x".repeat(2_000);
    for message in 0..200 {
        let events: Vec<Value> = (0..110)
            .map(|n| json!({ "type": "t", "id": format!("{message}-{n}"), "data": filler }))
            .collect();
        put(&publisher, SUBJECT, &Value::from(events)).await;
    }
    let dir = files(POLICY);
    let process = Process::start(&nats.url(), dir.path(), &[]).await;
    until_empty(&streams, QUEUE).await;
    let info = streams.stream_info("EVENTS").await.unwrap().unwrap();
    assert_eq!(info.state.messages, 22_000);
    let peak = process.peak_bytes();
    println!("22,000 events of 2 KiB drained, at most {} MiB", peak >> 20);
    assert!(peak < 160 << 20, "{peak} bytes");
}

#[tokio::test]
async fn a_full_queue_says_so_and_a_publisher_over_its_rate_waits_in_it() {
    let rates = [
        ("ROOMCAST_PUBLISHER_EVENTS_RATE", "1000"),
        ("ROOMCAST_PUBLISHER_EVENTS_BURST", "1000"),
    ];
    let Some(ingest) = Ingest::start_with(POLICY, &rates).await else {
        return;
    };
    let publisher = ingest.nats.connect("publisher").await;
    let mut config = queue(&Sizing::DEVELOPMENT, &Tenant::default(), "publisher").unwrap();
    config["max_bytes"] = 150_000.into();
    ingest.streams.create_stream(&config).await.unwrap();
    let mut sent = 0;
    let mut full = 0;
    while sent < 3_000 {
        let events: Vec<Value> = (sent..sent + 500).map(|n| event(&format!("e{n}"))).collect();
        let answer = publisher
            .request(SUBJECT, Value::from(events).to_string().into())
            .await
            .unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        match answer["error"]["code"].as_u64() {
            None => sent += 500,
            Some(code) => {
                assert_eq!(code, 503, "{answer}");
                full += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    until_empty(&ingest.streams, QUEUE).await;
    let stored = ingest.stored("EVENTS").await;
    let expected: Vec<String> = (0..3_000).map(|n| format!("e{n}")).collect();
    assert_eq!(ids(&stored), expected);
    assert!(full > 0, "the queue was never full");
    assert!(ingest.metric("roomcast_ingest_queue_pauses_total{reason=\"rate\"}") > 0.0);
    assert!(ingest.stored("DLQ").await.is_empty());
}

#[tokio::test]
async fn what_a_publisher_that_is_not_listed_has_queued_waits_for_it() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    open_queue(&ingest.streams, "erp").await;
    let erp = ingest.nats.connect("erp").await;
    put(&erp, "inq.erp.bookings.staff", &event("e1")).await;
    eventually("it is seen", WITHIN, || async {
        ingest.metric("roomcast_ingest_queue_pauses_total{reason=\"not_listed\"}") > 0.0
    })
    .await;
    assert!(ingest.stored("EVENTS").await.is_empty() && ingest.stored("DLQ").await.is_empty());
    let listed = format!("{POLICY}  - {{ nats: main/erp, roles: [desk] }}\n");
    ingest.write_policy(&listed);
    until_empty(&ingest.streams, "INQ_main_erp").await;
    assert_eq!(ids(&ingest.stored("EVENTS").await), ["e1"]);
}

/// What cannot be read at all is no way around the rate either: it waits like events, and costs the others none of their letters.
#[tokio::test]
async fn what_is_refused_as_a_whole_waits_for_its_share() {
    let rates = [
        ("ROOMCAST_PUBLISHER_EVENTS_RATE", "1"),
        ("ROOMCAST_PUBLISHER_EVENTS_BURST", "1000"),
    ];
    let Some(ingest) = Ingest::start_with(POLICY, &rates).await else {
        return;
    };
    let publisher = ingest.nats.connect("publisher").await;
    open_queue(&ingest.streams, "publisher").await;
    for _ in 0..1_500 {
        publisher.publish(SUBJECT, "[".into()).await.unwrap();
    }
    publisher.flush().await.unwrap();
    eventually("the queue waits", WITHIN, || async {
        ingest.metric("roomcast_ingest_queue_pauses_total{reason=\"rate\"}") > 0.0
    })
    .await;
    assert!(waiting(&ingest.streams, QUEUE).await > 0);
}
