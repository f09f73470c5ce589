//! The admin ports of a running system: whose tokens open what, and what is recorded.

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

async fn asked(stack: &Stack, service: &str, path: &str) -> anyhow::Result<Value> {
    let answer = stack.admin(service, 0, "GET", path, None).await?;
    ensure!(answer.status == 200, "{path}: {}", answer.text());
    Ok(answer.json())
}

/// Names of all connections that a query means, page after page.
async fn pages(stack: &Stack, query: &str, limit: usize) -> anyhow::Result<Vec<String>> {
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/admin/v1/connections?{query}&limit={limit}{after}");
        let page = asked(stack, "gateway", &path).await?;
        let list = page["connections"].as_array().cloned().unwrap_or_default();
        ensure!(list.len() <= limit, "{page}");
        names.extend(
            list.iter()
                .filter_map(|one| Some(one["connection"].as_str()?.to_owned())),
        );
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(names),
        }
    }
}

#[test]
fn connections_are_listed_whole_whoever_comes_and_goes() {
    calm(async |stack| {
        let gateway = &stack.gateways()[0];
        let connect = async |user: &str, role: &str, rooms: &[&str]| {
            let token = stack.signer.token(user, &[role]);
            Client::connect(gateway, &token, rooms, &HashMap::new()).await
        };
        let mut stay = Vec::new();
        for _ in 0..7 {
            stay.push(connect("listed", "staff", &["lobby"]).await?);
        }
        let names: BTreeSet<String> = stay
            .iter()
            .map(|(_, connected)| connected["connection"].as_str().unwrap_or_default().to_owned())
            .collect();
        ensure!(names.len() == 7);
        let (going, _) = connect("listed-too", "user", &[]).await?;
        for (query, limit) in [
            ("user=listed", 1),
            ("user=listed", 3),
            ("user=listed", 100),
            ("user=listed&slow=false", 3),
            ("user=listed&tenant=main&room=lobby&transport=websocket.json", 2),
        ] {
            let found = pages(stack, query, limit).await?;
            ensure!(found.len() == 7, "{query}: {found:?}");
            ensure!(found.into_iter().collect::<BTreeSet<_>>() == names, "{query}");
        }
        for query in [
            "user=nobody",
            "user=listed&tenant=acme",
            "user=listed&room=vault",
            "user=listed&transport=websocket.protobuf",
            "user=listed&slow=true",
        ] {
            ensure!(pages(stack, query, 10).await?.is_empty(), "{query}");
        }
        // Between two pages one goes and others come: who stays is seen once.
        let first = asked(stack, "gateway", "/admin/v1/connections?limit=3").await?;
        drop(going);
        let (_come, _) = connect("listed-three", "user", &[]).await?;
        let mut seen: Vec<String> = Vec::new();
        let mut page = first;
        loop {
            let list = page["connections"].as_array().cloned().unwrap_or_default();
            seen.extend(
                list.iter()
                    .filter_map(|one| Some(one["connection"].as_str()?.to_owned())),
            );
            let Some(next) = page["next"].as_str() else { break };
            page = asked(
                stack,
                "gateway",
                &format!("/admin/v1/connections?limit=3&after={next}"),
            )
            .await?;
        }
        let unique: BTreeSet<String> = seen.iter().cloned().collect();
        ensure!(unique.len() == seen.len() && names.is_subset(&unique), "{seen:?}");
        Ok(())
    });
}

#[test]
fn who_does_not_read_is_found() {
    calm(async |stack| {
        let gateway = &stack.gateways()[0];
        let token = stack.signer.token("reads-nothing", &["user"]);
        let mut client = Client::open_narrow(gateway).await?;
        client.begin(&token, &[], &HashMap::new()).await?;
        let query = "user=reads-nothing&slow=true";
        ensure!(pages(stack, query, 10).await?.is_empty());
        // Less than an outbox holds, more than a socket does.
        let publisher = stack.signer.token("p", &["desk"]);
        let event = json!({ "type": "large", "users": "reads-nothing", "data": "x".repeat(40_000) });
        for _ in 0..20 {
            ensure!(stack.publish(0, &publisher, &event).await?.status == 200);
        }
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        let found = loop {
            let path = format!("/admin/v1/connections?{query}");
            let found = asked(stack, "gateway", &path).await?["connections"][0].clone();
            if found.is_object() || std::time::Instant::now() > deadline {
                break found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        ensure!(found["waitingBytes"].as_u64() >= Some(1), "{found}");
        ensure!(found["user"]["user"] == "reads-nothing", "{found}");
        let others = pages(stack, "user=reads-nothing&slow=false", 10).await?;
        ensure!(others.is_empty(), "{others:?}");
        Ok(())
    });
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
fn a_connection_is_shown_put_out_of_a_room_and_ended() {
    calm(async |stack| {
        let gateway = &stack.gateways()[0];
        let token = stack.signer.token("shown", &["staff"]);
        let (mut client, connected) = Client::connect(gateway, &token, &["lobby"], &HashMap::new()).await?;
        client.caught_up("lobby").await?;
        let name = connected["connection"].as_str().unwrap_or_default();
        let one = format!("/admin/v1/connections/{name}");
        let shown = asked(stack, "gateway", &one).await?;
        ensure!(
            shown["user"]["user"] == "shown" && shown["user"]["roles"] == json!(["staff"]),
            "{shown}"
        );
        ensure!(
            shown["transport"] == "websocket.json" && shown["address"] == "127.0.0.1",
            "{shown}"
        );
        let open = shown["open"].as_array().cloned().unwrap_or_default();
        let lobby = json!({ "room": "lobby", "requested": true, "recovering": false });
        ensure!(open.contains(&lobby), "{shown}");
        ensure!(
            open.iter()
                .any(|room| room["room"] == "notifications" && room["requested"] == false),
            "{shown}"
        );

        let out = stack
            .admin("gateway", 0, "DELETE", &format!("{one}/rooms/lobby"), None)
            .await?;
        ensure!(out.status == 200, "{}", out.text());
        let told = client
            .until("unsubscribed", Duration::from_secs(10), |frame| {
                frame.get("unsubscribed").is_some()
            })
            .await?;
        let told = told.last().cloned().unwrap_or_default();
        ensure!(told["unsubscribed"]["room"] == "lobby", "{told:?}");
        let again = stack
            .admin("gateway", 0, "DELETE", &format!("{one}/rooms/lobby"), None)
            .await?;
        ensure!(again.status == 404, "{}", again.text());
        // Out is out: an event goes by. In again is in again.
        let publisher = stack.signer.token("p", &["desk"]);
        let event = |n: u32| json!({ "type": "shown", "room": "lobby", "data": { "n": n } });
        let (mut other, _) = Client::connect(
            gateway,
            &stack.signer.token("beside", &["staff"]),
            &["lobby"],
            &HashMap::new(),
        )
        .await?;
        other.caught_up("lobby").await?;
        ensure!(stack.publish(0, &publisher, &event(1)).await?.status == 200);
        // What is subscribed to before the gateway has it would get it.
        other
            .until("the first, beside", Duration::from_secs(20), |frame| {
                frame["event"]["event"]["data"]["n"] == 1
            })
            .await?;
        let back = client.request("subscribe", json!({ "room": "lobby" })).await?;
        ensure!(back.get("subscribed").is_some(), "{back:?}");
        ensure!(stack.publish(0, &publisher, &event(2)).await?.status == 200);
        client
            .until("the second", Duration::from_secs(10), |frame| {
                frame["event"]["event"]["data"]["n"] == 2
            })
            .await?;
        ensure!(
            !client
                .raw
                .iter()
                .any(|text| text.contains("\"shown\"") && text.contains("\"n\":1"))
        );

        let ended = stack
            .admin("gateway", 0, "DELETE", &format!("{one}?reason=revoked"), None)
            .await?;
        ensure!(
            ended.status == 200 && ended.json()["code"] == 4501,
            "{}",
            ended.text()
        );
        while client.next(Duration::from_secs(10)).await?.is_some() {}
        ensure!(
            client.closed == Some((4501, "revoked".to_owned())),
            "{:?}",
            client.closed
        );
        let gone = stack.admin("gateway", 0, "GET", &one, None).await?;
        ensure!(gone.status == 404, "{}", gone.text());
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

/// A silence is made at one aggregator, seen and ended at another, and both are on record with who, what and why.
#[test]
fn silences_are_those_of_all_aggregators_and_on_record() {
    calm(async |stack| {
        let call = async |index: usize, method: &str, path: &str, body: Option<&Value>| {
            let path = format!("/admin/v1/silences{path}");
            stack.admin("aggregator", index, method, &path, body).await
        };
        let until = "2099-01-01T00:00:00Z";
        for (body, code) in [
            (
                json!({ "until": "2020-01-01T00:00:00Z", "reason": "late" }),
                "bad_request",
            ),
            (json!({ "until": until, "reason": "far" }), "bad_request"),
            (
                json!({ "until": until, "reason": "no rule", "alert": "absent" }),
                "bad_request",
            ),
            (json!({ "until": until }), "bad_json"),
        ] {
            let refused = call(0, "POST", "", Some(&body)).await?;
            ensure!(refused.status == 400, "{body}: {}", refused.text());
            ensure!(refused.json()["code"] == code, "{body}: {}", refused.text());
        }
        let soon = std::time::SystemTime::now() + Duration::from_secs(3_600);
        let micros = soon.duration_since(std::time::UNIX_EPOCH)?.as_micros();
        let until = roomcast_proto::event::rfc3339(i64::try_from(micros)?);
        let made = call(
            0,
            "POST",
            "",
            Some(&json!({ "until": until, "reason": "we move house" })),
        )
        .await?;
        ensure!(made.status == 201, "{}", made.text());
        let id = made.json()["id"].as_str().unwrap_or_default().to_owned();
        ensure!(
            made.json()["by"] == "operator" && !id.is_empty(),
            "{}",
            made.text()
        );
        let listed = call(1, "GET", "", None).await?;
        ensure!(
            listed.json()["silences"] == json!([made.json()]),
            "{}",
            listed.text()
        );
        ensure!(call(1, "DELETE", &format!("/{id}"), None).await?.status == 204);
        ensure!(call(0, "DELETE", &format!("/{id}"), None).await?.status == 404);
        let listed = call(0, "GET", "", None).await?;
        ensure!(listed.json()["silences"] == json!([]), "{}", listed.text());
        let recorded = |method: &str, entries: &[(u64, Value)]| {
            entries.iter().any(|(_, entry)| {
                entry["call"]["method"] == method
                    && entry["who"]["subject"] == "operator"
                    && entry["note"]["silence"] == id.as_str()
            })
        };
        for _ in 0..400 {
            let entries = stack.audit().await?;
            if recorded("POST", &entries) && recorded("DELETE", &entries) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("the silence is not on record")
    });
}

/// What users ask for without the right to it is on record, once a minute, and before a gateway ends: over sockets and over HTTP.
#[test]
fn what_users_are_refused_is_on_record() {
    faulty(|stack| async move {
        let token = stack.signer.token("curious", &["user"]);
        let gateway = stack.gateways()[0].clone();
        let (mut client, _) =
            Client::connect(&gateway, &token, &["no.such.room"], &Default::default()).await?;
        for body in [json!({ "room": "no.such.room" }), json!({ "room": "a.secret" })] {
            let answer = client.request("subscribe", body).await?;
            ensure!(answer["error"]["code"] == "forbidden", "{answer}");
        }
        let publish = json!({ "room": "no.such.room", "type": "t", "data": 1 });
        let answer = client.request("publish", publish).await?;
        ensure!(answer["error"]["code"] == "forbidden", "{answer}");
        let url = format!("{gateway}/v1/rooms/no.such.room/events");
        ensure!(stack.http.get(&url, Some(&token)).await?.status == 403);
        stack.signal("gateway-1", "TERM");
        let counted = |entries: &[(u64, Value)], what: &str| {
            let refused = entries.iter().filter(|(_, entry)| entry["kind"] == "refused");
            let said = refused.flat_map(|(_, entry)| entry["note"]["refused"].as_array().cloned());
            let of = said
                .flatten()
                .filter(|one| one["what"] == what && one["user"] == "curious");
            of.filter_map(|one| one["count"].as_u64()).sum::<u64>()
        };
        let mut entries = Vec::new();
        for _ in 0..1_800 {
            entries = stack.audit().await?;
            if counted(&entries, "history") > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let found = ["subscribe", "publish", "history"].map(|what| counted(&entries, what));
        ensure!(found == [3, 1, 1], "{found:?} of {entries:?}");
        Ok(())
    });
}
