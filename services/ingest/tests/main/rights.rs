//! Rights changed at the admin port, and what the doors take while nobody can say which rights are in force.

use std::time::Duration;

use roomcast_harness::eventually;
use roomcast_harness::nats::Nats;
use roomcast_proto::subject::{QUEUES_LEASE, stream};
use serde_json::{Value, json};

use crate::admin_port::AdminPort;
use crate::fixture::{Ingest, JSON, event, header};

/// An answer about rights that must be there.
async fn said(ingest: &Ingest, port: &AdminPort, path: &str, body: &Value) -> Value {
    let answer = port.post(ingest, path, body).await;
    assert_eq!(answer.status, 200, "{body}: {}", answer.json());
    answer.json()
}

/// Somebody revokes what was issued before an instant, somebody else an earlier one: what the first took stays taken.
#[tokio::test]
async fn a_revocation_gives_nothing_back() {
    let Some(nats) = Nats::start().await else { return };
    let (ingest, port) = AdminPort::on(nats, &[]).await;
    for (asked, in_force) in [(500, 500), (400, 500), (600, 600), (599, 600)] {
        let body = json!({ "user": "u1", "issuedBefore": asked });
        let shown = said(&ingest, &port, "revocations", &body).await;
        assert_eq!(shown["before"], in_force, "{asked}");
    }
    let stored = ingest.stored(stream::ACL).await;
    let last: Value = serde_json::from_slice(&stored.last().unwrap().payload).unwrap();
    assert_eq!(last["before"], 600);
    // A grant is replaced, also by less.
    for until in [json!(9_999_999_999_u64), json!(5_000_000_000_u64), Value::Null] {
        let body = json!({ "user": "u1", "role": "staff", "until": until });
        let shown = said(&ingest, &port, "grants", &body).await;
        assert_eq!(shown["until"], until);
    }
}

/// A grant was asked for at an ingest that was cut off, and is on its way still. Elsewhere it is taken back meanwhile.
#[tokio::test]
async fn a_write_that_was_held_up_undoes_nothing() {
    let Some(nats) = Nats::start().await else { return };
    let (ingest, port) = AdminPort::on(nats, &[]).await;
    let late = ingest.nats.connect("ingest").await;
    let grant = json!({ "user": "u1", "role": "staff" });
    let key = said(&ingest, &port, "grants", &grant).await["key"].clone();
    let path = format!("http://{}/admin/v1/acl/{}", port.address, key.as_str().unwrap());
    let held_up = ingest.stored(stream::ACL).await.remove(0);
    for round in 0..2 {
        let answer = ingest.http.call("DELETE", &path, &port.token()).await.unwrap();
        assert_eq!(answer.status, 204, "round {round}: gone, or was not there");
        // What was asked for before, as it was sent.
        let mut headers = held_up.headers.clone();
        headers.insert("Nats-Msg-Id", format!("late-{round}").as_str());
        let request = async_nats::Request::new()
            .headers(headers)
            .payload(held_up.payload.clone());
        let answer = late.send_request(held_up.subject.clone(), request).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(answer["error"]["err_code"], 10_071, "{answer}");
    }
}

/// The bucket of revocations says nothing any more. NATS stores events all the same; nobody knows who may publish them.
#[tokio::test]
async fn nothing_is_taken_while_nobody_knows_who_is_revoked() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    assert_eq!(ingest.publish(&event("before")).await["status"], "stored");
    let admin = ingest.nats.connect("admin").await;
    let gone = format!("$JS.API.STREAM.DELETE.{}", stream::ACL);
    admin.request(gone, "".into()).await.unwrap();
    eventually("it is refused", Duration::from_secs(60), || async {
        ingest.post("desk", JSON, event("after").to_string()).await.status == 503
    })
    .await;
    let nats = ingest.nats.connect("publisher").await;
    let body = event("after-2").to_string();
    let answer = nats.request("in.bookings.staff", body.into()).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(
        (&answer["code"], &answer["temporary"]),
        (&json!("unavailable"), &json!(true)),
        "{answer}"
    );
    assert!(
        ingest.stored("DLQ").await.is_empty(),
        "whoever sent it has it still"
    );
    // Queues are for one who knows.
    eventually(
        "the queues' lease is given back",
        Duration::from_secs(30),
        || async {
            let commands = ingest.stored(stream::COMMANDS).await;
            let lease = commands.iter().rfind(|message| message.subject == QUEUES_LEASE);
            lease.is_none_or(|lease| header(lease, "KV-Operation") == Some("DEL"))
        },
    )
    .await;
    assert!(ingest.metric("roomcast_ingest_queue_pauses_total{reason=\"unsure\"}") >= 1.0);
}
