//! What bad input gets: the answer, the counter, the dead letter with the original bytes.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use roomcast_harness::nats::change_stream;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fixture::{BATCH, EVENT, Ingest, JSON, POLICY, event};

#[tokio::test]
async fn every_bad_event_is_answered_and_kept() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let deep = format!(
        r#"{{"type":"t","room":"bookings","data":{}{}}}"#,
        "[".repeat(40),
        "]".repeat(40)
    );
    let large = format!(
        r#"{{"type":"t","room":"bookings","data":"{}"}}"#,
        "x".repeat(70_000)
    );
    let with = |name: &str, value: Value| {
        let mut event = json!({ "type": "t", "room": "bookings" });
        event[name] = value;
        event.to_string().into_bytes()
    };
    /// Content type, body; status, code, pointer.
    type Row = (&'static str, Vec<u8>, u16, &'static str, Option<&'static str>);
    let rows: Vec<Row> = vec![
        (JSON, b"".to_vec(), 400, "bad_json", None),
        (JSON, b"hello".to_vec(), 400, "bad_json", None),
        (JSON, b"{\"type\":\"t\"".to_vec(), 400, "bad_json", None),
        (
            JSON,
            b"{\"type\":\"t\",\"room\":\"bookings\",\"data\":NaN}".to_vec(),
            400,
            "bad_json",
            None,
        ),
        (JSON, b"\"text\"".to_vec(), 400, "bad_json", None),
        (JSON, b"{\"type\":\"\xff\"}".to_vec(), 400, "bad_encoding", None),
        (JSON, deep.into_bytes(), 400, "too_deep", None),
        (JSON, large.into_bytes(), 413, "too_large", None),
        (
            JSON,
            br#"{"room":"bookings"}"#.to_vec(),
            400,
            "bad_event",
            Some("/type"),
        ),
        (
            JSON,
            br#"{"type":"t","type":"u","room":"bookings"}"#.to_vec(),
            400,
            "bad_event",
            Some("/type"),
        ),
        (JSON, br#"{"type":"t"}"#.to_vec(), 400, "bad_room", Some("/room")),
        (JSON, with("room", json!("a..b")), 400, "bad_room", Some("/room")),
        (
            JSON,
            with("room", json!("bookings.>")),
            400,
            "bad_room",
            Some("/room"),
        ),
        (JSON, with("room", json!("secret")), 403, "forbidden", None),
        (JSON, with("room", json!("notifications")), 403, "forbidden", None),
        (JSON, with("room", json!("user.u1")), 403, "forbidden", None),
        (
            JSON,
            with("audience", json!("boss")),
            422,
            "unknown_audience",
            Some("/audience"),
        ),
        (
            JSON,
            with("time", json!("yesterday")),
            400,
            "bad_time",
            Some("/time"),
        ),
        (
            JSON,
            with("expirytime", json!("2020-01-01T00:00:00Z")),
            422,
            "event_expired",
            Some("/expirytime"),
        ),
        (
            JSON,
            with("color", json!({ "a": 1 })),
            400,
            "bad_event",
            Some("/color"),
        ),
        (
            JSON,
            with("Color", json!("red")),
            400,
            "bad_event",
            Some("/Color"),
        ),
        (
            JSON,
            with("delivery", json!("maybe")),
            400,
            "bad_event",
            Some("/delivery"),
        ),
        (
            JSON,
            with("delivery", json!("state")),
            400,
            "bad_event",
            Some("/statekey"),
        ),
        (JSON, b"[]".to_vec(), 400, "bad_request", None),
        (
            JSON,
            format!("[{}1]", "1,".repeat(1000)).into_bytes(),
            413,
            "too_large",
            None,
        ),
        (EVENT, b"[]".to_vec(), 400, "bad_json", None),
        (BATCH, b"{}".to_vec(), 400, "bad_json", None),
        (
            "text/plain",
            b"{\"type\":\"t\",\"room\":\"bookings\"}".to_vec(),
            415,
            "unsupported_type",
            None,
        ),
        (
            "application/json; charset=latin1",
            b"{}".to_vec(),
            415,
            "unsupported_type",
            None,
        ),
    ];
    let count = rows.len();
    for (kind, body, status, code, pointer) in rows {
        let answer = ingest.post("desk", kind, body.clone()).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        let problem = answer.json();
        assert_eq!(
            (answer.status, problem["code"].as_str()),
            (status, Some(code)),
            "{shown}: {problem}"
        );
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.header("retry-after"), None);
        assert_eq!(problem["pointer"].as_str(), pointer, "{shown}");
        let letter = ingest
            .dead_letter(code)
            .await
            .unwrap_or_else(|| panic!("no dead letter {code} for {shown}"));
        assert_eq!(letter.payload.as_ref(), body, "{shown}");
        let text = |name: &str| {
            letter
                .headers
                .get_last(name)
                .map(|value| value.as_str().to_owned())
        };
        assert_eq!(text("Rc-Reason").as_deref(), Some(code));
        assert_eq!(text("Rc-Origin").as_deref(), Some("\"/v1/events\""));
        assert_eq!(text("Rc-Publisher").as_deref(), Some("\"desk\""));
        assert!(
            text("Rc-Detail").is_some_and(|detail| detail.len() > 4),
            "{shown}"
        );
    }
    assert!(ingest.stored("EVENTS").await.is_empty());
    assert_eq!(ingest.stored("DLQ").await.len(), count);
    assert_eq!(
        ingest.metric("roomcast_ingest_refused_total{code=\"bad_time\"}"),
        1.0
    );
    assert_eq!(
        ingest.metric("roomcast_ingest_dead_letters_total{reason=\"bad_time\"}"),
        1.0
    );
    assert_eq!(ingest.metric("roomcast_ingest_dead_letters_lost_total"), 0.0);
    let forbidden = ingest
        .post("desk", JSON, with("room", json!("secret")))
        .await
        .body;
    let absent = ingest
        .post("desk", JSON, with("room", json!("notifications")))
        .await
        .body;
    assert_eq!(
        forbidden, absent,
        "absent and forbidden are one answer, byte for byte"
    );
    let unknown = ingest.post("root", JSON, with("room", json!("secret"))).await;
    assert_eq!(
        (unknown.status, unknown.json()["code"].as_str()),
        (404, Some("unknown_room"))
    );
}

#[tokio::test]
async fn who_has_no_good_token_comes_no_further() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let url = format!("{}/v1/events", ingest.url);
    let good = ingest.token("desk");
    let stranger = roomcast_harness::token::Signer::new().token("desk", &["desk"]);
    let expired = ingest.signer.token_with("desk", &["desk"], -40, &Value::Null);
    let rows: Vec<(Vec<String>, &str, u16, &str)> = vec![
        (vec![], "", 401, "unauthenticated"),
        (vec![format!("Basic {good}")], "", 401, "unauthenticated"),
        (
            vec![format!("Bearer {good}"), format!("Bearer {good}")],
            "",
            401,
            "unauthenticated",
        ),
        (vec!["Bearer x.y.z".to_owned()], "", 401, "unauthenticated"),
        (vec![format!("Bearer {stranger}")], "", 401, "unauthenticated"),
        (vec![format!("Bearer {expired}")], "", 401, "expired"),
        (vec![], "?access_token=abc", 400, "bad_request"),
        (vec![format!("Bearer {good}")], "", 200, ""),
    ];
    for (values, query, status, code) in rows {
        let mut request = http::Request::post(format!("{url}{query}")).header("content-type", JSON);
        for value in &values {
            request = request.header("authorization", value);
        }
        let body = json!({ "type": "t", "room": "bookings" }).to_string();
        let answer = ingest
            .http
            .send(request.body(Full::new(Bytes::from(body))).unwrap())
            .await
            .unwrap();
        assert_eq!(
            (answer.status, answer.json()["code"].as_str().unwrap_or_default()),
            (status, code),
            "{values:?}"
        );
        if status == 401 {
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
    }
    assert!(
        ingest.stored("DLQ").await.is_empty(),
        "nothing is kept of strangers"
    );
}

#[tokio::test]
async fn other_methods_paths_and_origins_are_refused() {
    let Some(ingest) =
        Ingest::start_with(POLICY, &[("ROOMCAST_ALLOWED_ORIGINS", "https://desk.example")]).await
    else {
        return;
    };
    let check = async |method: &str, path: &str, origin: Option<&str>, status: u16| {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", ingest.url));
        request = request
            .header("authorization", format!("Bearer {}", ingest.token("desk")))
            .header("content-type", JSON);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let body = json!({ "type": "t", "room": "bookings" }).to_string();
        let answer = ingest
            .http
            .send(request.body(Full::new(Bytes::from(body))).unwrap())
            .await
            .unwrap();
        assert_eq!(answer.status, status, "{method} {path} {origin:?}");
        let allowed = answer.header("access-control-allow-origin");
        assert_eq!(allowed, origin.filter(|_| status < 300));
    };
    check("GET", "/v1/events", None, 405).await;
    check("PUT", "/v1/events", None, 405).await;
    check("POST", "/v1/event", None, 404).await;
    check("POST", "/v1/events", Some("https://desk.example"), 200).await;
    check("POST", "/v1/events", Some("https://desk.example.evil"), 403).await;
    check("POST", "/v1/events", Some("null"), 403).await;
    check("OPTIONS", "/v1/events", Some("https://desk.example"), 204).await;
    check("OPTIONS", "/v1/events", Some("https://evil.example"), 403).await;
}

#[tokio::test]
async fn a_body_has_a_bound_and_a_deadline() {
    let settings = [
        ("ROOMCAST_REQUEST_BYTES_MAX", "200000"),
        ("ROOMCAST_BODY_SECONDS", "1"),
    ];
    let Some(ingest) = Ingest::start_with(POLICY, &settings).await else {
        return;
    };
    let answer = ingest
        .post("desk", JSON, "[".to_owned() + &" ".repeat(300_000))
        .await;
    assert_eq!(
        (answer.status, answer.json()["code"].as_str()),
        (413, Some("too_large"))
    );
    let letter = ingest.dead_letter("too_large").await.unwrap();
    assert_eq!(letter.payload.len(), 96 * 1024);
    assert_eq!(
        letter.headers.get_last("Rc-Original-Bytes").unwrap().as_str(),
        "300001"
    );

    let address = ingest.url.trim_start_matches("http://").to_owned();
    let head = |more: &str| {
        let token = ingest.token("desk");
        format!(
            "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: {JSON}\r\n{more}\r\n\r\n"
        )
    };
    let talk = async |text: String| -> String {
        let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
        socket.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(Duration::from_secs(8), socket.read_to_end(&mut answer))
            .await
            .unwrap()
            .unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let slow = talk(head("content-length: 100") + "{\"type\"").await;
    assert!(
        slow.starts_with("HTTP/1.1 408") && slow.contains("request_timeout"),
        "{slow}"
    );
    let chunk = format!("{:x}\r\n{}\r\n", 250_000, "x".repeat(250_000));
    let chunked = talk(head("transfer-encoding: chunked") + &chunk).await;
    assert!(
        chunked.starts_with("HTTP/1.1 413"),
        "{}",
        &chunked[..chunked.len().min(200)]
    );
    assert_eq!(ingest.metric("roomcast_ingest_in_flight"), 0.0);
}

#[tokio::test]
async fn bad_requests_on_nats_are_answered_and_kept() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let publisher = ingest.nats.connect("publisher").await;
    let rows: [(&str, &[u8], &str); 8] = [
        ("in.bookings.all", b"nonsense", "bad_json"),
        ("in.bookings.all", b"", "bad_json"),
        ("in.bookings.all", b"{\"type\":\"\xff\"}", "bad_encoding"),
        ("in.bookings.all", br#"{"type":"t","room":"other"}"#, "bad_room"),
        (
            "in.bookings.all",
            br#"{"type":"t","audience":"staff"}"#,
            "bad_event",
        ),
        ("in.bookings.boss", br#"{"type":"t"}"#, "unknown_audience"),
        ("in.user.a.b.all", br#"{"type":"t"}"#, "bad_room"),
        ("in.secret.all", br#"{"type":"t"}"#, "forbidden"),
    ];
    for (subject, body, code) in rows {
        let answer = publisher
            .request(subject, Bytes::copy_from_slice(body))
            .await
            .unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(
            (answer["code"].as_str(), answer["temporary"].as_bool()),
            (Some(code), Some(false)),
            "{subject}: {answer}"
        );
        let letter = ingest.dead_letter(code).await.unwrap();
        assert_eq!(letter.payload.as_ref(), body);
        let origin = letter.headers.get_last("Rc-Origin").unwrap().as_str();
        assert_eq!(origin, format!("\"{}\"", subject.replacen("in.", "in.main.", 1)));
        assert_eq!(
            letter.headers.get_last("Rc-Publisher").unwrap().as_str(),
            "\"nats/publisher\""
        );
    }
}

#[tokio::test]
async fn a_nats_user_that_the_policy_does_not_list_may_not_publish() {
    let policy = POLICY.replace("main/publisher", "main/another");
    let Some(ingest) = Ingest::start_with(&policy, &[]).await else {
        return;
    };
    let publisher = ingest.nats.connect("publisher").await;
    let answer = publisher
        .request("in.bookings.all", r#"{"type":"t"}"#.into())
        .await
        .unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&answer.payload).unwrap()["code"],
        "forbidden"
    );
    assert_eq!(
        ingest.dead_letter("forbidden").await.unwrap().payload.as_ref(),
        br#"{"type":"t"}"#
    );
    assert!(ingest.stored("EVENTS").await.is_empty());
}

/// Who is turned away is on record, by name only where the token is genuine; at the end of the process at the latest.
#[tokio::test]
async fn who_is_refused_is_on_record() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    for _ in 0..3 {
        let answer = ingest.post("user", JSON, event("x").to_string()).await;
        assert_eq!(answer.status, 403, "{}", answer.text());
    }
    let url = format!("{}/v1/events", ingest.url);
    let strangers = ingest.http.post(&url, "nobody's", JSON, event("x").to_string());
    assert_eq!(strangers.await.unwrap().status, 401);
    ingest.context.shutdown.request();
    let refused = async || {
        let entries = ingest.stored("AUDIT").await.into_iter();
        let entries = entries.map(|entry| serde_json::from_slice::<Value>(&entry.payload).unwrap());
        entries
            .filter(|entry| entry["kind"] == "refused")
            .collect::<Vec<_>>()
    };
    roomcast_harness::eventually("it is on record", Duration::from_secs(30), || async {
        !refused().await.is_empty()
    })
    .await;
    let said = refused().await[0]["note"]["refused"].take();
    assert_eq!(
        said[0],
        json!({ "what": "publish", "reason": "forbidden", "count": 3, "tenant": "main", "user": "desk" })
    );
    assert_eq!(
        (&said[1]["what"], &said[1]["user"]),
        (&json!("token"), &Value::Null),
        "{said}"
    );
}

/// State is never forgotten for newer state.
#[tokio::test]
async fn a_full_stream_of_state_says_so_and_takes_it_again_when_there_is_room() {
    let Some(ingest) = Ingest::start().await else {
        return;
    };
    let admin = ingest.nats.connect("admin").await;
    let state = |n: usize| {
        let mut event = event(&format!("s{n}"));
        event["delivery"] = "state".into();
        event["statekey"] = format!("key-{n}").into();
        event["data"] = json!({ "filling": "x".repeat(8_000) });
        event.to_string()
    };
    let before = change_stream(&admin, "STATE", "max_bytes", 40_000.into())
        .await
        .unwrap();
    let mut taken = 0;
    let refused = loop {
        let answer = ingest.post("desk", JSON, state(taken)).await;
        if answer.status != 200 {
            break answer;
        }
        taken += 1;
        assert!(taken < 10, "never full");
    };
    let said = refused.json();
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (503, Some("1")),
        "{said}"
    );
    assert!(said["detail"].as_str().unwrap().contains("is full"), "{said}");
    assert_eq!(
        ingest.publish(&event("beside")).await["status"],
        "stored",
        "only state is"
    );
    change_stream(&admin, "STATE", "max_bytes", before).await.unwrap();
    let answer = ingest.post("desk", JSON, state(taken)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}
