//! The life of a client: it connects, opens and closes rooms, and gets what it may see, in order and once.

use std::time::Duration;

use roomcast_harness::client::Client;
use serde_json::json;

use super::{Gateway, ids};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_answers_for_every_room_and_then_delivers() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    gateway.state("bookings", "staff", "total", json!(7)).await;
    let (mut client, connected) = gateway
        .client(
            "u1",
            &["staff"],
            &["bookings", "money", "no-such-room", "bad room"],
        )
        .await;
    assert_eq!(
        (connected["user"].as_str(), connected["roles"].clone()),
        (Some("u1"), json!(["staff"]))
    );
    assert_eq!(
        (connected["pingSeconds"].as_u64(), connected["status"].as_str()),
        (Some(25), Some("ok"))
    );
    assert_eq!(connected["limits"]["subscriptions"], 128);
    let rooms = connected["rooms"].as_array().unwrap();
    let names: Vec<&str> = rooms.iter().map(|room| room["room"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "bookings",
            "money",
            "no-such-room",
            "bad room",
            "notifications",
            "user.u1"
        ]
    );
    assert_eq!(rooms[0]["recovery"], "fresh");
    assert_eq!(rooms[1]["error"]["code"], "forbidden");
    assert!(
        rooms[1]["error"] == rooms[2]["error"] && rooms[2]["error"] == rooms[3]["error"],
        "{rooms:?}"
    );

    let first = client.caught_up("bookings").await.unwrap();
    assert_eq!(
        first[0]["event"]["event"]["statekey"], "total",
        "state before caughtUp: {first:?}"
    );
    for n in 0..50 {
        gateway
            .event(
                "bookings",
                "staff",
                &format!("e{n}"),
                json!({ "data": { "n": n } }),
            )
            .await;
    }
    let frames = client
        .until("the last", SOON, |frame| frame["event"]["event"]["id"] == "e49")
        .await
        .unwrap();
    assert_eq!(
        ids(&frames, "bookings"),
        (0..50).map(|n| format!("e{n}")).collect::<Vec<_>>()
    );
    gateway.state("bookings", "staff", "total", json!(8)).await;
    client
        .until("new state", SOON, |frame| {
            frame["event"]["event"]["data"]["value"] == 8
        })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_open_and_close_on_request() {
    let Some(gateway) = Gateway::start(&[("ROOMCAST_SUBSCRIPTIONS_MAX", "1")]).await else {
        return;
    };
    let (mut client, _) = gateway.client("u1", &["staff"], &[]).await;
    let subscribed = client
        .request("subscribe", json!({ "room": "bookings" }))
        .await
        .unwrap();
    assert_eq!(subscribed["subscribed"]["recovery"], "fresh");
    let limit = client
        .request("subscribe", json!({ "room": "desk" }))
        .await
        .unwrap();
    assert_eq!(limit["error"]["code"], "limit");
    let mut answers = Vec::new();
    for room in [
        "money",
        "absent",
        "user.u2",
        "user.u1.x",
        "a b",
        ">",
        "bookings.*",
    ] {
        let mut answer = client
            .request("subscribe", json!({ "room": room }))
            .await
            .unwrap();
        answer.as_object_mut().unwrap().remove("id");
        answers.push(answer.to_string());
    }
    answers.dedup();
    assert_eq!(
        answers,
        [r#"{"error":{"code":"forbidden","message":"not there, or not yours","temporary":false}}"#]
    );
    client
        .request("unsubscribe", json!({ "room": "bookings" }))
        .await
        .unwrap();
    gateway.event("bookings", "all", "unheard", json!({})).await;
    gateway.event("notifications", "all", "heard", json!({})).await;
    let frames = client
        .until("heard", SOON, |frame| frame["event"]["event"]["id"] == "heard")
        .await
        .unwrap();
    assert_eq!(ids(&frames, "bookings"), Vec::<String>::new());
    // Left before it was open: its state has to be read first.
    for frame in [
        json!({ "id": 9_001, "subscribe": { "room": "desk" } }),
        json!({ "id": 9_002, "unsubscribe": { "room": "desk" } }),
    ] {
        client.send_text(&frame.to_string()).await.unwrap();
    }
    client
        .until("left", SOON, |frame| frame["id"] == 9_002)
        .await
        .unwrap();
    gateway.event("desk", "all", "unheard", json!({})).await;
    gateway
        .event("notifications", "all", "heard-again", json!({}))
        .await;
    let frames = client
        .until("heard", SOON, |frame| {
            frame["event"]["event"]["id"] == "heard-again"
        })
        .await
        .unwrap();
    assert_eq!(ids(&frames, "desk"), Vec::<String>::new());
    let unknown = client.request("fly", json!({})).await.unwrap();
    assert_eq!(unknown["error"]["code"], "unknown_message");
    let later = client
        .request("publish", json!({ "room": "bookings", "type": "x", "data": {} }))
        .await
        .unwrap();
    assert_eq!(later["error"]["code"], "forbidden");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn audiences_and_redaction_hold_on_every_way() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let secret = "canary-7f3a";
    let (mut staff, _) = gateway.client("u1", &["staff"], &["bookings", "desk"]).await;
    let (mut admin, _) = gateway.client("u2", &["admin"], &["bookings", "desk"]).await;
    staff.caught_up("desk").await.unwrap();
    admin.caught_up("desk").await.unwrap();
    let cursors = staff.cursors.clone();
    gateway
        .event(
            "bookings",
            "admin",
            secret,
            json!({ "data": { "amount": secret } }),
        )
        .await;
    gateway.state("bookings", "admin", secret, json!(secret)).await;
    gateway
        .event(
            "desk",
            "all",
            "redacted",
            json!({ "data": { "amount": secret, "n": 1 } }),
        )
        .await;
    gateway.event("money", "all", secret, json!({})).await;
    gateway.event("user.u2", "all", secret, json!({})).await;
    gateway.event("desk", "all", "end", json!({})).await;
    let frames = admin
        .until("end", SOON, |frame| frame["event"]["event"]["id"] == "end")
        .await
        .unwrap();
    assert!(
        frames
            .iter()
            .any(|frame| frame["event"]["event"]["data"]["amount"] == secret),
        "{frames:?}"
    );
    staff
        .until("end", SOON, |frame| frame["event"]["event"]["id"] == "end")
        .await
        .unwrap();
    for room in ["money", "user.u2"] {
        staff.request("history", json!({ "room": room })).await.unwrap();
        staff
            .request("subscribe", json!({ "room": room, "cursor": cursors["desk"] }))
            .await
            .unwrap();
    }
    for room in ["bookings", "desk"] {
        staff.request("history", json!({ "room": room })).await.unwrap();
    }
    let token = gateway.signer.token("u1", &["staff"]);
    let (mut back, _) = Client::connect(&gateway.url, &token, &["bookings", "desk"], &cursors)
        .await
        .unwrap();
    back.caught_up("desk").await.unwrap();
    let (mut fresh, _) = gateway.client("u1", &["staff"], &["bookings", "desk"]).await;
    fresh.caught_up("desk").await.unwrap();
    let all = [staff.raw, back.raw, fresh.raw].concat().join("\n");
    assert!(
        all.contains("redacted") && !all.contains(secret),
        "a byte for other eyes: {all}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_over_many_rooms_reaches_everybody_in_order_and_once() {
    let Some(gateway) = Gateway::start(&[("ROOMCAST_REQUEST_BURST", "100")]).await else {
        return;
    };
    let rooms = ["bookings", "desk", "notifications"];
    let mut clients = Vec::new();
    for n in 0..6 {
        let role = if n % 2 == 0 { "staff" } else { "admin" };
        clients.push(gateway.client(&format!("u{n}"), &[role], &rooms).await.0);
    }
    let bursts = (0..150).map(|n| {
        let gateway = &gateway;
        async move {
            gateway
                .event(
                    rooms[n % 3],
                    "all",
                    &format!("b{n}"),
                    json!({ "data": { "amount": n } }),
                )
                .await
        }
    });
    // Stored at once, so that many wait together and go out in one write; the stream decides about their order.
    futures_util::future::join_all(bursts).await;
    for room in rooms {
        gateway.event(room, "all", "last", json!({})).await;
    }
    let mut orders = Vec::new();
    for client in &mut clients {
        let mut last = 0;
        let frames = client.until("the last of all", SOON, |frame| {
            last += usize::from(frame["event"]["event"]["id"] == "last");
            last == rooms.len()
        });
        let frames = frames.await.unwrap();
        orders.push(rooms.map(|room| ids(&frames, room)));
        assert_eq!(orders[0].iter().map(Vec::len).sum::<usize>(), 153, "each once");
    }
    orders.dedup();
    assert_eq!(orders.len(), 1, "everybody sees one order");
}
