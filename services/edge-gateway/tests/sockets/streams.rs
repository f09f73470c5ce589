//! Server-sent events: one cursor for all rooms, the same rights and the same ends as on a socket.

use std::time::Duration;

use roomcast_harness::http::Http;
use roomcast_harness::rover::{Rover, Way};
use roomcast_harness::stream::{Stream, path};
use roomcast_harness::token::now;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{Gateway, ids, resident_kib};

const SOON: Duration = Duration::from_secs(25);
const ROOMS: [&str; 2] = ["bookings", "notifications"];

/// Events of both rooms in turn, `<word>0` first.
async fn publish(gateway: &Gateway, word: &str, count: usize) {
    for n in 0..count {
        gateway
            .event(ROOMS[n % 2], "all", &format!("{word}{n}"), json!({}))
            .await;
    }
}

/// Ids of events, without state, in the order in which they came.
fn all_ids(frames: &[Value]) -> Vec<&str> {
    let events = frames.iter().map(|frame| &frame["event"]["event"]);
    let events = events.filter(|event| event["delivery"] != "state");
    events.filter_map(|event| event["id"].as_str()).collect()
}

fn numbered(word: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{word}{n}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_what_a_socket_is_with_one_cursor_for_all_rooms() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let token = gateway.signer.token("u1", &["staff"]);
    gateway.state("bookings", "staff", "total", json!(7)).await;
    gateway.state("bookings", "admin", "canary-key", json!(1)).await;
    let asked = ["bookings", "money", "absent", "bad room"].map(|room| room.replace(' ', "%20"));
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    let mut stream = Stream::follow(&gateway.url, &token, &asked, None).await.unwrap();
    for line in [
        "content-type: text/event-stream",
        "cache-control: no-store",
        "connection: close",
    ] {
        assert!(stream.head.contains(line), "{line}: {}", stream.head);
    }
    let first = stream
        .caught_up(&["bookings", "notifications", "user.u1"])
        .await
        .unwrap();
    let rooms = first[0]["connected"]["rooms"].as_array().unwrap();
    let names: Vec<&str> = rooms.iter().map(|room| room["room"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "bookings",
            "money",
            "absent",
            "bad room",
            "notifications",
            "user.u1"
        ]
    );
    assert_eq!(
        (&rooms[0]["recovery"], &rooms[1]["error"]["code"]),
        (&json!("fresh"), &json!("forbidden"))
    );
    assert!(rooms[1]["error"] == rooms[2]["error"] && rooms[2]["error"] == rooms[3]["error"]);
    assert_eq!(
        first[1]["event"]["event"]["statekey"], "total",
        "state before caughtUp: {first:?}"
    );

    publish(&gateway, "e", 50).await;
    gateway
        .event("bookings", "admin", "canary-event", json!({}))
        .await;
    gateway
        .event("bookings", "staff", "last", json!({ "data": "two\nlines" }))
        .await;
    let frames = stream
        .until("the last", SOON, |frame| frame["event"]["event"]["id"] == "last")
        .await
        .unwrap();
    assert_eq!(
        all_ids(&frames),
        [numbered("e", 50), vec!["last".into()]].concat()
    );
    assert_eq!(frames.last().unwrap()["event"]["event"]["data"], "two\nlines");
    assert_eq!(
        frames.last().unwrap()["event"]["cursor"].as_str(),
        stream.last_id.as_deref()
    );

    // The same cursor on a socket, for both rooms.
    let id = stream.last_id.clone().unwrap();
    let cursors = ROOMS.map(|room| (room.to_owned(), id.clone())).into();
    gateway.event("bookings", "all", "on-socket", json!({})).await;
    let (mut client, connected) =
        roomcast_harness::client::Client::connect(&gateway.url, &token, &ROOMS, &cursors)
            .await
            .unwrap();
    assert!(
        (0..2).all(|n| connected["rooms"][n]["recovery"] == "complete"),
        "{connected}"
    );
    let frames = client
        .until("on-socket", SOON, |frame| {
            frame["event"]["event"]["id"] == "on-socket"
        })
        .await
        .unwrap();
    assert_eq!(all_ids(&frames), ["on-socket"]);
    assert!(!stream.raw.contains("canary"), "{}", stream.raw);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_gets_what_was_missed_in_all_rooms_in_order() {
    let Some(gateway) = Gateway::start(&[("ROOMCAST_RECOVERY_PAGE_EVENTS", "7")]).await else {
        return;
    };
    let token = gateway.signer.token("u1", &["staff"]);
    let mut stream = Stream::follow(&gateway.url, &token, &["bookings"], None)
        .await
        .unwrap();
    let all = ["bookings", "notifications", "user.u1"];
    stream.caught_up(&all).await.unwrap();
    publish(&gateway, "seen", 2).await;
    stream
        .until("seen1", SOON, |frame| frame["event"]["event"]["id"] == "seen1")
        .await
        .unwrap();
    let id = stream.last_id.clone().unwrap();
    drop(stream);
    // Hears of all that is missed, so that the gateway has it when the others come back.
    let mut witness = Stream::follow(&gateway.url, &token, &["bookings"], None)
        .await
        .unwrap();
    witness.caught_up(&all).await.unwrap();
    publish(&gateway, "m", 40).await;
    gateway.state("notifications", "all", "k", json!("new")).await;
    witness
        .until("k", SOON, |frame| frame["event"]["event"]["statekey"] == "k")
        .await
        .unwrap();
    for attempt in 0..3 {
        // Broken off in the middle of the recovery, wherever that is, it goes on from the last id.
        let mut back = Stream::follow(&gateway.url, &token, &["bookings"], Some(&id))
            .await
            .unwrap();
        let mut frames = Vec::new();
        for _ in 0..10 * attempt {
            frames.extend(back.next(SOON).await.unwrap());
        }
        let stands = back.last_id.clone().unwrap_or_else(|| id.clone());
        drop(back);
        let live = format!("live{attempt}");
        gateway.event("bookings", "all", &live, json!({})).await;
        witness
            .until("live", SOON, |frame| frame["event"]["event"]["id"] == *live)
            .await
            .unwrap();
        let mut again = Stream::follow(&gateway.url, &token, &["bookings"], Some(&stands))
            .await
            .unwrap();
        let rest = again.caught_up(&all).await.unwrap();
        let rooms = rest[0]["connected"]["rooms"].as_array().unwrap();
        assert!(
            rooms.iter().all(|room| room["recovery"] == "complete"),
            "{rooms:?}"
        );
        let state = rest
            .iter()
            .position(|frame| frame["event"]["event"]["statekey"] == "k");
        let last_event = rest
            .iter()
            .rposition(|frame| frame["event"]["cursor"].is_string());
        assert!(last_event < state, "values come behind events: {rest:?}");
        frames.extend(rest);
        let live = (0..=attempt).map(|n| format!("live{n}"));
        let expected: Vec<String> = numbered("m", 40).into_iter().chain(live).collect();
        assert_eq!(all_ids(&frames), expected, "attempt {attempt}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dashboard_changes_its_transport_in_the_middle_of_anything() {
    let more = [
        ("ROOMCAST_OPERATION_RATES", "read=1000/1000"),
        ("ROOMCAST_RECOVERY_PAGE_EVENTS", "20"),
        ("ROOMCAST_CONNECT_BURST_PER_ADDRESS", "10000"),
        ("ROOMCAST_CONNECTIONS_PER_ADDRESS_MAX", "1000"),
    ];
    let Some(gateway) = Gateway::start(&more).await else {
        return;
    };
    let rooms = ["bookings", "desk", "notifications"];
    let mut rover = Rover::new(gateway.signer.token("u1", &["admin"]), &rooms);
    rover
        .visit(&gateway.url, Way::Stream, 1, Duration::from_millis(300))
        .await
        .unwrap();
    let publishing = async {
        for n in 0..600 {
            gateway
                .event(rooms[n % 3], "all", &format!("r{n}"), json!({}))
                .await;
            if n % 50 == 0 {
                gateway.state(rooms[n % 2], "all", "k", json!(n)).await;
            }
        }
    };
    let roving = async {
        let ways = [
            Way::Stream,
            Way::Poll,
            Way::Socket,
            Way::Poll,
            Way::Stream,
            Way::Stream,
            Way::Socket,
        ];
        let mut visit = 0;
        while rover.count() < 600 {
            // Between 3 and 39 events, so that it breaks off in pages, between rooms, before the first event.
            let (way, events) = (ways[visit % ways.len()], 3 + visit * 7 % 37);
            rover
                .visit(&gateway.url, way, events, Duration::from_secs(2))
                .await
                .unwrap();
            visit += 1;
            assert!(visit < 1_000, "saw {} of 600", rover.count());
        }
    };
    tokio::join!(publishing, roving);
    for (at, room) in rooms.iter().enumerate() {
        let expected: Vec<String> = (0..600)
            .filter(|n| n % 3 == at)
            .map(|n| format!("r{n}"))
            .collect();
        assert_eq!(rover.seen[*room].ids(), expected, "{room}");
    }
    assert!(rover.incomplete.is_empty(), "{:?}", rover.incomplete);
    assert!(
        rover.with_one_cursor > 5 && rover.visits > 20,
        "{} {}",
        rover.with_one_cursor,
        rover.visits
    );
    let numbers: Vec<usize> = rover.merged.iter().map(|id| id[1..].parse().unwrap()).collect();
    assert!(
        numbers.is_sorted(),
        "streams and polls have one order over all rooms: {numbers:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors_that_cannot_be_used_are_answered_plainly() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let token = gateway.signer.token("u1", &["staff"]);
    gateway.state("bookings", "all", "k", json!(1)).await;
    gateway.event("bookings", "all", "old", json!({})).await;
    let huge = "x".repeat(4_000);
    for cursor in ["nonsense", "00000000.1.1.0", "%00", &huge] {
        let mut stream = Stream::follow(&gateway.url, &token, &["bookings"], Some(cursor))
            .await
            .unwrap();
        let frames = stream.caught_up(&["bookings"]).await.unwrap();
        let room = &frames[0]["connected"]["rooms"][0];
        assert_eq!(
            (&room["recovery"], &room["reason"]),
            (&json!("incomplete"), &json!("epoch")),
            "{cursor}"
        );
        assert_eq!(
            ids(&frames, "bookings"),
            ["k-1"],
            "all state and no old event: {cursor}"
        );
        let answer = Http::default()
            .get(
                &format!(
                    "{}{}&wait=0",
                    gateway.url,
                    path("poll", &["bookings"], &[&cursor[..cursor.len().min(3000)]])
                ),
                Some(&token),
            )
            .await
            .unwrap()
            .json();
        let room = &answer["rooms"][0];
        assert_eq!(
            (&room["recovery"], &room["reason"]),
            (&json!("incomplete"), &json!("epoch")),
            "{cursor}: {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_end_as_sockets_do() {
    let more = [
        ("ROOMCAST_WRITE_SECONDS", "1"),
        ("ROOMCAST_OUTBOX_FRAMES_MAX", "64"),
    ];
    let Some(gateway) = Gateway::start(&more).await else {
        return;
    };
    // A token that has passed its end, and most of the leeway.
    let old = gateway
        .signer
        .token_with("old", &["staff"], -28, &json!({ "iat": now() - 100 }));
    let mut ending = Stream::follow(&gateway.url, &old, &["bookings"], None)
        .await
        .unwrap();
    let frames = ending
        .until("4003", SOON, |frame| frame["disconnect"].is_object())
        .await
        .unwrap();
    assert!(
        frames.iter().any(|frame| frame["expiring"].is_object()),
        "{frames:?}"
    );
    let disconnect = &frames.last().unwrap()["disconnect"];
    assert_eq!(
        (&disconnect["code"], &disconnect["reconnect"]),
        (&json!(4003), &json!(true))
    );
    assert!(ending.next(SOON).await.unwrap().is_none() && ending.ended);

    // One that does not read is told so, and its cursor brings it back.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut slow = socket.connect(gateway.address).await.unwrap();
    let token = gateway.signer.token("slow", &["staff"]);
    let request =
        format!("GET /v1/sse?room=bookings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    slow.write_all(request.as_bytes()).await.unwrap();
    let bulk = json!({ "data": "x".repeat(40_000) });
    for n in 0..60 {
        gateway
            .event("bookings", "all", &format!("bulk{n}"), bulk.clone())
            .await;
    }
    let mut read = Vec::new();
    tokio::time::timeout(SOON, slow.read_to_end(&mut read))
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8(read).unwrap();
    assert!(
        text.contains(r#"{"disconnect":{"code":4002"#),
        "{}",
        &text[text.len() - 200..]
    );

    // A gateway that goes down says when to come back; so does a poll that it holds.
    let token = gateway.signer.token("u1", &["staff"]);
    let mut stream = Stream::follow(&gateway.url, &token, &["bookings"], None)
        .await
        .unwrap();
    stream.caught_up(&["bookings"]).await.unwrap();
    let id = stream.last_id.clone().unwrap();
    let held = format!("{}{}", gateway.url, path("poll", &["bookings"], &[&id]));
    let held = tokio::spawn(async move { Http::default().get(&held, Some(&token)).await });
    while gateway.metric("roomcast_gateway_polls_held") < 1.0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let shutdown = gateway.context.shutdown.clone();
    let stopped = tokio::spawn(async move { shutdown.run(Duration::from_secs(5)).await });
    let answer = held.await.unwrap().unwrap().json();
    assert_eq!(
        (&answer["frames"][0]["disconnect"]["code"], &answer["cursor"]),
        (&json!(4001), &json!(id))
    );
    let frames = stream
        .until("4001", SOON, |frame| frame["disconnect"].is_object())
        .await
        .unwrap();
    let disconnect = &frames.last().unwrap()["disconnect"];
    assert_eq!(
        (&disconnect["code"], &disconnect["retryAfterMs"]),
        (&json!(4001), &json!(stream.retry.unwrap()))
    );
    assert!(stream.next(SOON).await.unwrap().is_none() && stream.ended);
    drop(stream);
    assert!(stopped.await.unwrap(), "ended in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_follows_other_requests_on_a_socket_and_leaves_nothing_behind() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let token = gateway.signer.token("u1", &["staff"]);
    let mut socket = TcpStream::connect(gateway.address).await.unwrap();
    let ask = |method: &str, path: &str| {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nOrigin: https://desk.example\r\nAuthorization: Bearer {token}\r\n\r\n"
        )
    };
    let read_until = async |socket: &mut TcpStream, end: &str| {
        let mut text = String::new();
        while !text.contains(end) {
            let mut bytes = [0; 4096];
            let count = tokio::time::timeout(SOON, socket.read(&mut bytes))
                .await
                .unwrap()
                .unwrap();
            assert!(count > 0, "ended: {text}");
            text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
        text
    };
    socket
        .write_all(ask("GET", "/v1/state?room=bookings").as_bytes())
        .await
        .unwrap();
    read_until(&mut socket, "\"state\":[]}").await;
    socket
        .write_all(ask("GET", "/v1/sse?room=money").as_bytes())
        .await
        .unwrap();
    let refused = read_until(&mut socket, "}").await;
    assert!(
        refused.starts_with("HTTP/1.1 403") && refused.contains("\"forbidden\""),
        "{refused}"
    );
    socket
        .write_all(ask("GET", "/v1/sse?room=bookings").as_bytes())
        .await
        .unwrap();
    let begun = read_until(&mut socket, "caughtUp").await;
    assert!(
        begun.starts_with("HTTP/1.1 200")
            && begun.contains("access-control-allow-origin: https://desk.example")
    );
    assert!(
        gateway.metric("roomcast_gateway_streams") == 1.0
            && gateway.metric("roomcast_gateway_connections") == 1.0
    );
    // What it says from here on is not listened to.
    socket
        .write_all(ask("GET", "/v1/state?room=bookings").as_bytes())
        .await
        .unwrap();
    gateway.event("bookings", "all", "live", json!({})).await;
    let live = read_until(&mut socket, "\"live\"").await;
    assert!(!live.contains("HTTP/1.1"), "{live}");
    // Sooner or later there is a sign of life.
    read_until(&mut socket, ":\n\n").await;
    drop(socket);
    for _ in 0..500 {
        if gateway.metric("roomcast_gateway_connections") == 0.0 {
            assert_eq!(gateway.metric("roomcast_gateway_streams"), 0.0);
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the stream is still there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_stream_costs_what_an_idle_socket_costs() {
    const COUNT: usize = 1_000;
    let more = [
        ("ROOMCAST_CONNECTIONS_PER_USER_MAX", "10000"),
        ("ROOMCAST_OPERATION_RATES", "subscribe=10000/10000"),
        ("ROOMCAST_UNAUTHENTICATED_PER_ADDRESS_MAX", "10000"),
        ("ROOMCAST_CONNECTIONS_PER_ADDRESS_MAX", "10000"),
        ("ROOMCAST_CONNECT_RATE_PER_ADDRESS", "10000"),
        ("ROOMCAST_CONNECT_BURST_PER_ADDRESS", "10000"),
    ];
    let Some(gateway) = Gateway::start(&more).await else {
        return;
    };
    let token = gateway.signer.token("u1", &["staff"]);
    // Clients of both kinds without a library: their own memory would be measured as well, for they are in this process.
    let request = |head: &str, path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: x\r\n{head}Authorization: Bearer {token}\r\n\r\n")
    };
    let stream = request("", "/v1/sse?room=bookings");
    let socket = request(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "/v1/ws",
    );
    let mut kept = Vec::new();
    let mut cost = Vec::new();
    for request in [&stream, &socket, &stream, &socket] {
        let before = resident_kib();
        for _ in 0..COUNT {
            let mut client = TcpStream::connect(gateway.address).await.unwrap();
            client.write_all(request.as_bytes()).await.unwrap();
            let mut first = [0; 12];
            client.read_exact(&mut first).await.unwrap();
            kept.push(client);
        }
        cost.push((resident_kib() - before.min(resident_kib())) as f64 / COUNT as f64);
    }
    println!(
        "KiB of this process per stream in three rooms, upgraded socket, stream, socket (each with a bare client): {cost:.2?}"
    );
    assert!(cost[2] < cost[3] + 4.0, "{cost:?}");
}
