//! Clients that come back with cursors no gateway ever gave them, or that are too old: told plainly, never an empty success.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use roomcast_harness::client::Client;
use roomcast_harness::eventually;
use roomcast_harness::nats::change_stream;
use roomcast_harness::stack::Stack;
use roomcast_proto::cursor::{Cursor, Cursors, Epoch};
use roomcast_proto::ids::Tenant;
use serde_json::{Value, json};

use crate::world::{calm, cursors, faulty, publish};

const ROOM: &str = "depth";

/// Publishes events and one state value, and answers the cursor of a client that has seen it all.
async fn furnish(stack: &Stack, name: &str) -> anyhow::Result<String> {
    let value = json!({ "id": format!("{name}-state"), "room": ROOM, "type": "t", "delivery": "state", "statekey": format!("key {name}"), "data": { "of": name } });
    publish(stack, &value).await?;
    let token = stack.signer.token("before", &["user"]);
    let (mut client, _) = Client::connect(&stack.gateways()[0], &token, &[ROOM], &HashMap::new()).await?;
    for n in 0..5 {
        publish(
            stack,
            &json!({ "id": format!("{name}-{n}"), "room": ROOM, "type": "t", "data": { "n": n } }),
        )
        .await?;
    }
    let last = format!("{name}-4");
    client
        .until("the last event", Duration::from_secs(30), |frame| {
            frame["event"]["event"]["id"] == *last
        })
        .await?;
    Ok(client.cursors[ROOM].clone())
}

/// What one gateway answers to a cursor: the room's entry in `connected`, then all frames of the room up to `caughtUp`.
async fn come_back(stack: &Stack, gateway: usize, cursor: &str) -> anyhow::Result<(Value, Vec<Value>)> {
    let token = stack.signer.token("back", &["user"]);
    let cursors = [(ROOM.to_owned(), cursor.to_owned())].into();
    let (mut client, connected) = Client::connect(&stack.gateways()[gateway], &token, &[ROOM], &cursors)
        .await
        .with_context(|| format!("{cursor:?}"))?;
    let answer = connected["rooms"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|answer| answer["room"] == ROOM)
        .cloned()
        .unwrap_or_default();
    let frames = client.caught_up(ROOM).await?;
    let of_room = frames
        .into_iter()
        .filter(|frame| frame["event"]["room"] == ROOM || frame["caughtUp"]["room"] == ROOM);
    let frames: Vec<Value> = of_room.collect();
    // After it, the room is live.
    let id = format!("live-after-{gateway}-{}", uuid::Uuid::new_v4());
    publish(stack, &json!({ "id": id, "room": ROOM, "type": "t", "data": {} })).await?;
    client
        .until("live", Duration::from_secs(30), |frame| {
            frame["event"]["event"]["id"] == *id
        })
        .await?;
    Ok((answer, frames))
}

/// No old events, all state, `caughtUp`.
fn is_a_new_start(frames: &[Value], name: &str) {
    let (last, before) = frames.split_last().unwrap();
    assert!(last.get("caughtUp").is_some());
    assert!(
        before
            .iter()
            .all(|frame| frame["event"]["event"]["delivery"] == "state"),
        "no old events: {before:?}"
    );
    let key = format!("key {name}");
    assert!(
        before
            .iter()
            .any(|frame| frame["event"]["event"]["statekey"] == *key),
        "all state: {before:?}"
    );
}

#[test]
fn a_cursor_that_is_not_ours_is_answered_with_its_reason_and_a_new_start() {
    calm(|stack| async move {
        let good = furnish(stack, "odd").await?;
        let (cursors, tenant) = (cursors(), Tenant::default());
        let place = cursors.read(&tenant, &good)?;
        let write = |tenant: &Tenant, cursor: Cursor| cursors.write(tenant, &cursor).to_string();
        let other_epoch = Epoch::of_streams("another", "life");
        let other_bits = if place.time_bits == 1 { 2 } else { 1 };
        let mut ahead = place;
        ahead.position.seq += 1_000_000;
        let rows = [
            ("garbage".to_owned(), "epoch"),
            (String::new(), "epoch"),
            ("x".repeat(300), "epoch"),
            // What one tenant was given means nothing to another, and neither does a place that nobody sealed.
            (write(&Tenant::parse("acme")?, place), "epoch"),
            (Cursors::plain().write(&tenant, &place).to_string(), "epoch"),
            (
                write(
                    &tenant,
                    Cursor {
                        epoch: other_epoch,
                        ..place
                    },
                ),
                "epoch",
            ),
            // Our epoch and position, another message there: a life of the stream that is gone.
            (
                write(
                    &tenant,
                    Cursor {
                        time_bits: other_bits,
                        ..place
                    },
                ),
                "epoch",
            ),
            (write(&tenant, ahead), "ahead"),
        ];
        for gateway in [0, 1] {
            for (cursor, reason) in &rows {
                let (answer, frames) = come_back(stack, gateway, cursor).await?;
                assert_eq!(
                    (&answer["recovery"], &answer["reason"]),
                    (&json!("incomplete"), &json!(reason)),
                    "{cursor:?} at {gateway}: {answer}"
                );
                is_a_new_start(&frames, "odd");
            }
            // The true one, at the same gateway: complete. The control of this test.
            let (answer, _) = come_back(stack, gateway, &good).await?;
            assert_eq!(answer["recovery"], "complete", "{answer}");
        }
        Ok(())
    });
}

#[test]
fn state_comes_back_as_the_latest_value_of_what_changed() {
    calm(|stack| async move {
        let value = |key: &str, n: u32, withdrawn: bool| {
            let mut event = json!({ "room": "lobby", "type": "t", "delivery": "state", "statekey": key });
            if withdrawn {
                event["withdrawn"] = json!(true)
            } else {
                event["data"] = json!({ "n": n })
            }
            event
        };
        for key in ["stays", "moves", "goes"] {
            publish(stack, &value(key, 1, false)).await?;
        }
        let token = stack.signer.token("stateful", &["user"]);
        let (mut client, _) =
            Client::connect(&stack.gateways()[0], &token, &["lobby"], &HashMap::new()).await?;
        let first = client.caught_up("lobby").await?;
        let keys = |frames: &[Value]| -> Vec<(String, Value)> {
            let mine = frames
                .iter()
                .map(|frame| &frame["event"]["event"])
                .filter(|event| event["delivery"] == "state");
            let mut all: Vec<(String, Value)> = mine
                .map(|event| {
                    (
                        event["statekey"].as_str().unwrap_or_default().to_owned(),
                        if event["withdrawn"] == true {
                            Value::Null
                        } else {
                            event["data"]["n"].clone()
                        },
                    )
                })
                .collect();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all.retain(|(key, _)| ["stays", "moves", "goes"].contains(&key.as_str()));
            all
        };
        assert_eq!(
            keys(&first),
            [
                ("goes".to_owned(), json!(1)),
                ("moves".to_owned(), json!(1)),
                ("stays".to_owned(), json!(1))
            ]
        );
        let cursors = client.cut();
        for n in 2..=4 {
            publish(stack, &value("moves", n, false)).await?;
        }
        publish(stack, &value("goes", 0, true)).await?;
        let (mut back, connected) =
            Client::connect(&stack.gateways()[1], &token, &["lobby"], &cursors).await?;
        let answer = connected["rooms"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|answer| answer["room"] == "lobby")
            .cloned()
            .unwrap_or_default();
        assert_eq!(answer["recovery"], "complete", "{connected}");
        let missed = back.caught_up("lobby").await?;
        assert_eq!(
            keys(&missed),
            [("goes".to_owned(), Value::Null), ("moves".to_owned(), json!(4))],
            "only what changed, only the latest"
        );
        Ok(())
    });
}

#[test]
fn a_cursor_older_than_what_is_kept_is_too_old_also_after_a_restart() {
    faulty(|stack| async move {
        let old = furnish(stack, "old").await?;
        crate::world::remember_bookings(stack).await?;
        // As an operator does who runs out of disk.
        let admin = stack.nats_admin().await;
        let before = change_stream(&admin, "EVENTS", "max_bytes", json!(40_000)).await?;
        let filling = "y".repeat(8_000);
        for n in 0..12 {
            publish(stack, &json!({ "id": format!("filling-{n}"), "room": "flood", "type": "t", "data": { "filling": filling } })).await?;
        }
        change_stream(&admin, "EVENTS", "max_bytes", before).await?;
        publish(
            stack,
            &json!({ "id": "newest", "room": ROOM, "type": "t", "data": {} }),
        )
        .await?;
        // A gateway that starts now has no ring that reaches back; the other may still have all of it, and then says so.
        let pid = stack.pid("gateway-2");
        stack.signal("gateway-2", "KILL");
        eventually("it is started again", Duration::from_secs(60), || async {
            let token = stack.signer.token("probe", &["user"]);
            stack.pid("gateway-2") != pid
                && Client::connect(&stack.gateways()[1], &token, &[ROOM], &HashMap::new())
                    .await
                    .is_ok()
        })
        .await;
        let (answer, frames) = come_back(stack, 1, &old).await?;
        assert_eq!(
            (&answer["recovery"], &answer["reason"]),
            (&json!("incomplete"), &json!("expired")),
            "{answer}"
        );
        is_a_new_start(&frames, "old");
        let (answer, frames) = come_back(stack, 0, &old).await?;
        match answer["recovery"].as_str() {
            Some("complete") => assert!(
                frames
                    .iter()
                    .any(|frame| frame["event"]["event"]["id"] == "newest"),
                "{frames:?}"
            ),
            _ => assert_eq!(answer["reason"], "expired", "{answer}"),
        }
        Ok(())
    });
}
