//! Clients on bad lines: how slow one may be and stay, and how one that is gone is found.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::Gateway;
use super::raw::{bare, bare_narrow, masked, message, rest, take_frames};
use roomcast_harness::eventually;

/// What a train far from a city has: 24 kbit/s.
const BYTES_PER_SECOND: usize = 3_000;
/// Longer than a write may take and a ping may go unanswered, several times.
const FOR: Duration = Duration::from_secs(12);
const KEYS: usize = 8;
/// Rounds of new values between two events.
const EVENT_EVERY: u64 = 40;

/// What a client on a slow line has seen.
#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    newest: HashMap<String, u64>,
    values: usize,
    events: Vec<String>,
    left_out: u64,
    pings: usize,
    end: Option<serde_json::Value>,
}

impl Seen {
    /// Reads what has come, answers pings. No value may go back.
    async fn take(&mut self, stream: &mut TcpStream) {
        for frame in take_frames(&mut self.bytes) {
            let Some(frame) = message(&frame) else { continue };
            let event = &frame["event"]["event"];
            if let Some(key) = event["statekey"].as_str() {
                let n = event["data"]["value"]["n"].as_u64().unwrap();
                let before = self.newest.insert(key.to_owned(), n);
                assert!(before.is_none_or(|before| before < n), "{before:?} and then {n}");
                self.values += 1;
            } else if let Some(id) = event["id"].as_str() {
                self.events.push(id.to_owned());
            } else if frame["ping"].is_object() {
                self.pings += 1;
                stream.write_all(&masked(0x81, br#"{"pong":{}}"#)).await.unwrap();
            } else if frame["thinned"].is_object() {
                self.left_out += frame["thinned"]["state"].as_u64().unwrap();
            } else if frame["disconnect"].is_object() {
                self.end = Some(frame);
            }
        }
    }

    fn has_all(&self, rounds: u64) -> bool {
        let last = self.newest.values().filter(|n| **n == rounds).count();
        last == KEYS && self.events.len() as u64 == rounds / EVENT_EVERY
    }
}

/// A passenger whose line carries a fraction of what changes is never sent away: it gets the newest values as fast as its line
/// carries them, every event, and is told how much it was spared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_24_kbit_a_second_stays_and_gets_the_newest() {
    let limits = [("ROOMCAST_PING_SECONDS", "3"), ("ROOMCAST_PONG_SECONDS", "6")];
    let Some(gateway) = Gateway::start(&limits).await else {
        return;
    };
    let mut stream = bare_narrow(&gateway).await;
    let begun = Instant::now();
    let publishing = async {
        let padding = "x".repeat(1_000);
        let mut round = 0;
        while begun.elapsed() < FOR {
            round += 1;
            for key in 0..KEYS {
                let value = json!({ "n": round, "padding": padding });
                gateway.state("bookings", "all", &format!("k{key}"), value).await;
            }
            if round % EVENT_EVERY == 0 {
                gateway
                    .event("bookings", "all", &format!("e{round}"), json!({}))
                    .await;
            }
        }
        round
    };
    let reading = async {
        let (mut seen, mut read) = (Seen::default(), 0);
        while begun.elapsed() < FOR {
            let allowed = usize::try_from(begun.elapsed().as_millis()).unwrap() * BYTES_PER_SECOND / 1000;
            if read >= allowed {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            let mut piece = [0; 512];
            let most = piece.len().min(allowed - read);
            let came = stream.read(&mut piece[..most]).await.unwrap();
            assert!(came > 0, "sent away after {:?}: {:?}", begun.elapsed(), seen.end);
            read += came;
            seen.bytes.extend(&piece[..came]);
            seen.take(&mut stream).await;
        }
        seen
    };
    let (rounds, mut seen) = tokio::join!(publishing, reading);
    let slow_values = seen.values;
    // Out of the tunnel.
    let until = Instant::now() + Duration::from_secs(30);
    while !seen.has_all(rounds) || seen.left_out == 0 {
        let mut piece = [0; 4096];
        let came = tokio::time::timeout_at(until.into(), stream.read(&mut piece))
            .await
            .unwrap_or_else(|_| panic!("{:?} {:?}", seen.newest, seen.events))
            .unwrap();
        assert!(came > 0, "sent away: {:?}", seen.end);
        seen.bytes.extend(&piece[..came]);
        seen.take(&mut stream).await;
    }
    assert_eq!(
        seen.events,
        (1..=rounds / EVENT_EVERY)
            .map(|n| format!("e{}", n * EVENT_EVERY))
            .collect::<Vec<_>>()
    );
    assert_eq!(seen.end, None);
    for reason in ["too_slow", "no_pong"] {
        assert_eq!(
            gateway.count("roomcast_gateway_closes_total", reason),
            0.0,
            "{reason}"
        );
    }
    println!(
        "24 kbit/s for {FOR:?}: {} values published, {slow_values} came meanwhile, {} in all, told of {} left out, {} pings, all {} \
         events, every newest value",
        KEYS as u64 * rounds,
        seen.values,
        seen.left_out,
        seen.pings,
        seen.events.len(),
    );
}

/// A stream is told what it was spared, as a socket is: what waits gives way to newer values while nothing is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_reads_late_gets_the_newest_and_is_told_what_was_left_out() {
    let Some(gateway) = Gateway::start(&[("ROOMCAST_WRITE_SECONDS", "120")]).await else {
        return;
    };
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(gateway.address).await.unwrap();
    let token = gateway.signer.token("late", &["staff"]);
    let request =
        format!("GET /v1/sse?room=bookings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    let until = Instant::now() + Duration::from_secs(60);
    while !text.contains(r#"{"caughtUp":{"room":"bookings""#) {
        read_some(&mut stream, &mut text, until).await;
    }
    text.clear();
    let (rounds, padding) = (200, "x".repeat(1_000));
    for round in 1..=rounds {
        for key in 0..KEYS {
            let value = json!({ "n": round, "padding": padding });
            gateway.state("bookings", "all", &format!("k{key}"), value).await;
        }
    }
    let mut frames: Vec<serde_json::Value> = Vec::new();
    let sum = |frames: &[serde_json::Value]| {
        let spared = frames
            .iter()
            .filter_map(|frame| frame["thinned"]["state"].as_u64());
        let came = frames
            .iter()
            .filter(|frame| frame["event"]["event"]["statekey"].is_string());
        (spared.sum::<u64>(), came.count() as u64)
    };
    let all = KEYS as u64 * rounds;
    // Each value came, or is among those that were left out.
    while sum(&frames).0 + sum(&frames).1 < all {
        read_some(&mut stream, &mut text, until).await;
        while let Some(end) = text.find("\n\n") {
            let event: String = text.drain(..end + 2).collect();
            let data = event.lines().find_map(|line| line.strip_prefix("data: "));
            frames.extend(data.and_then(|data| serde_json::from_str(data).ok()));
        }
        let last = frames.last();
        assert!(last.is_none_or(|frame| frame["disconnect"].is_null()), "{last:?}");
    }
    let (spared, came) = sum(&frames);
    assert!(
        spared > all / 2 && spared + came == all,
        "{spared} {came} of {all}"
    );
    let values = frames
        .iter()
        .map(|frame| &frame["event"]["event"]["data"]["value"]["n"]);
    let newest = values.filter(|n| **n == json!(rounds)).count();
    assert_eq!(newest, KEYS, "of each key the newest value");
}

async fn read_some(stream: &mut TcpStream, text: &mut String, until: Instant) {
    let mut piece = [0; 4096];
    let came = tokio::time::timeout_at(until.into(), stream.read(&mut piece))
        .await
        .expect("more comes")
        .unwrap();
    assert!(came > 0, "sent away: {text}");
    text.push_str(std::str::from_utf8(&piece[..came]).unwrap());
}

/// A notebook that was closed: the socket is open, the kernel takes what comes, nobody answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_answers_no_ping_is_gone() {
    let beat = [("ROOMCAST_PING_SECONDS", "2"), ("ROOMCAST_PONG_SECONDS", "1")];
    let Some(gateway) = Gateway::start(&beat).await else {
        return;
    };
    let mut gone = bare(&gateway).await;
    let (mut here, connected) = gateway.client("here", &["staff"], &["bookings"]).await;
    assert_eq!(connected["pingSeconds"], 2);
    // Reads, and so answers, until its event comes.
    let here = tokio::spawn(async move {
        here.until("still", Duration::from_secs(30), |frame| {
            frame["event"]["event"]["id"] == "still"
        })
        .await
        .map(drop)
    });
    let mut all = rest(&mut gone).await;
    let frames: Vec<_> = take_frames(&mut all).iter().filter_map(message).collect();
    let pings = frames.iter().filter(|frame| frame["ping"].is_object()).count();
    assert_eq!(pings, 1, "one ping, and no second chance: {frames:?}");
    assert_eq!(frames.last().unwrap()["disconnect"]["code"], 4004);
    assert_eq!(frames.last().unwrap()["disconnect"]["reconnect"], true);
    assert_eq!(gateway.count("roomcast_gateway_closes_total", "no_pong"), 1.0);
    gateway.event("bookings", "all", "still", json!({})).await;
    here.await.unwrap().expect("who answers stays");
}

/// One that takes nothing at all is not waited for: neither its outbox nor its ping decides, but that no byte was taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_nothing_is_closed_when_its_time_is_over() {
    let limits = [
        ("ROOMCAST_WRITE_SECONDS", "1"),
        ("ROOMCAST_OUTBOX_BYTES_MAX", "8388608"),
    ];
    let Some(gateway) = Gateway::start(&limits).await else {
        return;
    };
    let stuck = bare_narrow(&gateway).await;
    let padding = "x".repeat(32 * 1024);
    for n in 0..40 {
        gateway
            .event(
                "bookings",
                "all",
                &format!("e{n}"),
                json!({ "data": { "padding": padding } }),
            )
            .await;
    }
    eventually("it is closed", Duration::from_secs(20), || async {
        gateway.count("roomcast_gateway_closes_total", "too_slow") == 1.0
    })
    .await;
    assert_eq!(gateway.metric("roomcast_gateway_outbox_full_total"), 0.0);
    drop(stuck);
}
