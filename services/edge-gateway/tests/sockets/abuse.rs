//! Clients that mean harm, or are broken: what they cost, and that the others do not notice.

use std::time::Duration;

use roomcast_harness::client::Client;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::raw::{bare, masked, rest};
use super::{Gateway, ids, resident_kib};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_break_the_protocol_end_with_their_code() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let fragments = [masked(0x01, b"{"), vec![masked(0x00, b""); 2000].concat()].concat();
    let rows: Vec<(Vec<u8>, u16)> = vec![
        (vec![0x81, 0x02, b'h', b'i'], 1002),
        (masked(0xc1, b"{}"), 1002),
        (masked(0x83, b""), 1002),
        (masked(0x09, b""), 1002),
        (masked(0x80, b"x"), 1002),
        (masked(0x82, b"binary"), 1003),
        (masked(0x81, b"\xff\xfe"), 1007),
        (vec![0x81, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0], 1009),
        (fragments, 1009),
        (masked(0x81, b"{}"), 4503),
        (masked(0x81, br#"{"id":"x","pong":{}}"#), 4503),
    ];
    for (bytes, code) in rows {
        let mut stream = bare(&gateway).await;
        stream.write_all(&bytes).await.unwrap();
        let all = rest(&mut stream).await;
        let text = String::from_utf8_lossy(&all);
        assert!(
            text.contains(&format!("{{\"disconnect\":{{\"code\":{code},")),
            "{code}: {text}"
        );
        let close = all
            .windows(4)
            .rposition(|part| part[0] == 0x88 && part[2..4] == code.to_be_bytes());
        assert!(
            close.is_some(),
            "{code}: a close frame with the same code: {text}"
        );
    }
    // The client's own close is answered with its code.
    let mut stream = bare(&gateway).await;
    stream.write_all(&masked(0x88, b"\x03\xe8bye")).await.unwrap();
    assert!(rest(&mut stream).await.ends_with(b"\x88\x02\x03\xe8"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_pings_costs_little_and_ends() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let (mut calm, _) = gateway.client("calm", &["staff"], &["bookings"]).await;
    calm.caught_up("bookings").await.unwrap();
    let before = resident_kib();
    let flood = vec![masked(0x89, &[b'p'; 125]); 500].concat();
    let mut attackers = Vec::new();
    for _ in 0..5 {
        let mut stream = bare(&gateway).await;
        let flood = flood.clone();
        // Writes as fast as it can for ever and never reads.
        attackers.push(tokio::spawn(async move {
            while stream.write_all(&flood).await.is_ok() {}
        }));
    }
    for attacker in attackers {
        tokio::time::timeout(SOON, attacker)
            .await
            .expect("the flood is ended")
            .unwrap();
    }
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "grew by {grown} KiB");
    gateway.event("bookings", "all", "calm", json!({})).await;
    calm.until("calm", SOON, |frame| frame["event"]["event"]["id"] == "calm")
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_beyond_the_rate_end_with_4006() {
    let Some(gateway) = Gateway::start(&[]).await else {
        return;
    };
    let (mut client, _) = gateway.client("u1", &["staff"], &[]).await;
    for n in 0..80 {
        let _ = client
            .send_text(&json!({ "id": n + 10, "unsubscribe": { "room": "bookings" } }).to_string())
            .await;
    }
    let frames = client
        .until("4006", SOON, |frame| frame["disconnect"]["code"] == 4006)
        .await
        .unwrap();
    let answered = frames
        .iter()
        .filter(|frame| frame["unsubscribed"].is_object())
        .count();
    assert!((58..=62).contains(&answered), "{answered} were answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_reads_is_closed_and_the_others_get_everything() {
    let limits = [
        ("ROOMCAST_WRITE_SECONDS", "2"),
        ("ROOMCAST_OUTBOX_BYTES_MAX", "262144"),
    ];
    let Some(gateway) = Gateway::start(&limits).await else {
        return;
    };
    let token = gateway.signer.token("lazy", &["staff"]);
    let mut lazy = Client::open_narrow(&gateway.url).await.unwrap();
    lazy.begin(&token, &["bookings"], &std::collections::HashMap::new())
        .await
        .unwrap();
    lazy.caught_up("bookings").await.unwrap();
    let (mut eager, _) = gateway.client("eager", &["staff"], &["bookings"]).await;
    eager.caught_up("bookings").await.unwrap();
    let padding = "x".repeat(16 * 1024);
    // In steps of half an outbox: a machine with much else to do must not make one who reads look like one who does not.
    let mut read = Vec::new();
    for step in 0..25 {
        for n in step * 8..(step + 1) * 8 {
            let data = json!({ "data": { "padding": padding } });
            gateway.event("bookings", "all", &format!("e{n}"), data).await;
        }
        let last = format!("e{}", step * 8 + 7);
        let frames = eager.until("the step's last", SOON, |frame| {
            frame["event"]["event"]["id"] == last
        });
        read.extend(ids(&frames.await.unwrap(), "bookings"));
    }
    assert_eq!(read, (0..200).map(|n| format!("e{n}")).collect::<Vec<_>>());
    // What it had not read is still in the kernel; behind it stands the end, with its cursor it comes back complete.
    tokio::time::sleep(Duration::from_secs(3)).await;
    while lazy.next(SOON).await.unwrap().is_some() {}
    assert!(gateway.metric("roomcast_gateway_outbox_full_total") >= 1.0);
    let cursors = lazy.cursors.clone();
    let (mut back, connected) = Client::connect(&gateway.url, &token, &["bookings"], &cursors)
        .await
        .unwrap();
    assert_eq!(connected["rooms"][0]["recovery"], "complete");
    let seen: Vec<String> = lazy
        .raw
        .iter()
        .filter_map(|text| serde_json::from_str::<serde_json::Value>(text).ok())
        .collect::<Vec<_>>()
        .as_slice()
        .iter()
        .flat_map(|frame| ids(std::slice::from_ref(frame), "bookings"))
        .collect();
    let missed = ids(&back.caught_up("bookings").await.unwrap(), "bookings");
    assert_eq!(
        [seen, missed].concat(),
        (0..200).map(|n| format!("e{n}")).collect::<Vec<_>>(),
        "nothing missed, nothing twice"
    );
}
