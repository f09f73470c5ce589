//! What a receiver has said for good is not asked again, whatever keeps it from being carried out.

use roomcast_harness::eventually;
use roomcast_harness::nats::change_stream;
use roomcast_harness::receiver::{Device, Receiver, Says};
use roomcast_proto::subject::stream;
use serde_json::json;

use super::{Files, PATIENCE, ask, notify, register, until_empty, until_ended};

/// Neither dead letters can be kept for a while nor devices be forgotten. Meanwhile one receiver is asked again and again, as it wants to be; those that said no are not.
#[tokio::test]
async fn who_said_no_is_not_asked_again_while_that_cannot_be_carried_out() {
    let receiver = Receiver::start().await;
    let hooks = ["later", "refuses"].map(|name| (name, receiver.url(&format!("/{name}"))));
    let files = Files::new(&receiver, &hooks, "");
    let Some(ingest) = files.start().await else {
        return;
    };
    let gateway = ingest.nats.connect("gw").await;
    for path in ["/device", "/gone"] {
        register(&gateway, "u1", "user", &Device::new(receiver.url(path))).await;
    }
    receiver.say("/later", Says::Status(503, "retry-after: 1\r\n"));
    receiver.say("/refuses", Says::Status(400, ""));
    receiver.say("/device", Says::Status(400, ""));
    receiver.say("/gone", Says::Status(410, ""));
    let admin = ingest.nats.connect("admin").await;
    let mut before = Vec::new();
    for stream in [stream::DLQ, stream::DEVICES] {
        let away = json!([format!("away.{stream}.>")]);
        let subjects = change_stream(&admin, stream, "subjects", away).await;
        before.push((stream, subjects.unwrap()));
    }
    notify(&ingest, "notifications", "all", "n1").await;
    eventually("what is to be tried again was", PATIENCE, || async {
        receiver.received("/later").len() >= 5
    })
    .await;
    let asked = || ["/refuses", "/device", "/gone"].map(|path| receiver.received(path).len());
    assert_eq!(asked(), [1, 1, 1]);
    for (stream, subjects) in before {
        change_stream(&admin, stream, "subjects", subjects).await.unwrap();
    }
    until_ended(&ingest, "webhook", "dead", 1.0).await;
    until_ended(&ingest, "push", "dead", 1.0).await;
    until_ended(&ingest, "push", "gone", 1.0).await;
    receiver.say("/later", Says::Status(200, ""));
    until_empty(&ingest).await;
    assert_eq!(asked(), [1, 1, 1]);
    assert_eq!(ingest.stored(stream::DLQ).await.len(), 2, "and each is kept once");
    let listed = ask(&gateway, "devices.list", json!({ "user": "u1" })).await;
    assert_eq!(listed["devices"].as_array().map(Vec::len), Some(1), "{listed}");
}
