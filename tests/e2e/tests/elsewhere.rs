//! It does not matter at which gateway somebody is: a newer token reaches a stream through any of them, and what they send of an event is the
//! same bytes, whatever is spoken.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use roomcast_harness::client::{Client, Encoding};
use roomcast_harness::stream::Stream;
use serde_json::{Value, json};

use crate::world::{calm, publish};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_newer_token_reaches_a_stream_through_the_other_gateway() {
    calm(async |stack| {
        let gateways = stack.gateways();
        let ask = async |gateway: &str, token: &str, connection: &Value| {
            let url = format!("{gateway}/v1/refresh");
            let body = json!({ "connection": connection }).to_string();
            stack.http.post(&url, token, "application/json", body).await
        };
        for (here, there) in [(0, 1), (1, 0)] {
            let user = format!("streamer-{here}");
            let short = stack.signer.token_with(&user, &["staff"], 120, &json!({}));
            let mut stream = Stream::follow(&gateways[here], &short, &["lobby"], None).await?;
            let first = stream.caught_up(&["lobby", "bookings"]).await?;
            let connected = &first[0]["connected"];
            let name = &connected["connection"];

            // What is nobody's and what is somebody else's look the same, here and there.
            let stranger = stack.signer.token("streamer-stranger", &["admin"]);
            let nowhere = ask(&gateways[there], &stranger, &json!("c0123456789abcdef")).await?;
            for gateway in &gateways {
                let refused = ask(gateway, &stranger, name).await?;
                ensure!(
                    (refused.status, refused.text()) == (403, nowhere.text()),
                    "{} {}",
                    refused.status,
                    refused.text()
                );
            }

            // Less: the room is closed, and not a byte of it comes any more.
            let less = stack.signer.token(&user, &["user"]);
            let begun = Instant::now();
            let mut answer = ask(&gateways[there], &less, name).await?;
            while answer.status != 200 && begun.elapsed() < SOON {
                // The gateways may not know of each other yet, or one of them had to wait for its turn.
                tokio::time::sleep(Duration::from_millis(200)).await;
                answer = ask(&gateways[there], &less, name).await?;
            }
            ensure!(answer.status == 200, "{}", answer.text());
            let told = answer.json();
            ensure!(
                told["roles"] == json!(["user"])
                    && told["expiresAt"].as_str() > connected["expiresAt"].as_str(),
                "{told}"
            );
            let closed = |frame: &Value| frame["unsubscribed"]["room"] == "bookings";
            stream.until("the room is closed", SOON, closed).await?;
            let before = stream.raw.len();
            let (canary, last) = (format!("canary-{here}"), format!("last-{here}"));
            publish(
                stack,
                &json!({ "id": canary, "room": "bookings", "type": "t", "data": {} }),
            )
            .await?;
            publish(
                stack,
                &json!({ "id": last, "room": "lobby", "type": "t", "data": {} }),
            )
            .await?;
            let is_last = |frame: &Value| frame["event"]["event"]["id"] == last.as_str();
            stream.until("the stream goes on", SOON, is_last).await?;
            ensure!(
                !stream.raw[before..].contains(&canary),
                "{}",
                &stream.raw[before..]
            );
        }
        Ok(())
    });
}

/// The text of a frame's event, as it came.
fn event_of(raw: &str) -> Option<&str> {
    let at = raw.rfind(r#""event":{"#)?;
    let text = &raw[at + r#""event":"#.len()..];
    // The frame's own braces end behind it.
    let mut deep = 0_usize;
    let end = text.bytes().position(|byte| {
        match byte {
            b'{' => deep += 1,
            b'}' => deep -= 1,
            _ => {}
        }
        deep == 0
    })?;
    Some(&text[..=end])
}

#[test]
fn an_event_is_the_same_bytes_at_both_gateways_in_both_encodings() {
    calm(async |stack| {
        let gateways = stack.gateways();
        let claims = json!({ "property_ids": ["identity"] });
        let rooms = ["lobby", "property.identity"];
        // One who sees all of it, and one from whom something is taken out.
        let mut clients = Vec::new();
        for role in ["admin", "owner"] {
            let token = stack
                .signer
                .token_with(&format!("same-{role}"), &[role], 3600, &claims);
            for gateway in &gateways {
                for encoding in [Encoding::Json, Encoding::Protobuf] {
                    let (mut client, _) =
                        Client::connect_as(encoding, gateway, &token, &rooms, &HashMap::new()).await?;
                    client.caught_up("property.identity").await?;
                    client.raw.clear();
                    clients.push((role, encoding, client));
                }
            }
        }
        let publisher = stack.signer.token_with("desk", &["desk"], 3600, &claims);
        let mut sent = Vec::new();
        for n in 0..20 {
            let id = format!("identity-{n}");
            // Spacing, order and escapes are the publisher's own.
            let data = format!(r#"{{"z":{n},  "a":"\u00e9 é","secret":"s{n}","n":1.50}}"#);
            let more = match n % 4 {
                // A key of its own: of two values of one key the older may give way.
                1 => format!(r#","delivery":"state","statekey":"k {n}""#),
                _ => String::new(),
            };
            let room = rooms[n % 2];
            let event = format!(r#"{{"id":"{id}","room":"{room}","type":"t"{more},"data":{data}}}"#);
            let url = format!("{}/v1/events", stack.ingests()[0]);
            let answer = stack
                .http
                .post(&url, &publisher, "application/json", event)
                .await?;
            ensure!(answer.status == 200, "{}", answer.text());
            sent.push((id, room));
        }
        let mut expected: HashMap<(&str, &str), String> = HashMap::new();
        for (role, encoding, client) in &mut clients {
            for room in rooms {
                let last = &sent
                    .iter()
                    .rev()
                    .find(|(_, sent)| *sent == room)
                    .context("sent")?
                    .0;
                let came = |raw: &[String]| raw.iter().any(|raw| raw.contains(&format!("\"{last}\"")));
                while !came(&client.raw) {
                    ensure!(
                        client.next(SOON).await?.is_some(),
                        "{role} {encoding:?}: {last} did not come"
                    );
                }
            }
            for (id, room) in &sent {
                let raw = client.raw.iter().find(|raw| raw.contains(&format!("\"{id}\"")));
                let raw = raw.with_context(|| format!("{role} {encoding:?}: no {id}"))?;
                let text = match encoding {
                    Encoding::Json => event_of(raw)
                        .with_context(|| format!("no event in {raw}"))?
                        .to_owned(),
                    // What is text in it; the event stands at the end of the frame.
                    Encoding::Protobuf => {
                        let at = raw.find("{\"").with_context(|| format!("no event in {raw}"))?;
                        raw[at..].to_owned()
                    }
                };
                let hidden = *role == "owner" && room.starts_with("property");
                ensure!(text.contains("secret") != hidden, "{role}: {text}");
                let known = expected.entry((role, id)).or_insert_with(|| text.clone());
                ensure!(*known == text, "{role} {encoding:?} {id}:\n{known}\n{text}");
            }
        }
        Ok(())
    });
}
