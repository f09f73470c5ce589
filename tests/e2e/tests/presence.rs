//! Who is in a room: the same at every gateway, through reconnects and a gateway that is killed.

use std::time::Duration;

use anyhow::Context as _;
use roomcast_harness::client::Client;
use roomcast_harness::stack::Stack;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::world::{calm, faulty};

/// A connection of a user with `role` that has the room open, under a name that no other test has.
async fn enter(stack: &Stack, gateway: usize, user: &str, role: &str) -> anyhow::Result<Client> {
    let token = stack.signer.token(user, &[role]);
    let (mut client, _) = Client::connect(
        &stack.gateways()[gateway],
        &token,
        &["floor"],
        &Default::default(),
    )
    .await?;
    client.caught_up("floor").await?;
    Ok(client)
}

async fn asked(client: &mut Client) -> anyhow::Result<Value> {
    client.request("presence", json!({ "room": "floor" })).await
}

/// Of one user, what a gateway knows: connections, since, status.
fn of<'a>(frame: &'a Value, user: &str) -> Option<(u64, &'a str, &'a str)> {
    let users = frame["presence"]["users"].as_array()?;
    let found = users.iter().find(|found| found["user"] == user)?;
    let text = |name: &str| found[name].as_str().unwrap_or_default();
    Some((found["connections"].as_u64()?, text("since"), text("status")))
}

/// Asks until it is so, below the rate that a user has.
async fn until(client: &mut Client, what: &str, is_so: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let start = Instant::now();
    loop {
        let answer = asked(client).await?;
        if is_so(&answer) {
            return Ok(answer);
        }
        anyhow::ensure!(start.elapsed() < Duration::from_secs(60), "{what}: {answer}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

#[test]
fn each_user_is_one_at_every_gateway_and_only_those_see_it_who_may() {
    calm(|stack| async move {
        let mut watcher = enter(stack, 0, "p-watcher", "staff").await?;
        let mut other = enter(stack, 1, "p-other", "admin").await?;
        let watch = json!({ "room": "floor", "presence": true });
        watcher.request("subscribe", watch).await?;
        let tabs = [
            enter(stack, 0, "p-ada", "user").await?,
            enter(stack, 1, "p-ada", "user").await?,
            enter(stack, 1, "p-ada", "user").await?,
        ];
        let mut guest = enter(stack, 0, "p-guest", "guest").await?;
        let three = |frame: &Value| of(frame, "p-ada").is_some_and(|(connections, ..)| connections == 3);
        let pushed = watcher.until("a push", Duration::from_secs(30), three).await?;
        let since = |frame: &Value| of(frame, "p-ada").map(|(_, since, _)| since.to_owned());
        let first = since(pushed.last().context("a push")?);
        for client in [&mut watcher, &mut other] {
            let answer = until(client, "three tabs", three).await?;
            assert_eq!(since(&answer), first);
            assert!(
                of(&answer, "p-watcher").is_some() && of(&answer, "p-other").is_some(),
                "{answer}"
            );
            assert!(of(&answer, "p-guest").is_none(), "no role in common: {answer}");
            let text = answer.to_string();
            assert!(!text.contains("127.0.0.1") && !text.contains("roles"), "{text}");
        }
        // Who may not see it learns nothing, not even that there is something to see.
        let token = stack.signer.token("p-plain", &["user"]);
        let (mut plain, _) = Client::connect(&stack.gateways()[0], &token, &[], &Default::default()).await?;
        let mut bytes = std::collections::HashSet::new();
        for room in ["floor", "lobby", "vault", "nowhere", "a b", "user.p-plain"] {
            let answer = plain.request("presence", json!({ "room": room })).await?;
            bytes.insert(answer["error"].to_string());
        }
        bytes.insert(asked(&mut guest).await?["error"].to_string());
        bytes.insert(other.request("presence", json!({ "room": "lobby" })).await?["error"].to_string());
        assert_eq!(bytes.len(), 1, "{bytes:?}");
        let watch = json!({ "room": "floor", "presence": true });
        assert!(plain.request("subscribe", watch).await?["subscribed"].is_object());

        // All tabs are cut: away, and back within the grace as the same.
        tabs.into_iter().for_each(|tab| drop(tab.cut()));
        let away =
            |frame: &Value| of(frame, "p-ada").is_some_and(|(n, _, status)| n == 0 && status == "away");
        for client in [&mut watcher, &mut other] {
            until(client, "away", away).await?;
        }
        let _back = enter(stack, 1, "p-ada", "user").await?;
        let active =
            |frame: &Value| of(frame, "p-ada").is_some_and(|(n, _, status)| n == 1 && status == "active");
        for client in [&mut watcher, &mut other] {
            assert_eq!(since(&until(client, "back", active).await?), first);
        }
        // Who was not shown anything was not pushed anything either.
        assert!(!plain.raw.iter().any(|text| text.contains("p-ada")));
        Ok(())
    });
}

/// Those who were at a gateway that dies are away after three missed beats and gone after the grace, unless they come back.
#[test]
fn a_killed_gateway_takes_its_users_with_it_and_the_new_one_knows_everybody() {
    faulty(|stack| async move {
        let mut watcher = enter(stack, 1, "k-watcher", "staff").await?;
        let mut doomed = Vec::new();
        for user in ["k-gone", "k-back"] {
            doomed.push(enter(stack, 0, user, "user").await?);
        }
        let both = |frame: &Value| of(frame, "k-gone").is_some() && of(frame, "k-back").is_some();
        let before = until(&mut watcher, "both", both).await?;
        let since = |frame: &Value| of(frame, "k-back").map(|(_, since, _)| since.to_owned());
        let pid = stack.pid("gateway-1");
        stack.signal("gateway-1", "KILL");
        let killed = Instant::now();
        let _back = enter(stack, 1, "k-back", "user").await?;
        let away = |frame: &Value| of(frame, "k-gone").is_some_and(|(_, _, status)| status == "away");
        until(&mut watcher, "away", away).await?;
        let gone = |frame: &Value| of(frame, "k-gone").is_none();
        let answer = until(&mut watcher, "gone", gone).await?;
        let after = killed.elapsed();
        assert!(
            after > Duration::from_secs(12),
            "not before the grace is over: {after:?}"
        );
        assert_eq!(since(&answer), since(&before), "{answer}");
        assert_eq!(of(&answer, "k-back").map(|(n, ..)| n), Some(1), "{answer}");
        anyhow::ensure!(stack.pid("gateway-1") != pid, "it was started again");
        let mut other = enter(stack, 0, "k-other", "staff").await?;
        let all = |frame: &Value| of(frame, "k-back").is_some() && of(frame, "k-watcher").is_some();
        let answer = until(&mut other, "everybody", all).await?;
        assert_eq!(since(&answer), since(&before), "{answer}");
        Ok(())
    });
}
