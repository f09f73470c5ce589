//! The admin ports of a running system: whose tokens open what, and what is recorded.

use std::time::Duration;

use anyhow::ensure;
use roomcast_harness::stack::Stack;
use serde_json::{Value, json};

use crate::world::calm;

const SERVICES: [&str; 3] = ["gateway", "ingest", "aggregator"];

fn port(stack: &Stack, service: &str) -> String {
    stack.ready["admin"][service][0]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Users' doors and admin doors are told apart by keys and by audience; each of both would do.
#[test]
fn neither_kind_of_token_opens_the_other_kind_of_door() {
    calm(async |stack| {
        let admin = stack.dev_env("ROOMCAST_ADMIN_TOKEN");
        // A user's key, with the audience of an administrator; and a user with every right there is.
        let posing = json!({ "aud": "roomcast-admin" });
        let posing = stack.signer.token_with("u1", &["admin"], 600, &posing);
        let user = stack.signer.token("u1", &["admin"]);
        for service in SERVICES {
            let url = format!("{}/admin/v1/log", port(stack, service));
            for (name, token, status) in [
                ("the administrator", Some(&admin), 200),
                ("a user", Some(&user), 401),
                ("a user who poses", Some(&posing), 401),
                ("nobody", None, 401),
            ] {
                let answer = stack.http.get(&url, token.map(String::as_str)).await?;
                ensure!(answer.status == status, "{service}, {name}: {}", answer.text());
            }
        }
        let gateway = &stack.gateways()[0];
        for path in [
            "/v1/state?room=lobby",
            "/v1/rooms/lobby/snapshot",
            "/v1/rooms/lobby/events",
        ] {
            let answer = stack.http.get(&format!("{gateway}{path}"), Some(&admin)).await?;
            ensure!(answer.status == 401, "{path}: {}", answer.text());
        }
        let event = json!({ "type": "a", "room": "lobby", "data": 1 });
        let answer = stack.publish(0, &admin, &event).await?;
        ensure!(answer.status == 401, "{}", answer.text());
        Ok(())
    });
}

#[test]
fn what_is_logged_can_be_changed_and_who_did_it_is_on_record() {
    calm(async |stack| {
        for service in SERVICES {
            let before = stack
                .admin(service, 0, "GET", "/admin/v1/log", None)
                .await?
                .json();
            let quiet = json!({ "filter": "info,hyper=warn" });
            let changed = stack
                .admin(service, 0, "PUT", "/admin/v1/log", Some(&quiet))
                .await?;
            ensure!(
                changed.status == 200 && changed.json() == quiet,
                "{}",
                changed.text()
            );
            let back = stack
                .admin(service, 0, "PUT", "/admin/v1/log", Some(&before))
                .await?;
            ensure!(back.json() == before, "{}", back.text());
            let mine = |entry: &Value| {
                entry["call"]["method"] == "PUT"
                    && entry["who"]["subject"] == "operator"
                    && entry["note"] == json!({ "from": before["filter"], "to": quiet["filter"] })
            };
            let mut entries = Vec::new();
            for _ in 0..100 {
                entries = stack.audit().await?;
                if entries.iter().any(|(_, entry)| mine(entry)) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            ensure!(
                entries.iter().any(|(_, entry)| mine(entry)),
                "{service}: {entries:?}"
            );
            let token = stack.dev_env("ROOMCAST_ADMIN_TOKEN");
            let secret = token.rsplit_once('.').map_or("", |(_, signature)| signature);
            ensure!(
                secret.len() > 40
                    && entries
                        .iter()
                        .all(|(_, entry)| !entry.to_string().contains(secret))
            );
        }
        Ok(())
    });
}
