//! Devices: whose they are, which are kept, and which are let be.

use roomcast_harness::eventually;
use roomcast_harness::receiver::{Device, Receiver, Says};
use serde_json::{Value, json};

use super::{Files, PATIENCE, POLICY, ask, notify, register, until_empty, until_ended};
use crate::fixture::Ingest;

#[tokio::test]
async fn devices_are_their_users_and_strange_ones_are_not_kept() {
    let receiver = Receiver::start().await;
    let files = Files::new(&receiver, &[], "");
    let Some(ingest) = files.start().await else {
        return;
    };
    let gateway = ingest.nats.connect("gw").await;
    let good = Device::new(receiver.url("/a"));
    let registered = register(&gateway, "u1", "user", &good).await;
    let id = registered["device"].as_str().unwrap().to_owned();
    assert_eq!(
        register(&gateway, "u1", "user", &good).await["device"],
        id.as_str(),
        "the same again"
    );
    let list = async |user: &str| ask(&gateway, "devices.list", json!({ "user": user })).await;
    let listed = list("u1").await;
    assert_eq!(listed["devices"].as_array().map(Vec::len), Some(1), "{listed}");
    assert!(!listed.to_string().contains("localhost"), "{listed}");
    assert_eq!(listed["publicKey"].as_str().map(str::len), Some(87));
    assert_eq!(list("u2").await["devices"], json!([]));
    // Another's is answered like one that is not there, and stays.
    for device in [id.as_str(), "nothing"] {
        let body = json!({ "user": "u2", "device": device });
        assert_eq!(ask(&gateway, "devices.remove", body).await, json!({}));
    }
    assert_eq!(list("u1").await["devices"].as_array().map(Vec::len), Some(1));
    let body = json!({ "user": "u1", "device": id });
    assert_eq!(ask(&gateway, "devices.remove", body).await, json!({}));
    assert_eq!(list("u1").await["devices"], json!([]));

    let subscription = good.subscription();
    let with = |name: &str, value: Value| {
        let mut other = subscription.clone();
        other[name] = value;
        other
    };
    let endpoint = |text: String| with("endpoint", text.into());
    let holder = json!({ "user": "u1", "roles": ["user"] });
    let rows = [
        (
            endpoint(format!("http://localhost:{}/a", receiver.port)),
            "subscription.endpoint: ",
        ),
        (
            endpoint("https://localhost/a".to_owned()),
            "subscription.endpoint: ",
        ),
        (
            endpoint("https://push.example/a".to_owned()),
            "subscription.endpoint: ",
        ),
        (
            endpoint("https://169.254.169.254/a".to_owned()),
            "subscription.endpoint: ",
        ),
        (
            endpoint(format!(
                "https://localhost:{}/{}",
                receiver.port,
                "a".repeat(1_024)
            )),
            "subscription.endpoint: ",
        ),
        (endpoint(String::new()), "subscription.endpoint: "),
        (
            with("keys", json!({ "p256dh": "AAAA", "auth": "AAAA" })),
            "subscription.keys: ",
        ),
    ];
    for (subscription, place) in rows {
        let body = json!({ "holder": holder, "subscription": subscription });
        let answer = ask(&gateway, "devices.register", body).await;
        assert_eq!(answer["code"], "bad_request", "{subscription}: {answer}");
        let said = answer["message"].as_str().unwrap();
        assert!(said.starts_with(place), "{subscription}: {answer}");
    }
    let mut large = holder.clone();
    large["claims"] = json!({ "c": "x".repeat(7_000) });
    let body = json!({ "holder": large, "subscription": subscription });
    assert_eq!(ask(&gateway, "devices.register", body).await["code"], "too_large");
    for n in 0..12 {
        let device = Device::new(receiver.url(&format!("/{n}")));
        register(&gateway, "u3", "user", &device).await;
    }
    assert_eq!(list("u3").await["devices"].as_array().map(Vec::len), Some(10));
}

#[tokio::test]
async fn without_a_file_there_are_no_devices() {
    let Some(ingest) = Ingest::start_with(POLICY, &[]).await else {
        return;
    };
    let gateway = ingest.nats.connect("gw").await;
    let answer = ask(&gateway, "devices.list", json!({ "user": "u1" })).await;
    assert_eq!(answer["code"], "not_found", "{answer}");
}

#[tokio::test]
async fn devices_that_are_gone_revoked_or_not_to_be_disturbed_are_let_be() {
    let receiver = Receiver::start().await;
    let files = Files::new(&receiver, &[], "");
    let Some(ingest) = files.start().await else {
        return;
    };
    let gateway = ingest.nats.connect("gw").await;
    for user in ["gone", "muted", "revoked", "reader", "fine"] {
        let device = Device::new(receiver.url(&format!("/{user}")));
        register(&gateway, user, "user", &device).await;
    }
    receiver.say("/gone", Says::Status(410, ""));
    let set = json!({ "user": "muted", "set": { "mute": { "types": ["notification.late"] } } });
    ask(&gateway, "readstate.preferences", set).await;
    let mark = json!({ "user": "reader", "as": "read", "notifications": [{ "id": "n1", "at": 5 }] });
    ask(&gateway, "readstate.mark", mark).await;
    let entry = json!({ "name": "revoked" }).to_string();
    let admin = ingest.nats.connect("admin").await;
    let acked = admin
        .request("$KV.acl.user.main.revoked", entry.into())
        .await
        .unwrap();
    assert!(!String::from_utf8_lossy(&acked.payload).contains("error"));
    eventually("the revoked one is taken out", PATIENCE, || async {
        ingest.metric("roomcast_ingest_sink_devices_revoked_total") >= 1.0
    })
    .await;
    // One that was on its way when the user was revoked, from a gateway that had let it in before.
    let late = Device::new(receiver.url("/revoked"));
    register(&gateway, "revoked", "user", &late).await;
    eventually("the late one is taken out", PATIENCE, || async {
        ingest.metric("roomcast_ingest_sink_devices_revoked_total") >= 2.0
    })
    .await;
    notify(&ingest, "notifications", "all", "n1").await;
    until_ended(&ingest, "push", "sent", 1.0).await;
    until_ended(&ingest, "push", "gone", 1.0).await;
    until_ended(&ingest, "push", "muted", 1.0).await;
    until_ended(&ingest, "push", "read", 1.0).await;
    until_empty(&ingest).await;
    for (user, requests) in [
        ("gone", 1),
        ("muted", 0),
        ("revoked", 0),
        ("reader", 0),
        ("fine", 1),
    ] {
        assert_eq!(receiver.received(&format!("/{user}")).len(), requests, "{user}");
    }
    for (user, devices) in [("gone", 0), ("revoked", 0), ("fine", 1)] {
        let listed = ask(&gateway, "devices.list", json!({ "user": user })).await;
        assert_eq!(
            listed["devices"].as_array().map(Vec::len),
            Some(devices),
            "{user}: {listed}"
        );
    }
    // A newer one takes the place of one that could not be pushed yet, and is pushed alone.
    receiver.say("/fine", Says::Status(500, ""));
    let update = |id: &str| json!({ "type": "notification.alert", "room": "notifications", "id": id, "dedupkey": "alert", "data": { "title": id } });
    assert_eq!(ingest.publish(&update("fires")).await["status"], "stored");
    eventually("it was tried", PATIENCE, || async {
        receiver.received("/fine").len() > 1
    })
    .await;
    assert_eq!(ingest.publish(&update("over")).await["status"], "stored");
    until_ended(&ingest, "push", "superseded", 1.0).await;
    receiver.say("/fine", Says::Status(201, ""));
    until_empty(&ingest).await;
}
