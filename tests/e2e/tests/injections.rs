//! Three ways to make the server write for somebody who may not: its own answer, or ingest's, onto a subject of the attacker's choice.
//!
//! Within one account each of them works, which the control shows. Across accounts an answer goes back to where the question came
//! from, whatever the question says.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use roomcast_harness::client::Client;
use roomcast_harness::nats::{Nats, PASSWORD};
use roomcast_harness::outsider::Outsider;
use roomcast_harness::stack::Stack;
use serde_json::{Value, json};

use crate::world::{alone_with_nats, calm, publish};

/// Where an attacker would like an answer to go.
const TARGETS: [&str; 8] = [
    "evt.00.main.bookings.all",
    "st.00.main.bookings.all.k",
    "eph.00.main.bookings.all",
    "ctl.gw.all.kick",
    "kvl.acl.revoked",
    "$KV.cfg.policy",
    "$JS.API.STREAM.PURGE.EVENTS",
    "_INBOX_publisher.answer",
];

/// Name, messages and last sequence of every stream.
async fn streams(admin: &mut Outsider) -> anyhow::Result<Vec<(String, u64, u64)>> {
    let list = ask(admin, "_INBOX.streams", "$JS.API.STREAM.LIST", "").await?;
    let list: Value = serde_json::from_str(&list)?;
    let mut found: Vec<(String, u64, u64)> = list["streams"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|stream| {
            let number = |name: &str| stream["state"][name].as_u64().unwrap_or(u64::MAX);
            let name = stream["config"]["name"].as_str().unwrap_or_default();
            (name.to_owned(), number("messages"), number("last_seq"))
        })
        .collect();
    found.sort();
    Ok(found)
}

/// Asks as one should: with an inbox of one's own, subscribed to before.
async fn ask(client: &mut Outsider, inbox: &str, subject: &str, body: &str) -> anyhow::Result<String> {
    let id = client.subscribe(inbox, "").await?;
    client.publish(subject, inbox, &[], body).await?;
    let answer = client.next_on(inbox).await?;
    client.unsubscribe(id).await?;
    client.settle().await?;
    Ok(answer.payload)
}

async fn outsider(nats: &Nats, user: &str) -> anyhow::Result<Outsider> {
    Outsider::connect(&nats.url(), user, PASSWORD).await
}

#[test]
fn no_answer_of_the_server_becomes_an_event() {
    alone_with_nats(async |nats| {
        let (mut admin, mut witness) = (outsider(nats, "admin").await?, outsider(nats, "admin").await?);
        let mut victim = outsider(nats, "publisher").await?;
        victim.subscribe("_INBOX_publisher.>", "").await?;
        let mut ingest = outsider(nats, "ingest").await?;
        ingest
            .publish("evt.00.main.vault.admin", "", &[], r#"{"secret":1}"#)
            .await?;
        ingest.settle().await?;
        let [direct, info] = ["DIRECT.GET.EVENTS", "STREAM.INFO.EVENTS"];

        // The control: in the account of the streams the server does write its answer as an event.
        for call in [direct, info] {
            let before = streams(&mut admin).await?;
            admin
                .publish(&format!("$JS.API.{call}"), TARGETS[0], &[], r#"{"seq":1}"#)
                .await?;
            let mut tries = 0;
            while streams(&mut admin).await? == before {
                tries += 1;
                anyhow::ensure!(tries < 1_000, "{call}: the attack itself must work where it can");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }

        let before = streams(&mut admin).await?;
        witness.subscribe(">", "").await?;
        witness.settle().await?;
        for user in ["gw", "agg", "reader"] {
            let mut attacker = outsider(nats, user).await?;
            for target in TARGETS {
                for call in [direct, info] {
                    let subject = format!("core.JS.API.{call}");
                    attacker.publish(&subject, target, &[], r#"{"seq":1}"#).await?;
                }
            }
            // Questions are answered in order; when these are, those before them have been, too.
            let inbox = format!("_INBOX_{user}.honest");
            for call in [direct, info] {
                ask(
                    &mut attacker,
                    &inbox,
                    &format!("core.JS.API.{call}"),
                    r#"{"seq":1}"#,
                )
                .await?;
            }
            // A reply may not name what the account itself may not have written; the server need not say so.
            attacker.errors.clear();
        }
        witness.settle().await?;
        let strays: Vec<_> = witness
            .heard
            .iter()
            .filter(|heard| TARGETS.contains(&heard.subject.as_str()))
            .collect();
        assert!(strays.is_empty(), "{strays:?}");
        assert_eq!(streams(&mut admin).await?, before, "no stream has changed");
        victim.settle().await?;
        assert_eq!(victim.heard, [], "nobody else's inbox got anything");
        Ok(())
    });
}

async fn of_stack(stack: &Stack, user: &str) -> anyhow::Result<Outsider> {
    let url = stack.ready["nats"].as_str().unwrap_or_default();
    Outsider::connect(url, user, &stack.nats_password(user)).await
}

/// One who sees everything in `vault` and `lobby`, at a gateway.
async fn boss(stack: &Stack, gateway: usize) -> anyhow::Result<Client> {
    let token = stack.signer.token(&format!("boss-{gateway}"), &["admin"]);
    let rooms = ["vault", "lobby"];
    let (mut client, _) =
        Client::connect(&stack.gateways()[gateway], &token, &rooms, &HashMap::new()).await?;
    for room in rooms {
        client.caught_up(room).await?;
    }
    Ok(client)
}

/// Publishes a last event and answers all frames up to it.
async fn up_to_now(stack: &Stack, client: &mut Client) -> anyhow::Result<Vec<Value>> {
    let id = format!("end-{}", uuid::Uuid::new_v4());
    publish(
        stack,
        &json!({ "id": id, "room": "vault", "type": "t", "data": {} }),
    )
    .await?;
    let frames = client
        .until("the end", Duration::from_secs(20), |frame| {
            frame["event"]["event"]["id"] == *id
        })
        .await?;
    Ok(frames)
}

#[test]
fn no_answer_of_ingest_becomes_an_event() {
    calm(|stack| async move {
        let mut bosses = [boss(stack, 0).await?, boss(stack, 1).await?];
        let user = r#"{"sub":"boss","roles":["desk"]}"#;
        let doors = [
            ("publisher", "in.lobby.all", None, "\"stored\""),
            // A refusal is an answer as well.
            ("gw", "in.main.lobby.all", Some(user), "\"forbidden\""),
        ];
        let run = uuid::Uuid::new_v4().to_string();
        for (who, door, speaks_for, expected) in doors {
            let mut attacker = of_stack(stack, who).await?;
            let headers: Vec<(&str, &str)> = speaks_for.iter().map(|user| ("Rc-User", *user)).collect();
            let mut sent = 0;
            for target in [
                "evt.00.main.vault.all",
                "live.00.main.vault.all",
                "st.00.main.vault.all.k",
                "eph.00.main.vault.all",
                "ctl.gw.all.kick",
                "_INBOX_gw.x",
                &format!("_INBOX_{who}.honest"),
            ] {
                let event = json!({ "id": format!("{run}-{who}-{sent}"), "type": "t", "data": {} });
                let honest = target.ends_with(".honest");
                if honest {
                    attacker.subscribe(target, "").await?;
                }
                attacker
                    .publish(door, target, &headers, &event.to_string())
                    .await?;
                if honest {
                    let answer = attacker.next_on(target).await?;
                    assert!(answer.payload.contains(expected), "{who}: {answer:?}");
                }
                sent += 1;
            }
            // What was asked for was done: accepted events are where they belong.
            let lobby = crate::world::stored(stack, "lobby").await?;
            let prefix = format!("{run}-{who}-");
            let mine = lobby
                .iter()
                .filter(|event| event["id"].as_str().is_some_and(|id| id.starts_with(&prefix)))
                .count();
            assert_eq!(mine, if speaks_for.is_none() { sent } else { 0 }, "{who}");
        }
        let vault = crate::world::stored(stack, "vault").await?;
        let is_answer = |message: &&Value| message.get("status").is_some() || message.get("code").is_some();
        let answers: Vec<&Value> = vault.iter().filter(is_answer).collect();
        assert!(answers.is_empty(), "no answer is stored: {answers:?}");
        for boss in &mut bosses {
            let frames = up_to_now(stack, boss).await?;
            let of_vault = |frame: &&Value| frame["event"]["room"] == "vault";
            let strays: Vec<&Value> = frames
                .iter()
                .filter(of_vault)
                .filter(|frame| frame.to_string().contains(&run))
                .collect();
            assert!(strays.is_empty(), "{strays:?}");
            assert!(
                json!(frames).to_string().contains(&run),
                "the events themselves were delivered"
            );
        }
        Ok(())
    });
}

/// A gateway that turned bad cannot speak to the clients of another one.
#[test]
fn nobody_forges_what_gateways_hear_from_each_other() {
    calm(|stack| async move {
        let mut bosses = [boss(stack, 0).await?, boss(stack, 1).await?];
        let (mut gateway, mut sibling) = (of_stack(stack, "gw").await?, of_stack(stack, "gw").await?);
        sibling.subscribe("live.00.main.lobby.all", "").await?;
        sibling.settle().await?;
        let mark = format!("forged-{}", uuid::Uuid::new_v4());
        let event = json!({ "id": mark, "type": "t", "data": {} }).to_string();
        let sequence = u64::MAX.to_string();
        for headers in [
            &[][..],
            &[("Nats-Stream", "EVENTS"), ("Nats-Sequence", &sequence)],
            &[("Nats-Sequence", "1"), ("Nats-Last-Sequence", "0")],
        ] {
            for subject in [
                "live.00.main.lobby.all",
                "slive.00.main.lobby.all.k",
                "eph.00.main.lobby.all",
            ] {
                gateway.publish(subject, "", headers, &event).await?;
                gateway.settle().await?;
                let refused = std::mem::take(&mut gateway.errors);
                assert!(
                    refused
                        .iter()
                        .any(|error| error.contains("Permissions Violation")),
                    "{subject}: {refused:?}"
                );
            }
        }
        sibling.settle().await?;
        assert!(sibling.heard.iter().all(|heard| !heard.payload.contains(&mark)));
        // An answer of the stream does come where the question says, but only within the gateways' own account; it carries its true
        // place, where every gateway has been, so none hands it out again.
        let secret = format!("secret-{}", uuid::Uuid::new_v4());
        let stored = publish(
            stack,
            &json!({ "id": secret, "room": "vault", "type": "t", "data": {} }),
        )
        .await?;
        for boss in &mut bosses {
            boss.until("the secret", Duration::from_secs(20), |frame| {
                frame["event"]["event"]["id"] == *secret
            })
            .await?;
        }
        let vault = stack.stored("vault").await?;
        let place = vault
            .iter()
            .find(|(_, event)| event["id"] == *secret)
            .map(|(sequence, _)| *sequence);
        let question = json!({ "seq": place.context("it is stored")? }).to_string();
        gateway
            .publish(
                "core.JS.API.DIRECT.GET.EVENTS",
                "live.00.main.lobby.all",
                &[],
                &question,
            )
            .await?;
        let heard = loop {
            let heard = sibling.next_on("live.00.main.lobby.all").await?;
            if heard.payload.contains(&secret) {
                break heard;
            }
        };
        assert!(
            heard.headers.contains(".main.vault."),
            "its true subject: {heard:?}"
        );
        for boss in &mut bosses {
            let frames = up_to_now(stack, boss).await?;
            let again = json!(frames).to_string();
            assert!(
                !again.contains(&secret) && !again.contains(&mark),
                "{stored}: {again}"
            );
        }
        Ok(())
    });
}
