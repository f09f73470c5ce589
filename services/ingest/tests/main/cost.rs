//! What an event costs: `cargo test -p roomcast-ingest --test main -- --ignored --nocapture cost`. Numbers, no verdict.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use roomcast_access::{Policy, Principal};
use roomcast_harness::nats::Nats;
use roomcast_ingest::accept::{Accepted, Arrival, Sender, decide};
use roomcast_ingest::metrics::IngestMetrics;
use roomcast_ingest::store::{Parts, Store};
use roomcast_proto::event::Draft;
use serde_json::{Value, json};

use crate::fixture::{Ingest, JSON, POLICY};

const ROUNDS: usize = 20;
const BATCH: usize = 100;

/// CPU of this whole process (ingest, and the test's own client beside it), in µs, by ticks of 10 ms.
fn cpu_micros() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name's bracket: state is the first field, utime and stime the 12th and 13th.
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    fields
        .iter()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum::<u64>()
        * 10_000
}

fn booking(id: &str) -> Value {
    json!({ "type": "booking:new", "room": "bookings", "audience": "staff", "id": id,
        "data": { "id": id, "customer": "Elif Kaya", "country": "TR", "category": "property",
            "title": "Sea view, two rooms", "duration": "3 days", "amount": 4250.50, "currency": "TRY" } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn cost_of_an_event_by_door() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let watch = Watch::start();
    for round in 0..ROUNDS {
        let batch: Vec<Value> = (0..BATCH).map(|n| booking(&format!("a-{round}-{n}"))).collect();
        let answer = ingest
            .post("desk", JSON, Value::from(batch).to_string())
            .await
            .json();
        assert_eq!(answer["stored"], BATCH);
    }
    watch.report("HTTP, batches of 100", ROUNDS * BATCH);
    let watch = Watch::start();
    let token = ingest.token("desk");
    let url = format!("{}/v1/events", ingest.url);
    for n in 0..ROUNDS * BATCH / 4 {
        let body = booking(&format!("b-{n}")).to_string();
        assert_eq!(
            ingest.http.post(&url, &token, JSON, body).await.unwrap().status,
            200
        );
    }
    watch.report("HTTP, one at a time", ROUNDS * BATCH / 4);
    let publisher = ingest.nats.connect("publisher").await;
    let watch = Watch::start();
    for round in 0..ROUNDS {
        let ask = |n: usize| {
            let (publisher, event) = (publisher.clone(), booking(&format!("c-{round}-{n}")));
            async move {
                publisher
                    .request("in.bookings.staff", event.to_string().into())
                    .await
                    .unwrap()
            }
        };
        join_all((0..BATCH).map(ask)).await;
    }
    watch.report("NATS, 100 requests at a time", ROUNDS * BATCH);
}

/// On one replica each lone event is an fsync of its own; this is why requests go as atomic batches there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn cost_of_storing_together_and_apart() {
    roomcast_chassis::process::install_crypto();
    let Some(nats) = Nats::start().await else { return };
    let client = nats.connect("ingest").await;
    let jetstream = roomcast_chassis::jetstream::JetStream::new(client.clone(), "$JS.API");
    let latch = roomcast_chassis::readiness::Readiness::new().latch("streams", "");
    let epoch = roomcast_ingest::streams::verify(&jetstream, 1, &latch)
        .await
        .unwrap();
    for (name, replicas) in [("together", 1), ("apart", 3), ("together", 1), ("apart", 3)] {
        let metrics = roomcast_chassis::metrics::Metrics::new("cost").unwrap();
        let store = Store::new(Parts {
            jetstream: jetstream.clone(),
            api_prefix: "$JS.API".to_owned(),
            publisher: roomcast_chassis::jetstream::Publisher::start(&client, 1024, None)
                .await
                .unwrap(),
            epoch: epoch.clone(),
            replicas,
            room_keys_max: 100,
            metrics: IngestMetrics::new(&metrics).unwrap(),
        });
        let batches: Vec<Vec<Accepted>> = (0..ROUNDS)
            .map(|_| (0..BATCH).map(|_| accepted()).collect())
            .collect();
        let watch = Watch::start();
        for batch in batches {
            assert!(store.take(batch).await.iter().all(Result::is_ok));
        }
        watch.report(&format!("100 events stored {name}"), ROUNDS * BATCH);
    }
}

fn accepted() -> Accepted {
    let policy = Policy::parse(POLICY, "policy.yaml").unwrap();
    let principal = Principal {
        tenant: roomcast_proto::ids::Tenant::default(),
        subject: "desk".into(),
        roles: vec!["desk".to_owned()],
        claims: serde_json::Map::new(),
        expires_at: i64::MAX,
        issued_at: None,
        token_id: None,
    };
    let sender = Sender::of_token(&principal, &policy);
    let mut event = booking("x");
    event.as_object_mut().unwrap().remove("id");
    let arrival = Arrival {
        sender: &sender,
        room: None,
        audience: None,
        backfill: false,
        now_micros: 0,
    };
    let mut accepted = decide(
        Draft::parse(event.to_string().as_bytes()).unwrap(),
        &arrival,
        &policy,
    )
    .unwrap();
    accepted.placements[0].msg_id = roomcast_proto::ids::new_event_id();
    accepted
}

struct Watch(u64, Instant);

impl Watch {
    fn start() -> Self {
        Self(cpu_micros(), Instant::now())
    }

    fn report(&self, name: &str, events: usize) {
        let (cpu, wall) = (cpu_micros() - self.0, self.1.elapsed());
        let each = Duration::from_micros(u64::try_from(wall.as_micros()).unwrap() / events as u64);
        println!(
            "{name}: {} µs CPU, {each:?} wall per event (this process, client included)",
            cpu / events as u64
        );
    }
}
