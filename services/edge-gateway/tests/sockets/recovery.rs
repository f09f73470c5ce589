//! Coming back to a live gateway: every reason for which it can be incomplete, quiet rooms, and beginning in the past.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use roomcast_harness::client::Client;
use roomcast_proto::cursor::{Cursor, Cursors, Epoch};
use roomcast_proto::ids::Tenant;
use serde_json::{Value, json};

use super::{Gateway, ids};

const SOON: Duration = Duration::from_secs(30);

/// A ring of one MiB, which holds about sixty events of [`fill`].
const SMALL: [(&str, &str); 3] = [
    ("ROOMCAST_RING_BYTES", "1048576"),
    ("ROOMCAST_RING_ROOM_EVENTS", "1"),
    ("ROOMCAST_RECOVERY_PAGE_EVENTS", "10"),
];

/// Stores so many large events, named after their numbers.
async fn fill(gateway: &Gateway, room: &str, numbers: std::ops::Range<usize>) {
    let padding = "x".repeat(16 * 1024);
    for n in numbers {
        let more = json!({ "data": { "padding": padding } });
        gateway.event(room, "all", &format!("e{n}"), more).await;
    }
}

fn read(text: &str) -> Cursor {
    Cursors::plain().read(&Tenant::default(), text).unwrap()
}

fn write(cursor: Cursor) -> String {
    Cursors::plain().write(&Tenant::default(), &cursor).to_string()
}

/// Comes back with a cursor; the answer for the room, and what came until it was caught up.
async fn back(gateway: &Gateway, cursor: Cursor) -> (Value, Vec<String>) {
    let cursors = HashMap::from([("bookings".to_owned(), write(cursor))]);
    let token = gateway.signer.token("u1", &["staff"]);
    let (mut client, connected) = Client::connect(&gateway.url, &token, &["bookings"], &cursors)
        .await
        .unwrap();
    let frames = client.caught_up("bookings").await.unwrap();
    let mut answer = connected["rooms"][0].clone();
    answer.as_object_mut().unwrap().remove("cursor");
    (answer, ids(&frames, "bookings"))
}

fn incomplete(reason: &str) -> Value {
    json!({ "room": "bookings", "recovery": "incomplete", "reason": reason })
}

fn complete() -> Value {
    json!({ "room": "bookings", "recovery": "complete" })
}

fn names(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|n| format!("e{n}")).collect()
}

/// A client that saw the first event, and its cursor then.
async fn first_seen(gateway: &Gateway) -> Cursor {
    let (mut client, _) = gateway.client("u1", &["staff"], &["bookings"]).await;
    client.caught_up("bookings").await.unwrap();
    fill(gateway, "bookings", 0..1).await;
    let seen = |frame: &Value| frame["event"]["event"]["id"] == "e0";
    client.until("e0", SOON, seen).await.unwrap();
    read(&client.cut()["bookings"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_in_memory_is_read_as_far_as_may_be() {
    let settings = [SMALL.as_slice(), &[("ROOMCAST_SCAN_POSITIONS_MAX", "100")]].concat();
    let Some(gateway) = Gateway::start(&settings).await else {
        return;
    };
    let place = first_seen(&gateway).await;
    fill(&gateway, "bookings", 1..130).await;
    // Several who want the same: it is read once for all of them, in pages.
    let several = (0..5).map(|_| back(&gateway, place));
    for (answer, missed) in futures_util::future::join_all(several).await {
        assert_eq!((answer, missed), (complete(), names(1..130)));
    }
    let reads = gateway.count(
        "roomcast_gateway_stream_reads_total",
        "kind=\"events\",outcome=\"done\"",
    );
    assert_eq!(reads, 1.0, "for five clients");
    // Farther back than is looked through, state comes and no old events.
    fill(&gateway, "bookings", 130..240).await;
    assert_eq!(back(&gateway, place).await, (incomplete("too_far"), Vec::new()));
    assert!(gateway.count("roomcast_gateway_recoveries_total", "recovery=\"too_far\"") >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_stream_has_forgotten_is_expired() {
    let Some(gateway) = Gateway::start(&SMALL).await else {
        return;
    };
    let place = first_seen(&gateway).await;
    fill(&gateway, "bookings", 1..150).await;
    let admin = gateway.nats.connect("admin").await;
    // As after the time that events are kept: only the newest hundred are left.
    let ask = async |verb: &str, body: String| -> Value {
        let subject = format!("$JS.API.STREAM.{verb}.EVENTS");
        let answer = admin.request(subject, body.into()).await.unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    };
    let mut config = ask("INFO", String::new()).await["config"].clone();
    config["max_msgs"] = json!(100);
    let updated = ask("UPDATE", config.to_string()).await;
    assert_eq!(updated["state"]["first_seq"], 51, "{updated}");
    assert_eq!(back(&gateway, place).await, (incomplete("expired"), Vec::new()));
    assert!(gateway.count("roomcast_gateway_recoveries_total", "recovery=\"expired\"") >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_from_ahead_waits_five_seconds_and_one_of_another_life_does_not() {
    let Some(gateway) = Gateway::start(&SMALL).await else {
        return;
    };
    let place = first_seen(&gateway).await;
    gateway.state("bookings", "staff", "total", json!(7)).await;
    let ahead = |by: u64| {
        let mut cursor = place;
        cursor.position.seq += by;
        cursor.time_bits = 0;
        cursor
    };
    let mut other_time = place;
    other_time.time_bits = place.time_bits.wrapping_add(1).max(1);
    let other_epoch = Cursor {
        epoch: Epoch::of_streams("another", "life"),
        ..place
    };
    for cursor in [other_time, other_epoch] {
        let (answer, came) = back(&gateway, cursor).await;
        assert_eq!(answer, incomplete("epoch"));
        assert_eq!(came, ["total-7"], "all state");
    }
    let begun = Instant::now();
    assert_eq!(back(&gateway, ahead(1_000)).await.0, incomplete("ahead"));
    assert!(begun.elapsed() >= Duration::from_secs(5), "{:?}", begun.elapsed());
    // The stream gets there while the client waits. A machine that stands still for all the five seconds is given other attempts.
    for attempt in 1_usize.. {
        let from = ahead(attempt as u64);
        let ((answer, _), ()) = futures_util::future::join(back(&gateway, from), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            fill(&gateway, "bookings", attempt..attempt + 1).await;
        })
        .await;
        if answer == complete() {
            break;
        }
        assert!(attempt < 5, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quiet_rooms_are_told_newer_places() {
    let Some(gateway) = Gateway::start(&[("ROOMCAST_QUIET_SECONDS", "1")]).await else {
        return;
    };
    let (mut client, _) = gateway.client("u1", &["staff"], &["bookings"]).await;
    client.caught_up("bookings").await.unwrap();
    let before = read(&client.cursors["bookings"]).position.seq;
    for n in 0..20 {
        gateway.event("desk", "all", &format!("d{n}"), json!({})).await;
    }
    let newer = |frame: &Value| {
        frame["caughtUp"]["room"] == "bookings"
            && read(frame["caughtUp"]["cursor"].as_str().unwrap()).position.seq >= before + 20
    };
    let frames = client.until("a newer place", SOON, newer).await.unwrap();
    assert!(ids(&frames, "desk").is_empty());
    // Nothing new: nothing is said again.
    let said = client.cursors["bookings"].clone();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        let next = client.next(Duration::from_millis(500)).await.unwrap();
        let again = next.is_some_and(|frame| frame["caughtUp"]["room"] == "bookings");
        assert!(!again || client.cursors["bookings"] != said, "said twice");
    }
    assert_eq!(client.closed, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_subscription_may_begin_in_the_past() {
    let rates = ("ROOMCAST_OPERATION_RATES", "deep_history=1/2");
    let settings = [SMALL.as_slice(), &[rates]].concat();
    let Some(gateway) = Gateway::start(&settings).await else {
        return;
    };
    fill(&gateway, "bookings", 0..25).await;
    gateway.event("bookings", "admin", "secret", json!({})).await;
    gateway.state("bookings", "staff", "total", json!(7)).await;
    let (mut client, _) = gateway.client("u1", &["staff"], &[]).await;
    let wants = |rewind: Value| json!({ "room": "bookings", "rewind": rewind });
    let rows = [
        (json!({ "count": 3 }), names(22..25)),
        (json!({ "count": 1, "seconds": 3600 }), names(24..25)),
        // More than a page.
        (json!({ "count": 1000 }), names(0..25)),
        (json!({ "seconds": 3600 }), names(0..25)),
    ];
    for (rewind, expected) in rows {
        let answer = client.request("subscribe", wants(rewind.clone())).await.unwrap();
        assert_eq!(answer["subscribed"]["recovery"], "fresh", "{rewind}: {answer}");
        let start = read(answer["subscribed"]["cursor"].as_str().unwrap());
        assert_eq!(start.position.rev, 0);
        let frames = client.caught_up("bookings").await.unwrap();
        let came = ids(&frames, "bookings");
        let events: Vec<String> = came.iter().filter(|id| id.starts_with('e')).cloned().collect();
        assert_eq!(events, expected, "{rewind}");
        assert_eq!(
            came.last().map(String::as_str),
            Some("total-7"),
            "state after events"
        );
        // Each place that is given on the way leads to the same end.
        let first = frames
            .iter()
            .find(|frame| frame["event"]["cursor"].is_string())
            .unwrap();
        let place = read(first["event"]["cursor"].as_str().unwrap());
        assert_eq!(place.position.rev, 0, "no state was given before it");
        let (answer, missed) = back(&gateway, place).await;
        assert_eq!(answer, complete());
        assert_eq!(missed[..missed.len() - 1], expected[1..]);
    }
    // Beyond memory it is read from the stream, which is counted. Nobody reads meanwhile, so nothing may come.
    let room = json!({ "room": "bookings" });
    client.request("unsubscribe", room.clone()).await.unwrap();
    fill(&gateway, "bookings", 25..200).await;
    let mut refused = 0;
    for count in [150, 160, 170] {
        let answer = client
            .request("subscribe", wants(json!({ "count": count })))
            .await
            .unwrap();
        if answer["error"]["code"] == "rate" {
            assert!(answer["error"]["retryAfterMs"].is_u64());
            refused += 1;
            continue;
        }
        let came = ids(&client.caught_up("bookings").await.unwrap(), "bookings");
        assert_eq!(came[..came.len() - 1], names(200 - count..200));
        client.request("unsubscribe", room.clone()).await.unwrap();
    }
    assert!(refused <= 1, "two at once");
    // Who has a place goes on from there.
    let cursor = client.cursors["bookings"].clone();
    let both = json!({ "room": "bookings", "cursor": cursor, "rewind": { "count": 5 } });
    let answer = client.request("subscribe", both).await.unwrap();
    assert_eq!(answer["subscribed"]["recovery"], "complete");
    assert!(ids(&client.caught_up("bookings").await.unwrap(), "bookings").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_subscription_may_begin_some_seconds_ago() {
    let Some(gateway) = Gateway::start(&SMALL).await else {
        return;
    };
    // Between which instants each of them was stored.
    let mut stored = Vec::new();
    for n in 0..6 {
        let before = Instant::now();
        fill(&gateway, "bookings", n..n + 1).await;
        stored.push((before, Instant::now()));
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    let (mut client, _) = gateway.client("u1", &["staff"], &[]).await;
    let mut sizes = Vec::new();
    for (seconds, count) in [
        (1, 1_000),
        (2, 1_000),
        (3, 1_000),
        (3, 1),
        (4, 1_000),
        (3_600, 1_000),
    ] {
        let asked = Instant::now();
        let wants = json!({ "room": "bookings", "rewind": { "seconds": seconds, "count": count } });
        let answer = client.request("subscribe", wants).await.unwrap();
        assert_eq!(answer["subscribed"]["recovery"], "fresh", "{answer}");
        let answered = Instant::now();
        let came = ids(&client.caught_up("bookings").await.unwrap(), "bookings");
        let seconds = Duration::from_secs(seconds);
        // Another clock was read in between: some milliseconds are left to it.
        let slack = Duration::from_millis(20);
        let age = |from: Instant, to: Instant| to.saturating_duration_since(from);
        let least = stored
            .iter()
            .filter(|(before, _)| age(*before, answered) + slack < seconds);
        let most = stored
            .iter()
            .filter(|(_, after)| age(*after, asked) <= seconds + slack);
        let (least, most) = (least.count().min(count), most.count().min(count));
        assert!(
            (least..=most).contains(&came.len()),
            "{came:?}, not {least} to {most}"
        );
        assert_eq!(came, names(6 - came.len()..6), "the newest, in order");
        sizes.push(came.len());
    }
    assert_eq!(sizes.last(), Some(&6));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rewind_needs_the_right_to_history_and_a_number() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    gateway.event("diary", "all", "d1", json!({})).await;
    let (mut client, _) = gateway.client("u1", &["staff"], &[]).await;
    let wants = |room: &str, rewind: Value| json!({ "room": room, "rewind": rewind });
    let rows = [
        ("bookings", json!({}), "bad_request"),
        ("bookings", json!({ "count": 0 }), "bad_request"),
        ("bookings", json!({ "seconds": 0 }), "bad_request"),
        ("bookings", json!({ "count": 5, "seconds": 0 }), "bad_request"),
        ("bookings", json!({ "count": -1 }), "bad_frame"),
        ("bookings", json!({ "count": "5" }), "bad_frame"),
        ("money", json!({ "count": 5 }), "forbidden"),
        ("nowhere", json!({ "count": 5 }), "forbidden"),
        ("diary", json!({ "count": 5 }), "forbidden"),
    ];
    for (room, rewind, code) in rows {
        let answer = client
            .request("subscribe", wants(room, rewind.clone()))
            .await
            .unwrap();
        assert_eq!(answer["error"]["code"], code, "{room} {rewind}: {answer}");
    }
    let plain = client
        .request("subscribe", json!({ "room": "diary" }))
        .await
        .unwrap();
    assert_eq!(plain["subscribed"]["recovery"], "fresh");
    assert!(ids(&client.caught_up("diary").await.unwrap(), "diary").is_empty());
}
