//! Commands: carried out once whatever dies, over two gateways.

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

use crate::world::{calm, faulty};

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

pub(crate) async fn staff(stack: &Stack, gateway: usize, user: &str) -> anyhow::Result<Client> {
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

pub(crate) fn code(frame: &Frame) -> &str {
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
