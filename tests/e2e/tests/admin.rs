//! The admin ports of a running system: whose tokens open what, and what is recorded.

mod connections;
mod record;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use anyhow::ensure;
use roomcast_harness::client::Client;
use roomcast_harness::stack::Stack;
use serde_json::{Value, json};

use crate::world::{calm, faulty};

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

async fn asked(stack: &Stack, service: &str, path: &str) -> anyhow::Result<Value> {
    let answer = stack.admin(service, 0, "GET", path, None).await?;
    ensure!(answer.status == 200, "{path}: {}", answer.text());
    Ok(answer.json())
}

#[test]
fn rooms_are_listed_by_their_members() {
    calm(async |stack| {
        // Tests share the gateway: others come and go in rooms of theirs, nobody else is in these.
        let gateway = &stack.gateways()[1];
        let desks = json!({ "desks": ["most", "more", "few"] });
        let mut stay = Vec::new();
        for count in [
            &["chat.most", "chat.more", "chat.few"][..],
            &["chat.most", "chat.more"],
            &["chat.most"],
        ] {
            let token = stack.signer.token_with("ordered", &["user"], 600, &desks);
            let (mut client, _) = Client::connect(gateway, &token, count, &HashMap::new()).await?;
            for room in count {
                client.caught_up(room).await?;
            }
            stay.push(client);
        }
        let path = "/admin/v1/rooms?tenant=main&order=members&limit=500";
        let answer = stack.admin("gateway", 1, "GET", path, None).await?.json();
        ensure!(answer.get("next").is_none(), "{answer}");
        let rooms = answer["rooms"].as_array().cloned().unwrap_or_default();
        let members = |room: &Value| room["members"].as_u64().unwrap_or_default();
        ensure!(
            rooms.is_sorted_by(|one, other| members(one) >= members(other)),
            "{answer}"
        );
        let mine: Vec<(&str, u64)> = rooms
            .iter()
            .filter_map(|room| Some((room["room"].as_str()?, members(room))))
            .filter(|(room, _)| ["chat.most", "chat.more", "chat.few"].contains(room))
            .collect();
        ensure!(
            mine == [("chat.most", 3), ("chat.more", 2), ("chat.few", 1)],
            "{mine:?}"
        );
        let first = stack
            .admin("gateway", 1, "GET", "/admin/v1/rooms?order=members&limit=1", None)
            .await?
            .json();
        ensure!(first["rooms"].as_array().map(Vec::len) == Some(1), "{first}");
        ensure!(members(&first["rooms"][0]) >= 3, "{first}");
        Ok(())
    });
}

#[test]
fn queries_that_make_no_sense_are_refused() {
    calm(async |stack| {
        for (method, path, status) in [
            ("GET", "/admin/v1/connections?limit=0", 400),
            ("GET", "/admin/v1/connections?limit=501", 400),
            ("GET", "/admin/v1/connections?limit=x", 400),
            ("GET", "/admin/v1/connections?room=a%20b", 400),
            ("GET", "/admin/v1/connections?tenant=GW", 400),
            ("GET", "/admin/v1/connections?transport=carrier-pigeon", 400),
            ("GET", "/admin/v1/connections?after=7", 400),
            ("GET", "/admin/v1/connections?usr=u1", 400),
            ("GET", "/admin/v1/connections/c0000000000000000", 404),
            ("GET", "/admin/v1/connections/nobody", 404),
            ("DELETE", "/admin/v1/connections/c0000000000000000", 404),
            (
                "DELETE",
                "/admin/v1/connections/c0000000000000000?reason=drain",
                400,
            ),
            (
                "DELETE",
                "/admin/v1/connections/c0000000000000000/rooms/lobby",
                404,
            ),
            (
                "DELETE",
                "/admin/v1/connections/c0000000000000000/rooms/a%20b",
                404,
            ),
            ("GET", "/admin/v1/connections?slow=perhaps", 400),
            ("GET", "/admin/v1/rooms?after=x", 400),
            ("GET", "/admin/v1/rooms?order=age", 400),
            ("GET", "/admin/v1/rooms?order=members&after=main.lobby", 400),
            ("PUT", "/admin/v1/rooms", 405),
        ] {
            let answer = stack.admin("gateway", 0, method, path, None).await?;
            ensure!(
                answer.status == status,
                "{method} {path}: {} {}",
                answer.status,
                answer.text()
            );
            ensure!(answer.header("content-type") == Some("application/problem+json"));
        }
        Ok(())
    });
}

#[test]
fn what_an_administrator_says_goes_the_way_of_every_event() {
    calm(async |stack| {
        let gateway = &stack.gateways()[0];
        let token = stack.signer.token("hears", &["staff"]);
        let (mut client, _) = Client::connect(gateway, &token, &["lobby"], &HashMap::new()).await?;
        client.caught_up("lobby").await?;
        let id = uuid::Uuid::new_v4().to_string();
        let to_room = json!({ "type": "notification.notice", "id": id, "room": "lobby", "data": { "title": "Back at ten" } });
        let answer = stack
            .admin("ingest", 0, "POST", "/admin/v1/broadcast", Some(&to_room))
            .await?;
        ensure!(
            answer.status == 200 && answer.json()["status"] == "stored",
            "{}",
            answer.text()
        );
        let again = stack
            .admin("ingest", 0, "POST", "/admin/v1/broadcast", Some(&to_room))
            .await?;
        ensure!(again.json()["status"] == "duplicate", "{}", again.text());
        let came = client
            .until("the notice", Duration::from_secs(10), |frame| {
                frame["event"]["event"]["id"] == *id
            })
            .await?;
        let came = came.last().cloned().unwrap_or_default();
        ensure!(
            came["event"]["event"]["source"] == "roomcast://main/admin=2Foperator",
            "{came:?}"
        );
        // To a role: those of the room who have it hear it, the others never.
        let token = stack.signer.token("hears-less", &["user"]);
        let (mut other, _) = Client::connect(gateway, &token, &["lobby"], &HashMap::new()).await?;
        other.caught_up("lobby").await?;
        let after = uuid::Uuid::new_v4().to_string();
        for (audience, id) in [("staff", &uuid::Uuid::new_v4().to_string()), ("all", &after)] {
            let notice = json!({ "type": "notification.notice", "id": id, "room": "lobby", "audience": audience, "data": { "title": audience } });
            let answer = stack
                .admin("ingest", 0, "POST", "/admin/v1/broadcast", Some(&notice))
                .await?;
            ensure!(answer.json()["status"] == "stored", "{}", answer.text());
            for (name, hears, one) in [
                ("staff", true, &mut client),
                ("user", audience == "all", &mut other),
            ] {
                if hears {
                    one.until(name, Duration::from_secs(20), |frame| {
                        frame["event"]["event"]["id"] == **id
                    })
                    .await?;
                }
            }
        }
        // The later one has come, so the earlier one is not on its way.
        ensure!(
            !other
                .raw
                .iter()
                .any(|text| text.contains("\"audience\":\"staff\"")),
            "{:?}",
            other.raw
        );
        let to_user = json!({ "type": "notification.notice", "users": "hears", "data": { "title": "You" } });
        let answer = stack
            .admin("ingest", 0, "POST", "/admin/v1/broadcast", Some(&to_user))
            .await?;
        ensure!(answer.json()["status"] == "stored", "{}", answer.text());
        client
            .until("the personal one", Duration::from_secs(10), |frame| {
                frame["event"]["room"]
                    .as_str()
                    .is_some_and(|room| room.starts_with("user."))
            })
            .await?;
        for (event, status, code) in [
            (json!({ "type": "a", "room": "nowhere" }), 404, "unknown_room"),
            (
                json!({ "type": "a", "room": "lobby", "audience": "pilots" }),
                422,
                "unknown_audience",
            ),
            (json!([]), 400, "bad_json"),
        ] {
            let refused = stack
                .admin("ingest", 0, "POST", "/admin/v1/broadcast", Some(&event))
                .await?;
            ensure!(
                refused.status == status && refused.json()["code"] == code,
                "{}",
                refused.text()
            );
        }
        Ok(())
    });
}

#[test]
fn every_service_speaks_of_itself_in_figures() {
    calm(async |stack| {
        let gateway = &stack.gateways()[0];
        let token = stack.signer.token("counted", &["staff"]);
        let (mut client, _) = Client::connect(gateway, &token, &["lobby"], &HashMap::new()).await?;
        client.caught_up("lobby").await?;
        let publisher = stack.signer.token("p", &["desk"]);
        let event = json!({ "type": "counted", "room": "lobby", "data": {} });
        ensure!(stack.publish(0, &publisher, &event).await?.status == 200);
        let here = |frame: &roomcast_harness::client::Frame| frame["event"]["event"]["type"] == "counted";
        client.until("the event", Duration::from_secs(10), here).await?;

        let gateway = asked(stack, "gateway", "/admin/v1/statistics").await?;
        ensure!(
            gateway["service"] == "roomcast-edge-gateway" && gateway["accepting"] == true,
            "{gateway}"
        );
        ensure!(gateway["connections"]["json"].as_u64() >= Some(1), "{gateway}");
        ensure!(gateway["totals"]["deliveries"].as_u64() >= Some(1), "{gateway}");
        ensure!(gateway["memory"]["ringEvents"].as_u64() >= Some(1), "{gateway}");
        let rooms = asked(stack, "gateway", "/admin/v1/rooms?tenant=main&limit=500").await?;
        let rooms = rooms["rooms"].as_array().cloned().unwrap_or_default();
        let lobby = rooms
            .iter()
            .find(|room| room["room"] == "lobby")
            .cloned()
            .unwrap_or_default();
        ensure!(
            lobby["members"].as_u64() >= Some(1) && lobby["events"].as_u64() >= Some(1),
            "{lobby}"
        );
        let policy = asked(stack, "gateway", "/admin/v1/policy").await?;
        ensure!(
            policy["roles"]
                .as_array()
                .is_some_and(|roles| roles.contains(&json!("staff"))),
            "{policy}"
        );
        ensure!(
            policy["fingerprint"].as_str().map(str::len) == Some(16),
            "{policy}"
        );

        let ingest = asked(stack, "ingest", "/admin/v1/statistics").await?;
        ensure!(
            ingest["connected"] == true && ingest["totals"]["stored"].as_u64() >= Some(1),
            "{ingest}"
        );

        let mut shards = BTreeSet::new();
        for index in 0..2 {
            let answer = stack
                .admin("aggregator", index, "GET", "/admin/v1/statistics", None)
                .await?;
            let held = answer.json()["shards"].as_array().cloned().unwrap_or_default();
            ensure!(held.iter().all(|shard| shard["current"] == true), "{held:?}");
            shards.extend(held.iter().filter_map(|shard| shard["shard"].as_u64()));
        }
        let metrics = asked(stack, "aggregator", "/admin/v1/metrics").await?;
        ensure!(metrics["mistakes"] == serde_json::json!([]), "{metrics}");
        let metrics = metrics["metrics"].as_array().cloned().unwrap_or_default();
        ensure!(!metrics.is_empty());
        for metric in &metrics {
            ensure!(
                metric["shard"]
                    .as_u64()
                    .is_some_and(|shard| shards.contains(&shard)),
                "{metric}: {shards:?}"
            );
        }
        Ok(())
    });
}
