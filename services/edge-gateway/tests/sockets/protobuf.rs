//! The Protobuf encoding: the same life as in JSON, and nobody can tell from the events who reads what.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use roomcast_harness::client::{Client, ws_url};
use roomcast_proto::frame::{
    ClientFrame, Connect, History, Pong, Refresh, RoomRequest, SUBPROTOCOL_PROTOBUF, ServerFrame, Subscribe,
    Unsubscribe, client_frame, client_frame::Body, server_frame,
};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

use super::{Gateway, ids};

const SOON: Duration = Duration::from_secs(30);

/// A client that speaks Protobuf. What it reads is shown as its JSON form, to be compared.
struct Peer {
    socket: WebSocketStream<TcpStream>,
    next_id: u32,
    cursors: HashMap<String, String>,
    closed: Option<u16>,
}

impl Peer {
    async fn open(gateway: &Gateway) -> Self {
        Self::upgrade(gateway, TcpStream::connect(gateway.address).await.unwrap()).await
    }

    async fn upgrade(gateway: &Gateway, stream: TcpStream) -> Self {
        let protocols = format!("{SUBPROTOCOL_PROTOBUF}, roomcast.v1.json");
        let builder = ClientBuilder::from_uri(ws_url(&gateway.url).parse().unwrap())
            .add_header(http::header::SEC_WEBSOCKET_PROTOCOL, protocols.parse().unwrap())
            .unwrap();
        let (socket, answer) = builder.connect_on(stream).await.unwrap();
        let chosen = answer.headers()[http::header::SEC_WEBSOCKET_PROTOCOL].to_str();
        assert_eq!(chosen.unwrap(), SUBPROTOCOL_PROTOBUF);
        Self {
            socket,
            next_id: 1,
            cursors: HashMap::new(),
            closed: None,
        }
    }

    async fn connect(
        gateway: &Gateway,
        token: String,
        rooms: &[&str],
        cursors: &HashMap<String, String>,
    ) -> (Self, Value) {
        let mut peer = Self::open(gateway).await;
        let connected = peer.begin(token, rooms, cursors).await;
        (peer, connected)
    }

    async fn begin(&mut self, token: String, rooms: &[&str], cursors: &HashMap<String, String>) -> Value {
        let rooms = rooms.iter().map(|room| RoomRequest {
            room: (*room).to_owned(),
            cursor: cursors.get(*room).cloned(),
            presence: None,
        });
        let connect = Connect {
            token: Some(token),
            client: "test".to_owned(),
            rooms: rooms.collect(),
            counters: None,
        };
        self.request(Body::Connect(connect)).await["connected"].clone()
    }

    async fn send(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// Asks, and answers the answer; pushes before it are dropped.
    async fn request(&mut self, body: client_frame::Body) -> Value {
        let id = self.next_id;
        self.next_id += 1;
        let frame = ClientFrame {
            id: Some(id),
            body: Some(body),
        };
        self.send(Message::binary(frame.to_protobuf())).await;
        let frames = self.until("an answer", |frame| frame["id"] == id).await;
        frames.last().unwrap().clone()
    }

    /// The next frame; `None` when the connection has ended, with its code in `closed`.
    async fn next(&mut self) -> Option<Value> {
        self.next_within(SOON).await
    }

    async fn next_within(&mut self, patience: Duration) -> Option<Value> {
        let message = tokio::time::timeout(patience, self.socket.next())
            .await
            .expect("a message");
        let message = message?.ok()?;
        if let Some((code, _)) = message.as_close() {
            self.closed = Some(u16::from(code));
            return None;
        }
        assert!(message.is_binary(), "text to a client that reads Protobuf");
        let frame = ServerFrame::from_protobuf(message.as_payload()).unwrap();
        let at = match &frame.body {
            Some(server_frame::Body::Event(event)) => event.cursor.clone().map(|at| (event.room.clone(), at)),
            Some(server_frame::Body::CaughtUp(caught_up)) => {
                Some((caught_up.room.clone(), caught_up.cursor.clone()))
            }
            _ => None,
        };
        self.cursors.extend(at);
        Some(serde_json::from_str(&frame.to_json()).unwrap())
    }

    async fn until(&mut self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Vec<Value> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
            if frames.last().is_some_and(&mut wanted) {
                return frames;
            }
        }
        unreachable!("{what}: closed first: {:?}; came: {frames:?}", self.closed)
    }

    async fn caught_up(&mut self, room: &str) -> Vec<Value> {
        self.until("caughtUp", |frame| frame["caughtUp"]["room"] == room)
            .await
    }

    async fn until_event(&mut self, id: &str) -> Vec<Value> {
        self.until(id, |frame| frame["event"]["event"]["id"] == id).await
    }

    /// Reads to the end: the last `disconnect`, and the code of the close.
    async fn ended(self) -> (Value, Option<u16>) {
        self.ended_within(SOON).await
    }

    async fn ended_within(mut self, patience: Duration) -> (Value, Option<u16>) {
        let mut last = Value::Null;
        while let Some(frame) = self.next_within(patience).await {
            last = frame;
        }
        (last["disconnect"].clone(), self.closed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_room_gets_the_same_events_in_both_encodings() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    gateway.state("desk", "staff", "total", json!(7)).await;
    let mut seen = Vec::new();
    for roles in [["staff"], ["admin"]] {
        let (json, greeting) = gateway.client("u1", &roles, &["desk", "money"]).await;
        let token = gateway.signer.token("u1", &roles);
        let (protobuf, connected) = Peer::connect(&gateway, token, &["desk", "money"], &HashMap::new()).await;
        for member in [
            "user",
            "roles",
            "epoch",
            "pingSeconds",
            "status",
            "rooms",
            "limits",
        ] {
            assert_eq!(greeting[member], connected[member], "{member}");
        }
        seen.push((json, protobuf));
    }
    for (json, protobuf) in &mut seen {
        let (first, second) = (
            json.caught_up("desk").await.unwrap(),
            protobuf.caught_up("desk").await,
        );
        assert_eq!(first, second);
        assert_eq!(ids(&first, "desk"), ["total-7"]);
    }
    // At once, so that many wait together and go out in one write; of all sizes of a frame's header.
    let burst = (0..120).map(|n| {
        let text = "x".repeat(if n == 50 { 66_000 } else { n * 8 });
        let gateway = &gateway;
        let audience = if n % 5 == 0 { "admin" } else { "all" };
        async move {
            let more = json!({ "data": { "amount": n, "n": n, "text": text } });
            gateway.event("desk", audience, &format!("b{n}"), more).await;
        }
    });
    futures_util::future::join_all(burst).await;
    gateway.event("desk", "all", "last", json!({})).await;
    let is = |id: &'static str| move |frame: &Value| frame["event"]["event"]["id"] == id;
    let mut frames = Vec::new();
    for (json, protobuf) in &mut seen {
        let first = json.until("last", SOON, is("last")).await.unwrap();
        frames.push((first, protobuf.until_event("last").await));
    }
    // Only then: values come by another stream, and may pass events.
    gateway.state("desk", "staff", "total", json!(8)).await;
    let mut counts = Vec::new();
    for ((json, protobuf), (mut first, mut second)) in seen.iter_mut().zip(frames) {
        first.extend(json.until("total-8", SOON, is("total-8")).await.unwrap());
        second.extend(protobuf.until_event("total-8").await);
        let of_room = |frames: Vec<Value>| -> Vec<Value> {
            frames
                .into_iter()
                .filter(|frame| frame["event"]["room"] == "desk")
                .collect()
        };
        let (first, second) = (of_room(first), of_room(second));
        assert!(first == second, "the same events with the same cursors");
        let amounts = first
            .iter()
            .filter(|frame| frame["event"]["event"]["data"]["amount"].is_u64());
        counts.push((first.len(), amounts.count()));
        assert_eq!(json.cursors["desk"], protobuf.cursors["desk"]);
    }
    assert_eq!(
        counts,
        [(98, 0), (122, 120)],
        "audience and redaction hold in both"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_of_one_encoding_is_one_of_the_other() {
    let Some(gateway) = Gateway::start(&[("ROOMCAST_RECOVERY_PAGE_EVENTS", "10")]).await else {
        return;
    };
    let token = || gateway.signer.token("u1", &["staff"]);
    let (mut peer, _) = Peer::connect(&gateway, token(), &["bookings"], &HashMap::new()).await;
    peer.caught_up("bookings").await;
    gateway.event("bookings", "all", "seen", json!({})).await;
    peer.until_event("seen").await;
    let cursors = peer.cursors.clone();
    // More than two pages of recovery, with state behind.
    for n in 0..25 {
        gateway
            .event("bookings", "all", &format!("m{n}"), json!({ "data": { "n": n } }))
            .await;
    }
    gateway.state("bookings", "all", "k", json!("new")).await;
    // The one that stays says when the gateway has all of it.
    let mut last = 2;
    peer.until("the last of both", |frame| {
        let id = &frame["event"]["event"]["id"];
        last -= usize::from(id == "m24" || id == "k-\"new\"");
        last == 0
    })
    .await;
    let (mut back, connected) = Peer::connect(&gateway, token(), &["bookings"], &cursors).await;
    assert_eq!(connected["rooms"][0]["recovery"], "complete");
    let missed = back.caught_up("bookings").await;
    let expected = (0..25).map(|n| format!("m{n}")).chain(["k-\"new\"".to_owned()]);
    assert_eq!(ids(&missed, "bookings"), expected.collect::<Vec<_>>());
    let (mut json, _) = Client::connect(&gateway.url, &token(), &["bookings"], &cursors)
        .await
        .unwrap();
    assert_eq!(json.caught_up("bookings").await.unwrap(), missed);
    gateway.event("bookings", "all", "live", json!({})).await;
    back.until_event("live").await;
    let (_, again) = Peer::connect(&gateway, token(), &["bookings"], &json.cut()).await;
    assert_eq!(again["rooms"][0]["recovery"], "complete");
    let strange = HashMap::from([("bookings".to_owned(), "garbage".to_owned())]);
    let (_, afresh) = Peer::connect(&gateway, token(), &["bookings"], &strange).await;
    assert_eq!(afresh["rooms"][0]["reason"], "epoch");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_and_refused_in_protobuf() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    for n in 0..3 {
        let more = json!({ "data": { "n": n } });
        gateway.event("bookings", "all", &format!("h{n}"), more).await;
    }
    let (mut json, _) = gateway.client("u1", &["staff"], &[]).await;
    let token = gateway.signer.token("u1", &["staff"]);
    let (mut peer, _) = Peer::connect(&gateway, token.clone(), &[], &HashMap::new()).await;
    let history = |room: &str, before: Option<&str>| {
        Body::History(History {
            room: room.to_owned(),
            before: before.map(str::to_owned),
            limit: 2,
        })
    };
    let page = peer.request(history("bookings", None)).await["history"].clone();
    let same = json.request("history", json!({ "room": "bookings", "limit": 2 }));
    assert_eq!(page, same.await.unwrap()["history"]);
    assert_eq!(page["events"][0]["event"]["id"], "h1");
    let older = peer.request(history("bookings", page["cursor"].as_str())).await;
    assert_eq!(
        (
            &older["history"]["events"][0]["event"]["id"],
            &older["history"]["complete"]
        ),
        (&json!("h0"), &json!(true))
    );
    let subscribe = |room: &str| {
        Body::Subscribe(Subscribe {
            room: room.to_owned(),
            ..Subscribe::default()
        })
    };
    assert_eq!(
        peer.request(subscribe("bookings")).await["subscribed"]["recovery"],
        "fresh"
    );
    let refresh = peer.request(Body::Refresh(Refresh { token })).await;
    assert_eq!(refresh["refreshed"]["roles"], json!(["staff"]));
    for (body, code) in [
        (history("money", None), "forbidden"),
        (history("bookings", Some("x")), "bad_request"),
        (subscribe("money"), "forbidden"),
        (subscribe("no-such-room"), "forbidden"),
        (subscribe("a b"), "forbidden"),
    ] {
        assert_eq!(peer.request(body).await["error"]["code"], code);
    }
    // A message of a later version, and one that is none; both with an id.
    for (bytes, code) in [
        (&b"\x08\x63\xa2\x06\x01x"[..], "unknown_message"),
        (b"\x08\x63\x1a\x02\x08\x2a", "bad_frame"),
    ] {
        peer.send(Message::binary(bytes)).await;
        let answer = peer.until("a refusal", |frame| frame["id"] == 99).await;
        assert_eq!(answer.last().unwrap()["error"]["code"], code);
    }
    // Unknown fields are ignored.
    let mut frame = ClientFrame {
        id: Some(100),
        body: Some(subscribe("desk")),
    }
    .to_protobuf();
    frame.extend(b"\xa2\x06\x04test");
    peer.send(Message::binary(frame)).await;
    peer.until("an answer", |frame| {
        frame["id"] == 100 && frame["subscribed"]["room"] == "desk"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_the_protocol_ends_a_protobuf_connection() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let rows = [
        (Message::text("{\"pong\":{}}"), 1003),
        (Message::binary(&b"{\"pong\":{}}"[..]), 4503),
        (Message::binary(&b""[..]), 4503),
        (Message::binary(&b"\x72"[..]), 4503),
        (Message::binary(vec![0x0a; 65_537]), 1009),
    ];
    for connected in [false, true] {
        for (message, code) in rows.clone() {
            let mut peer = match connected {
                false => Peer::open(&gateway).await,
                true => {
                    let token = gateway.signer.token("u1", &["staff"]);
                    Peer::connect(&gateway, token, &["bookings"], &HashMap::new())
                        .await
                        .0
                }
            };
            peer.send(message).await;
            let (disconnect, closed) = peer.ended().await;
            assert_eq!(
                (&disconnect["code"], closed),
                (&json!(code), Some(code)),
                "{connected}"
            );
        }
    }
    let mut peer = Peer::open(&gateway).await;
    let connect = Connect {
        token: Some("nonsense".to_owned()),
        ..Connect::default()
    };
    let refused = peer.request(Body::Connect(connect)).await;
    assert_eq!(refused["error"]["code"], "unauthenticated");
    assert_eq!(peer.ended().await.1, Some(4500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_of_the_protocol_are_protobuf_too() {
    let Some(mut gateway) = Gateway::start(&[]).await else {
        return;
    };
    // Leeway is 30 s, so a token that ended 28 s ago lives 2 s more.
    let short = gateway.signer.token_with("u1", &["staff"], -28, &json!({}));
    let (mut ending, _) = Peer::connect(&gateway, short, &["bookings"], &HashMap::new()).await;
    ending
        .until("a warning", |frame| frame["expiring"]["expiresAt"].is_string())
        .await;
    let (disconnect, closed) = ending.ended().await;
    assert_eq!(
        (disconnect, closed),
        (
            json!({ "code": 4003, "reason": "expired", "reconnect": true }),
            Some(4003)
        )
    );
    let token = gateway.signer.token("u2", &["staff"]);
    let (mut peer, _) = Peer::connect(&gateway, token, &["bookings"], &HashMap::new()).await;
    peer.caught_up("bookings").await;
    gateway.nats.kill();
    peer.until("stale", |frame| frame["status"]["status"] == "stale")
        .await;
    let (disconnect, closed) = peer.ended().await;
    assert_eq!((&disconnect["code"], closed), (&json!(4005), Some(4005)));
    assert!(disconnect["retryAfterMs"].is_u64());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_goes_says_so_in_protobuf() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let token = gateway.signer.token("u1", &["staff"]);
    let (peer, _) = Peer::connect(&gateway, token, &["bookings"], &HashMap::new()).await;
    let shutdown = gateway.context.shutdown.clone();
    let stopped = tokio::spawn(async move { shutdown.run(Duration::from_secs(5)).await });
    let (disconnect, closed) = peer.ended().await;
    assert_eq!(
        (&disconnect["reason"], &disconnect["reconnect"], closed),
        (&json!("drain"), &json!(true), Some(4001))
    );
    assert!(disconnect["retryAfterMs"].is_u64());
    assert!(stopped.await.unwrap(), "ended in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_comes_back_complete_in_protobuf_too() {
    let limits = [
        ("ROOMCAST_WRITE_SECONDS", "2"),
        ("ROOMCAST_OUTBOX_BYTES_MAX", "262144"),
    ];
    let Some(gateway) = Gateway::start(&limits).await else {
        return;
    };
    let token = || gateway.signer.token("lazy", &["staff"]);
    let narrow = TcpSocket::new_v4().unwrap();
    narrow.set_recv_buffer_size(4096).unwrap();
    let mut lazy = Peer::upgrade(&gateway, narrow.connect(gateway.address).await.unwrap()).await;
    lazy.begin(token(), &["bookings"], &HashMap::new()).await;
    lazy.caught_up("bookings").await;
    let padding = "x".repeat(16 * 1024);
    for n in 0..150 {
        let more = json!({ "data": { "padding": padding } });
        gateway.event("bookings", "all", &format!("e{n}"), more).await;
    }
    // What it had not read is in the kernel still; behind it stands the end.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut frames = Vec::new();
    while let Some(frame) = lazy.next().await {
        frames.push(frame);
    }
    assert!(gateway.metric("roomcast_gateway_outbox_full_total") >= 1.0);
    let (mut back, connected) = Peer::connect(&gateway, token(), &["bookings"], &lazy.cursors).await;
    assert_eq!(connected["rooms"][0]["recovery"], "complete");
    frames.extend(back.caught_up("bookings").await);
    let expected: Vec<String> = (0..150).map(|n| format!("e{n}")).collect();
    assert_eq!(
        ids(&frames, "bookings"),
        expected,
        "nothing missed, nothing twice"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_answers_the_ping_stays() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let token = || gateway.signer.token("u1", &["staff"]);
    let (mut lively, _) = Peer::connect(&gateway, token(), &[], &HashMap::new()).await;
    let (silent, _) = Peer::connect(&gateway, token(), &[], &HashMap::new()).await;
    let (patience, pong) = (Duration::from_secs(40), Body::Pong(Pong {}));
    let ended = silent.ended_within(patience);
    let stays = async {
        // The first comes within 25 s; without its answer the connection ends 10 s later.
        while lively.next_within(Duration::from_secs(26)).await.unwrap()["ping"].is_null() {}
        let frame = ClientFrame {
            id: None,
            body: Some(pong),
        };
        lively.send(Message::binary(frame.to_protobuf())).await;
        tokio::time::sleep(Duration::from_secs(11)).await;
        let answer = lively
            .request(Body::Unsubscribe(Unsubscribe {
                room: "bookings".to_owned(),
            }))
            .await;
        assert_eq!(answer["unsubscribed"]["room"], "bookings");
    };
    let (ended, ()) = tokio::join!(ended, stays);
    let (disconnect, closed) = ended;
    assert_eq!((&disconnect["reason"], closed), (&json!("no_pong"), Some(4004)));
}
