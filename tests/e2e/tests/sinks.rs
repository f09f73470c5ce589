//! A device that a user registers at a gateway is pushed to, and a webhook is told, by the whole system.

use std::time::Duration;

use anyhow::ensure;
use roomcast_harness::receiver::{Device, Receiver};
use roomcast_harness::stack::{Options, Stack};
use roomcast_harness::{eventually, folder, repository};
use serde_json::{Value, json};

use crate::world::{alone, options, own};

/// How long anything may take on a machine that has much else to do.
const WITHIN: Duration = Duration::from_secs(40);

struct Page<'a> {
    stack: &'a Stack,
    token: String,
}

impl Page<'_> {
    /// Asks a gateway as the user's page; the status and the JSON of the answer.
    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> anyhow::Result<(u16, Value)> {
        let (http, url) = (&self.stack.http, format!("{}{path}", self.stack.gateways()[0]));
        let answer = match body {
            Some(body) => {
                http.post(&url, &self.token, "application/json", body.to_string())
                    .await?
            }
            None => http.call(method, &url, &self.token).await?,
        };
        Ok((answer.status, answer.json()))
    }
}

#[test]
fn a_users_device_is_pushed_to_until_it_is_removed() {
    alone(async {
        let receiver = Receiver::start().await;
        let dir = folder();
        let copy = |from: &str, to: &str| std::fs::copy(repository().join(from), dir.path().join(to));
        copy("services/sinks/tests/vapid.pem", "vapid.pem")?;
        copy("proto/tests/tls/ca.pem", "ca.pem")?;
        std::fs::write(
            dir.path().join("secret"),
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        )?;
        let file = dir.path().join("sinks.yaml");
        let text = format!(
            "push: {{ key_file: vapid.pem, contact: \"mailto:ops@desk.example\", hosts: [\"localhost:{}\"] }}\n\
             webhooks: [{{ name: pager, url: \"{}\", secret_file: secret, rooms: [\"user.*\"] }}]\n\
             private: [127.0.0.1/32, \"::1/128\"]\nca_file: ca.pem\n",
            receiver.port,
            receiver.url("/pager"),
        );
        std::fs::write(&file, text)?;
        let started = Options {
            more: vec![
                "--ingest-env".to_owned(),
                format!("ROOMCAST_SINKS_FILE={}", file.display()),
            ],
            ..options(&[])
        };
        let Some(stack) = own(started).await? else {
            return Ok(());
        };
        // What stands before sending has begun is no news.
        let admin = stack.nats_admin().await;
        eventually("sending has begun", WITHIN, || async {
            let position = json!({ "last_by_subj": "$KV.sinks.position" }).to_string();
            let answer = admin
                .request("$JS.API.STREAM.MSG.GET.KV_sinks", position.into())
                .await;
            answer.is_ok_and(|answer| String::from_utf8_lossy(&answer.payload).contains("\"message\""))
        })
        .await;
        let page = |user: &str| Page {
            stack: &stack,
            token: stack.signer.token(user, &["user"]),
        };
        let (mine, other) = (page("pushed"), page("other"));
        let device = Device::new(receiver.url("/phone"));

        let (status, none) = mine.ask("GET", "/v1/devices", None).await?;
        ensure!(status == 200 && none["devices"] == json!([]), "{status} {none}");
        ensure!(none["publicKey"].as_str().map(str::len) == Some(87), "{none}");
        let body = json!({ "subscription": device.subscription(), "name": "Phone" });
        let (status, kept) = mine.ask("POST", "/v1/devices", Some(body)).await?;
        ensure!(status == 200, "{status} {kept}");
        let id = kept["device"].as_str().unwrap_or_default().to_owned();
        let (_, listed) = mine.ask("GET", "/v1/devices", None).await?;
        ensure!(
            listed["devices"] == json!([{ "device": id, "name": "Phone", "until": kept["until"] }]),
            "{listed}"
        );
        let (_, listed) = other.ask("GET", "/v1/devices", None).await?;
        ensure!(listed["devices"] == json!([]), "{listed}");
        for (body, status, code) in [
            (json!({}), 400, "bad_json"),
            (
                json!({ "subscription": device.subscription(), "more": 1 }),
                400,
                "bad_json",
            ),
            (
                json!({ "subscription": Device::new("https://169.254.169.254/".to_owned()).subscription() }),
                400,
                "bad_request",
            ),
        ] {
            let (found, answer) = mine.ask("POST", "/v1/devices", Some(body)).await?;
            ensure!(
                (found, answer["code"].as_str()) == (status, Some(code)),
                "{found} {answer}"
            );
        }

        let notify = async |id: &str| {
            let event =
                json!({ "type": "notification.late", "users": "pushed", "id": id, "data": { "title": id } });
            let url = format!("{}/v1/events", stack.ingests()[0]);
            let token = stack.signer.token("desk", &["desk"]);
            let answer = stack
                .http
                .post(&url, &token, "application/json", event.to_string())
                .await?;
            ensure!(answer.json()["status"] == "stored", "{}", answer.text());
            Ok(())
        };
        notify("first").await?;
        eventually("the device and the webhook are told", WITHIN, || async {
            receiver.received("/phone").len() == 1 && receiver.received("/pager").len() == 1
        })
        .await;
        let pushed = device
            .read(&receiver.received("/phone")[0].body)
            .unwrap_or_default();
        ensure!(
            pushed["id"] == "first/pushed" && pushed["title"] == "first",
            "{pushed}"
        );

        // Somebody else's is not removed, and the answer is the same.
        for (page, left) in [(&other, 1), (&mine, 0)] {
            let (status, answer) = page.ask("DELETE", &format!("/v1/devices/{id}"), None).await?;
            ensure!((status, &answer) == (200, &json!({})), "{status} {answer}");
            let (_, listed) = mine.ask("GET", "/v1/devices", None).await?;
            ensure!(
                listed["devices"].as_array().map(Vec::len) == Some(left),
                "{listed}"
            );
        }
        notify("second").await?;
        eventually("the webhook is told", WITHIN, || async {
            receiver.received("/pager").len() == 2
        })
        .await;
        ensure!(receiver.received("/phone").len() == 1, "the device is gone");
        let (status, _) = mine.ask("PUT", "/v1/devices", None).await?;
        ensure!(status == 405, "{status}");
        Ok(())
    });
}
