//! What ends by itself: an event, a value and a notification with an `expirytime`, looked for on every way before and after it.

use std::collections::HashMap;
use std::time::Duration;

use roomcast_harness::client::Client;
use roomcast_harness::stack::Stack;
use roomcast_harness::stream::Stream;
use serde_json::json;

use crate::world::{calm, publish, say};

const ROOM: &str = "lobby";
/// Long enough to look everywhere on a busy machine.
const LIVES: Duration = Duration::from_secs(8);
/// Looks end with this, which comes after all that is looked for and stays.
const LAST: &str = "what stays";

/// What each way gives out from `cursor` on, as text, at one gateway.
async fn everything(
    stack: &Stack,
    gateway: &str,
    token: &str,
    cursor: &str,
) -> anyhow::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for path in [
        format!("/v1/rooms/{ROOM}/snapshot?events=100"),
        format!("/v1/rooms/{ROOM}/events?limit=100"),
        format!("/v1/state?room={ROOM}"),
        format!("/v1/poll?room={ROOM}&cursor={cursor}&wait=0"),
        "/v1/feed?room=notifications".to_owned(),
    ] {
        let answer = stack.http.get(&format!("{gateway}{path}"), Some(token)).await?;
        anyhow::ensure!(answer.status == 200, "{path}: {}", answer.text());
        found.push((path, answer.text()));
    }
    let cursors = HashMap::from([(ROOM.to_owned(), cursor.to_owned())]);
    for (way, cursors) in [
        ("a socket that resumes", cursors),
        ("a new socket", HashMap::new()),
    ] {
        let (mut client, _) = Client::connect(gateway, token, &[ROOM], &cursors).await?;
        client.caught_up(ROOM).await?;
        found.push((way.to_owned(), client.raw.join("\n")));
    }
    let path = format!("/v1/sse?room={ROOM}&cursor={cursor}");
    let mut stream = Stream::open(gateway, &path, Some(token), &[]).await?;
    stream
        .until("all that was missed", Duration::from_secs(20), |frame| {
            frame["caughtUp"]["room"] == ROOM
        })
        .await?;
    found.push(("a stream that resumes".to_owned(), stream.raw.clone()));
    Ok(found)
}

#[test]
fn what_has_ended_is_given_out_on_no_way() {
    calm(async |stack| {
        let name = "ends-by-itself";
        let gateways = stack.gateways();
        let token = stack.signer.token("looks-everywhere", &["user"]);
        let (mut client, _) = Client::connect(&gateways[0], &token, &[ROOM], &HashMap::new()).await?;
        client.caught_up(ROOM).await?;
        let cursor = client.cursors[ROOM].clone();
        let until = jiff::Timestamp::now() + LIVES;
        let mark = |what: &str| format!("{name}-{what}");
        for event in [
            json!({ "room": ROOM, "type": "t", "expirytime": until.to_string(), "data": { "mark": mark("event") } }),
            json!({ "room": ROOM, "type": "t", "delivery": "state", "statekey": name, "expirytime": until.to_string(), "data": { "mark": mark("value") } }),
            json!({ "room": "notifications", "type": "notification.ends", "expirytime": until.to_string(), "data": { "title": mark("notice") } }),
            json!({ "room": ROOM, "type": "t", "data": { "mark": LAST } }),
        ] {
            publish(stack, &event).await?;
        }
        client
            .until("live", Duration::from_secs(20), |frame| {
                frame["event"]["event"]["data"]["mark"] == LAST
            })
            .await?;
        let live = client.raw.join("\n");
        anyhow::ensure!(
            live.contains(&mark("event")) && live.contains(&mark("value")),
            "{live}"
        );

        for gateway in &gateways {
            let looked = everything(stack, gateway, &token, &cursor).await?;
            if jiff::Timestamp::now() >= until {
                say("    too late to see what had not ended yet");
                continue;
            }
            for (way, text) in &looked {
                let expected: &[&str] = match way.as_str() {
                    "a new socket" => &["value"],
                    way if way.starts_with("/v1/state") => &["value"],
                    way if way.contains("/events?") => &["event"],
                    way if way.starts_with("/v1/feed") => &["notice"],
                    _ => &["event", "value"],
                };
                for what in expected {
                    anyhow::ensure!(text.contains(&mark(what)), "{way} lacks the {what}: {text}");
                }
            }
        }
        let left = until.duration_since(jiff::Timestamp::now());
        tokio::time::sleep(Duration::try_from(left).unwrap_or_default() + Duration::from_millis(50)).await;
        for gateway in &gateways {
            for (way, text) in everything(stack, gateway, &token, &cursor).await? {
                anyhow::ensure!(!text.contains(name), "{way} gives out what has ended: {text}");
                let goes_on = ["/v1/state", "/v1/feed", "a new"]
                    .iter()
                    .any(|no| way.starts_with(no));
                anyhow::ensure!(goes_on || text.contains(LAST), "{way} lacks what stays: {text}");
            }
        }
        Ok(())
    });
}
