//! Each limit on who may come and how often: its answer, its count, and that it is given back.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use roomcast_harness::client::Client;
use roomcast_harness::http::Http;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::raw::UPGRADE;
use super::{Gateway, resident_kib};

const SOON: Duration = Duration::from_secs(30);
const PAGE: &[u8] = b"GET /page.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// What a new connection with this request is answered.
async fn asks(gateway: &Gateway, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(SOON, read)
        .await
        .expect("an answer and an end");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn silent(gateway: &Gateway) -> TcpStream {
    TcpStream::connect(gateway.address).await.unwrap()
}

/// The last two frames of a connection that is one too many.
async fn turned_away(gateway: &Gateway, token: String) -> Vec<Value> {
    let mut client = Client::open(&gateway.url).await.unwrap();
    let connect = json!({ "id": 1, "connect": { "token": token, "client": "t" } });
    client.send_text(&connect.to_string()).await.unwrap();
    let ended = |frame: &Value| frame["disconnect"].is_object();
    let frames = client.until("an end", SOON, ended).await.unwrap();
    assert_eq!(client.next(SOON).await.unwrap(), None);
    assert_eq!(client.closed.as_ref().map(|closed| closed.0), Some(4504));
    frames
}

async fn until_it_fits(gateway: &Gateway, token: &str) -> Client {
    let begun = Instant::now();
    loop {
        let fits = Client::connect(&gateway.url, token, &[], &HashMap::new()).await;
        if let Ok((client, connected)) = fits
            && connected["connection"].is_string()
        {
            return client;
        }
        assert!(begun.elapsed() < SOON, "the place is given back");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_and_a_tenant_have_so_many_connections() {
    let key = "ab".repeat(32);
    let limits = [
        ("ROOMCAST_CURSOR_KEYS", key.as_str()),
        ("ROOMCAST_CONNECTIONS_PER_USER_MAX", "2"),
        ("ROOMCAST_CONNECTIONS_PER_TENANT_MAX", "3"),
    ];
    let Some(gateway) = Gateway::start(&limits).await else {
        return;
    };
    let token = |tenant: &str, user: &str| {
        let claims = json!({ "tenant": tenant });
        gateway.signer.token_with(user, &["staff"], 600, &claims)
    };
    let none = HashMap::new();
    let mut open = Vec::new();
    for user in ["u1", "u1", "u2"] {
        open.push(
            Client::connect(&gateway.url, &token("main", user), &[], &none)
                .await
                .unwrap()
                .0,
        );
    }
    for (user, says, label) in [("u1", "tenant", "tenant"), ("u3", "tenant", "tenant")] {
        let frames = turned_away(&gateway, token("main", user)).await;
        let error = &frames[0]["error"];
        assert_eq!(
            (&error["code"], &error["temporary"]),
            (&json!("limit"), &json!(false))
        );
        assert!(error["message"].as_str().unwrap().contains(says), "{error}");
        assert_eq!(frames[1]["disconnect"]["code"], 4504);
        assert_eq!(frames[1]["disconnect"]["reconnect"], false);
        assert!(
            gateway.count(
                "roomcast_gateway_turned_away_total",
                &format!("limit=\"{label}\"")
            ) >= 1.0
        );
    }
    // The user's own limit, in another tenant that has room; and the other tenant does not notice the first.
    let acme = token("acme", "u1");
    open.push(Client::connect(&gateway.url, &acme, &[], &none).await.unwrap().0);
    open.push(Client::connect(&gateway.url, &acme, &[], &none).await.unwrap().0);
    let frames = turned_away(&gateway, acme).await;
    assert!(
        frames[0]["error"]["message"].as_str().unwrap().contains("user"),
        "{frames:?}"
    );
    assert_eq!(
        gateway.count("roomcast_gateway_turned_away_total", "limit=\"user\""),
        1.0
    );
    open.remove(0).cut();
    until_it_fits(&gateway, &token("main", "u3")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_are_few_per_address_and_per_process() {
    let rows = [
        (
            "ROOMCAST_UNAUTHENTICATED_PER_ADDRESS_MAX",
            "address_strangers",
            "429",
        ),
        ("ROOMCAST_UNAUTHENTICATED_MAX", "strangers", "503"),
        ("ROOMCAST_CONNECTIONS_MAX", "connections", "503"),
        ("ROOMCAST_CONNECTIONS_PER_ADDRESS_MAX", "address", "429"),
    ];
    for (setting, label, status) in rows {
        // It is asked often, and not to be turned away for that.
        let more = [(setting, "3"), ("ROOMCAST_CONNECT_BURST_PER_ADDRESS", "100000")];
        let Some(gateway) = Gateway::start(&more).await else {
            return;
        };
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(silent(&gateway).await);
        }
        // Shards accept each for itself, so the three may come in after the one that asks.
        let begun = Instant::now();
        let answer = loop {
            let answer = asks(&gateway, PAGE).await;
            if answer.starts_with(&format!("HTTP/1.1 {status} ")) {
                break answer;
            }
            assert!(begun.elapsed() < SOON, "{setting}: {answer:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
            // One of them may have come while a connection from before was still leaving.
            held.push(silent(&gateway).await);
        };
        assert!(answer.contains("retry-after: "), "{setting}: {answer:?}");
        let count = gateway.count(
            "roomcast_gateway_turned_away_total",
            &format!("limit=\"{label}\""),
        );
        assert!(count >= 1.0, "{setting}");
        held.clear();
        let begun = Instant::now();
        while asks(&gateway, PAGE)
            .await
            .starts_with(&format!("HTTP/1.1 {status} "))
        {
            assert!(begun.elapsed() < SOON, "{setting}: the place is given back");
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }
}

/// A request for something else before the upgrade is no way around those limits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_a_page_first_and_shows_no_token_then_is_a_stranger_all_the_same() {
    let rows = [
        (
            "ROOMCAST_UNAUTHENTICATED_PER_ADDRESS_MAX",
            "address_strangers",
            "429",
        ),
        ("ROOMCAST_UNAUTHENTICATED_MAX", "strangers", "503"),
    ];
    for (setting, label, status) in rows {
        let more = [
            (setting, "2"),
            ("ROOMCAST_CONNECT_BURST_PER_ADDRESS", "100000"),
            ("ROOMCAST_AUTHENTICATE_SECONDS", "60"),
        ];
        let Some(gateway) = Gateway::start(&more).await else {
            return;
        };
        let token = gateway.signer.token("u1", &["staff"]);
        let mut streams = Vec::new();
        for _ in 0..4 {
            let mut stream = silent(&gateway).await;
            stream
                .write_all(b"GET /page.json HTTP/1.1\r\nHost: x\r\n\r\n")
                .await
                .unwrap();
            let mut came = Vec::new();
            while !came.ends_with(b"}") {
                assert!(stream.read_buf(&mut came).await.unwrap() > 0, "{setting}");
            }
            streams.push(stream);
        }
        let shown = format!("Authorization: Bearer {token}\r\n");
        let rows = [("", "101"), ("", "101"), ("", status), (&shown, "101")];
        for (stream, (field, expected)) in streams.iter_mut().zip(rows) {
            let upgrade = format!("{UPGRADE}{field}\r\n");
            stream.write_all(upgrade.as_bytes()).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            assert!(
                head.starts_with(&format!("HTTP/1.1 {expected} ")),
                "{setting}: {head}"
            );
            assert_eq!(
                head.contains("retry-after: "),
                expected == status,
                "{setting}: {head}"
            );
        }
        let label = format!("limit=\"{label}\"");
        let count = gateway.count("roomcast_gateway_turned_away_total", &label);
        assert_eq!(count, 1.0, "{setting}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_connections_have_a_rate() {
    let rows = [
        (["ROOMCAST_CONNECT_RATE", "ROOMCAST_CONNECT_BURST"], "rate", "503"),
        (
            [
                "ROOMCAST_CONNECT_RATE_PER_ADDRESS",
                "ROOMCAST_CONNECT_BURST_PER_ADDRESS",
            ],
            "address_rate",
            "429",
        ),
    ];
    for ([rate, burst], label, status) in rows {
        let Some(gateway) = Gateway::start(&[(rate, "2"), (burst, "5")]).await else {
            return;
        };
        let begun = Instant::now();
        let (mut served, mut refused) = (0_u64, 0_u32);
        for _ in 0..30 {
            let answer = asks(&gateway, PAGE).await;
            if answer.starts_with(&format!("HTTP/1.1 {status} ")) {
                assert!(answer.contains("retry-after: "), "{answer:?}");
                refused += 1;
            } else {
                served += 1;
            }
        }
        let most = 5 + 2 * (begun.elapsed().as_secs() + 1);
        assert!(
            served >= 5 && served <= most && refused > 0,
            "{served} of at most {most}"
        );
        let counted = gateway.count(
            "roomcast_gateway_turned_away_total",
            &format!("limit=\"{label}\""),
        );
        assert_eq!(counted, f64::from(refused));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_have_rates_over_all_connections_and_routes_of_a_user() {
    let rates = (
        "ROOMCAST_OPERATION_RATES",
        "history=1/3,refresh=1/1,subscribe=1/2,read=1/2",
    );
    let Some(gateway) = Gateway::start(&[rates]).await else {
        return;
    };
    let (mut one, _) = gateway.client("u1", &["staff"], &["bookings"]).await;
    let (mut two, _) = gateway.client("u1", &["staff"], &["bookings"]).await;
    let (mut other, _) = gateway.client("u2", &["staff"], &["bookings"]).await;
    let ask = || json!({ "room": "bookings" });
    assert!(one.request("history", ask()).await.unwrap()["history"].is_object());
    assert!(two.request("history", ask()).await.unwrap()["history"].is_object());
    let http = Http::default();
    let url = format!("{}/v1/rooms/bookings/events", gateway.url);
    let token = gateway.signer.token("u1", &["staff"]);
    assert_eq!(http.get(&url, Some(&token)).await.unwrap().status, 200);
    let refused = two.request("history", ask()).await.unwrap();
    let error = &refused["error"];
    assert_eq!(
        (&error["code"], &error["temporary"]),
        (&json!("rate"), &json!(true))
    );
    assert!(
        (1..=1_000).contains(&error["retryAfterMs"].as_u64().unwrap()),
        "{error}"
    );
    let over_http = http.get(&url, Some(&token)).await.unwrap();
    assert_eq!(
        (over_http.status, &over_http.json()["code"]),
        (429, &json!("rate"))
    );
    assert!(over_http.headers.contains_key("retry-after"));
    assert!(other.request("history", ask()).await.unwrap()["history"].is_object());
    for room in ["money", "desk", "bookings"] {
        one.request("subscribe", json!({ "room": room })).await.unwrap();
    }
    let state = format!("{}/v1/state?room=bookings", gateway.url);
    for _ in 0..3 {
        http.get(&state, Some(&token)).await.unwrap();
    }
    for _ in 0..2 {
        one.request("refresh", json!({ "token": token })).await.unwrap();
    }
    for (operation, least) in [
        ("history", 2.0),
        ("subscribe", 1.0),
        ("read", 1.0),
        ("refresh", 1.0),
    ] {
        let counted = gateway.count(
            "roomcast_gateway_rate_limited_total",
            &format!("operation=\"{operation}\""),
        );
        assert!(counted >= least, "{operation}: {counted}");
    }
    // The connection goes on, and when the time is over so does the operation.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(two.request("history", ask()).await.unwrap()["history"].is_object());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_beyond_the_budget_end_with_4006() {
    let budget = [
        ("ROOMCAST_INGRESS_BYTES_RATE", "1024"),
        ("ROOMCAST_INGRESS_BYTES_BURST", "131072"),
    ];
    let Some(gateway) = Gateway::start(&budget).await else {
        return;
    };
    let (mut client, _) = gateway.client("u1", &["staff"], &[]).await;
    let large = json!({ "id": 7, "unsubscribe": { "room": "x".repeat(60_000) } }).to_string();
    for _ in 0..4 {
        let _ = client.send_text(&large).await;
    }
    let over = |frame: &Value| frame["disconnect"]["code"] == 4006;
    let frames = client.until("4006", SOON, over).await.unwrap();
    assert!(
        frames
            .iter()
            .filter(|frame| frame["unsubscribed"].is_object())
            .count()
            <= 2
    );
    assert!(gateway.count("roomcast_gateway_closes_total", "reason=\"rate\"") >= 1.0);
}

/// The largest thing a stranger can make us hold: a head that is nearly as long as it may be and never ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_never_end_cost_what_the_limits_say() {
    const STRANGERS: usize = 300;
    let many = STRANGERS.to_string();
    let limits = [
        ("ROOMCAST_UNAUTHENTICATED_PER_ADDRESS_MAX", many.as_str()),
        ("ROOMCAST_CONNECTIONS_PER_ADDRESS_MAX", "1000"),
        ("ROOMCAST_CONNECT_BURST_PER_ADDRESS", "10000"),
        ("ROOMCAST_HEADER_SECONDS", "20"),
    ];
    let Some(gateway) = Gateway::start(&limits).await else {
        return;
    };
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}", "y".repeat(15_000));
    let before = resident_kib();
    let mut held = Vec::new();
    for _ in 0..STRANGERS {
        let mut stream = silent(&gateway).await;
        let _ = stream.write_all(head.as_bytes()).await;
        held.push(stream);
    }
    // Shards accept each for itself: now all of them are in.
    let begun = Instant::now();
    while !asks(&gateway, PAGE).await.starts_with("HTTP/1.1 429 ") {
        assert!(begun.elapsed() < SOON, "nobody is turned away");
        // One of them may have come while a connection from before was still leaving.
        let mut stream = silent(&gateway).await;
        let _ = stream.write_all(head.as_bytes()).await;
        held.push(stream);
    }
    for _ in 0..50 {
        let mut stream = silent(&gateway).await;
        let _ = stream.write_all(head.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
    }
    let refused = gateway.count(
        "roomcast_gateway_turned_away_total",
        "limit=\"address_strangers\"",
    );
    assert!(refused >= 50.0, "{refused} were turned away");
    // 16 KiB of head, its task and hyper's connection, allocator slack: less than 64 KiB each.
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < STRANGERS * 64, "{grown} KiB for {STRANGERS} strangers");
    drop(held);
}
