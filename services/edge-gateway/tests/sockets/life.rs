//! The life of a client: connect, live, away and back, history, expiry, refresh, drain.

use std::collections::HashMap;
use std::time::Duration;

use roomcast_harness::client::Client;
use roomcast_harness::token::now;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

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
async fn who_was_away_gets_exactly_what_was_missed() {
    let Some(gateway) = Gateway::start(&[("ROOMCAST_RECOVERY_PAGE_EVENTS", "10")]).await else {
        return;
    };
    let token = gateway.signer.token("u1", &["staff"]);
    let (mut client, _) = gateway.client("u1", &["staff"], &["bookings"]).await;
    client.caught_up("bookings").await.unwrap();
    gateway.event("bookings", "all", "seen", json!({})).await;
    client
        .until("the first", SOON, |frame| frame["event"]["event"]["id"] == "seen")
        .await
        .unwrap();
    let cursors = client.cut();
    // More than two pages of recovery, with state between.
    for n in 0..25 {
        gateway
            .event("bookings", "all", &format!("m{n}"), json!({}))
            .await;
    }
    gateway.state("bookings", "all", "k", json!("new")).await;
    let (mut back, connected) = Client::connect(&gateway.url, &token, &["bookings"], &cursors)
        .await
        .unwrap();
    assert_eq!(connected["rooms"][0]["recovery"], "complete");
    assert_eq!(connected["rooms"][0]["cursor"], cursors["bookings"].as_str());
    gateway.event("bookings", "all", "live", json!({})).await;
    let mut frames = back.caught_up("bookings").await.unwrap();
    let missed: Vec<String> = (0..25).map(|n| format!("m{n}")).collect();
    assert!(
        frames
            .iter()
            .any(|frame| frame["event"]["event"]["statekey"] == "k")
    );
    if !ids(&frames, "bookings").contains(&"live".to_owned()) {
        frames.extend(
            back.until("live", SOON, |frame| frame["event"]["event"]["id"] == "live")
                .await
                .unwrap(),
        );
    }
    let events: Vec<String> = ids(&frames, "bookings")
        .into_iter()
        .filter(|id| !id.starts_with("k-"))
        .collect();
    assert_eq!(
        events,
        [missed, vec!["live".to_owned()]].concat(),
        "each once and in order"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cursors_that_cannot_be_used_are_answered_plainly() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    gateway.event("bookings", "all", "old", json!({})).await;
    gateway.state("bookings", "all", "k", json!(1)).await;
    let token = gateway.signer.token("u1", &["staff"]);
    for cursor in [
        "garbage",
        "00000000.1.1.0",
        "ffffffff.18446744073709551615.0.0",
        "",
    ] {
        let cursors = HashMap::from([("bookings".to_owned(), cursor.to_owned())]);
        let (mut client, connected) = Client::connect(&gateway.url, &token, &["bookings"], &cursors)
            .await
            .unwrap();
        assert_eq!(
            (
                &connected["rooms"][0]["recovery"],
                &connected["rooms"][0]["reason"]
            ),
            (&json!("incomplete"), &json!("epoch"))
        );
        let frames = client.caught_up("bookings").await.unwrap();
        assert_eq!(
            ids(&frames, "bookings"),
            ["k-1"],
            "all state and no old events: {frames:?}"
        );
    }
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
    let unknown = client.request("fly", json!({})).await.unwrap();
    assert_eq!(unknown["error"]["code"], "unknown_message");
    let later = client
        .request("publish", json!({ "room": "bookings", "type": "x", "data": {} }))
        .await
        .unwrap();
    assert_eq!(later["error"]["code"], "forbidden");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_read_backwards_in_pages() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    for n in 0..12 {
        gateway
            .event("bookings", "all", &format!("h{n}"), json!({}))
            .await;
    }
    let (mut client, _) = gateway.client("u1", &["staff"], &["bookings"]).await;
    let (mut before, mut seen) = (Value::Null, Vec::new());
    for _ in 0..4 {
        let mut request = json!({ "room": "bookings", "limit": 5 });
        if !before.is_null() {
            request["before"] = before.clone();
        }
        let page = client.request("history", request).await.unwrap();
        let events = page["history"]["events"]
            .as_array()
            .unwrap_or_else(|| panic!("{page}"))
            .clone();
        let page_ids: Vec<String> = events
            .iter()
            .map(|event| event["event"]["id"].as_str().unwrap().to_owned())
            .collect();
        seen.splice(0..0, page_ids);
        before = page["history"]["cursor"].clone();
        if page["history"]["complete"] == true {
            break;
        }
    }
    assert_eq!(seen, (0..12).map(|n| format!("h{n}")).collect::<Vec<_>>());
    let refused = client
        .request("history", json!({ "room": "money" }))
        .await
        .unwrap();
    assert_eq!(refused["error"]["code"], "forbidden");
    let bad = client
        .request("history", json!({ "room": "bookings", "before": "x" }))
        .await
        .unwrap();
    assert_eq!(bad["error"]["code"], "bad_request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_expired_is_delivered() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let (mut client, _) = gateway.client("u1", &["staff"], &["bookings"]).await;
    client.caught_up("bookings").await.unwrap();
    gateway.expiring_event("bookings", "dead", now() * 1000 - 1).await;
    gateway
        .expiring_event("bookings", "alive", now() * 1000 + 60_000)
        .await;
    let frames = client
        .until("alive", SOON, |frame| frame["event"]["event"]["id"] == "alive")
        .await
        .unwrap();
    assert_eq!(ids(&frames, "bookings"), ["alive"]);
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
async fn tokens_end_on_open_sockets_and_can_be_renewed() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    // Leeway is 30 s, so a token that ended 28 s ago lives 2 s more.
    let short = gateway.signer.token_with("u1", &["staff"], -28, &json!({}));
    let (mut client, _) = Client::connect(&gateway.url, &short, &["bookings"], &HashMap::new())
        .await
        .unwrap();
    let (mut renewed, _) = Client::connect(&gateway.url, &short, &["bookings"], &HashMap::new())
        .await
        .unwrap();
    renewed
        .until("a warning", SOON, |frame| {
            frame["expiring"]["expiresAt"].is_string()
        })
        .await
        .unwrap();
    let other = gateway.signer.token("u2", &["admin"]);
    let refused = renewed
        .request("refresh", json!({ "token": other }))
        .await
        .unwrap();
    assert_eq!(refused["error"]["code"], "forbidden");
    let more = gateway.signer.token("u1", &["admin"]);
    let refreshed = renewed
        .request("refresh", json!({ "token": more }))
        .await
        .unwrap();
    assert_eq!(refreshed["refreshed"]["roles"], json!(["admin"]));
    let ended = client
        .until("disconnect", SOON, |frame| frame["disconnect"]["code"] == 4003)
        .await
        .unwrap();
    assert_eq!(
        ended.last().unwrap()["disconnect"],
        json!({ "code": 4003, "reason": "expired", "reconnect": true })
    );
    assert_eq!(client.next(SOON).await.unwrap(), None);
    assert_eq!(client.closed, Some((4003, "expired".into())));
    gateway.event("bookings", "admin", "for admins", json!({})).await;
    renewed
        .until("new rights", SOON, |frame| {
            frame["event"]["event"]["id"] == "for admins"
        })
        .await
        .unwrap();
    // Rights that end close rooms at once.
    let less = gateway.signer.token("u1", &["user"]);
    renewed
        .request("refresh", json!({ "token": less }))
        .await
        .unwrap();
    let closed = renewed
        .until("closed", SOON, |frame| {
            frame["unsubscribed"]["room"] == "bookings"
        })
        .await
        .unwrap();
    assert_eq!(closed.last().unwrap()["unsubscribed"]["code"], "forbidden");
    gateway.event("bookings", "all", "no more", json!({})).await;
    gateway.event("notifications", "all", "still", json!({})).await;
    let frames = renewed
        .until("still", SOON, |frame| frame["event"]["event"]["id"] == "still")
        .await
        .unwrap();
    assert_eq!(ids(&frames, "bookings"), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_goes_sends_its_clients_away_with_hints() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let mut clients = Vec::new();
    for n in 0..20 {
        clients.push(
            gateway
                .client(&format!("u{n}"), &["staff"], &["bookings"])
                .await
                .0,
        );
    }
    let mut silent = TcpStream::connect(gateway.address).await.unwrap();
    let shutdown = gateway.context.shutdown.clone();
    let stopped = tokio::spawn(async move { shutdown.run(Duration::from_secs(5)).await });
    let mut hints = Vec::new();
    for (n, client) in clients.iter_mut().enumerate() {
        if n == 1 {
            // Those who come now, or came and said nothing yet, are told to try again, and so find another gateway.
            let mut late = TcpStream::connect(gateway.address).await.unwrap();
            for socket in [&mut silent, &mut late] {
                let mut answer = String::new();
                let _ = socket.read_to_string(&mut answer).await;
                assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
                assert!(
                    answer.contains("retry-after: 1\r\n") && answer.contains("\"unavailable\""),
                    "{answer}"
                );
            }
        }
        let frames = client
            .until("disconnect", SOON, |frame| frame["disconnect"].is_object())
            .await
            .unwrap();
        let disconnect = &frames.last().unwrap()["disconnect"];
        assert_eq!(
            (disconnect["code"].as_u64(), disconnect["reconnect"].as_bool()),
            (Some(4001), Some(true))
        );
        hints.push(disconnect["retryAfterMs"].as_u64().unwrap());
        assert_eq!(client.next(SOON).await.unwrap(), None);
        assert_eq!(client.closed.as_ref().map(|closed| closed.0), Some(4001));
    }
    hints.sort_unstable();
    hints.dedup();
    assert!(hints.len() > 10, "hints are spread: {hints:?}");
    drop(clients);
    assert!(stopped.await.unwrap(), "ended in time");
    assert!(!gateway.context.readiness.is_ready());
    assert!(
        TcpStream::connect(gateway.address).await.is_err(),
        "the door is closed"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_nats_clients_are_told_then_sent_away_and_return_by_themselves() {
    let Some(mut gateway) = Gateway::start(&[]).await else {
        return;
    };
    let token = gateway.signer.token("u1", &["staff"]);
    let (mut client, _) = gateway.client("u1", &["staff"], &["bookings"]).await;
    client.caught_up("bookings").await.unwrap();
    gateway.nats.kill();
    let told = client
        .until("stale", SOON, |frame| frame["status"]["status"] == "stale")
        .await
        .unwrap();
    assert!(told.last().unwrap()["status"]["since"].is_string());
    let ended = client
        .until("4005", SOON, |frame| frame["disconnect"].is_object())
        .await
        .unwrap();
    assert_eq!(ended.last().unwrap()["disconnect"]["code"], 4005);
    let refused = Client::open(&gateway.url)
        .await
        .err()
        .map(|error| error.to_string());
    assert!(refused.is_some(), "new sockets are refused meanwhile");
    gateway.nats.launch().await;
    let cursors = client.cut();
    let begun = std::time::Instant::now();
    let (mut back, connected) = loop {
        match Client::connect(&gateway.url, &token, &["bookings"], &cursors).await {
            Ok(back) => break back,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(20), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(
        (&connected["rooms"][0]["recovery"], &connected["status"]),
        (&json!("complete"), &json!("ok"))
    );
    gateway.event("bookings", "all", "again", json!({})).await;
    back.until("live again", SOON, |frame| {
        frame["event"]["event"]["id"] == "again"
    })
    .await
    .unwrap();
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
