//! Who asks and does not wait for the answer: what was begun is brought to its end all the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use roomcast_chassis::process::Exit;
use roomcast_harness::eventually;
use roomcast_harness::nats::Nats;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::admin_port::AdminPort;
use crate::fixture::{BATCH, Ingest, JSON, POLICY, event};
use crate::relay::Relay;

const SOON: Duration = Duration::from_secs(20);

/// A way to NATS on which no event comes through before it is opened.
struct Held {
    relay: Relay,
    seen: watch::Receiver<bool>,
    open: Arc<AtomicBool>,
}

impl Held {
    async fn to(nats: &Nats) -> Self {
        let relay = Relay::to(&nats.url()).await;
        let (sees, seen) = watch::channel(false);
        let open = Arc::new(AtomicBool::new(false));
        let lets = Arc::clone(&open);
        relay.lose(move |subject, _| {
            let is_event = subject.starts_with("evt.");
            sees.send_if_modified(|seen| is_event && !std::mem::replace(seen, true));
            is_event && !lets.load(Ordering::Relaxed)
        });
        Self { relay, seen, open }
    }

    fn open(&self) {
        self.open.store(true, Ordering::Relaxed);
    }

    /// Posts something and hangs up while its event is on the way; returns when `listener` has noticed.
    async fn post_and_hang_up(
        &mut self,
        ingest: &Ingest,
        (listener, address): (&str, &str),
        (path, token): (&str, &str),
        (kind, body): (&str, &str),
    ) {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all((head + body).as_bytes()).await.unwrap();
        let seen = self.seen.wait_for(|seen| *seen);
        tokio::time::timeout(SOON, seen).await.unwrap().unwrap();
        let connections = format!("roomcast_http_connections{{listener=\"{listener}\"}}");
        let before = ingest.metric(&connections);
        drop(socket);
        eventually("the hang-up is noticed", SOON, || async {
            ingest.metric(&connections) < before
        })
        .await;
    }

    async fn publish_and_hang_up(&mut self, ingest: &Ingest, kind: &str, body: &str) {
        let public = ("public", ingest.url.trim_start_matches("http://"));
        let token = ingest.token("desk");
        let to = ("/v1/events", token.as_str());
        self.post_and_hang_up(ingest, public, to, (kind, body)).await;
    }
}

async fn behind_held() -> Option<(Ingest, Held)> {
    let nats = Nats::start().await?;
    let held = Held::to(&nats).await;
    let url = held.relay.url();
    let ingest = Ingest::on(nats, POLICY, &[("ROOMCAST_NATS_URL", &url)]).await;
    Some((ingest, held))
}

/// One that is stored, and one that is refused.
fn good_and_bad() -> [String; 2] {
    let bad = json!({ "type": "t", "room": "a..b", "id": "bad" });
    [event("good"), bad].map(|event| event.to_string())
}

#[tokio::test]
async fn a_publisher_who_hangs_up_leaves_nothing_half_done() {
    let [good, bad] = good_and_bad();
    for (kind, body) in [
        (BATCH, format!("[{good},{bad}]")),
        ("application/x-ndjson", format!("{good}\n{bad}")),
    ] {
        let Some((ingest, mut held)) = behind_held().await else {
            return;
        };
        held.publish_and_hang_up(&ingest, kind, &body).await;
        assert_eq!(ingest.metric("roomcast_ingest_in_flight"), 1.0, "{kind}");
        held.open();
        eventually("it is done", SOON, || async {
            ingest.metric("roomcast_ingest_in_flight") == 0.0
        })
        .await;
        assert_eq!(ingest.stored("EVENTS").await.len(), 1, "{kind}");
        let letter = ingest.dead_letter("bad_room").await.unwrap();
        assert_eq!(letter.payload, bad, "{kind}");
        for outcome in ["stored", "refused"] {
            let events = format!("roomcast_ingest_events_total{{door=\"http\",outcome=\"{outcome}\"}}");
            assert_eq!(ingest.metric(&events), 1.0, "{kind}: {outcome}");
        }
    }
}

#[tokio::test]
async fn the_end_of_the_process_waits_for_what_a_hang_up_left() {
    let Some((ingest, mut held)) = behind_held().await else {
        return;
    };
    let body = format!("[{}]", good_and_bad().join(","));
    held.publish_and_hang_up(&ingest, BATCH, &body).await;
    ingest.context.shutdown.request();
    let url = ingest.url.trim_start_matches("http://").to_owned();
    eventually("the door is closed", SOON, || async {
        TcpStream::connect(&url).await.is_err()
    })
    .await;
    assert!(!ingest.driven.is_finished());
    held.open();
    let streams = ingest.streams.clone();
    assert_eq!(ingest.driven.await.unwrap(), Exit::Ok);
    for stream in ["EVENTS", "DLQ"] {
        let info = streams.stream_info(stream).await.unwrap().unwrap();
        assert_eq!(info.state.messages, 1, "{stream}");
    }
}

/// A letter whose replay nobody waited for is taken, and known to be: not one that was begun with and is never taken again.
#[tokio::test]
async fn an_administrator_who_hangs_up_leaves_no_letter_half_taken() {
    let Some(nats) = Nats::start().await else {
        return;
    };
    let mut held = Held::to(&nats).await;
    let url = held.relay.url();
    let (ingest, admin) = AdminPort::on(nats, &[("ROOMCAST_NATS_URL", &url)]).await;
    let [good, bad] = good_and_bad();
    let refused = ingest.post("desk", JSON, bad).await;
    assert_eq!(refused.json()["code"], "bad_room");
    let (path, token) = ("/admin/v1/dead-letters/1/replay", admin.token());
    let port = ("admin", admin.address.as_str());
    held.post_and_hang_up(&ingest, port, (path, &token), (JSON, &good))
        .await;
    held.open();
    eventually("the letter is taken", SOON, || async {
        let again = admin
            .post(
                &ingest,
                "dead-letters/1/replay",
                &Value::Object(serde_json::Map::default()),
            )
            .await;
        let said = again.json();
        assert_eq!(said["code"], "conflict", "{said}");
        said["detail"].as_str().unwrap().contains("taken before")
    })
    .await;
    assert_eq!(ingest.stored("EVENTS").await.len(), 1);
}
