//! Notifications out of the house: webhooks and pushes to local receivers over TLS, refused, hanging, gone, and with ingest killed.

mod devices;
mod hanging;
mod kills;
mod traces;
mod transcript;
mod verdicts;

use std::collections::HashMap;
use std::time::Duration;

use async_nats::Client;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roomcast_harness::receiver::{Device, Received, Receiver, Says};
use roomcast_harness::{eventually, repository};
use roomcast_proto::subject::{SINKS_POSITION, stream};
use serde_json::{Value, json};

use crate::fixture::{Ingest, JSON, header};
use crate::process::Process;

/// A busy machine may take its time.
const PATIENCE: Duration = Duration::from_secs(40);

const POLICY: &str = r#"
version: 1
roles:
  user:   { permissions: [news.view] }
  staff:  { inherits: [user], permissions: [money.view] }
  desk:   { permissions: [news.publish] }
rooms:
  - room: notifications
    subscribe: news.view
    publish: news.publish
    auto_join: true
    redact: [{ unless: money.view, remove: [/body] }]
  - { room: noise, subscribe: news.view, publish: news.publish }
  - { room: "user.{user}", publish: news.publish }
publishers:
  - { nats: main/publisher, roles: [desk] }
"#;

const SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The files of an operator who has these webhooks at a receiver.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new(receiver: &Receiver, webhooks: &[(&str, String)], more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let copy = |from: &str, to: &str| {
            std::fs::copy(repository().join(from), dir.path().join(to)).unwrap();
        };
        copy("services/sinks/tests/vapid.pem", "vapid.pem");
        copy("proto/tests/tls/ca.pem", "ca.pem");
        std::fs::write(dir.path().join("secret"), format!("whsec_{SECRET}\n")).unwrap();
        let mut text = format!(
            "push: {{ key_file: vapid.pem, contact: \"mailto:ops@desk.example\", hosts: [\"localhost:{}\"] }}\n\
             private: [127.0.0.1/32, \"::1/128\"]\nca_file: ca.pem\n{more}\n",
            receiver.port
        );
        if !webhooks.is_empty() {
            text.push_str("webhooks:\n");
        }
        for (name, url) in webhooks {
            text.push_str(&format!(
                "  - {{ name: {name}, url: \"{url}\", secret_file: secret, rooms: [notifications] }}\n"
            ));
        }
        std::fs::write(dir.path().join("sinks.yaml"), text).unwrap();
        Self { dir }
    }

    fn path(&self) -> String {
        self.dir.path().join("sinks.yaml").display().to_string()
    }

    /// An ingest that sends, and has begun to: what is published from now on is news.
    async fn start(&self) -> Option<Ingest> {
        let ingest = Ingest::start_with(POLICY, &[("ROOMCAST_SINKS_FILE", &self.path())]).await?;
        begun(&ingest).await;
        Some(ingest)
    }
}

async fn begun(ingest: &Ingest) {
    eventually("sending has begun", PATIENCE, || async {
        let stored = ingest.stored(stream::SINKS).await;
        stored.iter().any(|message| message.subject == SINKS_POSITION)
    })
    .await;
}

async fn ask(gateway: &Client, what: &str, body: Value) -> Value {
    let answer = gateway
        .request(format!("svc.main.{what}"), body.to_string().into())
        .await;
    serde_json::from_slice(&answer.unwrap().payload).unwrap()
}

async fn register(gateway: &Client, user: &str, role: &str, device: &Device) -> Value {
    let holder = json!({ "user": user, "roles": [role], "issued_at": 1_700_000_000 });
    let body = json!({ "holder": holder, "subscription": device.subscription() });
    ask(gateway, "devices.register", body).await
}

async fn notify(ingest: &Ingest, room: &str, audience: &str, id: &str) {
    let event = json!({
        "type": "notification.late", "room": room, "audience": audience, "id": id, "priority": "high",
        "data": { "title": format!("Title {id}"), "body": "1,000 EUR" },
    });
    let answer = ingest.publish(&event).await;
    assert_eq!(answer["status"], "stored", "{answer}");
}

fn ended(ingest: &Ingest, sink: &str, end: &str) -> f64 {
    ingest.metric(&format!(
        r#"roomcast_ingest_sink_ended_total{{end="{end}",sink="{sink}"}}"#
    ))
}

async fn until_ended(ingest: &Ingest, sink: &str, end: &str, count: f64) {
    let what = format!("{count} {sink} {end}");
    eventually(&what, PATIENCE, || async { ended(ingest, sink, end) >= count }).await;
}

/// Registers a device of `u1` with whichever instance sends: another one may be asked and has no devices.
async fn registered(ingest: &Ingest, device: &Device) {
    let gateway = ingest.nats.connect("gw").await;
    eventually("the device is registered", PATIENCE, || async {
        register(&gateway, "u1", "staff", device).await["device"].is_string()
    })
    .await;
}

/// Whether nothing waits any more: the position alone is left.
async fn until_empty(ingest: &Ingest) {
    eventually("nothing waits", PATIENCE, || async {
        ingest.stored(stream::SINKS).await.len() == 1
    })
    .await;
}

/// What a receiver of webhooks checks.
fn is_signed(request: &Received) -> bool {
    let [id, at, signature] =
        ["webhook-id", "webhook-timestamp", "webhook-signature"].map(|name| request.headers[name].as_str());
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(SECRET).unwrap());
    let signed = [format!("{id}.{at}.").as_bytes(), &request.body].concat();
    let signature = STANDARD.decode(signature.strip_prefix("v1,").unwrap()).unwrap();
    hmac::verify(&key, &signed, &signature).is_ok()
}

fn ids(requests: &[Received]) -> Vec<String> {
    let id = |request: &Received| {
        let event: Value = serde_json::from_slice(&request.body).unwrap();
        event["id"].as_str().unwrap().to_owned()
    };
    requests.iter().map(id).collect()
}

#[tokio::test]
async fn each_webhook_and_each_device_is_told_once_of_what_it_may_see() {
    let receiver = Receiver::start().await;
    let files = Files::new(&receiver, &[("pager", receiver.url("/pager"))], "");
    let Some(ingest) = files.start().await else {
        return;
    };
    let gateway = ingest.nats.connect("gw").await;
    let device = |path: &str| Device::new(receiver.url(path));
    let (phone, laptop, other) = (device("/phone"), device("/laptop"), device("/other"));
    for (user, role, device) in [
        ("u1", "staff", &phone),
        ("u1", "staff", &laptop),
        ("u/2", "user", &other),
    ] {
        let registered = register(&gateway, user, role, device).await;
        assert_eq!(
            registered["device"].as_str().map(str::len),
            Some(22),
            "{registered}"
        );
    }
    notify(&ingest, "notifications", "all", "for-all").await;
    notify(&ingest, "notifications", "staff", "for-staff").await;
    notify(&ingest, "user.u1", "all", "for-u1").await;
    until_ended(&ingest, "push", "sent", 7.0).await;
    until_ended(&ingest, "webhook", "sent", 2.0).await;
    until_empty(&ingest).await;

    let pushed = |path: &str, device: &Device| -> Vec<Value> {
        let received = receiver.received(path);
        let mut told: Vec<Value> = received
            .iter()
            .map(|one| device.read(&one.body).unwrap())
            .collect();
        told.sort_by_key(|one| one["id"].to_string());
        told
    };
    for (path, device) in [("/phone", &phone), ("/laptop", &laptop)] {
        let told = pushed(path, device);
        let told: Vec<&str> = told.iter().map(|one| one["id"].as_str().unwrap()).collect();
        assert_eq!(told, ["for-all", "for-staff", "for-u1"], "{path}");
    }
    let told = pushed("/other", &other);
    assert_eq!((told.len(), &told[0]["title"]), (1, &json!("Title for-all")));
    assert_eq!(told[0]["body"], Value::Null, "taken out for this role");
    assert_eq!(pushed("/phone", &phone)[0]["body"], "1,000 EUR");
    let one = &receiver.received("/phone")[0];
    assert!(laptop.read(&one.body).is_none(), "for this device alone");
    for (name, value) in [("content-encoding", "aes128gcm"), ("urgency", "high")] {
        assert_eq!(one.headers[name], value, "{name}");
    }
    assert_eq!(one.headers["topic"].len(), 32);
    assert!(one.headers["ttl"].parse::<u32>().unwrap() > 2_000_000);
    assert!(one.headers["authorization"].starts_with("vapid t="));

    let webhooks = receiver.received("/pager");
    assert!(webhooks.iter().all(is_signed));
    let mut told = ids(&webhooks);
    told.sort();
    assert_eq!(
        told,
        ["for-all", "for-staff"],
        "personal rooms are not in its list"
    );
    assert_eq!(
        webhooks[0].headers["content-type"],
        "application/cloudevents+json"
    );
    assert!(webhooks[0].headers["webhook-id"].starts_with("msg_"));

    // Told by whoever was told before: a second instance, which takes over, sends nothing again.
    let first = receiver.received("/pager").len() + receiver.received("/phone").len();
    ingest.context.shutdown.request();
    let again = Process::start(
        &ingest.nats.url(),
        ingest.dir(),
        &[("ROOMCAST_SINKS_FILE", &files.path())],
    )
    .await;
    let url = format!("{}/v1/events", again.url);
    let event = json!({ "type": "notification.late", "room": "notifications", "id": "later", "data": { "title": "t" } });
    let answer = ingest
        .http
        .post(&url, &ingest.token("desk"), JSON, event.to_string())
        .await
        .unwrap();
    assert_eq!(answer.json()["status"], "stored");
    eventually("the next one is told", PATIENCE, || async {
        ids(&receiver.received("/pager")).contains(&"later".to_owned())
            && receiver.received("/phone").len() == 4
    })
    .await;
    assert_eq!(
        receiver.received("/pager").len() + receiver.received("/phone").len(),
        first + 2
    );
}

#[tokio::test]
async fn receivers_that_fail_hang_or_lead_elsewhere_hold_up_nobody() {
    let receiver = Receiver::start().await;
    let other = format!("https://127.0.0.2:{}/other", receiver.port);
    let webhooks = [
        ("good", receiver.url("/good")),
        ("fails", receiver.url("/fails")),
        ("hangs", receiver.url("/hangs")),
        ("elsewhere", receiver.url("/elsewhere")),
        ("private", other),
        ("refuses", receiver.url("/refuses")),
    ];
    let files = Files::new(&receiver, &webhooks, "give_up_seconds: 4");
    receiver.say("/fails", Says::Status(503, "retry-after: 1\r\n"));
    receiver.say("/hangs", Says::Silence);
    let location: &'static str =
        Box::leak(format!("location: {}\r\n", receiver.url("/trap")).into_boxed_str());
    receiver.say("/elsewhere", Says::Status(302, location));
    receiver.say("/refuses", Says::Status(400, ""));
    let Some(ingest) = files.start().await else {
        return;
    };
    for n in 0..3 {
        notify(&ingest, "notifications", "all", &format!("n{n}")).await;
    }
    // Those that are good, or tell at once that they never will be, do not wait for the others.
    until_ended(&ingest, "webhook", "sent", 3.0).await;
    eventually("it was asked again", PATIENCE, || async {
        receiver.received("/fails").len() > 3
    })
    .await;
    receiver.say("/fails", Says::Status(200, ""));
    until_ended(&ingest, "webhook", "sent", 6.0).await;
    until_ended(&ingest, "webhook", "dead", 12.0).await;
    until_empty(&ingest).await;
    assert_eq!(ended(&ingest, "webhook", "sent"), 6.0);

    let mut told = ids(&receiver.received("/good"));
    told.sort();
    assert_eq!(told, ["n0", "n1", "n2"]);
    // The same name at each attempt, and each attempt signed for its own time.
    let mut names: HashMap<String, Vec<String>> = HashMap::new();
    for request in receiver.received("/fails") {
        assert!(is_signed(&request));
        let id = ids(std::slice::from_ref(&request)).remove(0);
        names
            .entry(id)
            .or_default()
            .push(request.headers["webhook-id"].clone());
    }
    assert_eq!(names.len(), 3);
    assert!(names.values_mut().all(|names| {
        names.dedup();
        names.len() == 1
    }));
    assert!(receiver.received("/trap").is_empty(), "nobody follows");
    assert!(receiver.received("/other").is_empty(), "nobody listed it");
    assert_eq!(receiver.received("/refuses").len(), 3, "once each");
    let attempts = |answer: &str| {
        let line = format!(r#"roomcast_ingest_sink_attempts_total{{answer="{answer}",sink="webhook"}}"#);
        ingest.metric(&line)
    };
    for answer in ["taken", "status", "slow", "redirect", "address", "refused"] {
        assert!(attempts(answer) >= 3.0, "{answer}");
    }
    let letters = ingest.stored(stream::DLQ).await;
    // Nobody is given up before the time that the operator stated, and who refuses for good is at once.
    let published: HashMap<String, i64> = ingest
        .stored(stream::STATE)
        .await
        .into_iter()
        .map(|message| {
            let event: Value = serde_json::from_slice(&message.payload).unwrap();
            (event["id"].as_str().unwrap().to_owned(), message.time_micros)
        })
        .collect();
    for letter in &letters {
        let event: Value = serde_json::from_slice(&letter.payload).unwrap();
        let age = letter.time_micros - published[event["id"].as_str().unwrap()];
        let at_once = header(letter, "Rc-Origin").unwrap().contains("refuses");
        assert!(at_once || age >= 4_000_000, "{letter:?} after {age} µs");
    }
    let mut origins: Vec<&str> = letters
        .iter()
        .map(|letter| header(letter, "Rc-Origin").unwrap())
        .collect();
    origins.sort_unstable();
    origins.dedup();
    let expected = ["elsewhere", "hangs", "private", "refuses"].map(|name| format!("\"webhook/{name}\""));
    assert_eq!(
        (letters.len(), origins),
        (12, expected.iter().map(String::as_str).collect())
    );
    assert!(
        letters
            .iter()
            .all(|letter| letter.subject == "dlq.main.undelivered")
    );
}
