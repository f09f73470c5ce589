//! Notifications as state, feeds and marks: what one device does, every other one is told, at whichever gateway.

use roomcast_harness::client::{Client, Frame};
use roomcast_harness::stack::{Options, Stack};
use roomcast_harness::{eventually, repository};
use serde_json::{Value, json};
use std::time::Duration;

use crate::world::{alone, calm, publish};

const SOON: Duration = Duration::from_secs(60);

async fn device(stack: &Stack, gateway: usize, user: &str) -> anyhow::Result<Client> {
    let token = stack.signer.token(user, &["user"]);
    let (client, _) = Client::connect(&stack.gateways()[gateway], &token, &[], &Default::default()).await?;
    Ok(client)
}

async fn feed(client: &mut Client, filter: Value) -> anyhow::Result<Frame> {
    client
        .request("feed", json!({ "limit": 200, "filter": filter }))
        .await
}

/// Title and mark of each notification of this test.
fn shown(frame: &Frame, of: &str) -> Vec<(String, String)> {
    let list = |name: &str| frame["feed"][name].as_array().cloned().unwrap_or_default();
    let marks = list("marks");
    let mark = |id: &Value| {
        let found = marks.iter().find(|mark| mark["id"] == *id);
        found
            .map_or("", |mark| mark["as"].as_str().unwrap_or_default())
            .to_owned()
    };
    let notifications = list("notifications");
    let mine = notifications
        .iter()
        .map(|placed| &placed["event"])
        .filter(|event| event["type"] == of);
    mine.map(|event| {
        (
            event["data"]["title"].as_str().unwrap_or_default().to_owned(),
            mark(&event["id"]),
        )
    })
    .collect()
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter()
        .map(|(title, mark)| ((*title).to_owned(), (*mark).to_owned()))
        .collect()
}

#[test]
fn what_is_marked_on_one_device_is_marked_on_all() {
    calm(|stack| async move {
        let of = "notification.agree";
        let (mut phone, mut laptop) = (device(stack, 0, "n-ada").await?, device(stack, 1, "n-ada").await?);
        let mut other = device(stack, 1, "n-bob").await?;
        let notify = async |id: &str, title: &str, more: Value| {
            let mut event = json!({ "id": id, "type": of, "data": { "title": title } });
            let more = more.as_object().cloned().unwrap_or_default();
            event.as_object_mut().expect("an object").extend(more);
            publish(stack, &event).await.map(drop)
        };
        notify("a-1", "all", json!({ "users": "n-ada,n-bob" })).await?;
        notify(
            "a-2",
            "open",
            json!({ "users": "n-ada", "dedupkey": "line", "priority": "critical" }),
        )
        .await?;
        notify("a-3", "mine", json!({ "users": "n-ada", "priority": "low" })).await?;
        // The same line again: it says something else now, and is new.
        notify(
            "a-4",
            "resolved",
            json!({ "users": "n-ada", "dedupkey": "line", "priority": "high" }),
        )
        .await?;
        let filter = json!({ "type": of });
        let expected = pairs(&[("resolved", ""), ("mine", ""), ("all", "")]);
        for client in [&mut phone, &mut laptop] {
            let start = tokio::time::Instant::now();
            while shown(&feed(client, filter.clone()).await?, of) != expected {
                anyhow::ensure!(start.elapsed() < SOON, "{}", feed(client, filter.clone()).await?);
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
        let before = feed(&mut laptop, filter.clone()).await?["feed"]["counters"].clone();
        anyhow::ensure!(
            before["critical"] == 0 && before["high"].as_u64() >= Some(1),
            "{before}"
        );

        // What is not hers is answered like what is not there, and changes nothing for anybody.
        let bobs = feed(&mut other, filter.clone()).await?;
        assert_eq!(shown(&bobs, of), pairs(&[("all", "")]));
        let version = bobs["feed"]["version"].clone();
        let mark = async |client: &mut Client, ids: Value, level: &str| {
            client.request("mark", json!({ "ids": ids, "as": level })).await
        };
        for ids in [json!(["a-3/n-ada"]), json!(["no-such"])] {
            let answer = mark(&mut other, ids, "read").await?;
            // The version tells of other tests' state, too.
            let mut answer = answer["feed"].clone();
            answer["counters"]["version"] = bobs["feed"]["counters"]["version"].clone();
            let expected = json!({
                "notifications": [], "counters": bobs["feed"]["counters"], "version": version, "marks": [], "groups": [],
            });
            assert_eq!(answer, expected);
        }

        // The phone reads one and puts another away; the laptop, at the other gateway, says so at once.
        let answer = mark(&mut phone, json!(["a-3/n-ada"]), "archived").await?;
        let counters = &answer["feed"]["counters"];
        assert_eq!(
            counters["low"].as_u64(),
            before["low"].as_u64().map(|low| low - 1),
            "{answer}"
        );
        anyhow::ensure!(
            counters["version"].as_u64() > before["version"].as_u64(),
            "{answer}"
        );
        mark(&mut phone, json!(["a-1/n-ada", "a-4/n-ada"]), "seen").await?;
        mark(&mut laptop, json!(["a-1/n-ada"]), "read").await?;
        // A device that was offline says late what it had done: it takes nothing back.
        mark(&mut phone, json!(["a-1/n-ada"]), "seen").await?;
        let expected = pairs(&[("resolved", "seen"), ("all", "read")]);
        for client in [&mut phone, &mut laptop] {
            assert_eq!(shown(&feed(client, filter.clone()).await?, of), expected);
        }
        let unread = feed(&mut laptop, json!({ "type": of, "unread": true })).await?;
        assert_eq!(shown(&unread, of), pairs(&[("resolved", "seen")]));
        let archived = feed(
            &mut phone,
            json!({ "type": of, "archived": true, "priority": ["low"] }),
        )
        .await?;
        assert_eq!(shown(&archived, of), pairs(&[("mine", "archived")]));
        assert_eq!(
            shown(&feed(&mut other, filter.clone()).await?, of),
            pairs(&[("all", "")])
        );

        // All up to here, and what is withdrawn is gone everywhere.
        let newest = feed(&mut phone, json!({})).await?["feed"]["notifications"][0]["cursor"].clone();
        let answer = laptop
            .request("mark", json!({ "upTo": newest, "as": "read" }))
            .await?;
        assert_eq!(answer["feed"]["counters"]["unread"], 0, "{answer}");
        let withdraw = json!({ "type": of, "users": "n-ada", "dedupkey": "line", "withdrawn": true });
        publish(stack, &withdraw).await?;
        eventually("it is gone", SOON, async || {
            let mut fresh = device(stack, 1, "n-ada").await.expect("a device");
            shown(&feed(&mut fresh, filter.clone()).await.expect("a feed"), of) == pairs(&[("all", "read")])
        })
        .await;
        for (name, body) in [
            ("mark", json!({ "ids": [], "as": "unread" })),
            ("mark", json!({ "upTo": "garbage", "as": "read" })),
            ("feed", json!({ "before": "garbage" })),
            ("feed", json!({ "filter": [] })),
        ] {
            let answer = phone.request(name, body).await?;
            assert_eq!(answer["error"]["code"], "bad_request", "{answer}");
        }
        Ok(())
    });
}

/// A page that polls asks at one gateway, a socket at the other: they are told the same, and refused in the same words.
#[test]
fn a_device_without_a_socket_reads_and_marks_as_one_with_it_does() {
    calm(|stack| async move {
        let of = "notification.plain";
        let mut phone = device(stack, 0, "n-eve").await?;
        let token = stack.signer.token("n-eve", &["user"]);
        let base = stack.gateways()[1].clone();
        let get = async |query: &str| {
            let url = format!("{base}/v1/feed?{query}");
            let answer = stack.http.get(&url, Some(&token)).await?;
            anyhow::Ok((answer.status, answer.json()))
        };
        let post = async |token: &str, body: String| {
            let url = format!("{base}/v1/marks");
            let answer = stack.http.post(&url, token, "application/json", body).await?;
            anyhow::Ok((answer.status, answer.json()))
        };
        for (id, title) in [("p-1", "one"), ("p-2", "two"), ("p-3", "three")] {
            let event = json!({ "id": id, "type": of, "data": { "title": title }, "users": "n-eve" });
            publish(stack, &event).await?;
        }
        // `{"type":"notification.plain"}`
        let filter = "filter=%7B%22type%22%3A%22notification.plain%22%7D";
        let expected = pairs(&[("three", ""), ("two", ""), ("one", "")]);
        let page = async |query: &str| {
            let (status, body) = get(query).await?;
            anyhow::ensure!(status == 200, "{status} {body}");
            anyhow::Ok(json!({ "feed": body }))
        };
        eventually("all are there", SOON, async || {
            shown(&page(filter).await.expect("a feed"), of) == expected
        })
        .await;

        // Marked here, marked there, and the other way round.
        let (status, marked) =
            post(&token, json!({ "ids": ["p-1/n-eve"], "as": "read" }).to_string()).await?;
        anyhow::ensure!(
            status == 200 && marked["notifications"] == json!([]) && marked["counters"]["unread"].is_u64(),
            "{status} {marked}"
        );
        let over_socket = feed(&mut phone, json!({ "type": of })).await?;
        assert_eq!(
            shown(&over_socket, of),
            pairs(&[("three", ""), ("two", ""), ("one", "read")])
        );
        phone
            .request("mark", json!({ "ids": ["p-2/n-eve"], "as": "archived" }))
            .await?;
        assert_eq!(
            shown(&page(filter).await?, of),
            pairs(&[("three", ""), ("one", "read")])
        );
        // Page by page, and all up to a place.
        let first = page(&format!("{filter}&limit=1")).await?;
        assert_eq!(shown(&first, of), pairs(&[("three", "")]));
        let cursor = first["feed"]["notifications"][0]["cursor"]
            .as_str()
            .unwrap_or_default();
        let rest = page(&format!("{filter}&limit=5&before={cursor}")).await?;
        assert_eq!(shown(&rest, of), pairs(&[("one", "read")]));
        let (status, all) = post(&token, json!({ "upTo": cursor, "as": "read" }).to_string()).await?;
        anyhow::ensure!(status == 200 && all["counters"]["unread"] == 0, "{status} {all}");

        // Somebody else's is answered like what is not there.
        let other = stack.signer.token("n-mallory", &["user"]);
        let mut answers = Vec::new();
        for id in ["p-3/n-eve", "no-such"] {
            let (status, mut body) = post(&other, json!({ "ids": [id], "as": "read" }).to_string()).await?;
            // It tells of other tests' state, too.
            body["counters"]["version"] = Value::Null;
            answers.push((status, body));
        }
        assert_eq!(answers[0], answers[1]);

        // A refusal says the same over both, and where.
        for (body, pointer) in [
            (json!({ "ids": [], "as": "unread" }), "/as"),
            (json!({ "ids": ["a"], "upTo": cursor, "as": "read" }), ""),
            (json!({ "upTo": "garbage", "as": "read" }), "/upTo"),
            (json!({ "ids": vec!["x"; 201], "as": "read" }), "/ids"),
        ] {
            let (status, over_http) = post(&token, body.to_string()).await?;
            let over_socket = phone.request("mark", body.clone()).await?;
            anyhow::ensure!(
                status == 400
                    && over_http["code"] == over_socket["error"]["code"]
                    && over_http["detail"] == over_socket["error"]["message"]
                    && over_http["pointer"] == pointer,
                "{body}: {over_http} {over_socket}"
            );
        }
        for query in [
            "before=garbage",
            "limit=x",
            "limit=-1",
            "filter=%5B%5D",
            "filter=x",
            "limit=1&limit=2",
        ] {
            let (status, body) = get(query).await?;
            anyhow::ensure!(
                status == 400 && body["code"] == "bad_request",
                "{query}: {status} {body}"
            );
        }
        Ok(())
    });
}

/// What ends by itself changes the count, though nothing was stored: who waits for counters is told, and who asks by a tag as well.
#[test]
fn a_held_poll_is_told_of_what_ends_by_itself() {
    alone(async {
        let options = Options {
            policy: Some(repository().join("tests/e2e/policy.yaml")),
            ..Options::default()
        };
        let Some(stack) = Stack::start(&options) else {
            return Ok(());
        };
        let ends = jiff::Timestamp::now() + Duration::from_secs(6);
        let event = json!({
            "id": "ends-1", "type": "notification.ends", "users": "n-ends", "expirytime": ends.to_string(), "data": { "title": "t" },
        });
        publish(&stack, &event).await?;
        let token = stack.signer.token("n-ends", &["user"]);
        let url = format!("{}/v1/poll?counters=", stack.gateways()[0]);
        let counters = |said: &Value| {
            let frames = said["frames"].as_array().cloned().unwrap_or_default();
            let told = frames.iter().find_map(|frame| frame.get("counters").cloned());
            told.unwrap_or_default()
        };
        let mut known = Value::Null;
        eventually("the notification is counted", SOON, || async {
            let answer = stack.http.get(&format!("{url}0&wait=0"), Some(&token)).await;
            answer.is_ok_and(|answer| counters(&answer.json())["unread"] == 1)
        })
        .await;
        let mut cursor = String::new();
        // Until the counters are those of what this client has heard.
        while known["unread"].is_null() || cursor.is_empty() {
            let said = stack
                .http
                .get(&format!("{url}0&wait=0"), Some(&token))
                .await?
                .json();
            (known, cursor) = (
                counters(&said),
                said["cursor"].as_str().unwrap_or_default().to_owned(),
            );
        }
        let held = format!("{url}{}&wait=25&cursor={cursor}", known["version"]);
        let begun = std::time::Instant::now();
        let answer = stack.http.get(&held, Some(&token)).await?;
        let told = counters(&answer.json());
        assert!(
            answer.status == 200 && told["unread"] == 0 && begun.elapsed() < Duration::from_secs(20),
            "after {:?}: {} {}",
            begun.elapsed(),
            answer.status,
            answer.text()
        );
        Ok(())
    });
}
