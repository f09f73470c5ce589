//! One refusal, the same at every gate: sockets, streams, polls, and each route that reads or does something.
//!
//! A gate is a way of asking; a row is a mistake, a lack of rights or too much of something. Codes are compared over all gates, and
//! where nothing may be told apart, every byte.

mod ways;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use bytes::Bytes;
use http_body_util::Full;
use roomcast_harness::client::Client;
use roomcast_harness::http::Http;
use roomcast_harness::stream::Stream;
use roomcast_harness::token::{Signer, now};
use serde_json::{Value, json};

use self::ways::{Cursor, Names, REQUESTS, ROUTES, Route};
use super::Gateway;

type Headers<'a> = &'a [(&'a str, &'a str)];

/// How a request over HTTP was refused.
#[derive(Debug)]
struct Said {
    status: u16,
    code: String,
    body: Value,
    /// Status, headers without the clock, and body.
    bytes: String,
    retry_after: Option<u64>,
}

struct Asker<'a> {
    gateway: &'a Gateway,
    http: Http,
}

impl Asker<'_> {
    async fn ask(&self, route: &Route, name: &str, cursor: &str, headers: &[(&str, &str)]) -> Said {
        let path = filled(route.path, &encoded(name), &encoded(cursor));
        let body = filled(route.body, &quoted(name), &quoted(cursor));
        self.send(route.method, &path, body.into(), headers).await
    }

    async fn send(&self, method: &str, path: &str, body: Bytes, headers: &[(&str, &str)]) -> Said {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.gateway.url));
        if method == "POST" && headers.iter().all(|(name, _)| *name != "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self
            .http
            .send(request.body(Full::new(body)).unwrap())
            .await
            .unwrap();
        let mut head = answer.headers.clone();
        head.remove("date");
        let body = answer.json();
        Said {
            status: answer.status,
            code: body["code"].as_str().unwrap_or_default().to_owned(),
            bytes: format!("{} {head:?} {}", answer.status, answer.text()),
            retry_after: answer.header("retry-after").and_then(|text| text.parse().ok()),
            body,
        }
    }
}

fn filled(template: &str, name: &str, cursor: &str) -> String {
    // Only capitals standing alone are places.
    let mut out = String::new();
    let letters: Vec<char> = template.chars().collect();
    for (at, letter) in letters.iter().enumerate() {
        let alone = |at: usize| letters.get(at).is_none_or(|letter| !letter.is_alphanumeric());
        let is_place = (at == 0 || alone(at - 1)) && alone(at + 1);
        match letter {
            'N' if is_place => out.push_str(name),
            'C' if is_place => out.push_str(cursor),
            letter => out.push(*letter),
        }
    }
    out
}

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => out.push(char::from(byte)),
            _ => write!(out, "%{byte:02X}").unwrap(),
        }
    }
    out
}

/// Inside a JSON text.
fn quoted(text: &str) -> String {
    let whole = json!(text).to_string();
    whole[1..whole.len() - 1].to_owned()
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_absent_and_what_is_not_yours_are_one_answer_at_every_gate() {
    let rates = "subscribe=1000/1000,history=1000/1000,read=1000/1000,command=1000/1000,ticket=1000/1000,presence=1000/1000,publish=1000/1000";
    let more = [
        ("ROOMCAST_OPERATION_RATES", rates),
        ("ROOMCAST_REQUEST_RATE", "1000"),
        ("ROOMCAST_REQUEST_BURST", "1000"),
    ];
    let Some(gateway) = Gateway::start(&more).await else {
        return;
    };
    let asker = Asker {
        gateway: &gateway,
        http: Http::default(),
    };
    let token = gateway.signer.token("u1", &["staff"]);
    let authorization = bearer(&token);
    let (long, deep) = ("r".repeat(201), ["r"; 9].join("."));
    let rooms = [
        "money",
        "absent",
        "user.u2",
        "user.u1.x",
        "*",
        ">",
        "bookings.*",
        "a b",
        "..",
        "Bookings",
        "bookings.",
        &*long,
        &*deep,
    ];
    let commands = [
        "money.move",
        "absent",
        "*",
        "desk.*",
        "desk.ring.x",
        "a b",
        &*long,
    ];
    let names = |of: Names| match of {
        Names::Room => &rooms[..],
        Names::Command => &commands[..],
        Names::Nothing => &[],
    };
    let mut over_http = BTreeSet::new();
    let mut words = BTreeSet::new();
    for route in &ROUTES {
        for name in names(route.names) {
            let said = asker
                .ask(route, name, "", &[("authorization", &authorization)])
                .await;
            assert_eq!(
                (said.status, &*said.code),
                (403, "forbidden"),
                "{} {name}: {said:?}",
                route.name
            );
            words.insert(said.body["detail"].as_str().unwrap().to_owned());
            over_http.insert(said.bytes);
        }
    }
    assert_eq!(
        over_http.len(),
        1,
        "one answer, whatever it is of: {over_http:#?}"
    );

    let mut over_sockets = BTreeSet::new();
    let (mut client, connected) = gateway.client("u1", &["staff"], &rooms).await;
    for (room, answer) in rooms.iter().zip(connected["rooms"].as_array().unwrap()) {
        assert_eq!(answer["room"], *room);
        over_sockets.insert(answer["error"].to_string());
    }
    for (request, body, of, _) in REQUESTS {
        for name in names(of) {
            let body: Value = serde_json::from_str(&filled(body, &quoted(name), "")).unwrap();
            let answer = client.request(request, body).await.unwrap();
            assert_eq!(answer["error"]["code"], "forbidden", "{request} {name}: {answer}");
            words.insert(answer["error"]["message"].as_str().unwrap().to_owned());
            over_sockets.insert(answer["error"].to_string());
        }
    }
    assert_eq!(over_sockets.len(), 1, "{over_sockets:#?}");
    assert_eq!(words.len(), 1, "the same words everywhere: {words:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_does_not_hold_is_refused_the_same_way_at_every_gate() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let asker = Asker {
        gateway: &gateway,
        http: Http::default(),
    };
    let signer = &gateway.signer;
    let old = json!({ "iat": now() - 100 });
    let rows = [
        (None, "unauthenticated", 4500),
        (Some("nonsense".to_owned()), "unauthenticated", 4500),
        (
            Some(Signer::new().token("u1", &["staff"])),
            "unauthenticated",
            4500,
        ),
        (
            Some(signer.token_with("u1", &["staff"], 60, &json!({ "aud": "roomcast-admin" }))),
            "unauthenticated",
            4500,
        ),
        (
            Some(signer.token_with("u1", &["staff"], -60, &old)),
            "expired",
            4003,
        ),
    ];
    let (mut client, _) = gateway.client("u1", &["staff"], &[]).await;
    for (token, code, close) in rows {
        let authorization = token.as_deref().map(bearer);
        let headers: Vec<(&str, &str)> = authorization
            .iter()
            .map(|value| ("authorization", value.as_str()))
            .collect();
        let mut bodies = BTreeSet::new();
        for route in &ROUTES {
            let said = asker.ask(route, "bookings", "", &headers).await;
            assert_eq!(
                (said.status, &*said.code),
                (401, code),
                "{}: {said:?}",
                route.name
            );
            bodies.insert(said.body.to_string());
        }
        assert_eq!(bodies.len(), 1, "{bodies:#?}");
        let mut socket = Client::open(&gateway.url).await.unwrap();
        let mut connect = json!({ "client": "test", "rooms": [] });
        if let Some(token) = &token {
            connect["token"] = json!(token);
            let refused = client
                .request("refresh", json!({ "token": token }))
                .await
                .unwrap();
            assert_eq!(refused["error"]["code"], code, "refresh: {refused}");
        }
        let refused = socket.request("connect", connect).await.unwrap();
        assert_eq!(refused["error"]["code"], code, "connect: {refused}");
        while socket.closed.is_none() {
            socket.next(std::time::Duration::from_secs(20)).await.unwrap();
        }
        assert_eq!(socket.closed.unwrap().0, close, "{code}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_that_cannot_be_used_is_said_or_refused_the_same_way() {
    let Some(gateway) =
        Gateway::start(&[("ROOMCAST_OPERATION_RATES", "feed=1000/1000,mark=1000/1000")]).await
    else {
        return;
    };
    let asker = Asker {
        gateway: &gateway,
        http: Http::default(),
    };
    let token = gateway.signer.token("u1", &["staff"]);
    let authorization = bearer(&token);
    let (mut client, _) = gateway.client("u1", &["staff"], &[]).await;
    for cursor in ["nonsense", "1.2.3", "00c0ffee.1.2.3.4", "*", "🚪"] {
        let incomplete = |room: &Value, gate: &str| {
            let found = (&room["recovery"], &room["reason"]);
            assert_eq!(
                found,
                (&json!("incomplete"), &json!("epoch")),
                "{gate} {cursor}: {room}"
            );
        };
        for route in &ROUTES {
            match route.cursor {
                Cursor::None => {}
                Cursor::Refused => {
                    let said = asker
                        .ask(route, "bookings", cursor, &[("authorization", &authorization)])
                        .await;
                    assert_eq!(
                        (said.status, &*said.code),
                        (400, "bad_request"),
                        "{} {cursor}: {said:?}",
                        route.name
                    );
                }
                Cursor::Follows if route.name == "stream" => {
                    let path = filled(route.path, "bookings", &encoded(cursor));
                    let mut stream = Stream::open(&gateway.url, &path, Some(&token), &[])
                        .await
                        .unwrap();
                    let first = stream.caught_up(&["bookings"]).await.unwrap();
                    incomplete(&first[0]["connected"]["rooms"][0], route.name);
                }
                Cursor::Follows => {
                    let said = asker
                        .ask(route, "bookings", cursor, &[("authorization", &authorization)])
                        .await;
                    incomplete(&said.body["rooms"][0], route.name);
                }
            }
        }
        for (request, body, _, of) in REQUESTS {
            let body: Value = serde_json::from_str(&filled(body, "bookings", cursor)).unwrap();
            match of {
                Cursor::None => {}
                Cursor::Refused => {
                    let answer = client.request(request, body).await.unwrap();
                    assert_eq!(
                        answer["error"]["code"], "bad_request",
                        "{request} {cursor}: {answer}"
                    );
                }
                Cursor::Follows => {
                    let answer = client.request(request, body).await.unwrap();
                    incomplete(&answer["subscribed"], request);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_rooms_than_allowed_are_refused_at_every_gate_that_takes_several() {
    let Some(gateway) = Gateway::start(&[("ROOMCAST_SUBSCRIPTIONS_MAX", "2")]).await else {
        return;
    };
    let asker = Asker {
        gateway: &gateway,
        http: Http::default(),
    };
    let authorization = bearer(&gateway.signer.token("u1", &["staff"]));
    let headers = [("authorization", &*authorization)];
    let three = "room=bookings&room=diary&room=floor";
    for (method, path, body) in [
        ("GET", format!("/v1/sse?{three}"), ""),
        ("GET", format!("/v1/poll?{three}"), ""),
        ("GET", format!("/v1/poll?{three}&wait=0"), ""),
        (
            "POST",
            "/v1/tickets".to_owned(),
            r#"{"rooms":["bookings","diary","floor"]}"#,
        ),
    ] {
        let said = asker.send(method, &path, body.into(), &headers).await;
        assert_eq!((said.status, &*said.code), (429, "limit"), "{path}: {said:?}");
    }
    let (mut client, _) = gateway.client("u1", &["staff"], &["bookings", "diary"]).await;
    let answer = client
        .request("subscribe", json!({ "room": "floor" }))
        .await
        .unwrap();
    assert_eq!(answer["error"]["code"], "limit", "{answer}");
    // One that is forbidden is that first: how many rooms one has tells nothing about others.
    let answer = client
        .request("subscribe", json!({ "room": "money" }))
        .await
        .unwrap();
    assert_eq!(answer["error"]["code"], "forbidden", "{answer}");
    let mut other = Client::open(&gateway.url).await.unwrap();
    let token = gateway.signer.token("u2", &["staff"]);
    let rooms = ["bookings", "diary", "floor"].map(|room| json!({ "room": room }));
    let connect = json!({ "token": token, "client": "test", "rooms": rooms });
    let answer = other.request("connect", connect).await.unwrap();
    assert_eq!(answer["error"]["code"], "limit", "{answer}");
    while other.closed.is_none() {
        other.next(std::time::Duration::from_secs(20)).await.unwrap();
    }
    assert_eq!(other.closed.unwrap().0, 4504);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_much_of_anything_is_told_to_wait_at_every_gate() {
    let rates = "subscribe=1/1,history=1/1,read=1/1,command=1/1,presence=1/1,publish=1/1,feed=1/1,mark=1/1,refresh=1/1,ticket=1/1,device=1/1,activity=1/1";
    let Some(gateway) = Gateway::start(&[("ROOMCAST_OPERATION_RATES", rates)]).await else {
        return;
    };
    let asker = Asker {
        gateway: &gateway,
        http: Http::default(),
    };
    for (number, route) in ROUTES.iter().enumerate() {
        let token = gateway.signer.token(&format!("reader-{number}"), &["staff"]);
        let authorization = bearer(&token);
        // What is forbidden or cannot be done is counted as well: asking is what is bounded.
        let name = match route.names {
            Names::Room => "money",
            Names::Command => "absent",
            Names::Nothing => "c0000000000000000",
        };
        let mut said = asker
            .ask(route, name, "", &[("authorization", &authorization)])
            .await;
        assert_ne!(said.code, "rate", "{}", route.name);
        for _ in 0..50 {
            said = asker
                .ask(route, name, "", &[("authorization", &authorization)])
                .await;
            if said.code == "rate" {
                break;
            }
        }
        assert_eq!(
            (said.status, &*said.code),
            (429, "rate"),
            "{}: {said:?}",
            route.name
        );
        let millis = said.body["retryAfterMs"].as_u64().unwrap();
        assert!(
            (1..=1_000).contains(&millis) && said.retry_after == Some(1),
            "{}: {said:?}",
            route.name
        );
    }
    for (request, body, ..) in REQUESTS {
        let (mut client, _) = gateway
            .client(&format!("socket-{request}"), &["staff"], &[])
            .await;
        let body: Value = serde_json::from_str(&filled(body, "absent", "")).unwrap();
        let mut error = Value::Null;
        for _ in 0..10 {
            error = client.request(request, body.clone()).await.unwrap()["error"].clone();
            if error["code"] == "rate" {
                break;
            }
        }
        assert_eq!(
            (&error["code"], &error["temporary"]),
            (&json!("rate"), &json!(true)),
            "{request}: {error}"
        );
        assert!(
            (1..=1_000).contains(&error["retryAfterMs"].as_u64().unwrap()),
            "{request}: {error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_request_itself_is_said_before_anything_else() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let asker = Asker {
        gateway: &gateway,
        http: Http::default(),
    };
    let authorization = bearer(&gateway.signer.token("u1", &["staff"]));
    let good = ("authorization", &*authorization);
    let huge = "x".repeat(17_000);
    let rows: [(&str, Headers<'_>, u16, &str); 4] = [
        ("", &[good, ("origin", "https://evil.example")], 403, "bad_origin"),
        ("", &[good, ("origin", "null")], 403, "bad_origin"),
        ("token=x", &[good], 400, "bad_request"),
        ("access_token=x", &[], 400, "bad_request"),
    ];
    for (query, headers, status, code) in rows {
        let mut bodies = BTreeSet::new();
        for route in &ROUTES {
            let path = filled(route.path, "bookings", "");
            let joint = if path.contains('?') { '&' } else { '?' };
            let body = filled(route.body, "bookings", "").into();
            let path = format!("{path}{joint}{query}");
            let said = asker.send(route.method, &path, body, headers).await;
            assert_eq!((said.status, &*said.code), (status, code), "{path}: {said:?}");
            bodies.insert(said.bytes);
        }
        assert_eq!(bodies.len(), 1, "{bodies:#?}");
    }
    for route in &ROUTES {
        let said = asker
            .ask(route, "bookings", "", &[good, ("x-filler", &huge)])
            .await;
        assert_eq!(said.status, 431, "{}: {said:?}", route.name);
    }
    let text = ("content-type", "text/plain");
    for route in ROUTES.iter().filter(|route| route.method == "POST") {
        let path = filled(route.path, "desk.ring", "");
        let rows: [(Headers<'_>, Bytes, u16, &str); 6] = [
            (&[good, text], route.body.into(), 415, "unsupported_type"),
            (&[good], "x".repeat(70_000).into(), 413, "too_large"),
            (&[good], Bytes::new(), 400, "bad_json"),
            (&[good], "{".into(), 400, "bad_json"),
            (&[good], "[]".into(), 400, "bad_json"),
            (&[good], Bytes::from_static(b"{\"\xff\":1}"), 400, "bad_encoding"),
        ];
        for (headers, body, status, code) in rows {
            let shown = String::from_utf8_lossy(&body[..body.len().min(20)]).into_owned();
            let said = asker.send("POST", &path, body, headers).await;
            assert_eq!(
                (said.status, &*said.code),
                (status, code),
                "{path} {shown}: {said:?}"
            );
        }
    }
}
