//! What users do themselves: events of their own, what they are doing, what is for them alone; over two gateways.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Context as _;
use roomcast_harness::client::Client;
use serde_json::{Value, json};

use crate::commands::{code, staff};
use crate::world::{calm, desk, stored};

#[test]
fn users_publish_where_the_policy_says_so_and_each_id_once() {
    calm(|stack| async move {
        let token = stack.signer.token("listener", &["user"]);
        let (mut listener, _) = Client::connect(
            &stack.gateways()[1],
            &token,
            &["chat", "chat.7"],
            &Default::default(),
        )
        .await?;
        let mut writer = staff(stack, 0, "writer").await?;
        let publish = |room: &str, id: Option<&str>, data: Value| {
            let mut body = json!({ "room": room, "type": "chat.said", "data": data });
            if let Some(id) = id {
                body["eventId"] = id.into();
            }
            body
        };
        let frame = writer
            .request("publish", publish("chat", Some("w-1"), json!({ "n": 1 })))
            .await?;
        assert_eq!(frame["published"]["eventId"], "w-1", "{frame}");
        let frame = writer
            .request("publish", publish("chat", Some("w-1"), json!({ "n": 1 })))
            .await?;
        assert_eq!(frame["published"]["eventId"], "w-1", "the same event: {frame}");
        let frame = writer
            .request("publish", publish("chat", Some("w-1"), json!({ "n": 2 })))
            .await?;
        assert_eq!(code(&frame), "conflict", "{frame}");
        let frame = writer
            .request("publish", publish("chat", None, json!({ "n": 3 })))
            .await?;
        let made = frame["published"]["eventId"]
            .as_str()
            .context("an id")?
            .to_owned();
        let frames = listener
            .until("both events", Duration::from_secs(10), |frame| {
                frame["event"]["event"]["id"] == *made
            })
            .await?;
        let events: Vec<&Value> = frames
            .iter()
            .map(|frame| &frame["event"]["event"])
            .filter(|e| e.is_object())
            .collect();
        assert_eq!(events.len(), 2, "{events:?}");
        assert_eq!(
            (&events[0]["data"], &events[0]["source"]),
            (&json!({ "n": 1 }), &json!("roomcast://main/writer"))
        );
        // A room that a claim opens: ingest decides with the same claims.
        let claims = json!({ "desks": ["7"] });
        let token = stack.signer.token_with("desk-7", &["staff"], 600, &claims);
        let (mut seven, _) = Client::connect(&stack.gateways()[0], &token, &[], &Default::default()).await?;
        let frame = seven
            .request("publish", publish("chat.7", Some("s-1"), json!(1)))
            .await?;
        assert_eq!(frame["published"]["eventId"], "s-1", "{frame}");
        // Absent, not mine, not for users: one answer to the byte.
        let mut bytes = HashSet::new();
        for room in ["chat.8", "vault", "nowhere", "a b", "user.writer", "lobby"] {
            bytes
                .insert(writer.request("publish", publish(room, None, json!(1))).await?["error"].to_string());
        }
        bytes.insert(
            listener
                .request("publish", publish("chat", None, json!(1)))
                .await?["error"]
                .to_string(),
        );
        assert_eq!(bytes.len(), 1, "{bytes:?}");
        let bad = json!({ "room": "chat", "type": "", "data": 1 });
        assert_eq!(code(&writer.request("publish", bad).await?), "bad_event");
        assert_eq!(stored(stack, "chat").await?.len(), 2);
        Ok(())
    });
}

#[test]
fn what_users_do_becomes_events_for_those_the_policy_names() {
    calm(|stack| async move {
        let token = stack.signer.token("boss", &["admin"]);
        let (mut boss, _) =
            Client::connect(&stack.gateways()[1], &token, &["doings"], &Default::default()).await?;
        boss.caught_up("doings").await?;
        let token = stack.signer.token("visitor", &["user"]);
        let (mut visitor, _) =
            Client::connect(&stack.gateways()[0], &token, &[], &Default::default()).await?;
        visitor
            .send_text(r#"{"activity":{"kind":"page","detail":"/bookings"}}"#)
            .await?;
        let frames = boss
            .until("the activity", Duration::from_secs(10), |frame| {
                frame["event"]["event"]["data"]["user"] == "visitor"
            })
            .await?;
        let event = &frames.last().context("a frame")?["event"]["event"];
        assert_eq!(event["type"], "user.activity");
        assert_eq!(
            event["data"],
            json!({ "user": "visitor", "kind": "page", "detail": "/bookings" })
        );
        // Nobody says so by publishing.
        let forged = json!({ "room": "doings", "type": "user.activity", "data": { "user": "boss" } });
        assert_eq!(code(&visitor.request("publish", forged).await?), "forbidden");
        // More than is taken is dropped and counted, and the connection lives.
        for _ in 0..10 {
            visitor
                .send_text(r#"{"activity":{"kind":"page","detail":"x"}}"#)
                .await?;
        }
        let frame = visitor
            .request("unsubscribe", json!({ "room": "nowhere" }))
            .await?;
        assert!(frame.get("unsubscribed").is_some(), "{frame}");
        let text = stack.admin_metrics("gateway", 0).await?;
        let counted = text.lines().find(|line| {
            let of = |part: &str| line.contains(part);
            of("roomcast_gateway_asks_total{") && of("outcome=\"rate\"") && of("what=\"activity\"")
        });
        assert!(counted.is_some(), "{text}");
        Ok(())
    });
}

/// Who has no socket publishes and says what it does at any gateway: the same events, ids, refusals and rates.
#[test]
fn without_a_socket_users_publish_and_say_what_they_do_all_the_same() {
    calm(|stack| async move {
        let boss = stack.signer.token("http-boss", &["admin"]);
        let rooms = ["chat.http", "doings"];
        let claims = json!({ "desks": ["http"] });
        let token = stack.signer.token_with("http-writer", &["staff"], 600, &claims);
        let (mut listener, _) =
            Client::connect(&stack.gateways()[1], &token, &rooms[..1], &Default::default()).await?;
        let (mut watcher, _) =
            Client::connect(&stack.gateways()[1], &boss, &rooms[1..], &Default::default()).await?;
        watcher.caught_up("doings").await?;
        let post = async |gateway: usize, route: &str, token: &str, body: Value| {
            let url = format!("{}/v1/{route}", stack.gateways()[gateway]);
            let answer = stack
                .http
                .post(&url, token, "application/json", body.to_string())
                .await?;
            anyhow::Ok((answer.status, answer.json()))
        };
        let said = |id: &str, n: u32| json!({ "room": "chat.http", "type": "chat.said", "eventId": id, "data": { "n": n } });
        // At both gateways and over the socket: one event.
        for gateway in [0, 1] {
            let (status, body) = post(gateway, "publish", &token, said("h-1", 1)).await?;
            assert_eq!((status, &body), (200, &json!({ "eventId": "h-1" })), "{body}");
        }
        let (mut socket, _) = Client::connect(&stack.gateways()[0], &token, &[], &Default::default()).await?;
        let frame = socket.request("publish", said("h-1", 1)).await?;
        assert_eq!(frame["published"]["eventId"], "h-1", "{frame}");
        let (status, body) = post(0, "publish", &token, said("h-1", 2)).await?;
        assert_eq!((status, &body["code"]), (409, &json!("conflict")), "{body}");
        let (_, body) = post(
            0,
            "publish",
            &token,
            json!({ "room": "chat.http", "type": "chat.left" }),
        )
        .await?;
        let made = body["eventId"].as_str().context("an id")?.to_owned();
        let frames = listener
            .until("the one that got its id here", Duration::from_secs(20), |frame| {
                frame["event"]["event"]["id"] == *made
            })
            .await?;
        let events: Vec<&Value> = frames
            .iter()
            .map(|frame| &frame["event"]["event"])
            .filter(|event| event["room"] == "chat.http")
            .collect();
        assert_eq!(events.len(), 2, "{events:?}");
        assert_eq!(
            (&events[0]["data"], &events[0]["source"], &events[1]["data"]),
            (
                &json!({ "n": 1 }),
                &json!("roomcast://main/http-writer"),
                &Value::Null
            )
        );
        for (route, body, status, code) in [
            (
                "publish",
                json!({ "room": "chat.http", "type": "" }),
                400,
                "bad_event",
            ),
            (
                "publish",
                json!({ "room": "vault", "type": "t" }),
                403,
                "forbidden",
            ),
            (
                "publish",
                json!({ "room": "doings", "type": "user.activity" }),
                403,
                "forbidden",
            ),
            ("activity", json!({ "kind": "" }), 400, "bad_request"),
            (
                "activity",
                json!({ "kind": "page", "detail": "x".repeat(257) }),
                400,
                "bad_request",
            ),
        ] {
            let (found, answer) = post(0, route, &token, body.clone()).await?;
            assert_eq!(
                (found, &answer["code"]),
                (status, &json!(code)),
                "{route} {body}: {answer}"
            );
        }

        let (status, body) = post(
            0,
            "activity",
            &token,
            json!({ "kind": "page", "detail": "/stock" }),
        )
        .await?;
        assert_eq!((status, &body), (200, &json!({})));
        let frames = watcher
            .until("the activity", Duration::from_secs(20), |frame| {
                frame["event"]["event"]["data"]["user"] == "http-writer"
            })
            .await?;
        let event = &frames.last().context("a frame")?["event"]["event"];
        assert_eq!(event["type"], "user.activity");
        assert_eq!(
            event["data"],
            json!({ "user": "http-writer", "kind": "page", "detail": "/stock" })
        );
        let text = stack.admin_metrics("gateway", 0).await?;
        for (what, outcome) in [
            ("publish", "forbidden"),
            ("activity", "bad_request"),
            ("activity", "done"),
        ] {
            let counted = text.lines().any(|line| {
                let of = |part: &str| line.contains(part);
                of("roomcast_gateway_asks_total{")
                    && of(&format!("what=\"{what}\""))
                    && of(&format!("outcome=\"{outcome}\""))
            });
            assert!(counted, "{what} {outcome}");
        }
        Ok(())
    });
}

/// `users`: one copy in each personal room, which every tab of that user has open, at any gateway, once each.
#[test]
fn an_event_for_users_reaches_every_tab_of_each_once() {
    calm(|stack| async move {
        let mut tabs = Vec::new();
        for user in ["tabs-1", "tabs-2", "tabs-3"] {
            for n in 0..6 {
                let token = stack.signer.token(user, &["user"]);
                let (client, _) =
                    Client::connect(&stack.gateways()[n % 2], &token, &[], &Default::default()).await?;
                tabs.push((user, client));
            }
        }
        let event = json!({ "type": "note", "users": "tabs-1,tabs-2", "id": "for-two", "data": 1 });
        for _ in 0..2 {
            let answer = stack.publish(0, &desk(stack), &event).await?;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        let end = json!({ "type": "end", "users": "tabs-1,tabs-2,tabs-3", "id": "end", "data": 1 });
        assert_eq!(stack.publish(0, &desk(stack), &end).await?.status, 200);
        for (user, mut client) in tabs {
            let room = format!("user.{user}");
            let frames = client
                .until("the last event", Duration::from_secs(10), |frame| {
                    frame["event"]["event"]["type"] == "end"
                })
                .await?;
            let ids: Vec<&str> = frames
                .iter()
                .filter(|frame| frame["event"]["room"] == room)
                .filter_map(|frame| frame["event"]["event"]["id"].as_str())
                .collect();
            let last = format!("end/{user}");
            let first = format!("for-two/{user}");
            let expected: Vec<&str> = match user {
                "tabs-3" => vec![&last],
                _ => vec![&first, &last],
            };
            assert_eq!(ids, expected, "{user}");
        }
        Ok(())
    });
}
