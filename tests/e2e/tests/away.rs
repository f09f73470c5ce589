//! Users who were away, whose clocks are wrong, who ask with what is long over, or for what is not theirs, and whose marks an operator took.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_nats::HeaderMap;
use roomcast_harness::client::{Client, Frame};
use roomcast_harness::eventually;
use roomcast_harness::http::Http;
use roomcast_harness::stack::{Options, Stack};
use roomcast_harness::stream::Stream;
use serde_json::{Value, json};

use crate::world::{alone, calm, options, own, publish};

const WITHIN: Duration = Duration::from_secs(60);

/// RFC 3339, so many seconds from now.
fn at(seconds: i64) -> String {
    let now = jiff::Timestamp::now().as_second();
    jiff::Timestamp::from_second(now + seconds).map_or_else(|_| String::new(), |at| at.to_string())
}

async fn feed(stack: &Stack, gateway: usize, user: &str, query: &str) -> anyhow::Result<Value> {
    let token = stack.signer.token(user, &["user"]);
    let url = format!("{}/v1/feed?{query}", stack.gateways()[gateway]);
    let answer = stack.http.get(&url, Some(&token)).await?;
    ensure!(answer.status == 200, "{}", answer.text());
    Ok(answer.json())
}

fn titles(feed: &Value) -> Vec<&str> {
    let all = feed["notifications"].as_array().map_or(&[][..], Vec::as_slice);
    all.iter()
        .filter_map(|one| one["event"]["data"]["title"].as_str())
        .collect()
}

async fn until_titles(stack: &Stack, user: &str, expected: &[&str]) {
    eventually(&format!("{user} sees {expected:?}"), WITHIN, || async {
        feed(stack, 0, user, "limit=200")
            .await
            .is_ok_and(|feed| titles(&feed) == expected)
    })
    .await;
}

/// What of a room's values a client shows, and what of them it announces: of what a room begins with, nothing.
fn shown(frames: &[Frame]) -> Vec<String> {
    let titles = frames
        .iter()
        .map(|frame| &frame["event"]["event"]["data"]["title"]);
    titles.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A week is longer than events are kept, than a withdrawn value is, and than a notification of low priority lives: all of that is over, and
/// what holds is there.
#[test]
fn who_is_back_after_a_week_finds_what_still_holds_and_nothing_of_it_is_announced() {
    alone(async {
        let restarting = Options {
            restart: true,
            ..options(&[])
        };
        let Some(stack) = own(restarting).await? else {
            return Ok(());
        };
        let (user, room) = ("week-ada", "user.week-ada");
        let notify = async |id: &str, title: &str, more: Value| {
            let mut event =
                json!({ "id": id, "type": "notification.week", "users": user, "data": { "title": title } });
            let more = more.as_object().cloned().unwrap_or_default();
            event.as_object_mut().context("an object")?.extend(more);
            publish(&stack, &event).await.map(drop)
        };
        notify("w-1", "holds", json!({ "priority": "high" })).await?;
        notify(
            "w-2",
            "fires",
            json!({ "dedupkey": "alert", "priority": "critical" }),
        )
        .await?;
        // Of low priority: a day at most.
        notify("w-3", "brief", json!({ "priority": "low", "expirytime": at(8) })).await?;
        notify("w-4", "taken back", json!({ "dedupkey": "taken" })).await?;
        let event = async |n: u32| {
            let event = json!({ "id": format!("e-{n}"), "room": "lobby", "type": "t", "data": {} });
            publish(&stack, &event).await.map(drop)
        };
        event(0).await?;
        let gateway = stack.gateways()[0].clone();
        let token = stack.signer.token(user, &["user"]);
        let (mut client, _) = Client::connect(&gateway, &token, &[], &HashMap::new()).await?;
        client.caught_up(room).await?;
        let cursors = client.cut();
        ensure!(cursors.contains_key(room), "{cursors:?}");

        // The week.
        notify(
            "w-5",
            "resolved",
            json!({ "dedupkey": "alert", "priority": "high" }),
        )
        .await?;
        let withdrawn =
            json!({ "type": "notification.week", "users": user, "dedupkey": "taken", "withdrawn": true });
        publish(&stack, &withdrawn).await?;
        notify("w-7", "came meanwhile", json!({})).await?;
        for n in 1..4 {
            event(n).await?;
        }
        forget_events(&stack).await?;
        until_titles(&stack, user, &["came meanwhile", "resolved", "holds"]).await;

        let (mut client, connected) = Client::connect(&gateway, &token, &[room], &cursors).await?;
        let rooms = connected["rooms"].as_array().cloned().unwrap_or_default();
        let mine = rooms
            .iter()
            .find(|one| one["room"] == room)
            .context("the own room")?;
        ensure!(
            mine["recovery"] == "incomplete" && mine["reason"] == "expired",
            "{mine}"
        );
        let mut begins_with = shown(&client.caught_up(room).await?);
        begins_with.sort();
        assert_eq!(begins_with, ["came meanwhile", "holds", "resolved"]);
        // From here on it is news, once.
        notify("w-9", "news", json!({})).await?;
        let live = client
            .until("news", WITHIN, |frame| {
                frame["event"]["event"]["data"]["title"] == "news"
            })
            .await?;
        assert_eq!(shown(&live), ["news"]);
        // Asked too often before, it may be told to come back.
        eventually("all four are counted", WITHIN, || async {
            let counters = feed(&stack, 0, user, "limit=1").await;
            counters.is_ok_and(|feed| {
                let count = |name: &str| feed["counters"][name].as_u64();
                (count("unread"), count("critical"), count("high")) == (Some(4), Some(0), Some(2))
            })
        })
        .await;
        Ok(())
    });
}

/// Takes all events away but the newest, as their age does in a week, and starts the gateway anew, whose memory reaches back.
async fn forget_events(stack: &Stack) -> anyhow::Result<()> {
    let admin = stack.nats_admin().await;
    let ask = async |verb: &str, body: Value| {
        let answer = admin
            .request(format!("$JS.API.STREAM.{verb}.EVENTS"), body.to_string().into())
            .await?;
        let answer: Value = serde_json::from_slice(&answer.payload)?;
        ensure!(answer.get("error").is_none(), "{}", answer["error"]);
        Ok(answer)
    };
    let mut config = ask("INFO", json!({})).await?["config"].clone();
    let before = config["max_msgs"].clone();
    config["max_msgs"] = json!(1);
    ask("UPDATE", config.clone()).await?;
    config["max_msgs"] = before;
    ask("UPDATE", config).await?;
    let pid = stack.pid("gateway-1");
    stack.signal("gateway-1", "KILL");
    eventually("the gateway is started again", WITHIN, || async {
        let token = stack.signer.token("probe", &["user"]);
        stack.pid("gateway-1") != pid
            && Client::connect(&stack.gateways()[0], &token, &[], &HashMap::new())
                .await
                .is_ok()
    })
    .await;
    Ok(())
}

/// No mark, no life and no order is by the clock of whoever publishes, and none by a device's: devices say no time at all.
#[test]
fn clocks_that_are_wrong_change_no_mark_and_no_life() {
    calm(|stack| async move {
        let user = "clocks-ada";
        for (n, (title, off)) in [("ahead", 3_600), ("right", 0), ("behind", -3_600)]
            .into_iter()
            .enumerate()
        {
            let event = json!({
                "id": format!("clock-{n}"), "type": "notification.clock", "users": user, "time": at(off), "data": { "title": title },
            });
            publish(stack, &event).await?;
        }
        until_titles(stack, user, &["behind", "right", "ahead"]).await;
        let found = feed(stack, 0, user, "limit=200").await?;
        let placed = found["notifications"].as_array().context("notifications")?;
        for one in placed {
            let said = one["event"]["expirytime"].as_str().context("a life")?;
            let said: jiff::Timestamp = said.parse()?;
            let left = said.as_second() - jiff::Timestamp::now().as_second();
            ensure!(
                (29 * 86_400..=30 * 86_400).contains(&left),
                "{one}: {left} s are left"
            );
        }
        // Up to the second, in the order in which they came: the newest stays unread, whatever it says of its time.
        let token = stack.signer.token(user, &["user"]);
        let mark = json!({ "upTo": placed[1]["cursor"], "as": "read" }).to_string();
        let url = format!("{}/v1/marks", stack.gateways()[1]);
        let answer = stack.http.post(&url, &token, "application/json", mark).await?;
        ensure!(
            answer.status == 200 && answer.json()["counters"]["unread"] == 1,
            "{}",
            answer.text()
        );
        // `{"unread":true}`
        let unread = feed(stack, 1, user, "filter=%7B%22unread%22%3Atrue%7D").await?;
        assert_eq!(titles(&unread), ["behind"]);
        Ok(())
    });
}

#[test]
fn counters_asked_with_an_old_version_are_answered_at_once_with_what_is_true() {
    calm(|stack| async move {
        let user = "old-version";
        let token = stack.signer.token(user, &["user"]);
        let event = json!({ "id": "v-1", "type": "notification.version", "users": user, "priority": "high", "data": { "title": "one" } });
        publish(stack, &event).await?;
        until_titles(stack, user, &["one"]).await;
        let ask = async |version: u64| {
            let url = format!("{}/v1/poll?counters={version}&wait=25", stack.gateways()[0]);
            let answer = Http::default().get(&url, Some(&token)).await?;
            ensure!(answer.status == 200, "{}", answer.text());
            let frames = answer.json()["frames"].as_array().cloned().unwrap_or_default();
            let told = frames.into_iter().find(|frame| frame["counters"].is_object());
            Ok(told.context("counters")?["counters"].clone())
        };
        let first = ask(0).await?;
        assert_eq!((&first["unread"], &first["high"]), (&json!(1), &json!(1)));
        let old = first["version"].as_u64().context("a version")?;
        let mark = json!({ "ids": [format!("v-1/{user}")], "as": "read" }).to_string();
        let url = format!("{}/v1/marks", stack.gateways()[1]);
        let marked = stack.http.post(&url, &token, "application/json", mark).await?;
        ensure!(marked.status == 200, "{}", marked.text());
        // Of any version but the one that is true; also one that no gateway has said yet.
        for version in [old, old - 1, 1, u64::MAX] {
            let told = ask(version).await?;
            assert_eq!(
                (&told["unread"], &told["high"]),
                (&json!(0), &json!(0)),
                "{version}: {told}"
            );
            ensure!(told["version"].as_u64() > Some(old), "{told}");
        }
        Ok(())
    });
}

/// An answer without what tells of other tests' state.
fn bytes(raw: &str) -> String {
    let Some((before, rest)) = raw.split_once(r#""counters":{"version":"#) else {
        return raw.to_owned();
    };
    let after = rest.trim_start_matches(|letter: char| letter.is_ascii_digit());
    format!(r#"{before}"counters":{{"version":N{after}"#)
}

#[test]
fn marks_of_ids_that_are_not_theirs_are_answered_as_absent_ones_are_byte_for_byte() {
    calm(|stack| async move {
        let (owner, other) = ("theirs-ada", "theirs-bob");
        let event =
            json!({ "id": "t-1", "type": "notification.theirs", "users": owner, "data": { "title": "one" } });
        publish(stack, &event).await?;
        let staff = json!({ "id": "t-2", "type": "notification.theirs", "room": "notifications", "audience": "admin", "data": { "title": "two" } });
        publish(stack, &staff).await?;
        until_titles(stack, owner, &["one"]).await;
        let token = stack.signer.token(other, &["user"]);
        let (mut client, _) = Client::connect(&stack.gateways()[0], &token, &[], &HashMap::new()).await?;
        let url = format!("{}/v1/marks", stack.gateways()[1]);
        let (mut over_http, mut over_socket) = (Vec::new(), Vec::new());
        // Another user's own, another role's, and none at all.
        for id in ["t-1/theirs-ada", "t-2", "no-such"] {
            for level in ["seen", "archived"] {
                let body = json!({ "ids": [id], "as": level });
                let answer = stack
                    .http
                    .post(&url, &token, "application/json", body.to_string())
                    .await?;
                over_http.push((answer.status, bytes(&answer.text())));
                client.raw.clear();
                let answer = client.request("mark", body).await?;
                let id = answer["id"].to_string();
                let raw = client
                    .raw
                    .iter()
                    .find(|raw| raw.contains("\"feed\""))
                    .context("an answer")?;
                over_socket.push(bytes(raw).replacen(&id, "N", 1));
            }
        }
        for all in over_http.windows(2) {
            assert_eq!(all[0], all[1]);
        }
        for all in over_socket.windows(2) {
            assert_eq!(all[0], all[1]);
        }
        assert_eq!(over_http[0].0, 200);
        let mine = feed(stack, 0, owner, "limit=1").await?;
        assert_eq!(
            (&mine["marks"], &mine["counters"]["unread"]),
            (&json!([]), &json!(1)),
            "{mine}"
        );
        Ok(())
    });
}

/// `nats kv purge readstate main.<user>`: an operator takes away what is kept of somebody, who is there meanwhile.
#[test]
fn marks_that_an_operator_purges_are_gone_everywhere_and_marking_begins_anew() {
    calm(|stack| async move {
        let user = "purged-ada";
        let token = stack.signer.token(user, &["user"]);
        for id in ["g-1", "g-2", "g-3"] {
            let event =
                json!({ "id": id, "type": "notification.purged", "users": user, "data": { "title": id } });
            publish(stack, &event).await?;
        }
        until_titles(stack, user, &["g-3", "g-2", "g-1"]).await;
        let mut socket = Client::open(&stack.gateways()[0]).await?;
        let connect = json!({ "token": token, "client": "t", "rooms": [], "counters": true });
        socket.request("connect", connect).await?;
        let mut stream = Stream::open(&stack.gateways()[1], "/v1/sse?counters=0", Some(&token), &[]).await?;
        let url = format!("{}/v1/marks", stack.gateways()[1]);
        let mark = async |id: &str| {
            let body = json!({ "ids": [format!("{id}/{user}")], "as": "read" }).to_string();
            let answer = stack.http.post(&url, &token, "application/json", body).await?;
            ensure!(answer.status == 200, "{}", answer.text());
            Ok(answer.json())
        };
        // Each is a version of the record; the next one begins at 1 again.
        mark("g-1").await?;
        mark("g-2").await?;
        let set = json!({ "set": { "sounds": false } });
        let answer = socket.request("preferences", set).await?;
        ensure!(answer["preferences"]["version"] == 3, "{answer}");
        let unread = |count: u64| move |frame: &Frame| frame["counters"]["unread"] == count;
        if !socket.early.iter().any(unread(1)) {
            socket.until("one is left", WITHIN, unread(1)).await?;
        }
        stream.until("one is left", WITHIN, unread(1)).await?;

        let admin = stack.nats_admin().await;
        let mut headers = HeaderMap::new();
        headers.insert("KV-Operation", "PURGE");
        headers.insert("Nats-Rollup", "sub");
        socket.early.clear();
        let subject = format!("$KV.readstate.main.{user}");
        let acked = admin.request_with_headers(subject, headers, "".into()).await?;
        let acked: Value = serde_json::from_slice(&acked.payload)?;
        ensure!(acked.get("error").is_none(), "{acked}");

        socket.until("all are unread again", WITHIN, unread(3)).await?;
        stream.until("all are unread again", WITHIN, unread(3)).await?;
        for gateway in 0..2 {
            let found = feed(stack, gateway, user, "limit=200").await?;
            assert_eq!(
                (&found["marks"], &found["version"], &found["counters"]["unread"]),
                (&json!([]), &json!(0), &json!(3))
            );
        }
        let answer = mark("g-3").await?;
        assert_eq!(
            (&answer["version"], &answer["counters"]["unread"]),
            (&json!(1), &json!(2)),
            "{answer}"
        );
        socket.until("two are left", WITHIN, unread(2)).await?;
        stream.until("two are left", WITHIN, unread(2)).await?;
        Ok(())
    });
}
