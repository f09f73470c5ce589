//! One replica: requests of several events go as atomic batches, and one by one whenever that does not work.

use std::time::Duration;

use roomcast_chassis::jetstream::Publisher;
use serde_json::{Value, json};

use crate::fixture::{Ingest, JSON, event};

/// The ids of the stream, in its order.
async fn stored_ids(ingest: &Ingest) -> Vec<String> {
    let stored = ingest.stored("EVENTS").await;
    let id = |payload: &[u8]| {
        serde_json::from_slice::<Value>(payload).unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    stored.iter().map(|message| id(&message.payload)).collect()
}

fn body(ids: &[String]) -> String {
    ids.iter().map(|id| event(id)).collect::<Value>().to_string()
}

fn ids(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{name}{n}")).collect()
}

async fn statuses(ingest: &Ingest, ids: &[String]) -> Vec<String> {
    let answer = ingest.post("desk", JSON, body(ids)).await.json();
    let status = |result: &Value| result["status"].as_str().unwrap_or_default().to_owned();
    answer["results"].as_array().unwrap().iter().map(status).collect()
}

fn batches(ingest: &Ingest) -> (f64, f64) {
    let count =
        |outcome: &str| ingest.metric(&format!("roomcast_ingest_batches_total{{outcome=\"{outcome}\"}}"));
    (count("stored"), count("apart"))
}

#[tokio::test]
async fn many_events_are_several_batches_in_their_order() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let ids = ids("a", 600);
    assert!(
        statuses(&ingest, &ids)
            .await
            .iter()
            .all(|status| status == "stored")
    );
    assert_eq!(batches(&ingest), (3.0, 0.0), "256, 256 and 88");
    assert_eq!(stored_ids(&ingest).await, ids);
}

#[tokio::test]
async fn a_repeat_this_instance_knows_of_stays_out_of_the_batch() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    assert_eq!(ingest.publish(&event("b1")).await["status"], "stored");
    let ids = ["b0", "b1", "b2", "b2"].map(str::to_owned);
    let expected = ["stored", "duplicate", "stored", "duplicate"];
    assert_eq!(statuses(&ingest, &ids).await, expected);
    assert_eq!(
        batches(&ingest),
        (0.0, 0.0),
        "what stands between repeats goes alone"
    );
    assert_eq!(stored_ids(&ingest).await, ["b1", "b0", "b2"]);
    let ids = ["b1", "b3", "b4", "b3", "b5", "b6"].map(str::to_owned);
    let expected = ["duplicate", "stored", "stored", "duplicate", "stored", "stored"];
    assert_eq!(statuses(&ingest, &ids).await, expected);
    assert_eq!(batches(&ingest), (2.0, 0.0));
    assert_eq!(
        stored_ids(&ingest).await,
        ["b1", "b0", "b2", "b3", "b4", "b5", "b6"]
    );
}

/// The repeat came by another instance, so this one does not know of it: the server refuses the whole batch, and each event is then
/// decided by itself.
#[tokio::test]
async fn a_batch_with_another_instances_id_goes_one_by_one() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let (context, other) = ingest.another_at().await;
    let answer = ingest
        .http
        .post(
            &format!("{other}/v1/events"),
            &ingest.token("desk"),
            JSON,
            event("c3").to_string(),
        )
        .await
        .unwrap();
    assert_eq!(answer.json()["status"], "stored");
    let ids = ids("c", 6);
    let expected = ["stored", "stored", "stored", "duplicate", "stored", "stored"];
    assert_eq!(statuses(&ingest, &ids).await, expected);
    assert_eq!(batches(&ingest), (0.0, 1.0));
    assert_eq!(stored_ids(&ingest).await, ["c3", "c0", "c1", "c2", "c4", "c5"]);
    context.shutdown.request();
}

/// The server takes 50 batches of a stream at the same time, whoever sends them. Others hold all of them open.
#[tokio::test]
async fn where_no_batch_is_to_be_had_events_go_one_by_one() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let admin = ingest.nats.connect("admin").await;
    let publisher = Publisher::start(&admin, 64, None).await.unwrap();
    for n in 0..50 {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Batch-Id", format!("held-{n}").as_str());
        headers.insert("Nats-Batch-Sequence", "1");
        // The first message of a batch is answered by nothing but a refusal.
        let sent = publisher.send(roomcast_chassis::jetstream::Outgoing {
            subject: "evt.00.main.bookings.all".to_owned(),
            headers,
            payload: "{}".into(),
        });
        drop(sent.await.unwrap());
    }
    let mut sent = Vec::new();
    let mut round = 0;
    // The server may be busy with taking them still.
    while batches(&ingest).1 == 0.0 {
        assert!(round < 100, "no batch is refused");
        let some = ids(&format!("d{round}-"), 5);
        round += 1;
        assert_eq!(statuses(&ingest, &some).await, ["stored"; 5]);
        sent.extend(some);
    }
    assert_eq!(stored_ids(&ingest).await, sent);
}

/// The batch is stored and its answer is late: the same events, sent again one by one, are found to be there.
#[tokio::test]
async fn a_batch_whose_answer_is_lost_is_not_stored_twice() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    ingest.nats.signal("STOP");
    let ids = ids("e", 10);
    let thaw = async {
        // A batch is given 2 s, its events 4 more.
        roomcast_harness::eventually("the batch is given up", Duration::from_secs(20), || async {
            batches(&ingest).1 >= 1.0
        })
        .await;
        ingest.nats.signal("CONT");
    };
    let (found, ()) = tokio::join!(statuses(&ingest, &ids), thaw);
    // An acknowledgement that nobody heard is as good as none: they were stored by this request.
    assert!(
        found
            .iter()
            .all(|status| status == "stored" || status == "refused"),
        "{found:?}"
    );
    let left = ids.clone();
    roomcast_harness::eventually("all are known", Duration::from_secs(30), || {
        let again = statuses(&ingest, &left);
        async move {
            again
                .await
                .iter()
                .all(|status| status == "duplicate" || status == "stored")
        }
    })
    .await;
    assert_eq!(stored_ids(&ingest).await, ids, "each once, in order");
    assert_eq!(json!(batches(&ingest).1), json!(1.0));
}
