//! Sealed cursors: what several tenants are given, and what comes back.

use std::collections::HashMap;
use std::time::Duration;

use roomcast_chassis::config::{Environment, Reader};
use roomcast_chassis::process::Exit;
use roomcast_edge_gateway::settings::Settings;
use roomcast_harness::client::Client;
use roomcast_harness::http::Http;
use roomcast_harness::token::{ISSUER, Signer};
use roomcast_proto::cursor::Cursors;
use roomcast_proto::ids::Tenant;
use serde_json::{Value, json};

use super::{Gateway, ids};

const SOON: Duration = Duration::from_secs(30);

fn tenant(name: &str) -> Tenant {
    Tenant::parse(name).unwrap()
}

fn token(gateway: &Gateway, tenant: &str) -> String {
    let claims = json!({ "tenant": tenant });
    gateway.signer.token_with("u1", &["staff"], 600, &claims)
}

/// Every member called `cursor` in these frames.
fn cursors_in(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| cursors_in(value, found)),
        Value::Object(members) => {
            for (name, value) in members {
                match value.as_str().filter(|_| name == "cursor") {
                    Some(text) => found.push(text.to_owned()),
                    None => cursors_in(value, found),
                }
            }
        }
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cursor_that_leaves_is_sealed_and_only_its_own_tenant_may_come_back_with_it() {
    let (old, new) = ("ab".repeat(32), "cd".repeat(32));
    let keys = format!("{new}\n{old}");
    let Some(gateway) = Gateway::start(&[("ROOMCAST_CURSOR_KEYS", &keys)]).await else {
        return;
    };
    let (acme, main) = (token(&gateway, "acme"), token(&gateway, "main"));
    let none = HashMap::new();
    let (mut client, connected) = Client::connect(&gateway.url, &acme, &["bookings"], &none)
        .await
        .unwrap();
    let mut frames = client.caught_up("bookings").await.unwrap();
    for n in 0..5 {
        gateway.event_of("acme", "bookings", &format!("e{n}")).await;
    }
    gateway.event_of("main", "bookings", "theirs").await;
    let seen = |frame: &Value| frame["event"]["event"]["id"] == "e4";
    frames.extend(client.until("e4", SOON, seen).await.unwrap());
    frames.push(
        client
            .request("history", json!({ "room": "bookings" }))
            .await
            .unwrap(),
    );
    frames.push(connected);
    let http = Http::default();
    for path in [
        "/v1/state?room=bookings",
        "/v1/rooms/bookings/snapshot",
        "/v1/rooms/bookings/events?limit=3",
    ] {
        let answer = http
            .get(&format!("{}{path}", gateway.url), Some(&acme))
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        frames.push(answer.json());
    }
    let mut texts = Vec::new();
    frames.iter().for_each(|frame| cursors_in(frame, &mut texts));
    assert!(texts.len() >= 15, "{texts:?}");
    let sealed = Cursors::sealed(&keys).unwrap();
    for text in &texts {
        assert!(sealed.read(&tenant("acme"), text).is_ok(), "{text}");
        assert!(sealed.read(&tenant("main"), text).is_err(), "{text}");
    }
    assert_eq!(ids(&frames, "bookings"), ["e0", "e1", "e2", "e3", "e4"]);

    // Coming back: as given, under the old key, another tenant's, plain, garbage.
    let first = frames.iter().find(|frame| frame["event"].is_object()).unwrap();
    let text = first["event"]["cursor"].as_str().unwrap().to_owned();
    let place = sealed.read(&tenant("acme"), &text).unwrap();
    let under = |keys: &str| {
        Cursors::sealed(keys)
            .unwrap()
            .write(&tenant("acme"), &place)
            .to_string()
    };
    let plain = Cursors::plain().write(&tenant("acme"), &place).to_string();
    let rows = [
        (&acme, text.clone(), "complete", 4),
        (&acme, under(&old), "complete", 4),
        (&acme, under(&"ef".repeat(32)), "incomplete", 0),
        (&main, text.clone(), "incomplete", 0),
        (&acme, plain, "incomplete", 0),
        (&acme, "garbage".to_owned(), "incomplete", 0),
    ];
    for (token, cursor, recovery, missed) in rows {
        let cursors = HashMap::from([("bookings".to_owned(), cursor.clone())]);
        let (mut back, connected) = Client::connect(&gateway.url, token, &["bookings"], &cursors)
            .await
            .unwrap();
        let answer = &connected["rooms"][0];
        assert_eq!(answer["recovery"], recovery, "{cursor}: {answer}");
        let reason = if recovery == "incomplete" {
            json!("epoch")
        } else {
            Value::Null
        };
        assert_eq!(answer["reason"], reason, "{cursor}");
        assert_eq!(
            ids(&back.caught_up("bookings").await.unwrap(), "bookings").len(),
            missed
        );
        // Looking back has no incomplete answer: it is a bad request.
        let before = json!({ "room": "bookings", "before": cursor });
        let page = back.request("history", before).await.unwrap();
        let path = format!("{}/v1/rooms/bookings/events?before={cursor}", gateway.url);
        let over_http = http.get(&path, Some(token)).await.unwrap();
        if recovery == "complete" {
            assert!(page["history"].is_object() && over_http.status == 200, "{page}");
        } else {
            assert_eq!(page["error"]["code"], "bad_request", "{page}");
            assert_eq!(
                (over_http.status, &over_http.json()["code"]),
                (400, &json!("bad_request"))
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_keys_one_tenant_is_served() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let mut stranger = Client::open(&gateway.url).await.unwrap();
    let connect = json!({ "id": 1, "connect": { "token": token(&gateway, "acme"), "client": "t" } });
    stranger.send_text(&connect.to_string()).await.unwrap();
    let ended = |frame: &Value| frame["disconnect"].is_object();
    let frames = stranger.until("4500", SOON, ended).await.unwrap();
    assert_eq!(frames[0]["error"]["code"], "unauthenticated");
    assert_eq!(frames[1]["disconnect"]["code"], 4500);
    let (mut client, _) = gateway.client("u1", &["staff"], &["bookings"]).await;
    client.caught_up("bookings").await.unwrap();
}

#[test]
fn a_policy_with_several_tenants_does_not_start_without_keys() {
    roomcast_chassis::process::install_crypto();
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let publishers =
        "publishers:\n  - { nats: main/desk, roles: [staff] }\n  - { nats: acme/desk, roles: [staff] }\n";
    let policy = file("policy.yaml", &format!("{}{publishers}", super::POLICY));
    let keys = file("keys.json", &Signer::new().jwks());
    let key = file("cursor.key", &"ab".repeat(32));
    let check = |more: &[(&str, &str)]| {
        let usual = [
            ("ROOMCAST_POLICY_FILE", policy.as_str()),
            ("ROOMCAST_JWT_KEYS_FILE", &keys),
            ("ROOMCAST_JWT_ISSUER", ISSUER),
        ];
        let environment = Environment::from_pairs(usual.iter().chain(more).copied());
        let settings = Settings::read(&mut Reader::new(&environment));
        settings.check()
    };
    let refused = check(&[]).unwrap_err();
    assert_eq!(refused.exit, Exit::Settings);
    assert!(refused.message.contains("ROOMCAST_CURSOR_KEYS_FILE"), "{refused}");
    check(&[("ROOMCAST_CURSOR_KEYS_FILE", &key)]).unwrap();
}
