//! Dead letters of what was stored in part: what is left is kept, and nobody gets the same twice by taking it again.

use roomcast_harness::eventually;
use roomcast_harness::http::Answer;
use roomcast_harness::nats::{Nats, PASSWORD, change_stream};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::admin_port::AdminPort;
use crate::capture::{SOON, tickets_followed, until_stored};
use crate::fixture::{BATCH, Ingest, JSON, POLICY, aged_id, event};
use crate::relay::Relay;

/// Posts as somebody who may publish to rooms and to users.
async fn post(ingest: &Ingest, path: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
    let url = format!("{}{path}", ingest.url);
    let token = ingest.signer.token("desk", &["desk", "pusher"]);
    let kind = if body.is_array() { BATCH } else { JSON };
    let answer = ingest
        .http
        .post_with(&url, &token, kind, headers, body.to_string())
        .await;
    answer.unwrap()
}

/// The dead letters as reason and content, in order.
async fn letters(ingest: &Ingest) -> Vec<(String, Value)> {
    let read = |letter: &roomcast_chassis::jetstream::StoredMessage| {
        let reason = letter.subject.rsplit('.').next().unwrap().to_owned();
        (reason, serde_json::from_slice(&letter.payload).unwrap())
    };
    ingest.stored("DLQ").await.iter().map(read).collect()
}

/// The ids that a stream holds, in its order.
async fn ids(ingest: &Ingest, stream: &str) -> Vec<String> {
    let read = |message: &roomcast_chassis::jetstream::StoredMessage| {
        let event: Value = serde_json::from_slice(&message.payload).unwrap();
        event["id"].as_str().unwrap().to_owned()
    };
    ingest.stored(stream).await.iter().map(read).collect()
}

/// The code of a refusal that says that a part is stored, and under which id.
#[track_caller]
fn in_part(answer: &Answer, id: &str) -> String {
    let said = answer.json();
    let stored = format!("a part of it is stored, under the id {id:?}");
    assert!(said["detail"].as_str().unwrap().contains(&stored), "{said}");
    said["code"].as_str().unwrap().to_owned()
}

async fn replay(ingest: &Ingest, port: &AdminPort, position: usize, body: &Value) -> Answer {
    let path = format!("dead-letters/{position}/replay");
    port.post(ingest, &path, body).await
}

/// Everything that is selected is taken again: position, outcome and how many of its events were refused of each.
async fn replay_all(ingest: &Ingest, port: &AdminPort, selection: Value) -> Vec<(u64, String, u64)> {
    let said = port.post(ingest, "replays", &selection).await.json();
    let read = |one: &Value| {
        let outcome = one["outcome"].as_str().unwrap().to_owned();
        (
            one["position"].as_u64().unwrap(),
            outcome,
            one["refused"].as_u64().unwrap_or(0),
        )
    };
    said["letters"].as_array().unwrap().iter().map(read).collect()
}

#[tokio::test]
async fn a_user_who_has_an_event_is_not_in_the_letter_of_the_others() {
    let Some(nats) = Nats::start().await else {
        return;
    };
    let (ingest, port) = AdminPort::on(nats, &[]).await;
    let event = |users: &str| json!({ "id": "e1", "type": "t", "users": users, "data": { "n": 1.50 } });
    assert_eq!(post(&ingest, "/v1/events", &event("u1"), &[]).await.status, 200);
    let answer = post(&ingest, "/v1/events", &event("u1,u2"), &[]).await;
    assert_eq!(
        (answer.status, in_part(&answer, "e1").as_str()),
        (409, "conflict")
    );
    assert_eq!(ids(&ingest, "EVENTS").await, ["e1/u1", "e1/u2"]);
    assert_eq!(letters(&ingest).await, [("conflict".to_owned(), event("u1"))]);
    let answer = replay(&ingest, &port, 1, &json!({})).await;
    assert_eq!(
        answer.json()["status"],
        "duplicate",
        "what u1 has is this very event"
    );
    assert_eq!(ids(&ingest, "EVENTS").await, ["e1/u1", "e1/u2"]);
}

#[tokio::test]
async fn a_trigger_has_one_letter_with_what_is_left_of_it() {
    let Some(nats) = Nats::start().await else {
        return;
    };
    let (ingest, port) = AdminPort::on(nats, &[("ROOMCAST_ROOM_KEYS_MAX", "1")]).await;
    let note = |member: &str, value: Value| {
        let mut note = json!({ "type": "notification.note", "data": { "title": "t" } });
        note[member] = value;
        note
    };
    // From now on neither takes another key.
    for full in [note("room", json!("bookings")), note("users", json!("u9"))] {
        assert_eq!(post(&ingest, "/v1/events", &full, &[]).await.status, 200);
    }
    let mut trigger = note("room", json!("bookings"));
    trigger["users"] = json!(["u9"]);
    let answer = post(&ingest, "/v1/triggers", &trigger, &[]).await;
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (422, &json!("too_many_keys"))
    );
    let whole = ("too_many_keys".to_owned(), trigger.clone());
    assert_eq!(
        letters(&ingest).await,
        std::slice::from_ref(&whole),
        "one trigger, one letter"
    );

    trigger["users"] = json!(["u1", "u9"]);
    let answer = post(&ingest, "/v1/triggers", &trigger, &[]).await;
    let stored = ids(&ingest, "STATE").await;
    let id = stored.last().unwrap().strip_suffix("/u1").unwrap();
    assert_eq!(
        (answer.status, in_part(&answer, id).as_str()),
        (422, "too_many_keys")
    );
    let with_id = |mut note: Value| {
        note["id"] = json!(id);
        note
    };
    let mut left = [
        with_id(note("room", json!("bookings"))),
        with_id(note("users", json!("u9"))),
    ];
    let rest = ("too_many_keys".to_owned(), json!(left));
    assert_eq!(letters(&ingest).await, [whole.clone(), rest]);

    // Refused again it stays what it is; mended, u1 does not get it again.
    for position in [1, 2] {
        let answer = replay(&ingest, &port, position, &json!({})).await;
        assert_eq!(answer.status, 422, "{}", answer.text());
    }
    assert_eq!(
        (ids(&ingest, "STATE").await, letters(&ingest).await.len()),
        (stored.clone(), 2)
    );
    left[0]["room"] = json!("chat");
    left[1]["users"] = json!("u2");
    let answer = replay(&ingest, &port, 2, &json!(left)).await;
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("stored")));
    let expected = [stored.clone(), vec![id.to_owned(), format!("{id}/u2")]].concat();
    let mut found = ids(&ingest, "STATE").await;
    // Two rooms at the same time have no order.
    found[stored.len()..].sort();
    assert_eq!(found, expected);
    assert_eq!(replay(&ingest, &port, 2, &json!(left)).await.status, 409);
}

async fn behind_relay() -> Option<(Ingest, AdminPort, Relay)> {
    let nats = Nats::start().await?;
    let relay = Relay::to(&nats.url()).await;
    let url = relay.url();
    let (ingest, port) = AdminPort::on(nats, &[("ROOMCAST_NATS_URL", &url)]).await;
    Some((ingest, port, relay))
}

/// No batch arrives, nor an event with this in its id.
fn lose(relay: &Relay, part: &'static str) {
    let lost = format!("{part}\",\"source\"");
    relay.lose(move |subject, message| {
        subject.starts_with("evt.") && (message.contains("Nats-Batch-Id") || message.contains(&lost))
    });
}

/// Copies of an event for some users are stored, then nothing is: the letter is over, and what is left is another.
#[tokio::test]
async fn a_letter_that_is_stored_in_part_is_never_taken_as_a_whole_again() {
    let Some((ingest, port, relay)) = behind_relay().await else {
        return;
    };
    let id = aged_id(200);
    let event = |users: &str| json!({ "id": id, "type": "t", "users": users, "data": 1.50 });
    let answer = post(&ingest, "/v1/events", &event("u1,u2,u3"), &[]).await;
    assert_eq!(answer.json()["code"], "late", "{}", answer.text());
    lose(&relay, "/u2");
    let answer = replay(&ingest, &port, 1, &json!({})).await;
    assert_eq!((answer.status, in_part(&answer, &id).as_str()), (504, "unknown"));
    assert_eq!(ids(&ingest, "EVENTS").await, [format!("{id}/u1")]);
    let expected = [
        ("late".to_owned(), event("u1,u2,u3")),
        ("unknown".to_owned(), event("u2,u3")),
    ];
    assert_eq!(letters(&ingest).await, expected);
    relay.lose(|_, _| false);

    // Nobody takes what may be stored without having been told so.
    let expected = [(1, "conflict".to_owned(), 0), (2, "unknown".to_owned(), 0)];
    assert_eq!(replay_all(&ingest, &port, json!({})).await, expected);
    let expected = [(2, "taken".to_owned(), 0)];
    assert_eq!(
        replay_all(&ingest, &port, json!({ "reason": "unknown" })).await,
        expected
    );
    let expected = ["u1", "u2", "u3"].map(|user| format!("{id}/{user}"));
    assert_eq!(ids(&ingest, "EVENTS").await, expected, "each once");
    assert_eq!(letters(&ingest).await.len(), 2);
}

/// A letter that is an array of events, of which one cannot be stored for now: that one becomes a letter, and is not forgotten.
#[tokio::test]
async fn what_is_refused_for_now_of_a_batch_that_is_taken_again_is_kept() {
    let Some((ingest, port, relay)) = behind_relay().await else {
        return;
    };
    let mut nameless = event("b");
    nameless.as_object_mut().unwrap().remove("id");
    let batch = json!([event("a"), nameless, event("c")]);
    let answer = post(&ingest, "/v1/events", &batch, &[("Roomcast-Backfill", "1")]).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!(letters(&ingest).await, [("forbidden".to_owned(), batch.clone())]);
    // The second event has no id yet.
    relay.lose(|subject, message| {
        subject.starts_with("evt.") && (message.contains("Nats-Batch-Id") || message.contains("\"n\":\"b\""))
    });
    let expected = [(1, "taken".to_owned(), 2)];
    assert_eq!(
        replay_all(&ingest, &port, json!({ "reason": "forbidden" })).await,
        expected
    );
    relay.lose(|_, _| false);
    assert_eq!(ids(&ingest, "EVENTS").await, ["a"]);
    let kept = letters(&ingest).await;
    assert_eq!(kept.len(), 3, "{kept:?}");
    // Both went in a batch that had no answer: under the id it had, the second is found should it be stored.
    let id = kept[1].1["id"].as_str().unwrap().to_owned();
    nameless["id"] = json!(id);
    let expected = [nameless, event("c")].map(|event| ("unknown".to_owned(), event));
    assert_eq!(kept[1..], expected);
    let expected = [(2, "taken".to_owned(), 0), (3, "taken".to_owned(), 0)];
    assert_eq!(
        replay_all(&ingest, &port, json!({ "reason": "unknown" })).await,
        expected
    );
    assert_eq!(ids(&ingest, "EVENTS").await, ["a".to_owned(), id, "c".to_owned()]);
}

/// Nobody would send a database's change again: while its letter cannot be kept, nothing behind it is confirmed.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_refused_is_kept_though_the_letters_were_away() {
    let Some((postgres, ingest, _dir)) = tickets_followed().await else {
        return;
    };
    let admin = ingest.nats.connect("admin").await;
    let before = change_stream(&admin, "DLQ", "subjects", json!(["away.>"]))
        .await
        .unwrap();
    postgres.sql(&format!(
        "INSERT INTO tickets VALUES (1, 'new', 0, '{}')",
        "y".repeat(70_000)
    ));
    postgres.sql("INSERT INTO tickets VALUES (2, 'new', 0, 'short')");
    let refused = || ingest.metric("roomcast_ingest_refused_total{code=\"too_large\"}");
    eventually("it has come again", SOON, || async { refused() >= 2.0 }).await;
    change_stream(&admin, "DLQ", "subjects", before).await.unwrap();
    until_stored(&ingest, 1).await;
    eventually("it is kept", SOON, || async {
        ingest.dead_letter("too_large").await.is_some()
    })
    .await;
    assert_eq!(ingest.stored("DLQ").await.len(), 1);
    assert_eq!(ingest.metric("roomcast_ingest_dead_letters_lost_total"), 0.0);
}

/// A replica that has nothing yet, in the place of those that answer reads of `DLQ`. A client library sends no status.
async fn replica_without_letters(nats: &Nats) {
    let admin = nats.connect("admin").await;
    change_stream(&admin, "DLQ", "allow_direct", json!(false))
        .await
        .unwrap();
    let socket = TcpStream::connect(nats.url().trim_start_matches("nats://"))
        .await
        .unwrap();
    let (read, mut write) = socket.into_split();
    let who = json!({ "user": "admin", "pass": PASSWORD, "headers": true, "verbose": false });
    let begin = format!("CONNECT {who}\r\nSUB $JS.API.DIRECT.GET.DLQ 1\r\nPING\r\n");
    write.write_all(begin.as_bytes()).await.unwrap();
    let mut read = BufReader::new(read);
    let (there, is_there) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let mut there = Some(there);
        let mut line = String::new();
        while read.read_line(&mut line).await.unwrap_or_default() > 0 {
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["PING"] => write.write_all(b"PONG\r\n").await.unwrap(),
                ["PONG"] => drop(there.take().map(|there| there.send(()))),
                ["MSG", _, _, reply, bytes] => {
                    let mut body = vec![0; bytes.parse::<usize>().unwrap() + 2];
                    read.read_exact(&mut body).await.unwrap();
                    let nothing = "NATS/1.0 404 Message Not Found\r\n\r\n";
                    let bytes = nothing.len();
                    let answer = format!("HPUB {reply} {bytes} {bytes}\r\n{nothing}\r\n");
                    write.write_all(answer.as_bytes()).await.unwrap();
                }
                _ => {}
            }
            line.clear();
        }
    });
    is_there.await.unwrap();
}

/// A replica that is behind says that there is nothing more; its leader has letters still.
#[tokio::test]
async fn a_replica_that_is_behind_ends_no_page() {
    let Some(nats) = Nats::start().await else { return };
    let (ingest, port) = AdminPort::on(nats, &[]).await;
    for _ in 0..3 {
        assert_eq!(ingest.post("desk", JSON, "{").await.status, 400);
    }
    replica_without_letters(&ingest.nats).await;
    let all = [1, 2, 3].map(|position| (position, "bad_json".to_owned(), 0));
    assert_eq!(replay_all(&ingest, &port, json!({})).await, all);
    // A page at a time, to the end.
    let (mut seen, mut after) = (0, 0);
    loop {
        let said = port
            .post(&ingest, "replays", &json!({ "limit": 2, "after": after }))
            .await
            .json();
        seen += said["letters"].as_array().unwrap().len();
        match said["next"].as_u64() {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(seen, 3);
}

/// Each letter takes its time, because nothing is stored at the moment. The page ends before the port would give up on it, and says
/// where to go on.
#[tokio::test]
async fn a_page_of_slow_letters_ends_in_time() {
    let Some(nats) = Nats::start().await else { return };
    let (ingest, port) = AdminPort::on(nats, &[]).await;
    for n in 0..100 {
        let mut later = event(&format!("later-{n}"));
        later["room"] = json!("later");
        let refused = ingest.post("desk", JSON, later.to_string()).await;
        assert_eq!(refused.status, 403, "{}", refused.json());
    }
    let policy = POLICY.replace(
        "rooms:\n",
        "rooms:\n  - { room: later, subscribe: news.view, publish: bookings.publish }\n",
    );
    ingest.write_policy(&policy);
    let mut good = event("good");
    good["room"] = json!("later");
    eventually("the room is there", SOON, || async {
        ingest.post("desk", JSON, good.to_string()).await.status == 200
    })
    .await;
    let admin = ingest.nats.connect("admin").await;
    change_stream(&admin, "EVENTS", "subjects", json!(["away.>"]))
        .await
        .unwrap();
    let said = port
        .post(&ingest, "replays", &json!({ "limit": 100 }))
        .await
        .json();
    let letters = said["letters"].as_array().unwrap();
    assert!(!letters.is_empty() && letters.len() < 100, "{said}");
    assert_eq!(said["next"], letters.last().unwrap()["position"]);
}
