//! The pipelined publisher against a real server: order, window, time-outs.

use std::future::Future;
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::{ConnectOptions, HeaderMap};
use bytes::Bytes;
use futures_util::future::join_all;
use roomcast_chassis::jetstream::{ApiError, JetStream, PublishError, Publisher};
use roomcast_chassis::metrics::Metrics;
use roomcast_chassis::nats::{NatsMetrics, ask_servers};
use serde_json::json;

use crate::jetstream::{outgoing, stream};
use crate::server::{Server, eventually};

async fn start(window: usize) -> Option<(Server, Publisher, Metrics)> {
    let server = Server::start("")?;
    let client = server.client().await;
    JetStream::new(client.clone(), "$JS.API")
        .create_stream(&stream("T", "t.>"))
        .await
        .unwrap();
    let metrics = Metrics::new("test").unwrap();
    let counted = NatsMetrics::new(&metrics).unwrap();
    Some((
        server,
        Publisher::start(&client, window, Some(counted)).await.unwrap(),
        metrics,
    ))
}

fn metric(metrics: &Metrics, name: &str) -> String {
    let text = String::from_utf8(metrics.encode().unwrap()).unwrap();
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap_or("")
        .trim()
        .to_owned()
}

const IN_FLIGHT: &str = "roomcast_nats_publishes_in_flight{service=\"test\"}";

/// Five thousand are sent before the first is waited for, through a window of 64: the window empties by itself.
#[tokio::test]
async fn many_in_flight_keep_their_order_and_each_gets_its_own_acknowledgement() {
    let Some((_server, publisher, metrics)) = start(64).await else {
        return;
    };
    let (start, mut pending) = (Instant::now(), Vec::new());
    for number in 0..5_000 {
        pending.push(
            publisher
                .send(outgoing("t.a", &[], &number.to_string()))
                .await
                .unwrap(),
        );
    }
    for (expected, pending) in (1..).zip(pending) {
        assert_eq!(pending.acknowledged().await.unwrap().seq, expected);
    }
    eprintln!("5,000 publishes, window 64: {:?}", start.elapsed());
    assert_eq!(
        (publisher.room(), metric(&metrics, IN_FLIGHT).as_str()),
        (64, "0")
    );
}

#[tokio::test]
async fn side_by_side_every_publish_gets_a_position_of_its_own() {
    let Some((_server, publisher, _metrics)) = start(16).await else {
        return;
    };
    let publish = |_| async {
        publisher
            .publish("t.a", HeaderMap::new(), "x".into())
            .await
            .unwrap()
            .seq
    };
    let mut positions = join_all((0..500).map(publish)).await;
    positions.sort_unstable();
    assert!(positions.into_iter().eq(1..=500));
}

#[tokio::test]
async fn a_refusal_reaches_the_one_it_is_for() {
    let Some((_server, publisher, metrics)) = start(8).await else {
        return;
    };
    let compare = [("Nats-Expected-Last-Subject-Sequence", "9")];
    let good = publisher.send(outgoing("t.a", &[], "x")).await.unwrap();
    let refused = publisher.send(outgoing("t.a", &compare, "x")).await.unwrap();
    let nowhere = publisher.send(outgoing("nowhere", &[], "x")).await.unwrap();
    assert!(matches!(
        nowhere.acknowledged().await,
        Err(PublishError::NoResponders)
    ));
    assert!(matches!(
        refused.acknowledged().await,
        Err(PublishError::Refused(_))
    ));
    assert_eq!(good.acknowledged().await.unwrap().seq, 1);
    let white = publisher.send(outgoing("t. a", &[], "x")).await.unwrap_err();
    assert!(matches!(white, PublishError::Client(_)), "{white}");
    assert_eq!((publisher.room(), metric(&metrics, IN_FLIGHT).as_str()), (8, "0"));
}

/// A frozen server may not make us hold more than the window, nor longer than the time-out.
#[tokio::test]
async fn a_frozen_server_costs_the_window_and_a_time_out() {
    let Some((server, publisher, metrics)) = start(4).await else {
        return;
    };
    server.signal("STOP");
    let mut pending = Vec::new();
    for number in 0..4 {
        pending.push(
            publisher
                .send(outgoing("t.a", &[], &number.to_string()))
                .await
                .unwrap(),
        );
    }
    let full = tokio::time::timeout(
        Duration::from_millis(100),
        publisher.send(outgoing("t.a", &[], "5")),
    )
    .await;
    assert!(full.is_err(), "the window holds four");
    let start = Instant::now();
    for result in join_all(pending.into_iter().map(|pending| pending.acknowledged())).await {
        assert_eq!(result, Err(PublishError::Timeout));
    }
    assert!(
        start.elapsed() < Duration::from_millis(1_500),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(publisher.room(), 4);
    server.signal("CONT");
    eventually("the late ones are counted", async || {
        metric(&metrics, "roomcast_nats_late_acks_total{service=\"test\"}") == "4"
    })
    .await;
    assert_eq!(
        publisher
            .publish("t.a", HeaderMap::new(), "6".into())
            .await
            .unwrap()
            .seq,
        5
    );
}

/// What waits for a connection could be stored after the stream has forgotten its id, and so a second time.
#[tokio::test]
async fn what_is_published_without_a_connection_is_refused_and_never_sent() {
    let Some(mut server) = Server::start("") else {
        return;
    };
    let client = server.client().await;
    let jetstream = JetStream::new(client.clone(), "$JS.API");
    jetstream.create_stream(&stream("T", "t.>")).await.unwrap();
    let publisher = Publisher::start(&client, 8, None).await.unwrap();
    server.kill();
    eventually("the loss is noticed", async || {
        client.connection_state() == State::Disconnected
    })
    .await;
    let batch = || vec![outgoing("t.a", &[], "2"), outgoing("t.a", &[], "3")];
    let found = [
        publisher.publish("t.a", HeaderMap::new(), "0".into()).await,
        jetstream
            .publish("t.a", HeaderMap::new(), "1".into(), Duration::from_secs(1))
            .await,
        jetstream.publish_batch(batch()).await,
    ];
    for found in found {
        let error = found.unwrap_err();
        assert!(
            error == PublishError::NoResponders && error.retryable(),
            "{error}"
        );
    }
    assert_eq!(publisher.room(), 8);
    server.restart("");
    eventually("it is connected again", async || {
        client.connection_state() == State::Connected
    })
    .await;
    let first = publisher.publish("t.a", HeaderMap::new(), "4".into()).await;
    assert_eq!(first.unwrap().seq, 1, "nothing came before it");
}

/// The client's queue has no room while nothing leaves it, and whoever waited for room waited for as long as the outage.
#[tokio::test]
async fn no_call_waits_longer_for_room_in_the_queue_than_for_its_answer() {
    let Some(server) = Server::start("") else {
        return;
    };
    let options = ConnectOptions::new().client_capacity(1);
    let client = options.connect(server.url()).await.unwrap();
    let jetstream = JetStream::new(client.clone(), "$JS.API").with_timeout(Duration::from_millis(200));
    let publisher = Publisher::start(&client, 8, None).await.unwrap();
    server.signal("STOP");
    let large = Bytes::from(vec![0; 512 * 1024]);
    let room = async || {
        let sending = client.publish("x", large.clone());
        tokio::time::timeout(Duration::from_millis(200), sending)
            .await
            .is_ok()
    };
    while room().await {}
    let (none, body) = (HeaderMap::new, Bytes::new);
    let publishes = [
        ended(publisher.publish("t.a", none(), body())).await,
        ended(jetstream.publish("t.a", none(), body(), Duration::from_millis(200))).await,
        ended(jetstream.publish_batch(vec![outgoing("t.a", &[], ""), outgoing("t.a", &[], "")])).await,
    ];
    for (call, found) in publishes.into_iter().enumerate() {
        assert_eq!(found, Err(PublishError::Timeout), "{call}");
    }
    let reads = [
        ended(jetstream.stream_info("T")).await.map(drop),
        ended(jetstream.direct_last("T", "t.a")).await.map(drop),
        ended(jetstream.direct_batch("T", 1, 9, None)).await.map(drop),
        ended(jetstream.multi_last("T", &["t.a"], None)).await.map(drop),
        ended(ask_servers(&client, "x", &json!({}), |_| false))
            .await
            .map(drop),
    ];
    for (call, found) in reads.into_iter().enumerate() {
        assert_eq!(found, Err(ApiError::Timeout), "{call}");
    }
    assert_eq!(publisher.room(), 8);
}

async fn ended<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), call).await.unwrap()
}
