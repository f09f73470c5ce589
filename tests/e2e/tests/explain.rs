//! What operators are told about an event is what every client sees of it; on both gateways, by the command as well.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use roomcast_harness::binary;
use roomcast_harness::client::Client;
use roomcast_harness::stack::Stack;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::world::{calm, publish};

const PATIENCE: Duration = Duration::from_secs(20);

/// What both gateways say about an event, by user.
async fn told(stack: &Stack, question: &str) -> anyhow::Result<HashMap<String, Value>> {
    let mut told = HashMap::new();
    for gateway in [0, 1] {
        let path = format!("/admin/v1/explain?limit=500&{question}");
        let answer = stack.admin("gateway", gateway, "GET", &path, None).await?;
        ensure!(answer.status == 200, "{question}: {}", answer.text());
        let page = answer.json();
        for one in page["connections"].as_array().context("connections")? {
            told.insert(one["user"].as_str().unwrap_or_default().to_owned(), one.clone());
        }
    }
    Ok(told)
}

async fn command(stack: &Stack, arguments: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    let output = Command::new(binary("roomcast"))
        .args(arguments)
        .current_dir(stack.folder())
        .env("NO_COLOR", "1")
        .output()
        .await?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

#[test]
fn operators_are_told_who_gets_an_event_as_clients_see_it() {
    calm(async |stack| {
        let gateways = stack.gateways();
        let people = [
            ("told-guest", &["user"][..], "lobby"),
            ("told-clerk", &["staff"], "lobby"),
            ("told-boss", &["admin"], "lobby"),
            ("told-elsewhere", &["admin"], "flood"),
            ("told-nobody", &[], "lobby"),
        ];
        let mut clients = Vec::new();
        for (index, (user, roles, room)) in people.into_iter().enumerate() {
            let token = stack.signer.token(user, roles);
            let (client, _) = Client::connect(&gateways[index % 2], &token, &[room], &HashMap::new()).await?;
            clients.push((user, client));
        }
        let secret = json!({ "id": "told-1", "room": "lobby", "audience": "staff", "type": "t", "data": { "text": "secret" } });
        publish(stack, &secret).await?;
        publish(
            stack,
            &json!({ "id": "told-2", "room": "lobby", "type": "t", "data": {} }),
        )
        .await?;
        publish(
            stack,
            &json!({ "id": "told-3", "room": "flood", "type": "t", "data": {} }),
        )
        .await?;
        let mut seen = HashMap::new();
        for (user, client) in &mut clients {
            // An event behind it, or for who hears none of them an answer: nothing of it is under way any more.
            let last = match *user {
                "told-nobody" => None,
                "told-elsewhere" => Some("told-3"),
                _ => Some("told-2"),
            };
            match last {
                Some(last) => {
                    let wanted = |frame: &Value| frame["event"]["event"]["id"] == last;
                    client.until(last, PATIENCE, wanted).await?;
                }
                None => drop(client.request("subscribe", json!({ "room": "lobby" })).await?),
            }
            seen.insert(*user, client.raw.iter().any(|raw| raw.contains("\"told-1\"")));
        }
        let told = told(stack, "room=lobby&event=told-1").await?;
        for (user, reason) in [
            ("told-guest", "audience"),
            ("told-clerk", "follows"),
            ("told-boss", "follows"),
            ("told-elsewhere", "not_following"),
            ("told-nobody", "permission"),
        ] {
            let one = told.get(user).with_context(|| format!("{user} is listed"))?;
            ensure!(one["reason"] == reason, "{user}: {one}");
            ensure!(
                one["gets"] == seen[user],
                "{user} saw it: {}; told {one}",
                seen[user]
            );
        }

        let (code, said) = command(
            stack,
            &["explain", "lobby", "--event", "told-1", "--user", "told-guest"],
        )
        .await?;
        ensure!(code == Some(0), "{said}");
        let expected = "told-guest [user] audience: staff is admin, staff; it has user";
        ensure!(
            said.contains(expected) && said.ends_with("0 get it, 1 do not\n"),
            "{said}"
        );
        crate::world::say(&format!("    explain: {}", said.trim().replace('\n', " / ")));
        for (arguments, expected) in [
            (["explain", "lobby", "--event", "absent"], 69),
            (["explain", "lobby", "--audience", "absent"], 69),
            (["try", "absent.yaml", "--admin", "http://127.0.0.1:1"], 65),
        ] {
            let (code, said) = command(stack, &arguments).await?;
            ensure!(code == Some(expected), "{arguments:?}: {said}");
        }
        Ok(())
    });
}
