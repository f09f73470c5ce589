//! Every refusal says whether the same request may succeed later: by `Retry-After` and `retryAfterMs` over HTTP, by `temporary` and
//! `retryAfterMs` over NATS and in batches. A publisher decides by that alone whether to repeat or to give up.

use std::time::Duration;

use http_body_util::Full;
use roomcast_harness::http::Answer;
use serde_json::{Value, json};

use crate::fixture::{BATCH, Ingest, JSON, POLICY, aged_id, event};

/// What a publisher does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Repeats it, later.
    Temporary,
    /// Never repeats it unchanged.
    Final,
}

use Class::{Final, Temporary};

#[track_caller]
fn check_http(answer: &Answer, status: u16, code: &str, class: Class) {
    let said = answer.json();
    assert_eq!(
        (answer.status, said["code"].as_str()),
        (status, Some(code)),
        "{said}"
    );
    let seconds: Option<u64> = answer.header("retry-after").map(|secs| secs.parse().unwrap());
    assert_eq!(seconds.is_some(), class == Temporary, "{code}: {seconds:?}");
    assert_eq!(said["retryAfterMs"].is_u64(), class == Temporary, "{said}");
    if let (Some(seconds), Some(millis)) = (seconds, said["retryAfterMs"].as_u64()) {
        assert_eq!(
            seconds,
            millis.div_ceil(1_000).max(1),
            "the header is rounded up: {said}"
        );
    }
}

/// A refusal over NATS, or one event's in a batch.
#[track_caller]
fn check_element(said: &Value, code: &str, class: Class) {
    assert_eq!(said["code"], code, "{said}");
    assert_eq!(said["temporary"], class == Temporary, "{said}");
    assert_eq!(said["retryAfterMs"].is_u64(), class == Temporary, "{said}");
}

async fn send(ingest: &Ingest, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = http::Request::builder()
        .method(method)
        .uri(format!("{}{path}", ingest.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Full::new(body.to_owned().into());
    ingest.http.send(request.body(body).unwrap()).await.unwrap()
}

async fn ask(ingest: &Ingest, subject: &str, body: &Value) -> Value {
    let nats = ingest.nats.connect("publisher").await;
    let answer = nats
        .request(subject.to_owned(), body.to_string().into())
        .await
        .unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

fn with(name: &str, value: Value) -> Value {
    let mut event = json!({ "type": "t", "room": "bookings" });
    event[name] = value;
    event
}

#[tokio::test]
async fn what_is_wrong_with_an_event_is_final_by_every_door() {
    let Some(ingest) = Ingest::start_with(POLICY, &[("ROOMCAST_ROOM_KEYS_MAX", "1")]).await else {
        return;
    };
    assert_eq!(ingest.publish(&event("known")).await["status"], "stored");
    let key = |key: &str| {
        let mut event = with("statekey", json!(key));
        event["delivery"] = json!("state");
        event
    };
    assert_eq!(ingest.publish(&key("one")).await["status"], "stored");
    let mut other = event("known");
    other["data"] = json!(2);
    let rows: [(Value, u16, &str); 14] = [
        (json!("text"), 400, "bad_json"),
        (with("type", json!("")), 400, "bad_event"),
        (with("priority", json!("urgent")), 400, "bad_event"),
        (with("room", json!("a..b")), 400, "bad_room"),
        (with("time", json!("noon")), 400, "bad_time"),
        (with("data", nested(40)), 400, "too_deep"),
        (with("data", json!("x".repeat(70_000))), 413, "too_large"),
        (with("room", json!("secret")), 403, "forbidden"),
        (with("audience", json!("boss")), 422, "unknown_audience"),
        (
            with("expirytime", json!("2020-01-01T00:00:00Z")),
            422,
            "event_expired",
        ),
        (event(&aged_id(100)), 422, "late"),
        (key("two"), 422, "too_many_keys"),
        (other, 409, "conflict"),
        (
            json!({ "type": "notification.x", "room": "bookings", "data": 1 }),
            400,
            "bad_event",
        ),
    ];
    for (body, status, code) in &rows {
        let answer = ingest.post("desk", JSON, body.to_string()).await;
        check_http(&answer, *status, code, Final);
        // In a batch an event is no whole request: there are no elements in what is not readable at all.
        let answer = ingest
            .post("desk", BATCH, Value::from(vec![body.clone()]).to_string())
            .await;
        check_element(&answer.json()["results"][0], code, Final);
    }
    // Over NATS the room stands in the subject.
    for (subject, body, code) in [
        ("in.bookings.staff", json!({ "type": "" }), "bad_event"),
        (
            "in.bookings.staff",
            json!({ "type": "t", "id": aged_id(100) }),
            "late",
        ),
        ("in.bookings.boss", json!({ "type": "t" }), "unknown_audience"),
        ("in.secret.all", json!({ "type": "t" }), "forbidden"),
        ("in.book$ings.all", json!({ "type": "t" }), "bad_room"),
        (
            "in.bookings.all",
            json!({ "type": "t", "room": "notifications" }),
            "bad_room",
        ),
    ] {
        check_element(&ask(&ingest, subject, &body).await, code, Final);
    }
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inside, _| json!([inside]))
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_final() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let bearer = format!("Bearer {}", ingest.token("desk"));
    let body = event("e1").to_string();
    let authorized = ("authorization", bearer.as_str());
    let json = ("content-type", JSON);
    /// Method, path, headers; status, code.
    type Row<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>, u16, &'a str);
    let rows: Vec<Row<'_>> = vec![
        ("POST", "/v1/events", vec![json], 401, "unauthenticated"),
        (
            "POST",
            "/v1/events",
            vec![json, ("authorization", "Bearer x")],
            401,
            "unauthenticated",
        ),
        (
            "POST",
            "/v1/events",
            vec![authorized, ("content-type", "application/cloudevents+avro")],
            415,
            "unsupported_type",
        ),
        (
            "POST",
            "/v1/events",
            vec![authorized, json, ("content-encoding", "br")],
            415,
            "unsupported_type",
        ),
        (
            "POST",
            "/v1/events",
            vec![authorized, json, ("origin", "https://evil.example")],
            403,
            "bad_origin",
        ),
        (
            "POST",
            "/v1/events",
            vec![authorized, json, ("roomcast-backfill", "1")],
            403,
            "forbidden",
        ),
        (
            "PUT",
            "/v1/events",
            vec![authorized, json],
            405,
            "method_not_allowed",
        ),
        ("POST", "/v1/nothing", vec![authorized, json], 404, "not_found"),
    ];
    for (method, path, headers, status, code) in rows {
        let answer = send(&ingest, method, path, &headers, &body).await;
        check_http(&answer, status, code, Final);
    }
    assert!(ingest.stored("EVENTS").await.is_empty());
}

#[tokio::test]
async fn what_may_succeed_later_says_when_by_every_door() {
    let slow = [
        ("ROOMCAST_PUBLISHER_EVENTS_RATE", "1"),
        ("ROOMCAST_PUBLISHER_EVENTS_BURST", "1000"),
    ];
    let Some(mut ingest) = Ingest::start_with(POLICY, &slow).await else {
        return;
    };
    // Over the rate, until a second has gone by for each event.
    let many: Vec<Value> = (0..1_000).map(|n| event(&format!("e{n}"))).collect();
    let many = Value::from(many);
    for _ in 0..3 {
        let answer = ingest.post("desk", JSON, many.to_string()).await;
        if answer.status == 429 {
            check_http(&answer, 429, "rate", Temporary);
        } else if answer.json()["refused"] != 0 {
            check_element(&answer.json()["results"][999], "rate", Temporary);
        }
        let answer = ask(&ingest, "in.bookings.staff", &many).await;
        match answer["results"].as_array() {
            Some(results) if results[999]["status"] == "stored" => {}
            Some(results) => check_element(&results[999], "rate", Temporary),
            None => check_element(&answer, "rate", Temporary),
        }
    }
    // NATS is frozen: nobody knows. Another publisher's event, because of the rate.
    ingest.nats.signal("STOP");
    let other = ingest.signer.token("another", &["desk"]);
    let url = format!("{}/v1/events", ingest.url);
    let post = async |body: String| ingest.http.post(&url, &other, JSON, body).await.unwrap();
    let answer = post(event("frozen").to_string()).await;
    check_http(&answer, 504, "unknown", Temporary);
    let answer = post(Value::from(vec![event("f1"), event("f2")]).to_string()).await;
    check_element(&answer.json()["results"][1], "unknown", Temporary);
    ingest.nats.signal("CONT");
    // NATS is gone: nothing was done.
    ingest.nats.kill();
    roomcast_harness::eventually("not ready", Duration::from_secs(20), || async {
        !ingest.context.readiness.is_ready()
    })
    .await;
    let answer = ingest
        .http
        .post(&url, &other, JSON, event("gone").to_string())
        .await
        .unwrap();
    check_http(&answer, 503, "unavailable", Temporary);
}

#[tokio::test]
async fn a_body_that_does_not_arrive_may_be_sent_again() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Some(ingest) = Ingest::start_with(POLICY, &[("ROOMCAST_BODY_SECONDS", "1")]).await else {
        return;
    };
    let address = ingest.url.trim_start_matches("http://");
    let mut slow = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: {JSON}\r\ncontent-length: 33\r\n\r\n{{",
        ingest.token("desk")
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), async {
        while !said.ends_with(b"}") {
            let mut piece = [0; 1_024];
            let read = slow.read(&mut piece).await.unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&said));
            said.extend(&piece[..read]);
        }
    })
    .await
    .unwrap();
    let said = String::from_utf8(said).unwrap().to_lowercase();
    assert!(said.starts_with("http/1.1 408"), "{said}");
    assert!(
        said.contains("retry-after: 1") && said.contains("\"retryafterms\":1000"),
        "{said}"
    );
}
