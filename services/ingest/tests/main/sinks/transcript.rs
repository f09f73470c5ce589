//! What goes out of the house, word for word: `deploy/operations/sinks.txt` is what local receivers of this test hear.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use roomcast_harness::receiver::{Device, Received, Receiver, Says};
use roomcast_harness::{eventually, repository};
use roomcast_proto::subject::stream;
use serde_json::{Value, json};

use super::{Files, PATIENCE, ask, is_signed, register, until_empty};
use crate::fixture::{JSON, header};

const FILE: &str = "deploy/operations/sinks.txt";
const EVENT: &str = r#"{
    "type": "notification.alert", "room": "notifications", "id": "a-1", "source": "desk", "dedupkey": "revenue", "priority": "critical",
    "time": "2026-03-01T12:00:00Z", "expirytime": "2099-01-01T00:00:00Z",
    "data": {"title":"Revenue down 31 %","body":"1,000 EUR","link":"/metrics/revenue"}
}"#;

/// What is another one each time gives way to its name.
fn shown(name: &str, value: &str, port: u16) -> String {
    match name {
        "host" => value.replace(&port.to_string(), "PORT"),
        "user-agent" => format!("{}/VERSION", value.split('/').next().unwrap_or_default()),
        "content-length" => "LENGTH".to_owned(),
        "webhook-timestamp" => "SECONDS".to_owned(),
        "webhook-signature" => "v1,SIGNATURE".to_owned(),
        "authorization" => {
            let token = value
                .strip_prefix("vapid t=")
                .and_then(|rest| rest.split(',').next());
            let claims = token.and_then(|token| token.split('.').nth(1)).unwrap();
            let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
            claims["exp"] = json!("SECONDS");
            let claims = sorted(&claims).replace(&port.to_string(), "PORT");
            format!("vapid t=TOKEN of {claims}, k=KEY")
        }
        _ => value.to_owned(),
    }
}

/// An object by its names, whatever it was read into.
fn sorted(object: &Value) -> String {
    let members: BTreeMap<&String, &Value> = object.as_object().unwrap().iter().collect();
    serde_json::to_string(&members).unwrap()
}

/// A request and what was answered.
fn request(text: &mut String, one: &Received, port: u16, body: &str, answer: &str) {
    let _ = writeln!(text, "POST {} HTTP/1.1", one.path);
    let mut names: Vec<&String> = one.headers.keys().collect();
    names.sort();
    for name in names {
        let _ = writeln!(text, "{name}: {}", shown(name, &one.headers[name], port));
    }
    let _ = writeln!(text, "\n{body}\n\n    {answer}\n");
}

#[tokio::test]
async fn the_transcript_in_the_documents_is_what_receivers_hear() {
    let receiver = Receiver::start().await;
    let hooks = [
        ("pager", receiver.url("/pager")),
        ("strict", receiver.url("/strict")),
    ];
    let files = Files::new(&receiver, &hooks, "");
    let Some(ingest) = files.start().await else {
        return;
    };
    let gateway = ingest.nats.connect("gw").await;
    let (phone, old) = (
        Device::new(receiver.url("/push/ada")),
        Device::new(receiver.url("/push/bob")),
    );
    register(&gateway, "ada", "staff", &phone).await;
    register(&gateway, "bob", "user", &old).await;
    receiver.say("/pager", Says::Status(503, "retry-after: 1\r\n"));
    receiver.say("/strict", Says::Status(400, ""));
    receiver.say("/push/bob", Says::Status(410, ""));
    let answer = ingest.post("desk", JSON, EVENT).await;
    assert_eq!(answer.json()["status"], "stored", "{}", answer.text());
    eventually("the first attempt is answered", PATIENCE, || async {
        !receiver.received("/pager").is_empty()
    })
    .await;
    receiver.say("/pager", Says::Status(200, ""));
    until_empty(&ingest).await;

    let mut text = "What local receivers hear of one notification; written and compared by services/ingest/tests/main/sinks/transcript.rs.\n\n".to_owned();
    let pager = receiver.received("/pager");
    assert!(pager.iter().all(is_signed));
    let again = "503, retry-after: 1: later again";
    for (one, answer) in [(&pager[0], again), (&pager[pager.len() - 1], "200: taken")] {
        request(
            &mut text,
            one,
            receiver.port,
            &String::from_utf8_lossy(&one.body),
            answer,
        );
    }
    for (path, device, answer) in [
        ("/push/ada", &phone, "201: taken"),
        ("/push/bob", &old, "410: the device is forgotten"),
    ] {
        let all = receiver.received(path);
        assert_eq!(all.len(), 1, "{path}");
        let body = device.read(&all[0].body).unwrap();
        let body = format!("encrypted for the device alone: {}", sorted(&body));
        request(&mut text, &all[0], receiver.port, &body, answer);
    }
    let strict = receiver.received("/strict");
    assert_eq!(strict.len(), 1);
    let body = String::from_utf8_lossy(&strict[0].body);
    assert_eq!(body, String::from_utf8_lossy(&pager[0].body));
    request(
        &mut text,
        &strict[0],
        receiver.port,
        "the same",
        "400: a dead letter",
    );
    let letters = ingest.stored(stream::DLQ).await;
    assert_eq!(letters.len(), 1);
    let _ = writeln!(text, "{}", letters[0].subject);
    for name in ["Rc-Reason", "Rc-Detail", "Rc-Origin", "Rc-Publisher"] {
        let _ = writeln!(text, "{name}: {}", header(&letters[0], name).unwrap());
    }
    let _ = writeln!(text, "\nthe same");
    let listed = ask(&gateway, "devices.list", json!({ "user": "bob" })).await;
    assert_eq!(listed["devices"], json!([]));

    let seen = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sinks.txt");
    std::fs::write(&seen, &text).unwrap();
    let written = std::fs::read_to_string(repository().join(FILE)).unwrap_or_default();
    assert!(
        text == written,
        "{FILE} is not what was heard, which is in {}",
        seen.display()
    );
}
