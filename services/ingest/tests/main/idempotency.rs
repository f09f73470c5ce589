//! Repeats, conflicts, ids that are too old, copies for users.

use serde_json::{Value, json};

use crate::fixture::{Ingest, JSON, aged_id, event};

#[tokio::test]
async fn a_repeat_is_a_duplicate_and_other_content_a_conflict() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let first = ingest.publish(&event("e1")).await;
    let again = ingest.publish(&event("e1")).await;
    assert_eq!(
        (&again["status"], &again["cursor"], &again["dedupSeconds"]),
        (&json!("duplicate"), &first["cursor"], &json!(120))
    );
    let mut other = event("e1");
    other["data"] = json!(2);
    let answer = ingest.post("desk", JSON, other.to_string()).await;
    assert_eq!((answer.status, &answer.json()["code"]), (409, &json!("conflict")));
    let letter = ingest.dead_letter("conflict").await.unwrap();
    assert_eq!(letter.payload.as_ref(), other.to_string().as_bytes());
    // In a batch, after another source has used the same id: only the conflict is refused.
    let mut theirs = event("e1");
    theirs["source"] = json!("/another");
    let answer = ingest
        .post("desk", JSON, json!([other, theirs, event("e1")]).to_string())
        .await
        .json();
    let found: Vec<&str> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["status"].as_str().unwrap())
        .collect();
    assert_eq!(found, ["refused", "stored", "duplicate"], "{answer}");
    assert_eq!(ingest.stored("EVENTS").await.len(), 2);
    // Another publisher's id is another id.
    let token = ingest.signer.token("other", &["desk"]);
    let url = format!("{}/v1/events", ingest.url);
    let answer = ingest
        .http
        .post(&url, &token, JSON, other.to_string())
        .await
        .unwrap()
        .json();
    assert_eq!(answer["status"], "stored");
}

#[tokio::test]
async fn a_replaced_state_value_is_a_duplicate() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let value = |id: &str, data: u32| json!({ "type": "t", "room": "bookings", "delivery": "state", "statekey": "k", "id": id, "data": data });
    for (id, data, status) in [
        ("a", 1, "stored"),
        ("a", 1, "duplicate"),
        ("b", 2, "stored"),
        ("a", 1, "duplicate"),
        ("a", 9, "duplicate"),
    ] {
        assert_eq!(
            ingest.publish(&value(id, data)).await["status"],
            status,
            "{id} {data}"
        );
    }
    assert_eq!(ingest.publish(&value("b", 9)).await["code"], "conflict");
}

#[tokio::test]
async fn ids_that_are_too_old_are_late_unless_meant() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let old = event(&aged_id(100));
    assert_eq!(ingest.publish(&event(&aged_id(60))).await["status"], "stored");
    let answer = ingest.post("desk", JSON, old.to_string()).await;
    assert_eq!(
        (answer.status, &answer.json()["code"], &answer.json()["pointer"]),
        (422, &json!("late"), &json!("/id"))
    );
    assert_eq!(
        ingest.dead_letter("late").await.unwrap().payload.as_ref(),
        old.to_string().as_bytes()
    );
    let backfill = async |role: &str| -> Value {
        let request = http::Request::post(format!("{}/v1/events", ingest.url))
            .header("authorization", format!("Bearer {}", ingest.token(role)))
            .header("content-type", JSON)
            .header("roomcast-backfill", "1")
            .body(http_body_util::Full::new(old.to_string().into()))
            .unwrap();
        ingest.http.send(request).await.unwrap().json()
    };
    assert_eq!(backfill("desk").await["code"], "forbidden");
    assert_eq!(backfill("filler").await["status"], "stored");
    assert_eq!(backfill("root").await["status"], "duplicate");
}

#[tokio::test]
async fn users_get_a_copy_each_and_a_repeat_completes_them() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let event = json!({ "type": "t", "id": "e1", "users": "u1,a%40b,u1", "data": 1 });
    let answer = ingest.post("pusher", JSON, event.to_string()).await.json();
    assert_eq!(
        (&answer["status"], &answer["id"]),
        (&json!("stored"), &json!("e1"))
    );
    let stored = ingest.stored("EVENTS").await;
    let mut places: Vec<&str> = stored
        .iter()
        .map(|m| m.subject.splitn(4, '.').nth(3).unwrap())
        .collect();
    places.sort_unstable();
    assert_eq!(places, ["user.a=40b.all", "user.u1.all"]);
    let copy: Value = serde_json::from_slice(&stored[0].payload).unwrap();
    assert!(copy["id"].as_str().unwrap().starts_with("e1/"));
    assert_eq!(
        ingest.post("pusher", JSON, event.to_string()).await.json()["status"],
        "duplicate"
    );
    assert_eq!(ingest.post("desk", JSON, event.to_string()).await.status, 403);
    let many: Vec<String> = (0..1000).map(|n| format!("u{n}")).collect();
    let event = json!({ "type": "t", "id": "e2", "users": many.join(",") });
    assert_eq!(
        ingest.post("pusher", JSON, event.to_string()).await.json()["status"],
        "stored"
    );
    assert_eq!(ingest.stored("EVENTS").await.len(), 1002);
}
