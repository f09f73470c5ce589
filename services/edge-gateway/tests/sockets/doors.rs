//! What does not get in, and how it is told.

use std::time::{Duration, Instant};

use roomcast_harness::client::Client;
use roomcast_harness::eventually;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Gateway;
use super::raw::{UPGRADE, masked, message, rest, take_frames, until};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const GOOD: &str = "Host: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";

/// Sends bytes and answers all that comes back until the connection ends, at most 8 s.
async fn raw(gateway: &Gateway, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    // A server that has heard enough may stop listening in the middle.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let reading = async {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            answer.extend_from_slice(&buffer[..count]);
            if answer.starts_with(b"HTTP/1.1 101") {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(8), reading).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_upgrades_are_refused_in_the_words_of_http() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let good = format!("GET /v1/ws HTTP/1.1\r\n{GOOD}{KEY}");
    let token = gateway.signer.token("u1", &["staff"]);
    let expired = gateway.signer.token_with("u1", &["staff"], -31, &json!({}));
    let rows: Vec<(String, &str, &str)> = vec![
        (format!("{good}\r\n"), "101", ""),
        (format!("{good}Origin: https://desk.example\r\n\r\n"), "101", ""),
        (format!("{good}Authorization: Bearer {token}\r\n\r\n"), "101", ""),
        (
            format!("{good}Sec-WebSocket-Protocol: roomcast.v1.json, bearer.{token}\r\n\r\n"),
            "101",
            "",
        ),
        (format!("GET /v1/ws HTTP/1.1\r\n{GOOD}\r\n"), "400", "bad_request"),
        (
            format!("GET /v1/ws HTTP/1.1\r\n{GOOD}Sec-WebSocket-Key: abc\r\n\r\n"),
            "400",
            "bad_request",
        ),
        (format!("{good}{KEY}\r\n"), "400", "bad_request"),
        (format!("{good}Host: y\r\n\r\n"), "400", "bad_request"),
        (
            good.replace("Host: x", "Host: u@x") + "\r\n",
            "400",
            "bad_request",
        ),
        (
            "GET / HTTP/1.1\r\nHost: x, y\r\nConnection: close\r\n\r\n".to_owned(),
            "400",
            "bad_request",
        ),
        (good.replace("Host: x\r\n", "") + "\r\n", "400", "bad_request"),
        (format!("{good}Origin: null\r\n\r\n"), "403", "bad_origin"),
        (
            format!("{good}Origin: https://evil.example\r\n\r\n"),
            "403",
            "bad_origin",
        ),
        (
            format!("{good}Content-Length: 3\r\n\r\nabc"),
            "400",
            "bad_request",
        ),
        (
            format!("{good}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            "400",
            "bad_request",
        ),
        (
            good.replace("GET /v1/ws", "POST /v1/ws") + "\r\n",
            "405",
            "method_not_allowed",
        ),
        (
            good.replace("/v1/ws", &format!("/v1/ws?token={token}")) + "\r\n",
            "400",
            "bad_request",
        ),
        (
            good.replace("/v1/ws", &format!("/v1/ws?x={}", "y".repeat(4100))) + "\r\n",
            "431",
            "headers_too_large",
        ),
        (
            format!("{good}Sec-WebSocket-Protocol: bearer.{token}\r\n\r\n"),
            "400",
            "bad_request",
        ),
        (
            format!("{good}Sec-WebSocket-Protocol: graphql-ws\r\n\r\n"),
            "400",
            "bad_request",
        ),
        (
            format!("{good}Authorization: Bearer nonsense\r\n\r\n"),
            "401",
            "unauthenticated",
        ),
        (
            format!("{good}Authorization: Bearer {token}x\r\n\r\n"),
            "401",
            "unauthenticated",
        ),
        (
            format!("{good}Authorization: Bearer {expired}\r\n\r\n"),
            "401",
            "expired",
        ),
    ];
    for (request, status, code) in rows {
        let answer = raw(&gateway, request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}\n→ {answer}"
        );
        assert!(answer.contains(code), "{request}\n→ {answer}");
        let problem = status == "101" || answer.contains("content-type: application/problem+json");
        assert!(problem && !answer.contains(&token), "{answer}");
    }
    let selected = raw(
        &gateway,
        format!("{good}Sec-WebSocket-Protocol: bearer.{token}, roomcast.v1.json\r\n\r\n").as_bytes(),
    )
    .await;
    assert!(
        selected.contains("sec-websocket-protocol: roomcast.v1.json\r\n"),
        "{selected}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_and_large_heads_are_ended() {
    let Some(gateway) = Gateway::start(&[("ROOMCAST_HEADER_SECONDS", "1")]).await else {
        return;
    };
    for request in ["", "GET /v1/ws HT", "GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "] {
        let begun = Instant::now();
        let answer = raw(&gateway, request.as_bytes()).await;
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "{request:?} was held {:?}",
            begun.elapsed()
        );
        assert!(answer.starts_with("HTTP/1.1 408"), "{request:?} → {answer}");
        assert!(answer.contains("\"request_timeout\""), "{request:?} → {answer}");
        assert!(answer.contains("\r\ndate: "), "{request:?} → {answer}");
    }
    assert_eq!(gateway.count("roomcast_gateway_turned_away_total", "head"), 3.0);
    let large = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n",
        "y".repeat(17 * 1024)
    );
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X-Many: y\r\n".repeat(300));
    for request in [large, many] {
        let answer = raw(&gateway, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}

/// The first head may have had little time left; those behind it have all of theirs, and who asks for nothing more hears nothing more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_connection_has_the_whole_time_for_each_head_and_ends_in_silence() {
    let Some(gateway) = Gateway::start(&[("ROOMCAST_HEADER_SECONDS", "5")]).await else {
        return;
    };
    let request = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";
    let (half, rest) = request.split_at(20);
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    // Most of the first head's time, then less than a head's but more than was left of the first: neither may be too late, with seconds
    // to spare.
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answers = Vec::new();
    let mut first = [0; 1];
    stream.read_exact(&mut first).await.unwrap();
    stream.write_all(half.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    stream.write_all(rest.as_bytes()).await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answers)).await;
    end.expect("a connection that rests is ended").unwrap();
    let answers = String::from_utf8_lossy(&answers);
    assert_eq!(answers.matches("TTP/1.1 200").count(), 2, "{answers:.200}");
    assert!(!answers.contains("TTP/1.1 408"), "{answers:.200}");
    assert_eq!(gateway.count("roomcast_gateway_turned_away_total", "head"), 0.0);
}

/// Whatever came behind the head of an upgrade belongs to the socket, however much of it there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_behind_an_upgrade_with_a_token_is_heard() {
    const MESSAGES: usize = 52;
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let token = gateway.signer.token("u1", &["staff"]);
    let head = format!("GET /v1/ws HTTP/1.1\r\n{GOOD}{KEY}Authorization: Bearer {token}\r\n\r\n");
    let connect = masked(0x81, br#"{"id":1,"connect":{"client":"t"}}"#);
    let room = vec!["r".repeat(64); 3].join(".");
    let asks = (2..2 + MESSAGES).flat_map(|id| {
        let ask = json!({ "id": id, "unsubscribe": { "room": room } });
        masked(0x81, ask.to_string().as_bytes())
    });
    let all: Vec<u8> = head.bytes().chain(connect).chain(asks).collect();
    assert!((12 << 10..16 << 10).contains(&all.len()), "{}", all.len());
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(&all).await.unwrap();
    let (mut came, mut ids, mut is_in) = (Vec::new(), Vec::new(), false);
    let reading = async {
        while ids.len() <= MESSAGES {
            assert!(stream.read_buf(&mut came).await.unwrap() > 0, "it goes on");
            if !is_in && let Some(end) = came.windows(4).position(|end| end == b"\r\n\r\n") {
                assert!(came.starts_with(b"HTTP/1.1 101"));
                came.drain(..end + 4);
                is_in = true;
            }
            if is_in {
                let frames = take_frames(&mut came);
                ids.extend(frames.iter().filter_map(|frame| message(frame)?["id"].as_u64()));
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(10), reading).await;
    let expected: Vec<u64> = (1..2 + MESSAGES as u64).collect();
    assert_eq!(ids, expected, "each is answered once and in order");
}

/// A body that is not framed as it says is no body that is too long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_breaks_off_is_bad_and_a_long_one_too_large() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let token = gateway.signer.token("u1", &["staff"]);
    let chunk = format!("{:x}\r\n{}\r\n0\r\n\r\n", 70_000, "y".repeat(70_000));
    for (body, status, code, counted) in [
        ("zz\r\n", "400", "bad_request", 0.0),
        ("2\r\n{}x\r\n", "400", "bad_request", 0.0),
        (&chunk, "413", "too_large", 1.0),
    ] {
        let request = format!(
            "POST /v1/marks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
        );
        let answer = raw(&gateway, request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(code),
            "{body:.20} → {answer}"
        );
        assert_eq!(
            gateway.count("roomcast_gateway_limited_total", "limit=\"message\""),
            counted,
            "{body:.20}"
        );
    }
}

/// A body of two lengths ends in two places, and what lies between is a request to one reader and a body to the other. Nobody
/// here reads it as either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_two_lengths_ends_the_connection() {
    let Some(gateway) = Gateway::start(&[("ROOMCAST_HEADER_SECONDS", "5")]).await else {
        return;
    };
    let token = gateway.signer.token("u1", &["staff"]);
    let (length, encoding) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    let (both, behind) = (format!("{length}{encoding}"), format!("{encoding}{length}"));
    let rows = [
        ("GET /", &both, "400"),
        ("GET /", &behind, "400"),
        ("GET /v1/poll?room=bookings&wait=0", &both, "400"),
        ("GET /v1/poll?room=bookings&wait=0", &behind, "400"),
        ("POST /v1/commands/x", &both, "400"),
        // The encoding counts, as it must; then nothing more is read.
        ("POST /v1/commands/x", &behind, "4"),
        ("GET /", &encoding.to_owned(), "400"),
    ];
    for (line, lengths, status) in rows {
        let request = format!(
            "{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n{lengths}\r\n\
             0\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"
        );
        let answer = raw(&gateway, request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{line} {lengths}→ {answer}"
        );
        assert_eq!(
            answer.matches("HTTP/1.1 ").count(),
            1,
            "{line} {lengths}→ {answer}"
        );
        assert!(
            answer.contains("connection: close\r\n"),
            "{line} {lengths}→ {answer}"
        );
    }
}

/// An address that names its host itself: fine where `Host` names the same, else two readers would see two hosts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_absolute_address_names_the_host_that_host_names() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let rows = [
        ("http://x/", "200"),
        ("http://X/", "200"),
        ("http://evil.example/", "400"),
        ("http://x:1/", "400"),
        ("http://x@evil.example/", "400"),
        ("http://evil.example/v1/poll?room=bookings", "400"),
    ];
    for (address, status) in rows {
        let request = format!("GET {address} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = raw(&gateway, request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{address} → {answer}"
        );
    }
    for (address, status) in [("http://x/v1/ws", "101"), ("http://evil.example/v1/ws", "400")] {
        let request = format!("GET {address} HTTP/1.1\r\n{GOOD}{KEY}\r\n");
        let answer = raw(&gateway, request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{address} → {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_on_connections_are_answered_and_given_back() {
    let limits = [
        ("ROOMCAST_CONNECTIONS_PER_ADDRESS_MAX", "3"),
        ("ROOMCAST_CONNECT_RATE_PER_ADDRESS", "1000"),
        ("ROOMCAST_CONNECT_BURST_PER_ADDRESS", "1000"),
    ];
    let Some(gateway) = Gateway::start(&limits).await else {
        return;
    };
    let mut clients = Vec::new();
    for n in 0..3 {
        clients.push(gateway.client(&format!("u{n}"), &["staff"], &[]).await.0);
    }
    let answer = raw(&gateway, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 429") && answer.contains("retry-after: "),
        "{answer}"
    );
    clients.pop();
    let mut page = String::new();
    for _ in 0..100 {
        page = raw(
            &gateway,
            b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
        .await;
        if page.starts_with("HTTP/1.1 200") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        page.starts_with("HTTP/1.1 200"),
        "the place was given back: {page}"
    );
    assert!(gateway.metric("roomcast_gateway_turned_away_total") >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_message_decides() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let expired = gateway.signer.token_with("u1", &["staff"], -31, &json!({}));
    let good = gateway.signer.token("u1", &["staff"]);
    let rows = [
        (
            json!({ "id": 1, "connect": { "token": "nonsense", "client": "t" } }).to_string(),
            4500,
            "unauthenticated",
        ),
        (
            json!({ "id": 1, "connect": { "client": "t" } }).to_string(),
            4500,
            "unauthenticated",
        ),
        (
            json!({ "id": 1, "connect": { "token": expired, "client": "t" } }).to_string(),
            4003,
            "expired",
        ),
        (
            json!({ "id": 1, "subscribe": { "room": "bookings" } }).to_string(),
            4503,
            "bad_frame",
        ),
        (
            json!({ "id": 1, "connect": { "token": good, "client": "x".repeat(129) } }).to_string(),
            4503,
            "bad_frame",
        ),
        ("not json".to_owned(), 4503, "bad_frame"),
    ];
    for (first, close, code) in rows {
        let mut client = Client::open(&gateway.url).await.unwrap();
        client.send_text(&first).await.unwrap();
        let frames = client
            .until("disconnect", Duration::from_secs(5), |frame| {
                frame["disconnect"].is_object()
            })
            .await
            .unwrap();
        assert_eq!(
            (&frames[0]["error"]["code"], &frames[1]["disconnect"]["code"]),
            (&json!(code), &json!(close)),
            "{first}"
        );
        assert_eq!(client.next(Duration::from_secs(5)).await.unwrap(), None);
        assert_eq!(client.closed.map(|closed| closed.0), Some(close), "{first}");
    }
    let mut twice = gateway.client("u1", &["staff"], &[]).await.0;
    let again = twice.request("connect", json!({ "client": "t" })).await.unwrap();
    assert_eq!(again["error"]["code"], "bad_frame");
    assert_eq!(
        twice
            .until("4503", Duration::from_secs(5), |f| f["disconnect"]["code"]
                == 4503)
            .await
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_is_closed_after_eight_seconds() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let mut silent = Client::open(&gateway.url).await.unwrap();
    let begun = Instant::now();
    let frames = silent
        .until("disconnect", Duration::from_secs(12), |frame| {
            frame["disconnect"].is_object()
        })
        .await
        .unwrap();
    assert_eq!(frames[0]["disconnect"]["code"], 4500);
    assert!(
        (7..10).contains(&begun.elapsed().as_secs()),
        "{:?}",
        begun.elapsed()
    );
}

/// What one of a crowd does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comes {
    /// Says all at once.
    InOnePiece,
    /// Waits for each answer.
    InTurn,
    /// Asks for what is not there.
    InVain,
    /// Leaves without a word.
    AndGoes,
    /// Leaves when it may say who it is.
    AndGoesUpgraded,
}

/// Who comes with thousands is gathered for a moment, in which its socket is not looked at: nobody is forgotten in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_is_let_in_whole_and_who_has_left_it_holds_nothing() {
    const EACH: usize = 200;
    let many = [
        "ROOMCAST_CONNECT_RATE_PER_ADDRESS",
        "ROOMCAST_CONNECT_BURST_PER_ADDRESS",
        "ROOMCAST_CONNECTIONS_PER_ADDRESS_MAX",
        "ROOMCAST_CONNECTIONS_PER_USER_MAX",
        "ROOMCAST_UNAUTHENTICATED_PER_ADDRESS_MAX",
    ];
    let Some(gateway) = Gateway::start(&many.map(|limit| (limit, "2000"))).await else {
        return;
    };
    let upgrade = format!("{UPGRADE}\r\n");
    let token = gateway.signer.token("u1", &["staff"]);
    let hello = json!({ "id": 1, "connect": { "token": token, "client": "t" } }).to_string();
    let hello = masked(0x81, hello.as_bytes());
    let request = b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let address = gateway.address;
    let kinds = [
        Comes::InOnePiece,
        Comes::AndGoes,
        Comes::InTurn,
        Comes::AndGoesUpgraded,
        Comes::InVain,
    ];
    let come = |kind: Comes| {
        let (upgrade, hello) = (upgrade.clone().into_bytes(), hello.clone());
        async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            match kind {
                Comes::AndGoes => return None,
                Comes::InVain => {
                    stream.write_all(request).await.unwrap();
                    assert!(rest(&mut stream).await.starts_with(b"HTTP/1.1 404 "), "{kind:?}");
                    return None;
                }
                Comes::InOnePiece => stream.write_all(&[upgrade, hello].concat()).await.unwrap(),
                Comes::InTurn | Comes::AndGoesUpgraded => {
                    stream.write_all(&upgrade).await.unwrap();
                    until(&mut stream, b"\r\n\r\n").await;
                    if kind == Comes::AndGoesUpgraded {
                        return None;
                    }
                    stream.write_all(&hello).await.unwrap();
                }
            }
            until(&mut stream, b"\"connected\"").await;
            Some(stream)
        }
    };
    let crowd = (0..EACH).flat_map(|_| kinds).map(|kind| tokio::spawn(come(kind)));
    let crowd: Vec<_> = crowd.collect();
    let mut stay = Vec::new();
    for one in crowd {
        let came = tokio::time::timeout(Duration::from_secs(20), one).await;
        stay.extend(came.expect("an answer").unwrap());
    }
    assert_eq!(stay.len(), 2 * EACH);
    // Who was not seen leaving would be found when its patience is over, after 8 s.
    let open = |wanted: usize| {
        let gateway = &gateway;
        eventually(
            "all are counted out who left",
            Duration::from_secs(4),
            move || async move { gateway.metric("roomcast_gateway_connections") == wanted as f64 },
        )
    };
    open(stay.len()).await;
    drop(stay);
    open(0).await;
}
