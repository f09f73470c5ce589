//! The limits of the README that no other test here meets: each with its answer and its count.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use roomcast_harness::client::Client;
use roomcast_harness::eventually;
use roomcast_harness::http::Http;
use roomcast_proto::subject::{INGEST_QUEUE, Service};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Gateway;
use super::raw::{UPGRADE, masked, rest};

const SOON: Duration = Duration::from_secs(30);

/// A gateway whose limits are met quickly.
async fn small(more: &[(&str, &str)]) -> Option<Gateway> {
    let limits = [
        ("ROOMCAST_CONNECT_BURST_PER_ADDRESS", "100000"),
        ("ROOMCAST_HEADER_BYTES_MAX", "8192"),
        ("ROOMCAST_HEADERS_MAX", "16"),
        ("ROOMCAST_URL_BYTES_MAX", "300"),
        ("ROOMCAST_ROOMS_PER_REQUEST_MAX", "2"),
        ("ROOMCAST_SUBSCRIPTIONS_MAX", "3"),
        ("ROOMCAST_MESSAGE_BYTES_MAX", "16384"),
        ("ROOMCAST_FRAGMENTS_MAX", "8"),
        ("ROOMCAST_POLL_SECONDS", "2"),
        ("ROOMCAST_POLLS_HELD_MAX", "2"),
        ("ROOMCAST_COMMENT_SECONDS", "1"),
        ("ROOMCAST_ANSWER_BYTES_MAX", "131072"),
    ];
    Gateway::start(&[&limits, more].concat()).await
}

fn met(gateway: &Gateway, limit: &str) -> f64 {
    gateway.count("roomcast_gateway_limited_total", &format!("limit=\"{limit}\""))
}

/// Everything that comes on a new connection that says this.
async fn says(gateway: &Gateway, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    // Who is refused in the middle cannot send the rest.
    let _ = stream.write_all(bytes).await;
    String::from_utf8_lossy(&rest(&mut stream).await).into_owned()
}

fn connect(token: &str, rooms: &[&str]) -> Vec<u8> {
    let rooms: Vec<Value> = rooms.iter().map(|room| json!({ "room": room })).collect();
    let connect = json!({ "id": 1, "connect": { "token": token, "client": "t", "rooms": rooms } });
    masked(0x81, connect.to_string().as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_or_says_too_much_is_told_and_counted() {
    let short = [
        // Later than the body, so that a busy machine does not count one for the other.
        ("ROOMCAST_AUTHENTICATE_SECONDS", "4"),
        ("ROOMCAST_BODY_SECONDS", "1"),
    ];
    let Some(gateway) = small(&short).await else {
        return;
    };
    let token = gateway.signer.token("u1", &["staff"]);
    let get = |path: &str, more: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n{more}\r\n"
        )
        .into_bytes()
    };
    let socket = |frames: &[Vec<u8>]| {
        let upgrade = format!("{UPGRADE}\r\n").into_bytes();
        [&[upgrade], frames].concat().concat()
    };
    let long = "y".repeat(300);
    let fields = "X-A: b\r\n".repeat(16);
    let large = masked(0x81, "x".repeat(16_385).as_bytes());
    let fragments = [vec![masked(0x01, b"{")], vec![masked(0x00, b" "); 8]].concat();
    let hello = connect(&token, &[]);
    let rows: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        (
            "a head",
            get("/page.json", &format!("X-A: {}\r\n", "z".repeat(8_192))),
            "431 ",
            "head",
        ),
        ("fields", get("/page.json", &fields), "431 ", "head"),
        (
            "a socket's head",
            format!("{UPGRADE}X-A: {}\r\n\r\n", "z".repeat(8_192)).into_bytes(),
            "431 ",
            "head",
        ),
        ("a URL", get(&format!("/v1/state?room={long}"), ""), "431 ", "url"),
        (
            "a socket's URL",
            format!("{UPGRADE}\r\n")
                .replace("/v1/ws", &format!("/v1/ws?{long}"))
                .into_bytes(),
            "431 ",
            "url",
        ),
        (
            "a body that does not come",
            format!(
                "POST /v1/marks HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\
                 Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{{"
            )
            .into_bytes(),
            "408 ",
            "body",
        ),
        (
            "a stream's rooms",
            get("/v1/sse?room=a&room=b&room=c", ""),
            "429 ",
            "rooms",
        ),
        (
            "a poll's rooms",
            get("/v1/poll?room=a&room=b&room=c", ""),
            "429 ",
            "rooms",
        ),
        (
            "rooms",
            socket(&[connect(&token, &["bookings", "desk", "floor"])]),
            "\"code\":4504",
            "rooms",
        ),
        ("no token", socket(&[]), "\"code\":4500", "authenticate"),
        (
            "a message",
            socket(&[hello.clone(), large]),
            "\"code\":1009",
            "message",
        ),
        (
            "fragments",
            socket(&[vec![hello], fragments].concat()),
            "\"code\":1009",
            "message",
        ),
    ];
    let asked = rows.iter().map(|(what, bytes, answer, limit)| {
        let gateway = &gateway;
        async move {
            let said = says(gateway, bytes).await;
            assert!(said.contains(answer), "{what}: {said}");
            (*limit, 1.0)
        }
    });
    let mut least: HashMap<&str, f64> = HashMap::new();
    for (limit, count) in join_all(asked).await {
        *least.entry(limit).or_default() += count;
    }
    for (limit, count) in least {
        // Counted by the shard, which may be a moment behind its answer.
        eventually(&format!("{count} of {limit} are counted"), SOON, || async {
            met(&gateway, limit) >= count
        })
        .await;
        assert_eq!(met(&gateway, limit), count, "{limit}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_and_pages_are_bounded_and_the_connection_goes_on() {
    let Some(gateway) = small(&[]).await else { return };
    let (mut client, connected) = gateway.client("u1", &["staff"], &["bookings", "desk"]).await;
    assert_eq!(connected["limits"]["messageBytes"], 16_384);
    client
        .request("subscribe", json!({ "room": "floor" }))
        .await
        .unwrap();
    let answer = client
        .request("subscribe", json!({ "room": "diary" }))
        .await
        .unwrap();
    assert_eq!(answer["error"]["code"], "limit", "{answer}");
    assert_eq!(met(&gateway, "subscriptions"), 1.0);
    // A page of three events of 60 KiB is longer than an answer may be: it ends earlier, and says where it goes on.
    let padding = "x".repeat(60 << 10);
    for n in 0..3 {
        let data = json!({ "data": { "padding": padding } });
        gateway.event("bookings", "all", &format!("e{n}"), data).await;
    }
    let last = |frame: &Value| frame["event"]["event"]["id"] == "e2";
    client.until("e2", SOON, last).await.unwrap();
    let page = json!({ "room": "bookings", "limit": 3 });
    let page = client.request("history", page).await.unwrap()["history"].clone();
    assert_eq!(page["events"].as_array().unwrap().len(), 2);
    assert_eq!(
        (page["complete"].as_bool(), page["cursor"].is_string()),
        (Some(false), true)
    );
    let (http, token) = (Http::default(), gateway.signer.token("u1", &["staff"]));
    let of_room = format!("{}/v1/rooms/bookings", gateway.url);
    let over_http = http
        .get(&format!("{of_room}/events?limit=3"), Some(&token))
        .await
        .unwrap()
        .json();
    assert_eq!(over_http["events"], page["events"]);
    assert_eq!(
        (&over_http["cursor"], &over_http["complete"]),
        (&page["cursor"], &json!(false))
    );
    let snapshot = http
        .get(&format!("{of_room}/snapshot?events=3"), Some(&token))
        .await
        .unwrap()
        .json();
    assert_eq!(snapshot["events"].as_array().unwrap().len(), 2);
}

/// Ingest hears what is asked and does not answer: what is under way is counted by connection, user and gateway, each with its answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_asked_of_others_is_bounded_and_the_connection_goes_on() {
    let limits = [
        ("ROOMCAST_ASKS_PER_CONNECTION_MAX", "2"),
        ("ROOMCAST_ASKS_PER_USER_MAX", "3"),
        ("ROOMCAST_ASKS_MAX", "4"),
    ];
    let Some(gateway) = small(&limits).await else {
        return;
    };
    let mut unanswered = gateway
        .nats
        .connect("ingest")
        .await
        .queue_subscribe(Service::ReadState.requests(), INGEST_QUEUE.to_owned())
        .await
        .unwrap();
    let (mut client, _) = gateway.client("u1", &["staff"], &[]).await;
    let (mut second, _) = gateway.client("u1", &["staff"], &[]).await;
    let (mut other, _) = gateway.client("u2", &["staff"], &[]).await;
    let ask = |id: u32| json!({ "id": id, "feed": {} }).to_string();
    let refused = async |client: &mut Client, id: u32, code: &str| {
        client.send_text(&ask(id)).await.unwrap();
        let answer = client
            .until("a refusal", SOON, |frame| frame["id"] == id)
            .await
            .unwrap();
        assert_eq!(answer.last().unwrap()["error"]["code"], code, "{id}");
    };
    let mut heard = async || {
        let heard = tokio::time::timeout(SOON, unanswered.next()).await;
        heard.expect("somebody asks").unwrap();
    };
    for id in [900, 901] {
        client.send_text(&ask(id)).await.unwrap();
        heard().await;
    }
    refused(&mut client, 902, "rate").await;
    second.send_text(&ask(903)).await.unwrap();
    heard().await;
    refused(&mut second, 904, "rate").await;
    other.send_text(&ask(905)).await.unwrap();
    heard().await;
    refused(&mut other, 906, "unavailable").await;
    for limit in ["asks_of_connection", "asks_of_user", "asks"] {
        assert_eq!(met(&gateway, limit), 1.0, "{limit}");
    }
    for client in [&mut client, &mut second, &mut other] {
        let answer = client.request("unsubscribe", json!({ "room": "floor" })).await;
        assert!(answer.unwrap()["unsubscribed"].is_object());
    }
}

/// NATS stands still, so that what has to be read from it is under way for as long as the test needs. Where this process stood still
/// itself, the gateway knows that it is cut off and reads nothing: then once more.
async fn while_nothing_is_read(
    gateway: &Gateway,
    what: &str,
    limit: &str,
    mut attempt: impl AsyncFnMut(usize) -> bool,
) {
    for n in 0..10 {
        gateway.nats.signal("STOP");
        let done = attempt(n).await;
        gateway.nats.signal("CONT");
        if done {
            assert_eq!(met(gateway, limit), 1.0, "{what}");
            return;
        }
        // Current again, so that somebody may come in.
        eventually("NATS is heard again", SOON, || async {
            let url = format!("{}/v1/state?room=floor", gateway.url);
            let token = gateway.signer.token("waits", &["staff"]);
            Http::default()
                .get(&url, Some(&token))
                .await
                .is_ok_and(|answer| answer.status == 200)
        })
        .await;
    }
    assert_eq!(met(gateway, limit), 1.0, "{what}: never under way");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_behind_a_room_that_is_recovered_is_bounded() {
    let limits = [
        ("ROOMCAST_REQUEST_BURST", "10000"),
        ("ROOMCAST_OPERATION_RATES", "subscribe=100/1000,read=1000/1000"),
    ];
    let Some(gateway) = Gateway::start(&limits).await else {
        return;
    };
    // A room that nobody has asked for yet: its state has to be read.
    while_nothing_is_read(&gateway, "waiting", "waiting", async |n| {
        gateway.nats.signal("CONT");
        let (mut client, _) = gateway.client(&format!("u{n}"), &["admin"], &[]).await;
        gateway.nats.signal("STOP");
        let room = ["bookings", "money", "diary", "desk"][n % 4];
        client
            .send_text(&json!({ "id": 900, "subscribe": { "room": room } }).to_string())
            .await
            .unwrap();
        let unsubscribe = json!({ "id": 901, "unsubscribe": { "room": "nowhere" } }).to_string();
        for _ in 0..300 {
            // It ends in the middle.
            let _ = client.send_text(&unsubscribe).await;
        }
        let mut answered = 0;
        while let Some(frame) = client.next(SOON).await.unwrap() {
            answered += usize::from(frame["id"] == 900 || frame["id"] == 901);
            if answered > 0 && frame["disconnect"].is_null() {
                return false;
            }
        }
        assert_eq!(client.closed.map(|(code, _)| code), Some(4006));
        true
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_for_history_is_read_at_a_time() {
    let limits = [
        ("ROOMCAST_RING_BYTES", "1048576"),
        ("ROOMCAST_RING_TENANT_BYTES", "1048576"),
        ("ROOMCAST_RING_ROOM_EVENTS", "1"),
        (
            "ROOMCAST_OPERATION_RATES",
            "history=1000/1000,deep_history=1000/1000,read=1000/1000",
        ),
    ];
    let Some(gateway) = Gateway::start(&limits).await else {
        return;
    };
    let (mut client, _) = gateway.client("u1", &["staff"], &["bookings"]).await;
    // More than the memory for recent events holds.
    let padding = "x".repeat(60 << 10);
    for n in 0..24 {
        let data = json!({ "data": { "padding": padding } });
        let id = format!("e{n}");
        gateway.event("bookings", "all", &id, data).await;
        let came = |frame: &Value| frame["event"]["event"]["id"] == id.as_str();
        client.until("each", SOON, came).await.unwrap();
    }
    client.raw.clear();
    while_nothing_is_read(&gateway, "reading", "reading", async |n| {
        let ids = [800 + 2 * n, 801 + 2 * n];
        for id in ids {
            let history = json!({ "id": id, "history": { "room": "bookings", "limit": 100 } });
            client.send_text(&history.to_string()).await.unwrap();
        }
        let second = client
            .until("the second answer", SOON, |frame| frame["id"] == ids[1])
            .await
            .unwrap();
        let code = second.last().unwrap()["error"]["code"].clone();
        if code != "rate" {
            assert_eq!(code, "unavailable");
            return false;
        }
        // The first one goes on.
        gateway.nats.signal("CONT");
        let first = client
            .until("the first answer", SOON, |frame| frame["id"] == ids[0])
            .await
            .unwrap();
        let first = first.last().unwrap();
        assert!(
            first["history"].is_object() || first["error"]["code"] == "unavailable",
            "{first}"
        );
        true
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polls_and_streams_have_their_times() {
    let Some(gateway) = small(&[]).await else { return };
    let (http, token) = (Http::default(), gateway.signer.token("u1", &["staff"]));
    let poll = format!("{}/v1/poll?room=bookings", gateway.url);
    let first = http.get(&format!("{poll}&wait=0"), Some(&token)).await.unwrap();
    let held = format!("{poll}&cursor={}", first.json()["cursor"].as_str().unwrap());
    assert_eq!(
        http.get(&format!("{poll}&wait=26"), Some(&token))
            .await
            .unwrap()
            .status,
        400
    );
    let begun = Instant::now();
    // As long as the contract allows; the setting is shorter.
    let longer = format!("{held}&wait=25");
    let answers = join_all((0..3).map(|_| http.get(&longer, Some(&token)))).await;
    // As many as may be are held for their time; one more is told so at once.
    let statuses: Vec<u16> = answers.into_iter().map(|answer| answer.unwrap().status).collect();
    let refused = statuses.iter().filter(|status| **status == 503).count();
    assert_eq!(refused as f64, met(&gateway, "polls"), "{statuses:?}");
    assert!(
        (Duration::from_secs(2)..Duration::from_secs(24)).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
    eventually("one too many is refused", SOON, || async {
        let answers = join_all((0..5).map(|_| http.get(&held, Some(&token)))).await;
        answers.iter().flatten().any(|answer| answer.status == 503)
    })
    .await;
    // A stream with nothing to say says a comment.
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let request =
        format!("GET /v1/sse?room=bookings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let comments = async {
        let mut came = Vec::new();
        while came.windows(4).filter(|part| part == b"\n:\n\n").count() < 2 {
            came.push(stream.read_u8().await.unwrap());
        }
    };
    tokio::time::timeout(SOON, comments).await.expect("two comments");
}

/// Keys of a room's state, and bytes of each: together nearly all that answers may hold where 1 MiB may wait.
const STATE_KEYS: usize = 12;
const STATE_BYTES: usize = 40 << 10;

/// A gateway with a room whose state is long, and the address of that.
async fn with_state(write_seconds: &str) -> Option<(Gateway, String)> {
    let limits = [
        ("ROOMCAST_OUTBOXES_BYTES_MAX", "1048576"),
        ("ROOMCAST_SEND_BUFFER_BYTES", "16384"),
        ("ROOMCAST_WRITE_SECONDS", write_seconds),
        ("ROOMCAST_OPERATION_RATES", "read=1000/1000"),
    ];
    let gateway = Gateway::start(&limits).await?;
    for n in 0..STATE_KEYS {
        let value = json!("x".repeat(STATE_BYTES));
        gateway.state("bookings", "all", &format!("k{n}"), value).await;
    }
    let url = format!("{}/v1/state?room=bookings", gateway.url);
    let (http, token) = (Http::default(), gateway.signer.token("u1", &["staff"]));
    eventually("the state is there", SOON, || async {
        let answer = http.get(&url, Some(&token)).await.unwrap();
        answer.json()["state"].as_array().map(Vec::len) == Some(STATE_KEYS)
    })
    .await;
    Some((gateway, url))
}

/// Somebody who has asked for that state, with room for next to nothing, and has read where the answer begins.
async fn asks_for_state(gateway: &Gateway) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(gateway.address).await.unwrap();
    let token = gateway.signer.token("slow", &["staff"]);
    let request =
        format!("GET /v1/state?room=bookings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut begin = [0; 12];
    stream.read_exact(&mut begin).await.unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_not_taken_are_bounded_together() {
    let Some((gateway, url)) = with_state("300").await else {
        return;
    };
    let waits = || gateway.metric("roomcast_gateway_outbox_bytes");
    let (http, token) = (Http::default(), gateway.signer.token("u1", &["staff"]));
    eventually("nothing waits", SOON, || async { waits() == 0.0 }).await;
    let deaf = asks_for_state(&gateway).await;
    assert!(waits() > (STATE_KEYS * STATE_BYTES) as f64, "{}", waits());
    let refused = http.get(&url, Some(&token)).await.unwrap();
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.json()["code"], "unavailable");
    assert_eq!(met(&gateway, "outboxes"), 1.0);
    // What is short is answered.
    let desk = http
        .get(&url.replace("bookings", "desk"), Some(&token))
        .await
        .unwrap();
    assert_eq!(desk.status, 200);
    drop(deaf);
    eventually("there is room again", SOON, || async {
        http.get(&url, Some(&token)).await.unwrap().status == 200
    })
    .await;
    eventually("nothing waits any more", SOON, || async { waits() == 0.0 }).await;
}

/// Who reads slowly for longer than a write may take gives way to who asks now.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_its_answer_slowly_gives_way_to_others() {
    let Some((gateway, url)) = with_state("1").await else {
        return;
    };
    let (http, token) = (Http::default(), gateway.signer.token("u2", &["staff"]));
    let mut slow = asks_for_state(&gateway).await;
    let reading = tokio::spawn(async move {
        let (mut piece, mut total) = ([0; 2048], 0);
        while let Ok(count @ 1..) = slow.read(&mut piece).await {
            total += count;
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        total
    });
    eventually("another one is answered", SOON, || async {
        let answer = http.get(&url, Some(&token)).await.unwrap();
        answer.status == 200 && answer.body.len() > STATE_KEYS * STATE_BYTES
    })
    .await;
    let read = reading.await.unwrap();
    assert!(read < STATE_KEYS * STATE_BYTES, "{read} bytes: it was not cut");
    assert!(met(&gateway, "outboxes") >= 1.0);
}

/// Requests have the same budget as frames. Who floods is read as fast as it allows, and others notice nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_requests_is_read_slowly_and_answers_nobody_takes_are_cut() {
    let limits = [
        ("ROOMCAST_INGRESS_BYTES_RATE", "1024"),
        ("ROOMCAST_INGRESS_BYTES_BURST", "131072"),
        ("ROOMCAST_WRITE_SECONDS", "1"),
        ("ROOMCAST_SEND_BUFFER_BYTES", "16384"),
    ];
    let Some(gateway) = Gateway::start(&limits).await else {
        return;
    };
    const REQUESTS: usize = 4_000;
    let request = "GET /page.json HTTP/1.1\r\nHost: x\r\n\r\n";
    let (mut reader, mut writer) = TcpStream::connect(gateway.address).await.unwrap().into_split();
    let flood = tokio::spawn(async move {
        let all = request.repeat(REQUESTS);
        let _ = writer.write_all(all.as_bytes()).await;
        // Stays open, as who waits for answers does.
        std::future::pending::<()>().await;
    });
    let mut answers = 0;
    let counting = async {
        let mut came = String::new();
        let mut piece = [0; 4096];
        loop {
            let count = reader.read(&mut piece).await.unwrap();
            assert!(count > 0, "it is not closed for that");
            came.push_str(&String::from_utf8_lossy(&piece[..count]));
            answers += came.matches("HTTP/1.1 ").count();
            came = came
                .rsplit_once("HTTP/1.1 ")
                .map_or(came.clone(), |(_, tail)| tail.to_owned());
        }
    };
    let slowed = eventually("it is read more slowly", SOON, || async {
        met(&gateway, "ingress") >= 3.0
    });
    tokio::select! {
        () = counting => {}
        () = slowed => {}
    }
    // What was allowed at once, and a little for each pause.
    let most = (131_072 + 16 * 4_096) / request.len();
    assert!((1_000..most).contains(&answers), "{answers} of {REQUESTS}");
    flood.abort();

    // One that does not read its answers.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut deaf = socket.connect(gateway.address).await.unwrap();
    let _ = deaf.write_all(request.repeat(3_000).as_bytes()).await;
    eventually("it is cut", SOON, || async { met(&gateway, "write") >= 1.0 }).await;
    let (mut other, _) = gateway.client("u1", &["staff"], &["bookings"]).await;
    other.caught_up("bookings").await.unwrap();
    drop(deaf);
}
