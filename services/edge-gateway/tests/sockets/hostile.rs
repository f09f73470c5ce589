//! What clients do to servers that trust them, row by row, while somebody beside them notices nothing; and many who never read
//! beside many who do.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use roomcast_harness::client::Client;
use roomcast_harness::eventually;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::raw::{UPGRADE, bare, bare_narrow, masked, message, rest, take_frames};
use super::{Gateway, ids};

const SOON: Duration = Duration::from_secs(20);
/// Who waited for somebody that does not read would wait for the whole time of a write, which is 60 s here; the slowest machine is
/// below this.
const NEVER_WAITS: Duration = Duration::from_secs(15);

/// What a connection that begins with these bytes is answered until it ends, or is upgraded.
async fn begins(gateway: &Gateway, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = tokio::time::timeout(SOON, stream.read(&mut piece))
        .await
        .expect("an answer or an end")
    {
        answer.extend_from_slice(&piece[..count]);
        if answer.starts_with(b"HTTP/1.1 101") {
            break;
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Requests that mean two things to two readers, and what is no request at all. Nobody gets in, and nothing is said twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_honest_request_is_answered_once_and_ended() {
    let Some(gateway) = Gateway::start(&[("ROOMCAST_HEADER_SECONDS", "1")]).await else {
        return;
    };
    let smuggled = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let rows: [(&str, Vec<u8>, &[&str]); 9] = [
        (
            "two lengths of a body",
            format!("{UPGRADE}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}")
                .into(),
            &["400"],
        ),
        (
            "a body behind an upgrade",
            format!("{UPGRADE}Content-Length: {}\r\n\r\n{smuggled}", smuggled.len()).into(),
            &["400"],
        ),
        (
            "a folded header",
            format!("{UPGRADE}X-A: b\r\n c\r\n\r\n").into(),
            &["400"],
        ),
        (
            "a NUL in a header",
            format!("{UPGRADE}X-A: b\0c\r\n\r\n").into(),
            &["400"],
        ),
        (
            "a space before the colon",
            format!("{UPGRADE}Origin : x\r\n\r\n").into(),
            &["400"],
        ),
        (
            "HTTP/2 to a port of HTTP/1",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            &["400", "505", ""],
        ),
        (
            "TLS to a port without",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            &["400"],
        ),
        ("bytes of nothing", vec![0xff; 64], &["400"]),
        (
            "an absolute address of another host",
            format!("{}\r\n", UPGRADE.replace("/v1/ws", "http://evil.example/v1/ws")).into(),
            &["400"],
        ),
    ];
    for (what, bytes, statuses) in rows {
        let answer = begins(&gateway, &bytes).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(statuses.contains(&status), "{what}: {answer}");
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{what}: {answer}");
    }
    // Compression is offered by every browser and never agreed: a bomb has nothing to explode in.
    let offered = begins(
        &gateway,
        format!("{UPGRADE}Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n")
            .as_bytes(),
    )
    .await;
    assert!(offered.starts_with("HTTP/1.1 101"), "{offered}");
    assert!(!offered.to_ascii_lowercase().contains("extensions"), "{offered}");
}

/// Frames of one kind of attack, and the code they end with.
pub fn attacks() -> Vec<(&'static str, Vec<u8>, u16)> {
    let long = |first: u8, len: u64| [vec![first, 0xff], len.to_be_bytes().to_vec(), vec![0; 4]].concat();
    let with = |head: Vec<u8>, payload: &[u8]| [head, payload.to_vec()].concat();
    vec![
        (
            "a compressed frame that was not agreed",
            masked(0xc1, b"\x4a\x4c"),
            1002,
        ),
        ("another reserved bit", masked(0xa1, b"{}"), 1002),
        ("a frame without a mask", vec![0x81, 0x02, b'{', b'}'], 1002),
        ("an opcode that is not defined", masked(0x83, b""), 1002),
        (
            "a length of 2 in 16 bits",
            with(vec![0x81, 0xfe, 0, 2, 0, 0, 0, 0], b"{}"),
            1002,
        ),
        ("a length of 2 in 64 bits", with(long(0x81, 2), b"{}"), 1002),
        ("a length with its highest bit set", long(0x81, 1 << 63), 1002),
        ("1 GiB declared, then silence", long(0x81, 1 << 30), 1009),
        ("64 KiB and one byte declared", long(0x81, 65_537), 1009),
        (
            "300,000 empty fragments",
            [masked(0x01, b"{"), masked(0x00, b"").repeat(300_000)].concat(),
            1009,
        ),
        (
            "fragments that add up to too much",
            [
                masked(0x01, b"{"),
                masked(0x00, &[b' '; 60_000]),
                masked(0x00, &[b' '; 60_000]),
            ]
            .concat(),
            1009,
        ),
        ("a continuation of nothing", masked(0x80, b"x"), 1002),
        (
            "a message inside another",
            [masked(0x01, b"{"), masked(0x81, b"{}")].concat(),
            1002,
        ),
        ("a ping in fragments", masked(0x09, b""), 1002),
        ("a ping of 126 bytes", masked(0x89, &[b'p'; 126]), 1002),
        ("a close frame with half a code", masked(0x88, b"\x03"), 1002),
        (
            "a close code that may not be sent",
            masked(0x88, b"\x03\xed"),
            1002,
        ),
        (
            "a close reason that is not UTF-8",
            masked(0x88, b"\x03\xe8\xff"),
            1007,
        ),
        ("text that is not UTF-8", masked(0x81, b"{\"id\":\xc3\x28}"), 1007),
        ("binary where text was agreed", masked(0x82, b"{}"), 1003),
        ("no message in the frame", masked(0x81, b"{}"), 4503),
        (
            "an id that is none",
            masked(0x81, br#"{"id":-1,"pong":{}}"#),
            4503,
        ),
        (
            "nesting that has no end",
            masked(0x81, "[".repeat(60_000).as_bytes()),
            4503,
        ),
        ("pings for ever", masked(0x89, &[b'p'; 125]).repeat(4_000), 4006),
        ("pongs for ever", masked(0x8a, &[b'p'; 125]).repeat(4_000), 4006),
        (
            "messages for ever",
            masked(0x81, br#"{"id":1,"unsubscribe":{"room":"x"}}"#).repeat(200),
            4006,
        ),
    ]
}

/// All attacks, several at a time, beside one calm client: each ends with its code, and it gets everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_attack_ends_with_its_code_and_nobody_else_notices() {
    let Some(gateway) = Gateway::start(&[
        ("ROOMCAST_CONNECT_BURST_PER_ADDRESS", "1000"),
        ("ROOMCAST_CONNECTIONS_PER_USER_MAX", "100"),
        // Whoever waited for an attacker would wait for all of this.
        ("ROOMCAST_WRITE_SECONDS", "60"),
    ])
    .await
    else {
        return;
    };
    let (mut calm, _) = gateway.client("calm", &["staff"], &["bookings"]).await;
    calm.caught_up("bookings").await.unwrap();
    let attacking = async {
        for batch in attacks().chunks(6) {
            futures_util::future::join_all(batch.iter().map(|(what, bytes, code)| {
                let gateway = &gateway;
                async move {
                    let (mut reader, mut writer) = bare(gateway).await.into_split();
                    // Who is ended in the middle cannot send the rest.
                    let (_, mut all) = tokio::join!(async { drop(writer.write_all(bytes).await) }, async {
                        let mut all = Vec::new();
                        let _ = tokio::time::timeout(SOON, reader.read_to_end(&mut all))
                            .await
                            .unwrap_or_else(|_| panic!("{what}: not ended"));
                        all
                    });
                    // Why, in our words and in those of RFC 6455, and nothing after it. Also a flood is told: it is read to its end.
                    let frames = take_frames(&mut all);
                    let said: Vec<_> = frames.iter().filter_map(message).collect();
                    let told = said.last().map(|frame| frame["disconnect"]["code"].clone());
                    assert_eq!(told, Some(json!(code)), "{what}: {said:?}");
                    let (first, payload) = frames.last().unwrap();
                    assert_eq!((*first, &payload[..2]), (0x88, &code.to_be_bytes()[..]), "{what}");
                    assert!(all.is_empty(), "{what}: {} bytes after the end", all.len());
                }
            }))
            .await;
        }
    };
    let mut late = Vec::new();
    let publishing = async {
        for n in 0..100 {
            let at = Instant::now();
            let id = format!("e{n}");
            gateway.event("bookings", "all", &id, json!({})).await;
            let frames = calm.until("an event", SOON, |frame| {
                frame["event"]["event"]["id"] == id.as_str()
            });
            assert_eq!(ids(&frames.await.unwrap(), "bookings"), [id.as_str()]);
            late.push(at.elapsed());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::join!(attacking, publishing);
    for (reason, least) in [
        ("rate", 3.0),
        ("ws_protocol", 10.0),
        ("ws_too_big", 3.0),
        ("ws_invalid_data", 2.0),
    ] {
        let counted = gateway.count("roomcast_gateway_closes_total", &format!("\"{reason}\""));
        assert!(counted >= least, "{reason}: {counted}");
    }
    late.sort_unstable();
    assert!(late[98] < NEVER_WAITS, "p99 {:?}", late[98]);
    println!(
        "{} kinds of attack, six at a time: each ended with its code; a client beside them got 100 of 100 events, stored to read \
         p50 {:.1?} p99 {:.1?}",
        attacks().len(),
        late[50],
        late[98]
    );
}

/// Readers and how many of all never read. The figures of the real size are `make bench`'s.
const READERS: usize = 90;
const NEVER: usize = 10;
const EVENTS: usize = 300;

struct Heard {
    ids: Vec<String>,
    late: Vec<Duration>,
}

/// Reads until the last event of a round is there.
async fn hear(client: &mut Client, round: &str, sent: &std::sync::Mutex<HashMap<String, Instant>>) -> Heard {
    let last = format!("{round}{}", EVENTS - 1);
    let mut heard = Heard {
        ids: Vec::new(),
        late: Vec::new(),
    };
    while heard.ids.last() != Some(&last) {
        let frame = client.next(SOON).await.unwrap().expect("readers stay");
        // Other tests of this process measure its memory.
        client.raw.clear();
        let id = frame["event"]["event"]["id"]
            .as_str()
            .filter(|id| id.starts_with(round));
        if let Some(id) = id {
            let at = sent.lock().unwrap()[id];
            heard.late.push(at.elapsed());
            heard.ids.push(id.to_owned());
        }
    }
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_who_never_read_cost_the_others_nothing() {
    let limits = [
        ("ROOMCAST_CONNECTIONS_PER_ADDRESS_MAX", "1000"),
        ("ROOMCAST_CONNECT_BURST_PER_ADDRESS", "1000"),
        ("ROOMCAST_UNAUTHENTICATED_PER_ADDRESS_MAX", "1000"),
        ("ROOMCAST_CONNECTIONS_PER_USER_MAX", "100"),
        ("ROOMCAST_WRITE_SECONDS", "60"),
    ];
    let Some(gateway) = Gateway::start(&limits).await else {
        return;
    };
    let mut readers = Vec::new();
    for n in 0..READERS {
        let (mut client, _) = gateway.client(&format!("u{n}"), &["staff"], &["bookings"]).await;
        client.caught_up("bookings").await.unwrap();
        readers.push(client);
    }
    let sent = std::sync::Mutex::new(HashMap::new());
    let padding = "x".repeat(8 * 1024);
    let mut rounds = Vec::new();
    let mut never = Vec::new();
    for round in ["quiet", "beside"] {
        if round == "beside" {
            for _ in 0..NEVER {
                never.push(bare_narrow(&gateway).await);
            }
            eventually("all are in", SOON, || async {
                gateway.metric("roomcast_gateway_connected_total") == (READERS + NEVER) as f64
            })
            .await;
        }
        let publishing = async {
            for n in 0..EVENTS {
                let id = format!("{round}{n}");
                sent.lock().unwrap().insert(id.clone(), Instant::now());
                let data = json!({ "data": { "padding": padding } });
                gateway.event("bookings", "all", &id, data).await;
            }
        };
        let hearing =
            futures_util::future::join_all(readers.iter_mut().map(|client| hear(client, round, &sent)));
        let (heard, ()) = tokio::join!(hearing, publishing);
        let all: Vec<String> = (0..EVENTS).map(|n| format!("{round}{n}")).collect();
        assert!(
            heard.iter().all(|heard| heard.ids == all),
            "each event once and in order"
        );
        let mut late: Vec<Duration> = heard.into_iter().flat_map(|heard| heard.late).collect();
        late.sort_unstable();
        let (p50, p99) = (late[late.len() / 2], late[late.len() * 99 / 100]);
        assert!(p99 < NEVER_WAITS, "{round}: p99 {p99:?}");
        rounds.push((p50, p99));
    }
    eventually("those who never read are closed", SOON, || async {
        gateway.count("roomcast_gateway_closes_total", "\"too_slow\"") == NEVER as f64
    })
    .await;
    assert_eq!(gateway.metric("roomcast_gateway_connections"), READERS as f64);
    println!(
        "{READERS} readers, {EVENTS} events of 8 KiB: p50 {:.1?} p99 {:.1?}; with {NEVER} beside them that never read: p50 {:.1?} \
         p99 {:.1?}; all {NEVER} closed 4002, every reader has every event once",
        rounds[0].0, rounds[0].1, rounds[1].0, rounds[1].1
    );
    for mut stream in never {
        let mut all = rest(&mut stream).await;
        let last = take_frames(&mut all).pop().unwrap();
        assert_eq!((last.0, &last.1[..2]), (0x88, &4002_u16.to_be_bytes()[..]));
    }
}
