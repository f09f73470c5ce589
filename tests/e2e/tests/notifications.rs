//! Notifications as state, feeds and marks: what one device does, every other one is told, at whichever gateway.

use roomcast_harness::client::{Client, Frame};
use roomcast_harness::eventually;
use roomcast_harness::stack::Stack;
use serde_json::{Value, json};
use std::time::Duration;

use crate::world::{calm, publish};

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
                "notifications": [], "counters": bobs["feed"]["counters"], "version": version, "marks": [],
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
