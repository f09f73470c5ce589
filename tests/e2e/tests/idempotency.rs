//! The same id twice is one event; the same id with other content is a conflict. On every door, and across doors of one publisher.

use serde_json::{Value, json};

use crate::world::{calm, desk, follower};

fn event(id: &str, amount: u32) -> Value {
    json!({ "id": id, "room": "bookings", "audience": "staff", "type": "booking:new", "data": { "id": id, "amount": amount } })
}

#[test]
fn the_same_id_twice_is_one_event_and_other_content_is_a_conflict() {
    calm(|stack| async move {
        let follower = follower(stack, 0, "staff", &["bookings"]).await;
        let token = desk(stack);
        let first = stack.publish(0, &token, &event("twice", 1)).await?.json();
        assert_eq!(first["status"], "stored", "{first}");
        let again = stack.publish(0, &token, &event("twice", 1)).await?.json();
        assert_eq!(again["status"], "duplicate", "{again}");
        assert_eq!(again["id"], "twice");
        assert!(first["cursor"].is_string(), "{first}");
        assert_eq!(
            again["cursor"], first["cursor"],
            "the repeat names the place of the first"
        );
        let other = stack.publish(0, &token, &event("twice", 2)).await?;
        assert_eq!(
            (other.status, &other.json()["code"]),
            (409, &json!("conflict")),
            "{}",
            other.text()
        );

        // Another publisher's id is another name.
        let else_token = stack.signer.token("another-desk", &["desk"]);
        let elsewhere = stack.publish(0, &else_token, &event("twice", 3)).await?.json();
        assert_eq!(elsewhere["status"], "stored", "{elsewhere}");

        // In a batch, twice within it too.
        let batch = json!([
            event("twice", 1),
            event("twice", 2),
            event("in-batch", 1),
            event("in-batch", 1),
            event("in-batch", 2)
        ]);
        let answer = stack.publish(0, &token, &batch).await?.json();
        let results: Vec<(&str, &str)> = answer["results"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|result| {
                (
                    result["status"].as_str().unwrap_or(""),
                    result["code"].as_str().unwrap_or(""),
                )
            })
            .collect();
        let expected = [
            ("duplicate", ""),
            ("refused", "conflict"),
            ("stored", ""),
            ("duplicate", ""),
            ("refused", "conflict"),
        ];
        assert_eq!(results, expected, "{answer}");

        // Over NATS.
        let nats = stack.nats("publisher").await;
        let mut said = Vec::new();
        for amount in [1, 1, 2] {
            let answer = nats
                .request(
                    "in.bookings.staff",
                    event("twice-nats", amount).to_string().into(),
                )
                .await?;
            let answer: Value = serde_json::from_slice(&answer.payload)?;
            said.push(
                answer["code"]
                    .as_str()
                    .or(answer["status"].as_str())
                    .unwrap_or_default()
                    .to_owned(),
            );
        }
        assert_eq!(said, ["stored", "duplicate", "conflict"]);

        // The stream and the client hold one of each.
        crate::world::publish(stack, &event("end-of-idempotency", 0)).await?;
        roomcast_harness::eventually(
            "the last one is seen",
            std::time::Duration::from_secs(10),
            || async {
                follower
                    .look()
                    .seen
                    .get("bookings")
                    .is_some_and(|seen| seen.has("end-of-idempotency"))
            },
        )
        .await;
        let all = stack.stored("bookings").await?;
        for (id, copies) in [("twice", 2), ("in-batch", 1), ("twice-nats", 1)] {
            assert_eq!(
                all.iter().filter(|(_, event)| event["id"] == id).count(),
                copies,
                "{id} in the stream"
            );
            assert_eq!(
                follower.look().seen["bookings"].times(id),
                copies,
                "{id} at the client"
            );
        }
        Ok(())
    });
}

#[test]
fn many_at_once_with_one_id_are_one_event() {
    calm(|stack| async move {
        let token = desk(stack);
        let event = event("all-at-once", 5);
        let requests = (0..20).map(|_| stack.publish(0, &token, &event));
        let mut stored = 0;
        for answer in futures_util::future::join_all(requests).await {
            let answer = answer?.json();
            assert!(
                answer["status"] == "stored" || answer["status"] == "duplicate",
                "{answer}"
            );
            stored += usize::from(answer["status"] == "stored");
        }
        assert_eq!(stored, 1);
        let copies = stack
            .stored("bookings")
            .await?
            .iter()
            .filter(|(_, event)| event["id"] == "all-at-once")
            .count();
        assert_eq!(copies, 1);
        Ok(())
    });
}
