//! Busy rooms and slow clients: what leaves together, and what gives way.

use std::collections::HashMap;
use std::time::Duration;

use roomcast_harness::client::{Client, Frame};
use roomcast_harness::eventually;
use serde_json::json;

use super::{Gateway, ids};

const SOON: Duration = Duration::from_secs(20);
/// Values that a fast room shows, and how often each changes.
const KEYS: usize = 10;
const ROUNDS: usize = 120;

/// Key and value of a state frame.
fn value(frame: &Frame) -> Option<(String, u64)> {
    let event = &frame["event"]["event"];
    let number = event["data"]["value"]["n"].as_u64()?;
    Some((event["statekey"].as_str()?.to_owned(), number))
}

/// A passenger on a train reads a few messages a second of a room that changes faster than that: it stays connected,
/// sees no value go back, and ends with the newest of each and with every event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_gets_the_newest_state_instead_of_the_end() {
    let limits = [
        ("ROOMCAST_OUTBOX_FRAMES_MAX", "32"),
        ("ROOMCAST_OUTBOX_BYTES_MAX", "262144"),
    ];
    let Some(gateway) = Gateway::start(&limits).await else {
        return;
    };
    let token = gateway.signer.token("train", &["staff"]);
    let mut train = Client::open_narrow(&gateway.url).await.unwrap();
    train.begin(&token, &["bookings"], &HashMap::new()).await.unwrap();
    train.caught_up("bookings").await.unwrap();
    let (told, mut published) = tokio::sync::oneshot::channel();
    let reading = tokio::spawn(async move {
        let (mut newest, mut events, mut count) = (HashMap::<String, u64>::new(), Vec::new(), 0_usize);
        let mut all_out = false;
        let last = |newest: &HashMap<String, u64>| newest.values().filter(|n| **n == ROUNDS as u64).count();
        while last(&newest) < KEYS || events.len() < 10 {
            all_out = all_out || published.try_recv().is_ok();
            if !all_out {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let frame = train.next(SOON).await.unwrap();
            let frame = frame.unwrap_or_else(|| panic!("ended with {:?} and {newest:?}", train.closed));
            if let Some((key, n)) = value(&frame) {
                let before = newest.insert(key, n);
                assert!(before.is_none_or(|before| before < n), "{before:?} and then {n}");
                count += 1;
            } else {
                events.extend(ids(&[frame], "bookings"));
            }
        }
        (count, events, train.closed)
    });
    let padding = "x".repeat(4 * 1024);
    for round in 1..=ROUNDS {
        for key in 0..KEYS {
            let value = json!({ "n": round, "padding": padding });
            gateway.state("bookings", "all", &format!("k{key}"), value).await;
        }
        if round % 12 == 0 {
            gateway
                .event("bookings", "all", &format!("e{round}"), json!({}))
                .await;
        }
    }
    told.send(()).unwrap();
    let (count, events, closed) = tokio::time::timeout(Duration::from_secs(60), reading)
        .await
        .expect("the newest values come")
        .unwrap();
    assert_eq!(closed, None);
    assert!(count < KEYS * ROUNDS, "nothing gave way");
    assert_eq!(
        events,
        (1..=10).map(|n| format!("e{}", n * 12)).collect::<Vec<_>>()
    );
    assert!(gateway.metric("roomcast_gateway_dropped_total") >= 1.0);
    assert_eq!(gateway.metric("roomcast_gateway_outbox_full_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_rooms_events_leave_together_and_a_lone_one_at_once() {
    // A window that nobody could overlook.
    let Some(gateway) = Gateway::start(&[("ROOMCAST_FLUSH_MILLIS", "1000")]).await else {
        return;
    };
    let (mut client, _) = gateway.client("u1", &["staff"], &["bookings"]).await;
    client.caught_up("bookings").await.unwrap();
    let started = std::time::Instant::now();
    gateway.event("bookings", "all", "lone", json!({})).await;
    client
        .until("the lone one", SOON, |frame| {
            frame["event"]["event"]["id"] == "lone"
        })
        .await
        .unwrap();
    assert!(
        started.elapsed() < Duration::from_millis(500),
        "{:?}",
        started.elapsed()
    );
    for n in 0..60 {
        gateway
            .event("bookings", "all", &format!("e{n}"), json!({}))
            .await;
    }
    // Who comes while they wait gets each once: those by its cursor, or live.
    let cursors = client.cursors.clone();
    let token = gateway.signer.token("u2", &["staff"]);
    let (mut late, connected) = Client::connect(&gateway.url, &token, &["bookings"], &cursors)
        .await
        .unwrap();
    assert_eq!(connected["rooms"][0]["recovery"], "complete");
    gateway.event("bookings", "all", "last", json!({})).await;
    let all: Vec<String> = (0..60)
        .map(|n| format!("e{n}"))
        .chain(["last".to_owned()])
        .collect();
    for client in [&mut client, &mut late] {
        let frames = client
            .until("the last", SOON, |frame| frame["event"]["event"]["id"] == "last")
            .await
            .unwrap();
        assert_eq!(ids(&frames, "bookings"), all);
    }
    let flushes = gateway.metric("roomcast_gateway_flushes_total");
    assert!((2.0..20.0).contains(&flushes), "{flushes} flushes for 62 events");
}

/// What waits for all together is bounded as well, however much one may have: the one for whom most waits goes first, and who is
/// behind a little stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_all_who_read_slowly_the_fattest_goes_first() {
    let limits = [
        ("ROOMCAST_OUTBOXES_BYTES_MAX", "1048576"),
        ("ROOMCAST_OUTBOX_BYTES_MAX", "67108864"),
        ("ROOMCAST_OUTBOX_FRAMES_MAX", "65536"),
        ("ROOMCAST_SEND_BUFFER_BYTES", "16384"),
        ("ROOMCAST_WRITE_SECONDS", "300"),
    ];
    let Some(gateway) = Gateway::start(&limits).await else {
        return;
    };
    let mut clients = Vec::new();
    for (user, rooms) in [("lean", &["bookings"][..]), ("fat", &["bookings", "desk"])] {
        let mut client = Client::open_narrow(&gateway.url).await.unwrap();
        let token = gateway.signer.token(user, &["staff"]);
        client.begin(&token, rooms, &HashMap::new()).await.unwrap();
        client.caught_up(rooms[rooms.len() - 1]).await.unwrap();
        clients.push(client);
    }
    let padding = "x".repeat(32 * 1024);
    let data = json!({ "data": { "padding": padding } });
    for n in 0..10 {
        gateway
            .event("bookings", "all", &format!("b{n}"), data.clone())
            .await;
    }
    eventually("some waits for both", SOON, || async {
        gateway.metric("roomcast_gateway_outbox_bytes") > 2.0 * 5.0 * 32_768.0
    })
    .await;
    for n in 0..40 {
        gateway.event("desk", "all", &format!("d{n}"), data.clone()).await;
    }
    eventually("one is given up", SOON, || async {
        gateway.count("roomcast_gateway_limited_total", "limit=\"outboxes\"") == 1.0
    })
    .await;
    let (mut fat, mut lean) = (clients.pop().unwrap(), clients.pop().unwrap());
    // Longer than others have for the end of a connection: who reads slowly is told why all the same.
    tokio::time::sleep(Duration::from_secs(4)).await;
    while fat.next(SOON).await.unwrap().is_some() {}
    assert_eq!(fat.closed.map(|(code, _)| code), Some(4002));
    let last = |frame: &Frame| frame["event"]["event"]["id"] == "b9";
    lean.until("all of its events", SOON, last).await.unwrap();
    eventually("nothing waits any more", SOON, || async {
        gateway.metric("roomcast_gateway_outbox_bytes") == 0.0
    })
    .await;
    assert_eq!(gateway.metric("roomcast_gateway_outbox_full_total"), 0.0);
    assert_eq!(
        gateway.count("roomcast_gateway_limited_total", "limit=\"outboxes\""),
        1.0
    );
}

/// The policy says of a room how long its events wait for each other, whatever is usual.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_of_which_the_policy_says_so_never_waits() {
    let Some(gateway) = Gateway::start(&[("ROOMCAST_FLUSH_MILLIS", "1000")]).await else {
        return;
    };
    let (mut client, _) = gateway.client("u1", &["staff"], &["ticker", "bookings"]).await;
    client.caught_up("bookings").await.unwrap();
    let gathered = |gateway: &Gateway| gateway.count("roomcast_gateway_flushes_total", "\"gathered\"");
    for (room, waits) in [("ticker", false), ("bookings", true)] {
        for n in 0..40 {
            gateway.event(room, "all", &format!("{room}{n}"), json!({})).await;
        }
        let last = format!("{room}39");
        let frames = client
            .until("the last", SOON, |frame| frame["event"]["event"]["id"] == last)
            .await
            .unwrap();
        assert_eq!(ids(&frames, room).len(), 40);
        // Written before it is counted.
        if waits {
            eventually("they were gathered", SOON, || async { gathered(&gateway) > 0.0 }).await;
        } else {
            assert!(gathered(&gateway) == 0.0, "{room}");
        }
    }
}
