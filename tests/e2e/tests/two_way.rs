//! What users do themselves: commands carried out once whatever dies, events of their own, what they are doing; over two gateways.

use std::collections::HashSet;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use roomcast_harness::client::{Client, Frame};
use roomcast_harness::nats::HeaderMap;
use roomcast_harness::stack::Stack;
use roomcast_harness::{eventually, repository};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::world::{calm, desk, faulty, stored};

/// A backend inside the test: hears one command, remembers every id it was asked with.
struct Backend {
    ids: Arc<std::sync::Mutex<Vec<String>>>,
    running: tokio::task::JoinHandle<()>,
}

impl Backend {
    /// `answer` makes the reply from the number of the request and its data; `None` is no reply at all.
    async fn start(
        stack: &Stack,
        name: &str,
        answer: impl Fn(usize, &Value) -> Option<(Duration, String)> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let nats = stack.nats("backend").await;
        let mut heard = nats
            .queue_subscribe(format!("cmd.{name}"), "backends".to_owned())
            .await?;
        nats.flush().await?;
        let ids = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (kept, asked, answer) = (Arc::clone(&ids), AtomicUsize::new(0), Arc::new(answer));
        let running = tokio::spawn(async move {
            while let Some(message) = heard.next().await {
                let headers = message.headers.clone().unwrap_or_default();
                let text = |name: &str| {
                    headers
                        .get_last(name)
                        .map(|value| value.as_str().to_owned())
                        .unwrap_or_default()
                };
                kept.lock().unwrap().push(text("Roomcast-Command-Id"));
                let data = json!({
                    "data": serde_json::from_slice::<Value>(&message.payload).unwrap_or_default(),
                    "user": serde_json::from_str::<Value>(&text("Roomcast-User")).unwrap_or_default(),
                    "roles": serde_json::from_str::<Value>(&text("Roomcast-Roles")).unwrap_or_default(),
                });
                let reply = answer(asked.fetch_add(1, Ordering::Relaxed), &data);
                if let (Some((after, body)), Some(to)) = (reply, message.reply) {
                    let nats = nats.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(after).await;
                        let _ = match body.strip_prefix("failed:") {
                            None => nats.publish(to, body.into()).await,
                            Some(code) => {
                                let mut headers = HeaderMap::new();
                                headers.insert("Nats-Service-Error-Code", code);
                                nats.publish_with_headers(to, headers, "".into()).await
                            }
                        };
                    });
                }
            }
        });
        Ok(Self { ids, running })
    }

    fn ids(&self) -> Vec<String> {
        self.ids.lock().unwrap().clone()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn staff(stack: &Stack, gateway: usize, user: &str) -> anyhow::Result<Client> {
    let token = stack.signer.token(user, &["staff"]);
    let (client, _) = Client::connect(&stack.gateways()[gateway], &token, &[], &Default::default()).await?;
    Ok(client)
}

fn command(name: &str, key: &str, data: Value) -> Value {
    json!({ "name": name, "key": key, "data": data, "timeoutMs": 5_000 })
}

async fn send(client: &mut Client, name: &str, key: &str, data: Value) -> anyhow::Result<Frame> {
    client.request("command", command(name, key, data)).await
}

fn code(frame: &Frame) -> &str {
    frame["error"]["code"].as_str().unwrap_or_default()
}

#[test]
fn a_command_is_carried_out_once_and_its_result_given_to_every_repeat() {
    calm(|stack| async move {
        let echo = |n: usize, data: &Value| {
            Some((
                Duration::from_millis(20),
                json!({ "n": n, "heard": data }).to_string(),
            ))
        };
        let backend = Backend::start(stack, "test.echo", echo).await?;
        let (mut one, mut two) = (staff(stack, 0, "echo-1").await?, staff(stack, 1, "echo-1").await?);
        let first = send(&mut one, "test.echo", "k1", json!({ "a": 1.50 })).await?;
        let expected =
            json!({ "n": 0, "heard": { "data": { "a": 1.5 }, "user": "echo-1", "roles": ["staff"] } });
        assert_eq!(first["result"]["data"], expected, "{first}");
        // The same key at the other gateway, over HTTP, and on another day's socket.
        assert_eq!(
            send(&mut two, "test.echo", "k1", json!({ "a": 1.50 })).await?["result"]["data"],
            expected
        );
        let http = async |gateway: usize, name: &str, user: &str, roles: &[&str], body: &Value| {
            let url = format!("{}/v1/commands/{name}", stack.gateways()[gateway]);
            stack
                .http
                .post(
                    &url,
                    &stack.signer.token(user, roles),
                    "application/json",
                    body.to_string(),
                )
                .await
        };
        let body = json!({ "key": "k1", "data": { "a": 1.50 } });
        let answer = http(1, "test.echo", "echo-1", &["staff"], &body).await?;
        assert_eq!((answer.status, answer.json()), (200, json!({ "data": expected })));
        // Other content: a conflict, on either way.
        assert_eq!(
            code(&send(&mut one, "test.echo", "k1", json!(2)).await?),
            "conflict"
        );
        let other = json!({ "key": "k1", "data": 2 });
        let answer = http(0, "test.echo", "echo-1", &["staff"], &other).await?;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (409, Some("conflict"))
        );
        // Another user's key is another key.
        let mut other = staff(stack, 0, "echo-2").await?;
        assert_eq!(
            send(&mut other, "test.echo", "k1", json!(2)).await?["result"]["data"]["n"],
            1
        );
        // Sixteen at once with one key at two gateways: one id, and one answer for all.
        let asked = (0..16).map(|n| {
            let body = json!({ "key": "crowd", "data": 1 });
            let http = &http;
            async move { http(n % 2, "test.echo", "crowd", &["staff"], &body).await }
        });
        let answers: Vec<_> = futures_util::future::join_all(asked)
            .await
            .into_iter()
            .collect::<Result<_, _>>()?;
        let results: HashSet<String> = answers
            .iter()
            .filter(|answer| answer.status == 200)
            .map(|answer| answer.text())
            .collect();
        assert_eq!(results.len(), 1, "{results:?}");
        let ids = backend.ids();
        assert_eq!(
            ids.iter().collect::<HashSet<_>>().len(),
            3,
            "one id per command: {ids:?}"
        );
        // Absent and forbidden are one answer, byte for byte, on either way.
        let mut bytes = HashSet::new();
        for name in ["vault.open", "no.such", "a b", ""] {
            let frame = send(&mut one, name, "k", json!(1)).await?;
            bytes.insert(frame["error"].to_string());
        }
        assert_eq!(bytes.len(), 1, "{bytes:?}");
        let mut bytes = HashSet::new();
        for name in ["vault.open", "no.such", "%ff"] {
            let answer = http(0, name, "echo-1", &["staff"], &body).await?;
            bytes.insert((answer.status, answer.text()));
        }
        assert_eq!(bytes.len(), 1, "{bytes:?}");
        let bad = [
            (json!({ "data": 1 }), 400, "bad_request"),
            (json!([]), 400, "bad_json"),
            (
                json!({ "key": "k", "data": "x".repeat(70_000) }),
                413,
                "too_large",
            ),
        ];
        for (body, status, code) in bad {
            let answer = http(0, "test.echo", "echo-1", &["staff"], &body).await?;
            assert_eq!(
                (answer.status, answer.json()["code"].as_str()),
                (status, Some(code))
            );
        }
        Ok(())
    });
}

#[test]
fn what_can_go_wrong_with_a_backend_is_said_exactly() {
    calm(|stack| async move {
        let mut client = staff(stack, 0, "wrong-1").await?;
        // Nobody there, again and again: certainly nothing was done.
        for _ in 0..3 {
            let frame = send(&mut client, "test.absent", "k", json!(1)).await?;
            assert_eq!(
                (code(&frame), &frame["error"]["temporary"]),
                ("unavailable", &json!(true)),
                "{frame}"
            );
        }
        let late = Backend::start(stack, "test.absent", |n, _| Some((Duration::ZERO, n.to_string()))).await?;
        assert_eq!(
            send(&mut client, "test.absent", "k", json!(1)).await?["result"]["data"],
            0,
            "and then it is"
        );
        drop(late);

        // Slow: unknown, and the repeat, elsewhere, gets the one result; the backend was asked with one id.
        let slow = Backend::start(stack, "test.slow", |n, _| {
            Some((Duration::from_millis(1_500), n.to_string()))
        })
        .await?;
        let body = json!({ "name": "test.slow", "key": "k", "data": 1, "timeoutMs": 300 });
        let frame = client.request("command", body).await?;
        assert_eq!(
            (code(&frame), &frame["error"]["temporary"]),
            ("unknown", &json!(true)),
            "{frame}"
        );
        let mut other = staff(stack, 1, "wrong-1").await?;
        let first = send(&mut other, "test.slow", "k", json!(1)).await?["result"]["data"].clone();
        let again = send(&mut client, "test.slow", "k", json!(1)).await?["result"]["data"].clone();
        assert_eq!(first, again);
        assert!(first.is_u64(), "{first}");
        assert_eq!(slow.ids().into_iter().collect::<HashSet<_>>().len(), 1);

        // Too large: said for ever, and not asked again.
        let large = Backend::start(stack, "test.large", |_, _| {
            Some((Duration::ZERO, json!("x".repeat(65_537)).to_string()))
        })
        .await?;
        for _ in 0..2 {
            assert_eq!(
                code(&send(&mut client, "test.large", "k", json!(1)).await?),
                "too_large"
            );
        }
        assert_eq!(large.ids().len(), 1);

        // Failed, and not JSON: nothing is kept, the same id is asked again until there is an answer.
        let failing = Backend::start(stack, "test.failing", |n, _| {
            let body = ["failed:500", "no json", "\"done\""][n.min(2)];
            Some((Duration::ZERO, body.to_owned()))
        })
        .await?;
        for expected in ["unknown", "unknown", ""] {
            assert_eq!(
                code(&send(&mut client, "test.failing", "k", json!(1)).await?),
                expected
            );
        }
        let ids = failing.ids();
        assert_eq!((ids.len(), ids.into_iter().collect::<HashSet<_>>().len()), (3, 1));
        Ok(())
    });
}

/// The gateway dies between the claim and the answer: the repeat at the other one gives the one result of the one id.
#[test]
fn a_gateway_killed_half_way_leaves_one_result() {
    faulty(|stack| async move {
        // Answers only the second time it is asked: what the first gateway asked is lost with it.
        let backend = Backend::start(stack, "test.killed", |n, _| {
            (n > 0).then(|| (Duration::ZERO, n.to_string()))
        })
        .await?;
        let mut doomed = staff(stack, 0, "killed-1").await?;
        let body = json!({ "id": 77, "command": command("test.killed", "k", json!(1)) });
        doomed.send_text(&body.to_string()).await?;
        eventually("the backend was asked", Duration::from_secs(10), || async {
            backend.ids().len() == 1
        })
        .await;
        let before = stack.pid("gateway-1");
        stack.signal("gateway-1", "KILL");
        let mut other = staff(stack, 1, "killed-1").await?;
        let frame = send(&mut other, "test.killed", "k", json!(1)).await?;
        assert_eq!(frame["result"]["data"], 1, "{frame}");
        let ids = backend.ids();
        assert_eq!(
            (ids.len(), ids.iter().collect::<HashSet<_>>().len()),
            (2, 1),
            "{ids:?}"
        );
        eventually("gateway-1 is started again", Duration::from_secs(30), || async {
            stack.pid("gateway-1") != before && Client::open(&stack.gateways()[0]).await.is_ok()
        })
        .await;
        let mut back = staff(stack, 0, "killed-1").await?;
        assert_eq!(
            send(&mut back, "test.killed", "k", json!(1)).await?["result"]["data"],
            1
        );
        assert_eq!(backend.ids().len(), 2, "a kept result asks nobody");
        Ok(())
    });
}

#[test]
fn python_carries_out_commands_with_its_standard_library() {
    calm(|stack| async move {
        let mut handler = Command::new("sh")
            .arg(repository().join("clients/commands/python/run.sh"))
            .arg("test.python")
            .current_dir(stack.folder())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut said = BufReader::new(handler.stdout.take().context("a pipe")?).lines();
        let line = tokio::time::timeout(Duration::from_secs(30), said.next_line()).await??;
        assert_eq!(line.as_deref(), Some("listening on cmd.test.python"));
        let mut client = staff(stack, 0, "python-1").await?;
        for _ in 0..2 {
            let frame = send(&mut client, "test.python", "k", json!({ "delivery": "d-1" })).await?;
            assert_eq!(frame["result"]["data"]["delivery"], "d-1", "{frame}");
            assert_eq!(frame["result"]["data"]["asked"], 1, "{frame}");
        }
        handler.kill().await?;
        Ok(())
    });
}

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
