//! What ends by itself, and when: values with an `expirytime`, grants with an `until`.

use std::time::Duration;

use roomcast_harness::eventually;
use roomcast_harness::nats::Nats;
use roomcast_harness::token::now;
use serde_json::{Value, json};

use crate::admin_port::AdminPort;
use crate::fixture::{Ingest, header};

const SOON: Duration = Duration::from_secs(20);

/// A value of a key that ends so many microseconds after the epoch.
fn value(key: &str, ends: &str) -> Value {
    json!({ "type": "t", "room": "bookings", "delivery": "state", "statekey": key, "expirytime": ends })
}

/// The keys of the stream.
async fn keys(ingest: &Ingest) -> Vec<String> {
    let stored = ingest.stored("STATE").await;
    let key = |subject: &str| subject.rsplit_once('.').unwrap().1.to_owned();
    stored.iter().map(|message| key(&message.subject)).collect()
}

/// The server counts in nanoseconds, up to the year 2262: what is to end later it would take for ended long ago, and delete it with the
/// first value that does end.
#[tokio::test]
async fn a_value_that_ends_after_centuries_is_kept() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let in_secs = |secs: i64| roomcast_proto::event::rfc3339((now() + secs) * 1_000_000);
    let years = 365 * 24 * 3_600;
    for (key, ends) in [
        ("far", "9999-12-30T00:00:00Z".to_owned()),
        ("overflow", "2263-01-01T00:00:00Z".to_owned()),
        ("decades", in_secs(20 * years)),
        ("years", in_secs(9 * years)),
        ("soon", in_secs(2)),
    ] {
        let answer = ingest.publish(&value(key, &ends)).await;
        assert_eq!(answer["status"], "stored", "{key}: {answer}");
    }
    eventually("the server has looked for what has ended", SOON, || async {
        !keys(&ingest).await.contains(&"soon".to_owned())
    })
    .await;
    assert_eq!(keys(&ingest).await, ["far", "overflow", "decades", "years"]);
    // Readers are told in any case.
    for message in ingest.stored("STATE").await {
        assert!(header(&message, "Rc-Expires").is_some(), "{}", message.subject);
    }
}

#[tokio::test]
async fn a_grant_that_ends_after_centuries_is_stored() {
    let Some(nats) = Nats::start().await else {
        return;
    };
    let (ingest, admin) = AdminPort::on(nats, &[]).await;
    for (user, until) in [("u1", 253_402_300_799), ("u2", i64::MAX), ("u3", now() + 600)] {
        let grant = json!({ "user": user, "role": "desk", "until": until });
        let answer = admin.post(&ingest, "grants", &grant).await;
        assert_eq!(
            (answer.status, &answer.json()["until"]),
            (200, &json!(until)),
            "{}",
            answer.text()
        );
    }
    let past = json!({ "user": "u4", "role": "desk", "until": 1 });
    let answer = admin.post(&ingest, "grants", &past).await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (400, &json!("bad_request"))
    );
}
