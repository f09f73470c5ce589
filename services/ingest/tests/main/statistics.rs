//! `GET /v1/triggers`: two gateways, played by the test, say who is connected to them.

use futures_util::StreamExt;
use roomcast_harness::eventually;
use serde_json::{Value, json};

use crate::fixture::Ingest;

const POLICY: &str = r#"
version: 1
roles:
  desk:    { permissions: [bookings.publish] }
  backend: { permissions: [statistics.read] }
rooms:
  - { room: bookings, publish: bookings.publish }
"#;

/// Plays a gateway, which says the same whatever is asked, and gives what it was asked last.
async fn gateway(ingest: &Ingest, says: Value) -> tokio::sync::watch::Receiver<Value> {
    let client = ingest.nats.connect("gw").await;
    let mut questions = client.subscribe("ctl.statistics").await.unwrap();
    client.flush().await.unwrap();
    let (asked, last) = tokio::sync::watch::channel(Value::Null);
    tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            let question: Value = serde_json::from_slice(&question.payload).unwrap();
            let to = format!("sts.{}", question["id"].as_str().unwrap());
            client.publish(to, says.to_string().into()).await.unwrap();
            asked.send_replace(question);
        }
    });
    last
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_hears_who_is_connected() {
    let Some(ingest) = Ingest::start_with(POLICY, &[]).await else {
        return;
    };
    let url = format!("{}/v1/triggers", ingest.url);
    let ask = async |role: &str, query: &str| {
        let token = ingest.token(role);
        let url = format!("{url}{query}");
        ingest.http.get(&url, Some(&token)).await.unwrap()
    };
    let alone = ask("backend", "").await;
    assert_eq!(
        (alone.status, &alone.json()["code"]),
        (503, &json!("unavailable"))
    );
    let present = |users: Value, connections: u64, complete: bool| {
        let rooms =
            json!({ "bookings": { "connections": connections, "users": users.as_object().unwrap().len() } });
        json!({ "connections": connections, "users": users, "rooms": rooms, "complete": complete })
    };
    let asked = gateway(&ingest, present(json!({ "u1": 2, "u2": 1 }), 3, true)).await;
    let _other = gateway(&ingest, present(json!({ "u1": 1 }), 1, true)).await;
    let expected = json!({
        "gateways": 2, "connections": 4, "users": { "u1": 3, "u2": 1 },
        "rooms": { "bookings": { "connections": 4, "users": 3 } }, "complete": true,
    });
    // On a busy machine an answer may come too late to count, which is said by the number of gateways.
    eventually(
        "both gateways are heard",
        std::time::Duration::from_secs(60),
        || async {
            let answer = ask("backend", "").await;
            answer.status == 200 && answer.json() == expected
        },
    )
    .await;
    assert_eq!(asked.borrow()["tenant"], "main");
    assert_eq!(asked.borrow()["room"], Value::Null);
    eventually(
        "one room is asked for",
        std::time::Duration::from_secs(60),
        || async {
            ask("backend", "?room=bookings").await;
            asked.borrow()["room"] == "bookings"
        },
    )
    .await;
    for (role, query, status, code) in [
        ("desk", "", 403, "forbidden"),
        ("backend", "?room=a%20b", 400, "bad_request"),
        ("backend", "?rooms=a", 400, "bad_request"),
        ("backend", "?room=a&room=b", 400, "bad_request"),
    ] {
        let answer = ask(role, query).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (status, &json!(code)),
            "{role} {query}"
        );
    }
    assert_eq!(ingest.http.get(&url, None).await.unwrap().status, 401);
}
