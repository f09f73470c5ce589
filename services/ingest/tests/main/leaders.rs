//! Three NATS nodes whose leaders step down and die: an id stays one event, its answer stays its answer, and queues stay in order.

use std::collections::HashSet;
use std::time::Duration;

use roomcast_chassis::jetstream::JetStream;
use roomcast_harness::cluster::Cluster;
use roomcast_harness::eventually;
use roomcast_harness::http::{Answer, Http};
use roomcast_harness::nats::Nats;
use roomcast_harness::token::Signer;
use roomcast_proto::ids::Tenant;
use roomcast_proto::stream::{Sizing, queue};
use serde_json::{Value, json};

use crate::fixture::{JSON, POLICY, event};
use crate::process::Process;

/// An election after a crash takes 4 s and more on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);

/// Posts until the answer is no longer temporary, as a publisher does.
async fn post(http: &Http, token: &str, url: &str, event: &Value) -> Answer {
    let (started, url) = (std::time::Instant::now(), format!("{url}/v1/events"));
    loop {
        let answer = http.post(&url, token, JSON, event.to_string()).await.unwrap();
        if answer.header("retry-after").is_none() {
            return answer;
        }
        assert!(matches!(answer.status, 503 | 504), "{}", answer.text());
        assert!(started.elapsed() < WITHIN, "{}", answer.text());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_stays_one_event_and_a_queue_in_order_whoever_leads() {
    let Some(mut nodes) = Nats::start_three().await else {
        return;
    };
    let urls = nodes.iter().map(Nats::url).collect::<Vec<_>>().join(",");
    let admin = nodes[0].connect("admin").await;
    let (streams, cluster) = (JetStream::new(admin.clone(), "$JS.API"), Cluster::new(admin));
    let sizing = Sizing {
        replicas: 3,
        ..Sizing::DEVELOPMENT
    };
    let config = queue(&sizing, &Tenant::default(), "publisher").unwrap();
    eventually("the queue is there", WITHIN, || async {
        streams.create_stream(&config).await.is_ok()
    })
    .await;

    let (dir, signer, http) = (tempfile::tempdir().unwrap(), Signer::new(), Http::default());
    std::fs::write(dir.path().join("policy.yaml"), POLICY).unwrap();
    std::fs::write(dir.path().join("keys.json"), signer.jwks()).unwrap();
    let replicas = [("ROOMCAST_REPLICAS", "3")];
    let one = Process::start(&urls, dir.path(), &replicas).await;
    let other = Process::start(&urls, dir.path(), &replicas).await;
    let token = signer.token("desk", &["desk"]);

    // A publisher that repeats what it heard no answer to, and sends the next only then.
    let publisher = nodes[1].connect("publisher").await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let queueing = tokio::spawn(async move {
        let mut sent = 0;
        while !*stopped.borrow() {
            let body = json!({ "type": "t", "id": format!("q{sent}"), "data": sent }).to_string();
            let request = async_nats::Request::new()
                .payload(body.into())
                .timeout(Some(Duration::from_millis(500)));
            let answer = publisher
                .send_request("inq.publisher.bookings.staff", request)
                .await;
            let stored = answer.is_ok_and(|answer| {
                let answer: Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
                answer["seq"].is_u64()
            });
            sent += usize::from(stored);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sent
    });

    let mut known: Vec<(Value, Value)> = Vec::new();
    for round in 0..4 {
        let event = event(&format!("r{round}"));
        let first = post(&http, &token, &one.url, &event).await.json();
        assert!(first["cursor"].is_string(), "{first}");
        known.push((event, first["cursor"].clone()));
        if round < 3 {
            for stream in ["EVENTS", "INQ_main_publisher"] {
                eventually("another node leads", WITHIN, || cluster.step_down(stream)).await;
            }
        } else {
            let leader = cluster.leader("EVENTS").await;
            let node = nodes.iter_mut().find(|node| node.name() == leader).unwrap();
            node.kill();
        }
        for (event, cursor) in &known {
            for url in [&one.url, &other.url] {
                let again = post(&http, &token, url, event).await.json();
                assert_eq!(
                    (&again["status"], &again["cursor"]),
                    (&json!("duplicate"), cursor),
                    "{again}"
                );
                let mut otherwise = event.clone();
                otherwise["data"] = json!("another");
                let answer = post(&http, &token, url, &otherwise).await;
                assert_eq!((answer.status, &answer.json()["code"]), (409, &json!("conflict")));
            }
        }
    }
    stop.send(true).unwrap();
    let sent = queueing.await.unwrap();
    eventually("the queue is empty", WITHIN, || async {
        let info = streams.stream_info("INQ_main_publisher").await;
        info.is_ok_and(|info| info.is_some_and(|info| info.state.messages == 0))
    })
    .await;
    let (mut ids, mut next) = (Vec::new(), 1);
    let end = streams
        .stream_info("EVENTS")
        .await
        .unwrap()
        .unwrap()
        .state
        .last_seq;
    while next <= end {
        // Another node may not have come as far.
        let Ok(batch) = streams.direct_batch("EVENTS", next, 500, None).await else {
            continue;
        };
        for message in batch.messages {
            next = message.sequence + 1;
            let event: Value = serde_json::from_slice(&message.payload).unwrap();
            ids.push(event["id"].as_str().unwrap().to_owned());
        }
    }
    let once: HashSet<&String> = ids.iter().collect();
    assert_eq!(once.len(), ids.len(), "something is stored twice");
    let queued: Vec<&String> = ids.iter().filter(|id| id.starts_with('q')).collect();
    // The last may have been stored, its answer lost when it was time to stop.
    let expected: Vec<String> = (0..queued.len()).map(|n| format!("q{n}")).collect();
    assert!(queued.iter().copied().eq(&expected), "{queued:?}");
    assert!(
        (sent..=sent + 1).contains(&queued.len()),
        "{sent} {}",
        queued.len()
    );
    assert_eq!(ids.len() - queued.len(), 4);
    println!("{sent} events queued while leaders stepped down and died");
}
