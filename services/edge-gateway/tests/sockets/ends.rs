//! How a connection ends: with its token, with its gateway, and with NATS.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use roomcast_harness::client::Client;
use roomcast_harness::eventually;
use roomcast_harness::token::now;
use roomcast_proto::ids::Tenant;
use roomcast_proto::subject::{INGEST_QUEUE, Service};
use roomcast_proto::ticket::{SECRET_BYTES, Ticket};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Gateway, ids};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_end_on_open_sockets_and_can_be_renewed() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    // Leeway is 30 s, so a token that ended 28 s ago lives 2 s more.
    let short = gateway.signer.token_with("u1", &["staff"], -28, &json!({}));
    let (mut client, _) = Client::connect(&gateway.url, &short, &["bookings"], &HashMap::new())
        .await
        .unwrap();
    let (mut renewed, _) = Client::connect(&gateway.url, &short, &["bookings"], &HashMap::new())
        .await
        .unwrap();
    renewed
        .until("a warning", SOON, |frame| {
            frame["expiring"]["expiresAt"].is_string()
        })
        .await
        .unwrap();
    let other = gateway.signer.token("u2", &["admin"]);
    let refused = renewed
        .request("refresh", json!({ "token": other }))
        .await
        .unwrap();
    assert_eq!(refused["error"]["code"], "forbidden");
    let more = gateway.signer.token("u1", &["admin"]);
    let refreshed = renewed
        .request("refresh", json!({ "token": more }))
        .await
        .unwrap();
    assert_eq!(refreshed["refreshed"]["roles"], json!(["admin"]));
    let ended = client
        .until("disconnect", SOON, |frame| frame["disconnect"]["code"] == 4003)
        .await
        .unwrap();
    assert_eq!(
        ended.last().unwrap()["disconnect"],
        json!({ "code": 4003, "reason": "expired", "reconnect": true })
    );
    assert_eq!(client.next(SOON).await.unwrap(), None);
    assert_eq!(client.closed, Some((4003, "expired".into())));
    gateway.event("bookings", "admin", "for admins", json!({})).await;
    renewed
        .until("new rights", SOON, |frame| {
            frame["event"]["event"]["id"] == "for admins"
        })
        .await
        .unwrap();
    // Rights that end close rooms at once.
    let less = gateway.signer.token("u1", &["user"]);
    renewed
        .request("refresh", json!({ "token": less }))
        .await
        .unwrap();
    let closed = renewed
        .until("closed", SOON, |frame| {
            frame["unsubscribed"]["room"] == "bookings"
        })
        .await
        .unwrap();
    assert_eq!(closed.last().unwrap()["unsubscribed"]["code"], "forbidden");
    gateway.event("bookings", "all", "no more", json!({})).await;
    gateway.event("notifications", "all", "still", json!({})).await;
    let frames = renewed
        .until("still", SOON, |frame| frame["event"]["event"]["id"] == "still")
        .await
        .unwrap();
    assert_eq!(ids(&frames, "bookings"), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_goes_sends_its_clients_away_with_hints() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let mut clients = Vec::new();
    for n in 0..20 {
        clients.push(
            gateway
                .client(&format!("u{n}"), &["staff"], &["bookings"])
                .await
                .0,
        );
    }
    let mut silent = TcpStream::connect(gateway.address).await.unwrap();
    let shutdown = gateway.context.shutdown.clone();
    let stopped = tokio::spawn(async move { shutdown.run(Duration::from_secs(5)).await });
    let mut hints = Vec::new();
    for (n, client) in clients.iter_mut().enumerate() {
        if n == 1 {
            // Those who come now, or came and said nothing yet, are told to try again, and so find another gateway.
            let mut late = TcpStream::connect(gateway.address).await.unwrap();
            for socket in [&mut silent, &mut late] {
                let mut answer = String::new();
                let _ = socket.read_to_string(&mut answer).await;
                assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
                assert!(
                    answer.contains("retry-after: 1\r\n") && answer.contains("\"unavailable\""),
                    "{answer}"
                );
            }
        }
        let frames = client
            .until("disconnect", SOON, |frame| frame["disconnect"].is_object())
            .await
            .unwrap();
        let disconnect = &frames.last().unwrap()["disconnect"];
        assert_eq!(
            (disconnect["code"].as_u64(), disconnect["reconnect"].as_bool()),
            (Some(4001), Some(true))
        );
        hints.push(disconnect["retryAfterMs"].as_u64().unwrap());
        assert_eq!(client.next(SOON).await.unwrap(), None);
        assert_eq!(client.closed.as_ref().map(|closed| closed.0), Some(4001));
    }
    hints.sort_unstable();
    hints.dedup();
    assert!(hints.len() > 10, "hints are spread: {hints:?}");
    drop(clients);
    assert!(stopped.await.unwrap(), "ended in time");
    assert!(!gateway.context.readiness.is_ready());
    assert!(
        TcpStream::connect(gateway.address).await.is_err(),
        "the door is closed"
    );
}

/// Ingest is played here: what stands behind the ticket is said when the gateway goes already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_asked_for_when_the_gateway_goes_is_answered() {
    let Some(gateway) = Gateway::start(&[("ROOMCAST_DRAIN_SECONDS", "50")]).await else {
        return;
    };
    let ingest = gateway.nats.connect("ingest").await;
    let mut takes = ingest
        .queue_subscribe(Service::Tickets.requests(), INGEST_QUEUE.to_owned())
        .await
        .unwrap();
    ingest.flush().await.unwrap();
    let ticket = Ticket::new(Tenant::default(), [7; SECRET_BYTES]).text();
    let request = format!("GET /v1/sse?ticket={ticket} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let take = tokio::time::timeout(SOON, takes.next()).await;
    let take = take.expect("the gateway asks").unwrap();
    let shutdown = gateway.context.shutdown.clone();
    let stopped = tokio::spawn(async move { shutdown.run(Duration::from_secs(50)).await });
    eventually("nobody is let in", SOON, || async {
        let mut late = TcpStream::connect(gateway.address).await.unwrap();
        let mut answer = String::new();
        let _ = late.read_to_string(&mut answer).await;
        answer.starts_with("HTTP/1.1 503")
    })
    .await;
    let holder = json!({
        "user": "u1", "roles": ["staff"], "claims": {}, "expires_at": now() + 60, "rooms": ["bookings"],
    });
    let taken = json!({ "holder": holder }).to_string();
    ingest.publish(take.reply.unwrap(), taken.into()).await.unwrap();
    let mut came = String::new();
    let reading = tokio::time::timeout(SOON, stream.read_to_string(&mut came)).await;
    reading.expect("the stream ends").unwrap();
    assert!(came.starts_with("HTTP/1.1 200 OK\r\n"), "{came}");
    let (head, frames) = came.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\ndate: "), "{head}");
    assert!(frames.contains("\"code\":4001"), "{frames}");
    assert!(stopped.await.unwrap(), "ended in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_nats_clients_are_told_then_sent_away_and_return_by_themselves() {
    let Some(mut gateway) = Gateway::start(&[]).await else {
        return;
    };
    let token = gateway.signer.token("u1", &["staff"]);
    let (mut client, _) = gateway.client("u1", &["staff"], &["bookings"]).await;
    client.caught_up("bookings").await.unwrap();
    gateway.nats.kill();
    let told = client
        .until("stale", SOON, |frame| frame["status"]["status"] == "stale")
        .await
        .unwrap();
    assert!(told.last().unwrap()["status"]["since"].is_string());
    let ended = client
        .until("4005", SOON, |frame| frame["disconnect"].is_object())
        .await
        .unwrap();
    assert_eq!(ended.last().unwrap()["disconnect"]["code"], 4005);
    let refused = Client::open(&gateway.url)
        .await
        .err()
        .map(|error| error.to_string());
    assert!(refused.is_some(), "new sockets are refused meanwhile");
    gateway.nats.launch().await;
    let cursors = client.cut();
    let begun = std::time::Instant::now();
    let (mut back, connected) = loop {
        match Client::connect(&gateway.url, &token, &["bookings"], &cursors).await {
            Ok(back) => break back,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(
        (&connected["rooms"][0]["recovery"], &connected["status"]),
        (&json!("complete"), &json!("ok"))
    );
    gateway.event("bookings", "all", "again", json!({})).await;
    back.until("live again", SOON, |frame| {
        frame["event"]["event"]["id"] == "again"
    })
    .await
    .unwrap();
}
