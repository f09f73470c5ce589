//! A backend's triggers: to a room, to a role, to users, together or not at all.

use serde_json::{Value, json};

use crate::fixture::{Ingest, JSON};

const POLICY: &str = r#"
version: 1
roles:
  user:   { permissions: [news.view] }
  ADMIN:  { inherits: [user] }
  desk:   { permissions: [backend.publish] }
  shy:    { permissions: [rooms.publish] }
rooms:
  - { room: system, subscribe: news.view, publish: backend.publish, auto_join: true }
  - { room: property.42, subscribe: news.view, publish: rooms.publish }
  - { room: "user.{user}", publish: backend.publish }
triggers: { room: system }
"#;

async fn post(ingest: &Ingest, trigger: &Value) -> (u16, Value) {
    let url = format!("{}/v1/triggers", ingest.url);
    let answer = ingest
        .http
        .post(&url, &ingest.token("desk"), JSON, trigger.to_string())
        .await
        .unwrap();
    (answer.status, answer.json())
}

/// Room, audience and id of each stored event, in order.
async fn stored(ingest: &Ingest) -> Vec<(String, String, String)> {
    let events = ingest.stored("EVENTS").await;
    let read = |event: &roomcast_chassis::jetstream::StoredMessage| {
        let event: Value = serde_json::from_slice(&event.payload).unwrap();
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        (text("room"), text("audience"), text("id"))
    };
    events.iter().map(read).collect()
}

#[tokio::test]
async fn one_call_reaches_a_room_a_role_and_users() {
    let Some(ingest) = Ingest::start_with(POLICY, &[]).await else {
        return;
    };
    let all = json!({ "id": "t1", "type": "booking_update", "room": "system", "role": "ADMIN", "users": ["u1", "a,b"], "data": { "n": 1 } });
    let (status, answer) = post(&ingest, &all).await;
    assert_eq!(
        (status, &answer["status"], &answer["id"]),
        (200, &json!("stored"), &json!("t1")),
        "{answer}"
    );
    assert!(answer["cursor"].is_string(), "{answer}");
    let (status, answer) = post(&ingest, &json!({ "id": "t2", "type": "t", "role": "ADMIN" })).await;
    assert_eq!((status, &answer["status"]), (200, &json!("stored")), "{answer}");
    let expected = [
        ("system", "ADMIN", "t1"),
        ("user.u1", "all", "t1/u1"),
        ("user.a=2Cb", "all", "t1/a,b"),
        ("system", "ADMIN", "t2"),
    ];
    let expected = expected.map(|(room, audience, id)| (room.to_owned(), audience.to_owned(), id.to_owned()));
    assert_eq!(stored(&ingest).await, expected);

    // The same again is the same; with other content it is not.
    let (_, answer) = post(&ingest, &all).await;
    assert_eq!(answer["status"], "duplicate", "{answer}");
    let mut other = all;
    other["data"]["n"] = json!(2);
    assert_eq!(post(&ingest, &other).await.0, 409);
    assert_eq!(stored(&ingest).await.len(), 4);
}

#[tokio::test]
async fn what_is_refused_in_part_is_not_taken_at_all() {
    let Some(ingest) = Ingest::start_with(POLICY, &[]).await else {
        return;
    };
    #[track_caller]
    fn refused((status, answer): (u16, Value), expected: u16, code: &str, pointer: Option<&str>) {
        let found = (status, answer["code"].as_str(), answer["pointer"].as_str());
        assert_eq!(found, (expected, Some(code), pointer), "{answer}");
    }
    // The desk may publish to users and not to this room.
    let split =
        json!({ "id": "t1", "type": "t", "room": "property.42", "users": ["u1"], "data": { "n": 1.5 } });
    refused(post(&ingest, &split).await, 403, "forbidden", None);
    assert_eq!(stored(&ingest).await, []);
    let letter = ingest.dead_letter("forbidden").await.unwrap();
    assert_eq!(letter.payload, split.to_string(), "the trigger itself is kept");

    let role = json!({ "type": "t", "role": "nobody" });
    refused(post(&ingest, &role).await, 422, "unknown_audience", Some("/role"));
    refused(
        post(&ingest, &json!({ "type": "t" })).await,
        400,
        "bad_room",
        Some("/room"),
    );
    refused(
        post(&ingest, &json!({ "type": "t", "users": [] })).await,
        400,
        "bad_event",
        Some("/users"),
    );
    refused(
        post(&ingest, &json!({ "users": ["u1"] })).await,
        400,
        "bad_event",
        Some("/type"),
    );
    let url = format!("{}/v1/triggers", ingest.url);
    let lines = ingest
        .http
        .post(&url, &ingest.token("desk"), "application/x-ndjson", "{}")
        .await
        .unwrap();
    assert_eq!(lines.status, 415);
    let nobody = ingest.http.post(&url, "no-token", JSON, "{}").await.unwrap();
    assert_eq!(nobody.status, 401);
    assert_eq!(stored(&ingest).await, []);
}
