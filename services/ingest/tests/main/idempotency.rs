//! Repeats, conflicts, ids that are too old, copies for users.

use serde_json::{Value, json};

use crate::fixture::{Ingest, JSON, aged_id, event};
use crate::process::Process;

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

/// Whichever instance is asked, by whichever door, and whatever was restarted in between: the same id is the same event.
#[tokio::test]
async fn the_same_id_is_one_event_across_instances_doors_and_restarts() {
    let Some(mut ingest) = Ingest::start().await else {
        return;
    };
    let (nats, dir) = (ingest.nats.url(), ingest.dir().to_owned());
    let mut other = event("e1");
    other["data"] = json!("another");
    let (http, token) = (ingest.http.clone(), ingest.token("desk"));
    let ask = async |url: &str, event: &Value| {
        let url = format!("{url}/v1/events");
        http.post(&url, &token, JSON, event.to_string()).await.unwrap()
    };
    let first = ingest.publish(&event("e1")).await;
    assert_eq!(first["status"], "stored", "{first}");
    let check = async |url: &str| {
        let again = ask(url, &event("e1")).await.json();
        assert_eq!(
            (&again["status"], &again["id"], &again["cursor"]),
            (&json!("duplicate"), &json!("e1"), &first["cursor"]),
            "{again}"
        );
        let answer = ask(url, &other).await;
        assert_eq!(
            (answer.status, &answer.json()["code"], &answer.json()["pointer"]),
            (409, &json!("conflict"), &json!("/id"))
        );
    };
    check(&ingest.url).await;
    let second = Process::start(&nats, &dir, &[]).await;
    check(&second.url).await;
    // A batch with a repeat of another instance's goes apart, and says of each what it is.
    let batch = ask(
        &second.url,
        &json!([event("e2"), event("e1"), event("e3"), other]),
    )
    .await
    .json();
    let said = |result: &Value| result["status"].as_str().unwrap().to_owned();
    let found: Vec<String> = batch["results"].as_array().unwrap().iter().map(said).collect();
    assert_eq!(found, ["stored", "duplicate", "stored", "refused"], "{batch}");
    second.kill().await;
    let third = Process::start(&nats, &dir, &[]).await;
    check(&third.url).await;
    let nats = ingest.nats.connect("publisher").await;
    for (id, status) in [("n1", "stored"), ("n1", "duplicate")] {
        let body = json!({ "type": "t", "id": id });
        let answer = nats
            .request("in.bookings.staff", body.to_string().into())
            .await
            .unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(answer["status"], status, "{answer}");
    }
    drop(nats);
    // NATS itself, killed and started again, remembers.
    ingest.nats.kill();
    ingest.nats.launch().await;
    for url in [&ingest.url, &third.url] {
        roomcast_harness::eventually("it is answered", std::time::Duration::from_secs(20), || async {
            ask(url, &event("e1")).await.status == 200
        })
        .await;
        let again = ask(url, &event("e1")).await.json();
        assert_eq!(
            (&again["status"], &again["cursor"]),
            (&json!("duplicate"), &first["cursor"])
        );
        assert_eq!(ask(url, &other).await.status, 409);
    }
    let stored = ingest.stored("EVENTS").await;
    assert_eq!(stored.len(), 4, "e1, e2, e3, n1");
}

/// An event's own time is history, and history may be published: as it is, whenever it was. Only an id that says how old it is needs the
/// permission to be that old.
#[tokio::test]
async fn what_happened_long_ago_is_stored_as_it_is() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    for (id, time) in [
        ("past", "1999-12-31T23:59:59.5+02:00"),
        ("future", "2999-01-01T00:00:00Z"),
        ("first", "0001-01-01T00:00:00Z"),
        ("last", "9999-12-30T21:59:59Z"),
    ] {
        let mut event = event(id);
        event["time"] = json!(time);
        let answer = ingest.publish(&event).await;
        assert_eq!(answer["status"], "stored", "{time}: {answer}");
    }
    for message in ingest.stored("EVENTS").await {
        let stored: Value = serde_json::from_slice(&message.payload).unwrap();
        assert!(stored["time"].as_str().unwrap().len() >= 20, "{stored}");
        if stored["id"] == "past" {
            assert_eq!(stored["time"], "1999-12-31T23:59:59.5+02:00");
        }
    }
    // A back-fill over NATS is the policy's to allow, too.
    let nats = ingest.nats.connect("publisher").await;
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Roomcast-Backfill", "1");
    let body = json!({ "type": "t", "id": aged_id(3_600) }).to_string();
    let answer = nats
        .request_with_headers("in.bookings.staff", headers, body.into())
        .await
        .unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(answer["code"], "forbidden", "{answer}");
}
