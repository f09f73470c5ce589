//! The events of one request are stored in its order, whatever is lost on the way and has to be sent again.

use roomcast_harness::nats::Nats;
use serde_json::{Value, json};

use crate::fixture::{BATCH, Ingest, JSON, POLICY, event};
use crate::relay::Relay;

async fn behind_relay() -> Option<(Ingest, Relay)> {
    let nats = Nats::start().await?;
    let relay = Relay::to(&nats.url()).await;
    let url = relay.url();
    let ingest = Ingest::on(nats, POLICY, &[("ROOMCAST_NATS_URL", &url)]).await;
    Some((ingest, relay))
}

/// The `id` (or another member) of what a stream holds, in its order.
async fn stored(ingest: &Ingest, stream: &str, member: &str) -> Vec<String> {
    let of = |payload: &[u8]| {
        let event: Value = serde_json::from_slice(payload).unwrap();
        event[member].as_str().unwrap().to_owned()
    };
    let messages = ingest.stored(stream).await;
    messages.iter().map(|message| of(&message.payload)).collect()
}

/// Status or code of each result.
async fn said(ingest: &Ingest, events: &[Value]) -> Vec<String> {
    let answer = ingest
        .post("desk", BATCH, Value::from(events).to_string())
        .await
        .json();
    let word = |result: &Value| {
        let word = result.get("code").unwrap_or(&result["status"]);
        word.as_str().unwrap().to_owned()
    };
    answer["results"].as_array().unwrap().iter().map(word).collect()
}

fn is_batch(message: &str) -> bool {
    message.contains("Nats-Batch-Id")
}

/// The whole batch is lost, then the first event when it goes by itself: the others wait for it.
#[tokio::test]
async fn none_passes_an_event_that_has_to_be_sent_again() {
    let Some((ingest, relay)) = behind_relay().await else {
        return;
    };
    let events: Vec<Value> = (0..4).map(|n| event(&format!("a{n}"))).collect();
    let mut left = 1;
    relay.lose(move |subject, message| {
        let alone = subject.starts_with("evt.") && !is_batch(message) && message.contains("\"id\":\"a0\"");
        let lost = alone && left > 0;
        left -= u32::from(lost);
        lost || is_batch(message)
    });
    assert_eq!(said(&ingest, &events).await, ["stored"; 4]);
    assert_eq!(stored(&ingest, "EVENTS", "id").await, ["a0", "a1", "a2", "a3"]);
}

/// One never arrives: those after it are not stored either, and the same request brings them all, in order, when the way is free again.
#[tokio::test]
async fn what_is_behind_an_event_that_cannot_be_stored_is_refused_for_now() {
    let Some((ingest, relay)) = behind_relay().await else {
        return;
    };
    let mut bad = event("b1");
    bad["room"] = json!("not a room");
    let events = [event("b0"), bad, event("b2"), event("b3")];
    relay.lose(|_, message| is_batch(message) || message.contains("\"id\":\"b2\""));
    let expected = ["stored", "bad_room", "unknown", "unknown"];
    assert_eq!(said(&ingest, &events).await, expected);
    assert_eq!(stored(&ingest, "EVENTS", "id").await, ["b0"]);
    relay.lose(|_, _| false);
    let expected = ["duplicate", "bad_room", "stored", "stored"];
    assert_eq!(said(&ingest, &events).await, expected);
    assert_eq!(stored(&ingest, "EVENTS", "id").await, ["b0", "b2", "b3"]);
}

/// Two values of one key: the later one holds, though the earlier one was lost once. Other keys do not wait for it.
#[tokio::test]
async fn the_last_value_of_a_key_is_the_one_that_holds() {
    let Some((ingest, relay)) = behind_relay().await else {
        return;
    };
    let value = |key: &str, value: &str| json!({ "type": "t", "room": "bookings", "audience": "staff", "delivery": "state", "statekey": key, "subject": value });
    let mut left = 1;
    relay.lose(move |_, message| {
        let lost = message.contains("\"subject\":\"first\"") && left > 0;
        left -= u32::from(lost);
        lost
    });
    let events = [
        value("k", "first"),
        value("other", "beside"),
        value("k", "second"),
    ];
    assert_eq!(said(&ingest, &events).await, ["stored"; 3]);
    assert_eq!(stored(&ingest, "STATE", "subject").await, ["beside", "second"]);
}

/// More events than a task may send in one go: a batch that another instance has a part of is stored one by one, in order, too.
#[tokio::test]
async fn a_long_request_that_goes_one_by_one_keeps_its_order() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let (context, other) = ingest.another_at().await;
    let url = format!("{other}/v1/events");
    let token = ingest.token("desk");
    let known = ingest.http.post(&url, &token, JSON, event("c000").to_string());
    assert_eq!(known.await.unwrap().json()["status"], "stored");
    let ids: Vec<String> = (0..250).map(|n| format!("c{n:03}")).collect();
    let events: Vec<Value> = ids.iter().map(|id| event(id)).collect();
    let said = said(&ingest, &events).await;
    assert!(
        said[0] == "duplicate" && said[1..].iter().all(|word| word == "stored"),
        "{said:?}"
    );
    assert_eq!(stored(&ingest, "EVENTS", "id").await, ids);
    context.shutdown.request();
}
