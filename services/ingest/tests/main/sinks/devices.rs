//! Devices: whose they are, which are kept, and which are let be.

use roomcast_harness::eventually;
use roomcast_harness::receiver::{Device, Receiver, Says};
use roomcast_proto::stream::{Sizing, definitions};
use roomcast_proto::subject::{devices_key, stream};
use serde_json::{Value, json};

use super::{Files, PATIENCE, POLICY, ask, notify, register, until_empty, until_ended};
use crate::fixture::{Ingest, JSON};
use crate::process::Process;

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

/// The instance that sends goes, and another one, which reads all devices anew, tells of this event.
async fn told_by_another(ingest: &Ingest, files: &Files, event: &Value) -> Process {
    ingest.context.shutdown.request();
    let path = files.path();
    let another = Process::start(
        &ingest.nats.url(),
        ingest.dir(),
        &[("ROOMCAST_SINKS_FILE", &path)],
    )
    .await;
    let url = format!("{}/v1/events", another.url);
    let token = ingest.token("desk");
    let answer = ingest.http.post(&url, &token, JSON, event.to_string()).await;
    assert_eq!(answer.unwrap().json()["status"], "stored");
    another
}

/// Bob leaves a browser without unregistering it, and Alice signs in there. Her device is removed from afar, and the page that Bob opens on
/// his phone rewrites his record: what he is told is shown on his phone alone, also by an instance that reads all of it anew.
#[tokio::test]
async fn a_browser_does_not_go_back_to_the_user_before() {
    let receiver = Receiver::start().await;
    let files = Files::new(&receiver, &[], "");
    let Some(ingest) = files.start().await else {
        return;
    };
    let gateway = ingest.nats.connect("gw").await;
    let [browser, phone] = ["/browser", "/phone"].map(|path| Device::new(receiver.url(path)));
    register(&gateway, "bob", "user", &browser).await;
    let registered = register(&gateway, "alice", "user", &browser).await;
    let body = json!({ "user": "alice", "device": registered["device"] });
    assert_eq!(ask(&gateway, "devices.remove", body).await, json!({}));
    let listed = ask(&gateway, "devices.list", json!({ "user": "alice" })).await;
    assert_eq!(listed["devices"], json!([]));
    register(&gateway, "bob", "user", &phone).await;
    notify(&ingest, "user.bob", "all", "n1").await;
    until_ended(&ingest, "push", "sent", 1.0).await;
    until_empty(&ingest).await;
    let told = || ["/browser", "/phone"].map(|path| receiver.received(path).len());
    assert_eq!(told(), [0, 1]);
    let event =
        json!({ "type": "notification.late", "room": "user.bob", "id": "n2", "data": { "title": "t" } });
    let another = told_by_another(&ingest, &files, &event).await;
    eventually("the next one is told", PATIENCE, || async { told()[1] == 2 }).await;
    until_empty(&ingest).await;
    assert_eq!(told(), [0, 2]);
    another.kill().await;
}

/// The bucket of devices is lost and made anew, with less in it than was read of it before; and its last record ends with its time.
#[tokio::test]
async fn all_devices_are_known_of_a_bucket_that_is_new_or_has_lost_its_end() {
    let receiver = Receiver::start().await;
    let files = Files::new(&receiver, &[], "");
    let Some(ingest) = files.start().await else {
        return;
    };
    let gateway = ingest.nats.connect("gw").await;
    let admin = ingest.nats.connect("admin").await;
    for path in ["/a", "/b", "/c"] {
        register(&gateway, "u1", "user", &Device::new(receiver.url(path))).await;
    }
    notify(&ingest, "user.u1", "all", "n1").await;
    until_ended(&ingest, "push", "sent", 3.0).await;
    let subject = format!("$JS.API.STREAM.DELETE.{}", stream::DEVICES);
    let answer = admin.request(subject, "".into()).await.unwrap();
    assert!(!String::from_utf8_lossy(&answer.payload).contains("error"));
    let definition = definitions(&Sizing::DEVELOPMENT)
        .into_iter()
        .find(|definition| definition.name == stream::DEVICES)
        .unwrap();
    ingest.streams.create_stream(&definition.config).await.unwrap();
    register(&gateway, "u2", "user", &Device::new(receiver.url("/d"))).await;
    notify(&ingest, "notifications", "all", "n2").await;
    until_ended(&ingest, "push", "sent", 4.0).await;
    until_empty(&ingest).await;
    let told = || ["/a", "/b", "/c", "/d"].map(|path| receiver.received(path).len());
    assert_eq!(told(), [1, 1, 1, 1]);

    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-TTL", "1s");
    let key = devices_key(&roomcast_proto::ids::Tenant::default(), "u3");
    let kept = admin
        .request_with_headers(key.clone(), headers, r#"{"devices":[]}"#.into())
        .await
        .unwrap();
    assert!(!String::from_utf8_lossy(&kept.payload).contains("error"));
    eventually("the last record is over", PATIENCE, || async {
        let stored = ingest.stored(stream::DEVICES).await;
        stored.iter().all(|message| message.subject != key)
    })
    .await;
    let event =
        json!({ "type": "notification.late", "room": "notifications", "id": "n3", "data": { "title": "t" } });
    let another = told_by_another(&ingest, &files, &event).await;
    eventually("the next one is told", PATIENCE, || async { told()[3] == 2 }).await;
    another.kill().await;
}
