//! Both doors, each class of delivery, and what is stored.

use std::time::Duration;

use async_nats::HeaderMap;
use futures_util::StreamExt;
use roomcast_harness::eventually;
use roomcast_proto::cursor::{Cursor, Cursors};
use roomcast_proto::ids::Tenant;
use serde_json::{Value, json};

use crate::fixture::{BATCH, EVENT, Ingest, JSON, POLICY, event, header};

/// The cursor of an answer, where there is one tenant.
fn plain(answer: &Value) -> Cursor {
    let text = answer["cursor"].as_str().unwrap();
    Cursors::plain().read(&Tenant::default(), text).unwrap()
}

#[tokio::test]
async fn one_event_over_http_is_stored_as_it_was_meant() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let structured = json!({ "specversion": "1.0", "id": "e1", "source": "/shop", "type": "booking:new", "room": "bookings" });
    let rows = [
        (
            JSON,
            json!({ "type": "booking:new", "room": "bookings", "data": { "n": 1.50 } }).to_string(),
        ),
        (JSON, structured.to_string()),
        (EVENT, structured.to_string().replace("e1", "e2")),
        (
            JSON,
            r#"{"type":"t","room":"bookings","id":"bytes","data":  {"a" : 1.50, "b":"\u00fc"}}"#.to_owned(),
        ),
    ];
    for (kind, body) in rows {
        let answer = ingest.post("desk", kind, body.clone()).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some("application/json")),
            "{body}"
        );
        let answer = answer.json();
        assert_eq!(
            (&answer["status"], &answer["dedupSeconds"]),
            (&json!("stored"), &json!(120)),
            "{answer}"
        );
        let cursor = plain(&answer);
        assert_eq!((cursor.position.rev, cursor.time_bits), (0, 0));
    }
    let stored = ingest.stored("EVENTS").await;
    assert_eq!(
        stored.iter().map(|message| message.sequence).collect::<Vec<_>>(),
        [1, 2, 3, 4]
    );
    let short: Value = serde_json::from_slice(&stored[0].payload).unwrap();
    assert_eq!(short["source"], "roomcast://main/desk");
    assert_eq!(
        (&short["audience"], &short["priority"], &short["specversion"]),
        (&json!("all"), &json!("medium"), &json!("1.0"))
    );
    assert!(
        short["time"].is_string() && roomcast_proto::ids::time_of_id(short["id"].as_str().unwrap()).is_some()
    );
    assert_eq!(stored[1].subject, "evt.06.main.bookings.all");
    assert_eq!(header(&stored[1], "Rc-Publisher"), Some("\"desk\""));
    let text = std::str::from_utf8(&stored[3].payload).unwrap();
    assert!(text.ends_with(r#""data":{"a" : 1.50, "b":"\u00fc"}}"#), "{text}");
}

#[tokio::test]
async fn a_batch_is_stored_in_order_and_its_bad_ones_are_named() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let mut batch: Vec<Value> = (0..300).map(|n| event(&format!("e{n}"))).collect();
    batch[7] = json!({ "type": "t", "room": "a b" });
    batch[8] = json!({ "type": "t", "room": "secret" });
    batch[9] = batch[10].clone();
    for kind in [JSON, BATCH] {
        let answer = ingest
            .post("desk", kind, Value::from(batch.clone()).to_string())
            .await;
        assert_eq!(answer.status, 200);
        let answer = answer.json();
        let counts = (&answer["stored"], &answer["duplicate"], &answer["refused"]);
        let expected = if kind == JSON {
            (json!(297), json!(1), json!(2))
        } else {
            (json!(0), json!(298), json!(2))
        };
        assert_eq!(
            counts,
            (&expected.0, &expected.1, &expected.2),
            "{}",
            answer["results"][9]
        );
        let results = answer["results"].as_array().unwrap();
        assert_eq!(results.len(), 300);
        assert_eq!(
            (&results[7]["code"], &results[7]["pointer"]),
            (&json!("bad_room"), &json!("/room"))
        );
        assert_eq!(
            (&results[8]["status"], &results[8]["code"]),
            (&json!("refused"), &json!("forbidden"))
        );
        assert_eq!(results[9]["cursor"], results[10]["cursor"]);
        assert_eq!(answer["dedupSeconds"], 120);
    }
    let stored = ingest.stored("EVENTS").await;
    let ids: Vec<String> = stored
        .iter()
        .map(|message| {
            serde_json::from_slice::<Value>(&message.payload).unwrap()["id"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    let expected: Vec<String> = (0..300)
        .filter(|n| ![7, 8, 9].contains(n))
        .map(|n| format!("e{n}"))
        .collect();
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), 297, "each once");
    let in_order = ids
        .iter()
        .filter(|id| *id != "e10")
        .eq(expected.iter().filter(|id| *id != "e10"));
    assert!(in_order, "{ids:?}");
    let letter = ingest.dead_letter("bad_room").await.unwrap();
    assert_eq!(
        letter.payload.as_ref(),
        batch[7].to_string().as_bytes(),
        "the element's bytes, not the batch's"
    );
    assert!(ingest.metric("roomcast_ingest_batches_total{outcome=\"stored\"}") >= 1.0);
}

#[tokio::test]
async fn state_and_ephemeral_go_where_they_belong() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let mut ephemeral = ingest.nats.connect("gw").await.subscribe("eph.>").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let state = |more: Value| {
        let mut event =
            json!({ "type": "seat", "room": "bookings", "delivery": "state", "statekey": "seat 1" });
        event
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        event
    };
    let answer = ingest.publish(&state(json!({ "data": 1 }))).await;
    let cursor = plain(&answer);
    assert_eq!(
        (
            answer["status"].as_str(),
            cursor.position.seq,
            cursor.position.rev
        ),
        (Some("stored"), 0, 1)
    );
    let soon = roomcast_proto::event::rfc3339((roomcast_harness::token::now() + 60) * 1_000_000);
    ingest
        .publish(&state(json!({ "data": 2, "expirytime": soon })))
        .await;
    let stored = ingest.stored("STATE").await;
    assert_eq!(stored.len(), 1, "the latest only");
    assert_eq!(stored[0].subject, "st.06.main.bookings.all.seat=201");
    assert_eq!(header(&stored[0], "Rc-Key"), Some("\"seat 1\""));
    let ttl: u64 = header(&stored[0], "Nats-TTL").unwrap().parse().unwrap();
    assert!((55..=60).contains(&ttl) && header(&stored[0], "Rc-Expires").is_some());
    ingest.publish(&state(json!({ "withdrawn": true }))).await;
    let stored = ingest.stored("STATE").await;
    assert_eq!(
        (header(&stored[0], "Rc-Withdrawn"), header(&stored[0], "Nats-TTL")),
        (Some("1"), Some("604800"))
    );

    let answer = ingest
        .publish(&json!({ "type": "typing", "room": "bookings", "delivery": "ephemeral" }))
        .await;
    assert_eq!(
        (answer["status"].as_str(), answer.get("cursor")),
        (Some("sent"), None)
    );
    let heard = tokio::time::timeout(Duration::from_secs(5), ephemeral.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(heard.subject.as_str(), "eph.06.main.bookings.all");
    assert!(ingest.stored("EVENTS").await.is_empty());
}

#[tokio::test]
async fn a_room_takes_so_many_keys_and_no_more() {
    let Some(ingest) = Ingest::start_with(crate::fixture::POLICY, &[("ROOMCAST_ROOM_KEYS_MAX", "70")]).await
    else {
        return;
    };
    let value = |key: usize| json!({ "type": "t", "room": "bookings", "delivery": "state", "statekey": format!("k{key}") });
    for key in 0..70 {
        assert_eq!(ingest.publish(&value(key)).await["status"], "stored", "{key}");
    }
    let refused = ingest.publish(&value(70)).await;
    assert_eq!(
        (&refused["code"], &refused["status"], &refused["pointer"]),
        (&json!("too_many_keys"), &json!(422), &json!("/statekey"))
    );
    assert_eq!(
        ingest.publish(&value(3)).await["status"],
        "stored",
        "existing keys may change"
    );
    assert!(ingest.dead_letter("too_many_keys").await.is_some());
}

#[tokio::test]
async fn requests_on_nats_get_the_same_answers() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let publisher = ingest.nats.connect("publisher").await;
    let ask = async |subject: &'static str, body: Value| -> Value {
        let answer = publisher.request(subject, body.to_string().into()).await.unwrap();
        serde_json::from_slice(&answer.payload).unwrap()
    };
    let answer = ask(
        "in.bookings.staff",
        json!({ "type": "booking:new", "id": "e1", "data": 1 }),
    )
    .await;
    assert_eq!(
        (&answer["status"], &answer["id"], &answer["dedupSeconds"]),
        (&json!("stored"), &json!("e1"), &json!(120))
    );
    let answer = ask(
        "in.bookings.staff",
        json!([{ "type": "t", "id": "e2" }, { "type": "t", "room": "other" }]),
    )
    .await;
    assert_eq!((&answer["stored"], &answer["refused"]), (&json!(1), &json!(1)));
    assert_eq!(answer["results"][1]["code"], "bad_room");
    let answer = ask("in.secret.all", json!({ "type": "t" })).await;
    assert_eq!(
        (&answer["code"], &answer["temporary"]),
        (&json!("forbidden"), &json!(false)),
        "{answer}"
    );
    assert!(answer["message"].is_string());
    let stored = ingest.stored("EVENTS").await;
    assert_eq!(header(&stored[0], "Rc-Publisher"), Some("\"nats/publisher\""));
    let event: Value = serde_json::from_slice(&stored[0].payload).unwrap();
    assert_eq!(event["source"], "roomcast://main/nats=2Fpublisher");
    // Without a reply subject: best effort.
    publisher
        .publish(
            "in.bookings.all",
            json!({ "type": "t", "id": "e3" }).to_string().into(),
        )
        .await
        .unwrap();
    roomcast_harness::eventually("stored without an answer", Duration::from_secs(5), || async {
        ingest.stored("EVENTS").await.len() == 3
    })
    .await;
    assert!(ingest.metric("roomcast_ingest_unheard_total") >= 1.0);
}

#[tokio::test]
async fn forged_headers_never_reach_the_stream() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let publisher = ingest.nats.connect("publisher").await;
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("Nats-Msg-Id", "mine"),
        ("Nats-Sequence", "999999"),
        ("Nats-TTL", "1s"),
        ("Nats-Rollup", "all"),
        ("Nats-Expected-Last-Sequence", "77"),
        ("Nats-Batch-Id", "b"),
        ("Nats-Schedule", "@at 2030-01-01T00:00:00Z"),
        ("Nats-Request-Info", r#"{"acc":"main","user":"root"}"#),
        ("Rc-Hash", "x"),
        ("Rc-Publisher", "\"root\""),
        ("Rc-Withdrawn", "1"),
        ("X-Other", "y"),
    ] {
        headers.append(name, value);
    }
    let body = json!({ "type": "t", "id": "e1" }).to_string();
    let answer = publisher
        .request_with_headers("in.bookings.all", headers, body.into())
        .await
        .unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(answer["status"], "stored", "{answer}");
    let stored = ingest
        .streams
        .message("EVENTS", roomcast_chassis::jetstream::At::Sequence(1))
        .await
        .unwrap()
        .unwrap();
    let mut names: Vec<String> = stored.headers.iter().map(|(name, _)| name.to_string()).collect();
    names.sort_unstable();
    assert_eq!(names, ["Nats-Msg-Id", "Rc-Hash", "Rc-Publisher"]);
    assert!(stored.headers.iter().all(|(_, values)| values.len() == 1));
    assert_eq!(header(&stored, "Rc-Publisher"), Some("\"nats/publisher\""));
    assert_ne!(header(&stored, "Nats-Msg-Id"), Some("mine"));
    // This one the server refuses itself: a trace may not go where its sender may not publish.
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Trace-Dest", "evt.00.main.bookings.all");
    let body = json!({ "type": "t", "id": "e2" }).to_string();
    publisher
        .publish_with_headers("in.bookings.all", headers, body.into())
        .await
        .unwrap();
    let answer = publisher
        .request(
            "in.bookings.all",
            json!({ "type": "t", "id": "e3" }).to_string().into(),
        )
        .await;
    assert!(answer.is_ok());
    assert_eq!(ingest.stored("EVENTS").await.len(), 2);
}

#[tokio::test]
async fn gateways_speak_for_users_and_the_aggregator_notifies() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let (gateway, aggregator) = (ingest.nats.connect("gw").await, ingest.nats.connect("agg").await);
    let publisher = ingest.nats.connect("publisher").await;
    let check = async |client: &async_nats::Client,
                       subject: &'static str,
                       user: Option<&str>,
                       kind: &str,
                       expected: &str| {
        let mut headers = HeaderMap::new();
        if let Some(user) = user {
            headers.insert("Rc-User", user);
        }
        let body = json!({ "type": kind, "data": { "title": "t" } }).to_string();
        let answer = client
            .request_with_headers(subject, headers, body.into())
            .await
            .unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        let found = answer["status"].as_str().or(answer["code"].as_str());
        assert_eq!(found, Some(expected), "{subject} {user:?} {kind}: {answer}");
    };
    let staff = Some(r#"{"sub":"u1","roles":["staff"]}"#);
    check(&gateway, "in.main.chat.all", staff, "chat", "stored").await;
    check(&gateway, "in.main.bookings.all", staff, "t", "forbidden").await;
    check(&gateway, "in.main.chat.all", Some("\"u1\""), "chat", "forbidden").await;
    check(&gateway, "in.main.chat.all", None, "chat", "forbidden").await;
    check(
        &aggregator,
        "in.main.notifications.staff",
        None,
        "notification.alert",
        "stored",
    )
    .await;
    check(
        &aggregator,
        "in.main.notifications.staff",
        None,
        "booking:new",
        "forbidden",
    )
    .await;
    check(
        &aggregator,
        "in.main.nowhere.staff",
        None,
        "notification.alert",
        "forbidden",
    )
    .await;
    check(
        &aggregator,
        "in.main.chat.all",
        staff,
        "notification.alert",
        "forbidden",
    )
    .await;
    check(&publisher, "in.bookings.all", staff, "t", "forbidden").await;
    assert_eq!(ingest.metric("roomcast_ingest_forged_user_total"), 2.0);
    // A tenant's publisher cannot reach another tenant, nor pose as a gateway: the server puts its own account in.
    check(&publisher, "in.GW.main.chat.all", staff, "chat", "forbidden").await;
    assert_eq!(ingest.metric("roomcast_ingest_forged_user_total"), 3.0);
    assert_eq!(
        ingest.metric("roomcast_ingest_refused_total{code=\"forbidden\"}"),
        8.0,
        "each of them is counted"
    );
    assert_eq!(ingest.stored("EVENTS").await.len(), 1);
    assert_eq!(ingest.stored("STATE").await.len(), 1, "a notification is state");
    // Who was revoked is stopped here, too; whose tokens must be newer, by the gateway alone, which has them.
    let admin = ingest.nats.connect("admin").await;
    let before = json!({ "before": roomcast_harness::token::now() }).to_string();
    for (key, entry) in [
        ("user.main.u2", "{}"),
        ("before.main.u1", &before),
        ("before.main", &before),
    ] {
        let acked = admin
            .request(format!("$KV.acl.{key}"), entry.to_owned().into())
            .await
            .unwrap();
        assert!(
            !String::from_utf8_lossy(&acked.payload).contains("error"),
            "{key}"
        );
    }
    let other = r#"{"sub":"u2","roles":["staff"]}"#;
    eventually("the revocation is known", Duration::from_secs(10), || async {
        let mut headers = HeaderMap::new();
        headers.insert("Rc-User", other);
        let answer = gateway
            .request_with_headers(
                "in.main.chat.all",
                headers,
                json!({ "type": "chat" }).to_string().into(),
            )
            .await
            .unwrap();
        String::from_utf8_lossy(&answer.payload).contains("forbidden")
    })
    .await;
    check(&gateway, "in.main.chat.all", staff, "chat", "stored").await;
}

#[tokio::test]
async fn answers_to_several_tenants_carry_sealed_cursors() {
    let key = "0a".repeat(32);
    let Some(ingest) = Ingest::start_with(POLICY, &[("ROOMCAST_CURSOR_KEYS", &key)]).await else {
        return;
    };
    let event = json!({ "type": "t", "room": "bookings", "data": 1 });
    let cursors = Cursors::sealed(&key).unwrap();
    for tenant in ["main", "acme"] {
        let token = ingest
            .signer
            .token_with("desk", &["desk"], 600, &json!({ "tenant": tenant }));
        let http = &ingest.http;
        let url = format!("{}/v1/events", ingest.url);
        let one = http
            .post(&url, &token, JSON, event.to_string())
            .await
            .unwrap()
            .json();
        let many = http
            .post(&url, &token, JSON, json!([event, event]).to_string())
            .await
            .unwrap()
            .json();
        for answer in [&one, &many["results"][0], &many["results"][1]] {
            let text = answer["cursor"].as_str().unwrap();
            let read = |name: &str| cursors.read(&Tenant::parse(name).unwrap(), text);
            assert!(read(tenant).is_ok() && read("other").is_err(), "{answer}");
        }
    }
}

#[tokio::test]
async fn without_cursor_keys_one_tenant_is_served() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let token = ingest
        .signer
        .token_with("desk", &["desk"], 600, &json!({ "tenant": "acme" }));
    let event = json!({ "type": "t", "room": "bookings", "data": 1 }).to_string();
    let url = format!("{}/v1/events", ingest.url);
    let answer = ingest.http.post(&url, &token, JSON, event).await.unwrap();
    assert_eq!(
        (answer.status, &answer.json()["code"]),
        (401, &json!("unauthenticated"))
    );
}
