//! What is sent goes on with the trace of its notification.

use std::time::Duration;

use roomcast_harness::collector::{Collector, Told};
use roomcast_harness::eventually;
use roomcast_harness::receiver::{Device, Receiver, Says};
use serde_json::json;

use super::{Files, PATIENCE, POLICY, begun, ids, registered};
use crate::fixture::{Ingest, JSON};
use crate::process::Process;

const PUBLISHER: &str = "00f067aa0ba902b7";
const KEPT: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const UNKEPT: &str = "5bf92f3577b34da6a3ce929d0e0e4736";

#[tokio::test]
async fn webhooks_and_pushes_are_steps_of_their_notifications_trace_and_say_so() {
    let (receiver, collector) = (Receiver::start().await, Collector::start().await);
    let files = Files::new(&receiver, &[("pager", receiver.url("/pager"))], "");
    let Some(ingest) = Ingest::start_with(POLICY, &[]).await else {
        return;
    };
    // What is stored here carries no trace: this one has no collector.
    let path = files.path();
    let sending = Process::start(
        &ingest.nats.url(),
        ingest.dir(),
        &[
            ("ROOMCAST_SINKS_FILE", path.as_str()),
            ("ROOMCAST_TRACES_ENDPOINT", collector.url.as_str()),
            ("ROOMCAST_TRACES_SAMPLE", "0.000000001"),
        ],
    )
    .await;
    begun(&ingest).await;
    let device = Device::new(receiver.url("/phone"));
    registered(&ingest, &device).await;
    let url = format!("{}/v1/events", sending.url);
    let token = ingest.token("desk");
    // Its first attempt fails: each is a step of its own.
    receiver.say("/pager", Says::Status(503, ""));
    let parents = [
        ("kept", Some(format!("00-{KEPT}-{PUBLISHER}-01"))),
        ("unkept", Some(format!("00-{UNKEPT}-{PUBLISHER}-00"))),
        ("none", None),
    ];
    for (id, parent) in &parents {
        let event = json!({ "type": "notification.late", "room": "notifications", "id": id, "data": { "title": id } });
        let headers: Vec<(&str, &str)> = parent
            .iter()
            .map(|parent| ("traceparent", parent.as_str()))
            .collect();
        let answer = ingest
            .http
            .post_with(&url, &token, JSON, &headers, event.to_string())
            .await
            .unwrap();
        assert_eq!(answer.json()["status"], "stored", "{}", answer.text());
    }
    eventually("all were tried", PATIENCE, || async {
        let mut tried = ids(&receiver.received("/pager"));
        tried.sort();
        tried.dedup();
        tried.len() == parents.len()
    })
    .await;
    receiver.say("/pager", Says::Status(200, ""));
    let steps = async |name: &str, is: fn(&Told) -> bool| {
        let start = tokio::time::Instant::now();
        loop {
            let told = collector.of(KEPT);
            let found: Vec<Told> = told
                .iter()
                .filter(|step| step.name == name && is(step))
                .cloned()
                .collect();
            if !found.is_empty() {
                return found;
            }
            assert!(start.elapsed() < PATIENCE, "no {name} among {told:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let answer = |step: &Told| step.attributes["roomcast.answer"].clone();
    let stored = steps("publish STATE", |_| true).await;
    let failed = steps("post webhook", |step| step.failed).await;
    let taken = steps("post webhook", |step| !step.failed).await;
    let pushed = steps("post push", |_| true).await;
    assert_eq!(
        (answer(&failed[0]).as_str(), answer(&taken[0]).as_str()),
        ("status", "taken")
    );
    for step in failed.iter().chain(&taken).chain(&pushed) {
        assert_eq!(step.parent, stored[0].id, "{step:#?}");
        assert_eq!(step.attributes["cloudevents.event_id"], "kept");
    }
    assert_eq!((pushed.len(), taken.len()), (1, 1));

    // The receiver hears the attempt's own step, and whoever has no trace, nothing.
    let heard = |id: &str| -> Vec<Option<String>> {
        let all = receiver.received("/pager");
        let of = all.iter().filter(|one| ids(std::slice::from_ref(*one)) == [id]);
        of.map(|one| one.headers.get("traceparent").cloned()).collect()
    };
    let kept = heard("kept");
    assert_eq!(kept.last(), Some(&Some(format!("00-{KEPT}-{}-01", taken[0].id))));
    assert_eq!(kept[0], Some(format!("00-{KEPT}-{}-01", failed[0].id)));
    assert!(
        heard("unkept").iter().all(|heard| *heard == parents[1].1),
        "as it came"
    );
    assert!(heard("none").iter().all(Option::is_none));
    assert_eq!(collector.of(UNKEPT), []);
    // The push service hears nothing of it, the device does.
    eventually("the device was told", PATIENCE, || async {
        receiver.received("/phone").len() == parents.len()
    })
    .await;
    for request in receiver.received("/phone") {
        assert_eq!(request.headers.get("traceparent"), None);
        let push = device.read(&request.body).unwrap();
        let expected = match push["id"].as_str().unwrap() {
            "kept" => json!(format!("00-{KEPT}-{}-01", pushed[0].id)),
            "unkept" => json!(parents[1].1),
            _ => json!(null),
        };
        assert_eq!(push["traceparent"], expected, "{push}");
    }
    sending.kill().await;
}
