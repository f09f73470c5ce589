//! The ways an event may stand in a request: binary mode, NDJSON, packed; each class of delivery over each of them.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::Full;
use roomcast_chassis::jetstream::StoredMessage;
use roomcast_harness::http::Answer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fixture::{BATCH, EVENT, Ingest, JSON, POLICY, event, header};

const LINES: &str = "application/x-ndjson";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Posts a body under these headers, as `role`.
async fn send(ingest: &Ingest, role: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let mut request = http::Request::post(format!("{}/v1/events", ingest.url))
        .header("authorization", format!("Bearer {}", ingest.token(role)));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).unwrap();
    ingest.http.send(request).await.unwrap()
}

fn lines(events: &[Value]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

fn read_lines(answer: &Answer) -> Vec<Value> {
    let text = answer.text();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn payload(message: &StoredMessage) -> Value {
    serde_json::from_slice(&message.payload).unwrap()
}

#[tokio::test]
async fn binary_mode_is_the_same_event() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let head = [
        ("ce-specversion", "1.0"),
        ("ce-type", "booking:new"),
        ("CE-Source", "/shop"),
        ("ce-room", "bookings"),
        ("ce-audience", "staff"),
        ("ce-subject", "Euro%20%E2%82%AC"),
        ("ce-color", "\"light blue\""),
    ];
    let post = async |id: &str, kind: Option<&str>, body: &'static [u8]| {
        let mut headers = head.to_vec();
        headers.push(("ce-id", id));
        headers.extend(kind.map(|kind| ("content-type", kind)));
        let answer = send(&ingest, "desk", &headers, body).await;
        assert_eq!(answer.status, 200, "{id}: {}", answer.text());
        assert_eq!(answer.json()["status"], "stored", "{id}");
        payload(ingest.stored("EVENTS").await.last().unwrap())
    };
    let stored = post("json", Some("application/json"), b"{\"n\": 1.50}").await;
    let expected = json!({
        "specversion": "1.0", "id": "json", "source": "/shop", "type": "booking:new", "room": "bookings", "audience": "staff",
        "subject": "Euro \u{20ac}", "color": "light blue", "datacontenttype": "application/json", "priority": "medium",
        "time": stored["time"], "data": { "n": 1.50 },
    });
    assert_eq!(stored, expected);
    let text = ingest.stored("EVENTS").await[0].payload.clone();
    assert!(text.ends_with(b"\"data\":{\"n\": 1.50}}"), "byte for byte");
    assert_eq!(
        post("text", Some("text/plain"), b"a \"b\"").await["data"],
        "a \"b\""
    );
    assert_eq!(
        post("bytes", Some("image/png"), b"\x01\x02\x03\xff").await["data_base64"],
        "AQID/w=="
    );
    let none = post("none", None, b"").await;
    assert_eq!((none.get("data"), none.get("datacontenttype")), (None, None));

    // Structured mode may repeat the attributes in headers; the body counts.
    let body = json!({ "type": "t", "room": "bookings", "id": "structured" }).to_string();
    let answer = send(
        &ingest,
        "desk",
        &[("content-type", EVENT), ("ce-id", "header"), ("ce-type", "u")],
        body,
    )
    .await;
    assert_eq!(answer.json()["id"], "structured");
}

#[tokio::test]
async fn bad_binary_events_are_answered_and_kept_as_they_came() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let good = [("ce-type", "t"), ("ce-room", "bookings")];
    /// More headers, body; status, code, pointer.
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a [u8], u16, &'a str, Option<&'a str>);
    let rows: [Row<'_>; 10] = [
        (
            &[("ce-specversion", "0.3")],
            b"",
            400,
            "bad_event",
            Some("/specversion"),
        ),
        (&[("ce-type", "u")], b"", 400, "bad_event", Some("/type")),
        (&[("ce-subject", "100%")], b"", 400, "bad_event", Some("/subject")),
        (
            &[("ce-subject", "%C0%A0")],
            b"",
            400,
            "bad_event",
            Some("/subject"),
        ),
        (&[("ce-my_name", "x")], b"", 400, "bad_event", Some("/my_name")),
        (
            &[("ce-datacontenttype", "text/plain")],
            b"",
            400,
            "bad_event",
            Some("/datacontenttype"),
        ),
        (&[("ce-data", "1")], b"", 400, "bad_event", Some("/data")),
        (&[], b"{\"n\":", 400, "bad_json", None),
        (&[], b"1,\"audience\":\"staff\"", 400, "bad_json", None),
        (
            &[("content-encoding", "gzip")],
            b"{\"n\":1}",
            400,
            "bad_request",
            None,
        ),
    ];
    for (more, body, status, code, pointer) in rows {
        let mut headers = vec![("content-type", JSON)];
        headers.extend(good.iter().chain(more));
        let answer = send(&ingest, "desk", &headers, body).await;
        let problem = answer.json();
        assert_eq!(
            (
                answer.status,
                problem["code"].as_str(),
                problem["pointer"].as_str()
            ),
            (status, Some(code), pointer),
            "{more:?}: {problem}"
        );
        let letter = ingest.dead_letter(code).await.unwrap().payload;
        let text = String::from_utf8_lossy(&letter);
        let (head, kept) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(kept.as_bytes(), body);
        assert!(
            head.contains("ce-room: bookings") && head.contains("content-type: application/json"),
            "{head}"
        );
        assert!(!head.contains("authorization"), "{head}");
    }
    // An event that is well formed and refused is kept the same way.
    let headers = [("ce-type", "t"), ("ce-room", "secret")];
    assert_eq!(send(&ingest, "desk", &headers, "7").await.status, 403);
    let letter = ingest.dead_letter("forbidden").await.unwrap();
    assert_eq!(letter.payload.as_ref(), b"ce-type: t\r\nce-room: secret\r\n\r\n7");
    assert!(ingest.stored("EVENTS").await.is_empty());
}

#[tokio::test]
async fn every_class_of_delivery_comes_by_every_mode() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let soon = roomcast_proto::event::rfc3339((roomcast_harness::token::now() + 60) * 1_000_000);
    /// The mode's name; content type, whether packed.
    const MODES: [(&str, &str, bool); 6] = [
        ("structured", EVENT, false),
        ("packed", JSON, true),
        ("batch", BATCH, false),
        ("lines", LINES, false),
        ("packed lines", LINES, true),
        ("binary", "", false),
    ];
    for (mode, kind, packed) in MODES {
        let id = |n: u32| format!("{mode}-{n}");
        let events = [
            json!({ "type": "seat", "room": "bookings", "id": id(1), "delivery": "state", "statekey": mode, "expirytime": soon }),
            json!({ "type": "seat", "room": "bookings", "id": id(2), "delivery": "state", "statekey": mode, "withdrawn": true }),
            json!({ "type": "typing", "room": "bookings", "id": id(3), "delivery": "ephemeral" }),
            json!({ "type": "note", "users": "u1,a%2Cb", "id": id(4) }),
        ];
        let before = ingest.stored("EVENTS").await.len();
        for (n, event) in events.iter().enumerate() {
            let role = if n == 3 { "pusher" } else { "desk" };
            let answer = if mode == "binary" {
                let attributes = event.as_object().unwrap();
                let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let headers: Vec<(String, String)> = attributes
                    .iter()
                    .map(|(name, value)| (format!("ce-{name}"), text(value).replace('%', "%25")))
                    .collect();
                let headers: Vec<_> = headers
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()))
                    .collect();
                send(&ingest, role, &headers, "").await
            } else {
                let body = match kind {
                    BATCH => format!("[{event}]"),
                    _ => event.to_string(),
                };
                let body = if packed {
                    gzip(body.as_bytes())
                } else {
                    body.into_bytes()
                };
                let mut headers = vec![("content-type", kind)];
                headers.extend(packed.then_some(("content-encoding", "gzip")));
                send(&ingest, role, &headers, body).await
            };
            let answer = answer.json();
            let result = answer["results"].get(0).unwrap_or(&answer);
            let expected = if n == 2 { "sent" } else { "stored" };
            assert_eq!(result["status"], expected, "{mode} {n}: {answer}");
            assert_eq!(result["id"], event["id"], "{mode} {n}");
            if n == 0 {
                let stored = ingest.stored("STATE").await;
                let ttl: u64 = header(stored.last().unwrap(), "Nats-TTL")
                    .unwrap()
                    .parse()
                    .unwrap();
                assert!((50..=60).contains(&ttl), "{mode}: {ttl}");
            }
        }
        let stored = ingest.stored("STATE").await;
        assert_eq!(
            header(stored.last().unwrap(), "Rc-Withdrawn"),
            Some("1"),
            "{mode}"
        );
        let copies = ingest.stored("EVENTS").await;
        let rooms: Vec<Value> = copies[before..]
            .iter()
            .map(|copy| payload(copy)["room"].clone())
            .collect();
        assert_eq!(rooms, ["user.u1", "user.a=2Cb"], "{mode}");
    }
}

#[tokio::test]
async fn short_lines_are_answered_like_a_batch() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let bad = "{\"type\":\"t\",  \"room\":";
    let long = "x".repeat(70_000);
    let body = format!(
        "{}\r\n\n{bad}\n  \n{long}\n{}\n{}",
        event("a"),
        json!({ "type": "t", "room": "secret" }),
        event("b")
    );
    for kind in [LINES, "application/ndjson; charset=utf-8"] {
        let answer = ingest.post("desk", kind, body.clone()).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some(JSON)),
            "{}",
            answer.text()
        );
        let answer = answer.json();
        let codes: Vec<_> = answer["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|result| result["code"].as_str().or(result["id"].as_str()).unwrap())
            .collect();
        assert_eq!(
            codes,
            ["a", "bad_json", "too_large", "forbidden", "b"],
            "{answer}"
        );
    }
    assert_eq!(ingest.stored("EVENTS").await.len(), 2);
    assert_eq!(
        ingest.dead_letter("bad_json").await.unwrap().payload.as_ref(),
        bad.as_bytes()
    );
    assert_eq!(
        ingest.dead_letter("too_large").await.unwrap().payload.as_ref(),
        long.as_bytes()
    );
    for empty in ["", "\n\n \n"] {
        let answer = ingest.post("desk", LINES, empty).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (400, &json!("bad_request"))
        );
    }
    let thousand: Vec<Value> = (0..1000).map(|n| event(&format!("t{n}"))).collect();
    let answer = ingest.post("desk", LINES, lines(&thousand) + "\n\n").await;
    assert_eq!(answer.json()["stored"], 1000, "{}", answer.status);
}

#[tokio::test]
async fn ten_thousand_lines_are_answered_as_they_come_in_little_memory() {
    // All work together may hold 1 MiB, one request a tenth of what is sent.
    let settings = [
        ("ROOMCAST_REQUEST_BYTES_MAX", "200000"),
        ("ROOMCAST_IN_FLIGHT_BYTES_MAX", "1048576"),
    ];
    let Some(ingest) = Ingest::start_with(POLICY, &settings).await else {
        return;
    };
    let mut events: Vec<Value> = (0..10_000)
        .map(|n| {
            let mut event = event(&format!("e{n}"));
            event["data"]["fill"] = "y".repeat(120).into();
            event
        })
        .collect();
    events[5_000] = json!({ "type": "t", "room": "secret", "id": "middle" });
    let body = lines(&events);
    assert!(body.len() > 2_000_000);
    let broken = body.replacen("{\"audience\"", "{{\"audience\"", 1);
    for (packed, expected) in [(false, "stored"), (true, "duplicate")] {
        let mut headers = vec![("content-type", LINES)];
        headers.extend(packed.then_some(("content-encoding", "gzip")));
        let body = if packed {
            gzip(body.as_bytes())
        } else {
            broken.clone().into_bytes()
        };
        let answer = send(&ingest, "desk", &headers, body).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some(LINES)),
            "{}",
            answer.text()
        );
        let results = read_lines(&answer);
        assert_eq!(results.len(), 10_001);
        let first = if packed { "stored" } else { "refused" };
        for (n, result) in results[..10_000].iter().enumerate() {
            let status = match n {
                0 => first,
                5_000 => "refused",
                _ => expected,
            };
            assert_eq!(result["status"], status, "{n}: {result}");
            if n > 0 && n != 5_000 {
                assert_eq!(result["id"], format!("e{n}"));
            }
        }
        let summary = &results[10_000];
        let refused = if packed { 1 } else { 2 };
        assert_eq!(
            (
                &summary["complete"],
                &summary["refused"],
                &summary["dedupSeconds"]
            ),
            (&json!(true), &json!(refused), &json!(120)),
            "{summary}"
        );
        assert_eq!(summary[expected].as_u64().unwrap(), 9_998);
    }
    assert_eq!(ingest.stored("EVENTS").await.len(), 9_999);
    assert_eq!(ingest.metric("roomcast_ingest_full_total"), 0.0);
    roomcast_harness::eventually("the place is free again", Duration::from_secs(5), || async {
        ingest.metric("roomcast_ingest_in_flight") == 0.0
    })
    .await;
    let first = &ingest.dead_letter("bad_json").await.unwrap().payload;
    assert!(first.starts_with(b"{{\"audience\"") && !first.contains(&b'\n'));
}

#[tokio::test]
async fn packed_bodies_are_bounded_by_what_they_hold() {
    let settings = [("ROOMCAST_REQUEST_BYTES_MAX", "3000000")];
    let Some(ingest) = Ingest::start_with(POLICY, &settings).await else {
        return;
    };
    let whole = gzip(event("cut").to_string().as_bytes());
    let mut noise = String::new();
    for n in 0_u64..200_000 {
        noise += &format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
    let bomb = gzip(&vec![b' '; 64 << 20]);
    /// Content type, encoding, body; status, code.
    type Row<'a> = (&'a str, &'a str, Vec<u8>, u16, &'a str);
    let rows: Vec<Row<'_>> = vec![
        (JSON, "gzip", bomb.clone(), 413, "too_large"),
        (LINES, "gzip", bomb, 413, "too_large"),
        (JSON, "gzip", gzip(noise.as_bytes()), 413, "too_large"),
        (
            JSON,
            "gzip",
            whole[..whole.len() - 5].to_vec(),
            400,
            "bad_request",
        ),
        (
            LINES,
            "gzip",
            whole[..whole.len() - 5].to_vec(),
            400,
            "bad_request",
        ),
        (
            JSON,
            "gzip",
            event("plain").to_string().into_bytes(),
            400,
            "bad_request",
        ),
        (JSON, "br", whole.clone(), 415, "unsupported_type"),
        (LINES, "deflate", whole.clone(), 415, "unsupported_type"),
        (JSON, "gzip, gzip", whole, 415, "unsupported_type"),
    ];
    for (kind, encoding, body, status, code) in rows {
        let headers = [("content-type", kind), ("content-encoding", encoding)];
        let answer = send(&ingest, "desk", &headers, body.clone()).await;
        let found = (answer.status, answer.json());
        assert_eq!(
            (found.0, found.1["code"].as_str()),
            (status, Some(code)),
            "{kind} {encoding}: {}",
            found.1
        );
        if status == 415 {
            assert_eq!(answer.header("accept-encoding"), Some("gzip"));
        }
        let letter = ingest.dead_letter(code).await.unwrap();
        let kept = body.len().min(96 * 1024);
        assert_eq!(
            letter.payload.as_ref(),
            &body[..letter.payload.len().min(kept)],
            "as it was sent"
        );
        assert!(!letter.payload.is_empty());
    }
    assert!(ingest.stored("EVENTS").await.is_empty());
}

#[tokio::test]
async fn a_stream_that_breaks_off_says_how_far_it_came() {
    let settings = [
        ("ROOMCAST_REQUEST_BYTES_MAX", "200000"),
        ("ROOMCAST_BODY_SECONDS", "1"),
    ];
    let Some(ingest) = Ingest::start_with(POLICY, &settings).await else {
        return;
    };
    let events: Vec<Value> = (0..1_500).map(|n| event(&format!("e{n}"))).collect();
    let body = lines(&events);
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: {LINES}\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n",
        ingest.token("desk")
    );
    let mut socket = tokio::net::TcpStream::connect(ingest.url.trim_start_matches("http://"))
        .await
        .unwrap();
    let chunk = format!("{:x}\r\n{body}\r\n", body.len());
    socket.write_all((head + &chunk).as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(10), socket.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let stored = answer.matches("\"status\":\"stored\"").count();
    assert!((1_000..=1_500).contains(&stored), "{stored}");
    let summary = answer.lines().find(|line| line.contains("\"complete\"")).unwrap();
    let summary: Value = serde_json::from_str(summary).unwrap();
    assert_eq!(
        (&summary["complete"], &summary["code"], &summary["temporary"]),
        (&json!(false), &json!("request_timeout"), &json!(true)),
        "{summary}"
    );
    assert_eq!(summary["stored"].as_u64().unwrap(), stored as u64);
    assert_eq!(ingest.stored("EVENTS").await.len(), stored);
}
