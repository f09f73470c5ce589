//! How we speak RFC 6455: the published case list of the Autobahn test suite, sections 1 to 10, spoken to the echo route.
//!
//! Written from the published descriptions, with their numbers. Stricter where those leave a choice: a broken frame must
//! be answered with the close code that RFC 6455 has for it, not only with the end of the connection, and what came whole
//! before it must have been answered. Sections 12 and 13 are about permessage-deflate, which is not offered here.

mod closing;
mod framing;
mod limits;
mod peer;
mod utf8;

use std::time::{Duration, Instant};

use roomcast_edge_gateway::settings::Settings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Gateway;
use super::raw::UPGRADE;
use peer::{Case, play};

/// Cases of sections 1 to 10 in the published list.
const CASES: usize = 301;
/// All of them come from one address.
const UNHURRIED: [(&str, &str); 2] = [
    ("ROOMCAST_CONNECT_RATE_PER_ADDRESS", "10000"),
    ("ROOMCAST_CONNECT_BURST_PER_ADDRESS", "10000"),
];
/// The route is there only where a test says so.
fn with_echo(settings: &mut Settings) {
    settings.echo = true;
}

/// Played at the same time.
const AT_ONCE: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_published_cases_pass() {
    let Some(gateway) = Gateway::start_changed(&UNHURRIED, with_echo).await else {
        return;
    };
    let cases: Vec<Case> = [framing::cases(), utf8::cases(), closing::cases(), limits::cases()].concat();
    let mut ids: Vec<&str> = cases.iter().map(|case| case.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), CASES, "each published case once");
    assert_eq!(cases.len(), CASES);

    let (address, started, mut failures) = (gateway.address, Instant::now(), Vec::new());
    let mut queue = cases.into_iter();
    let mut playing = tokio::task::JoinSet::new();
    loop {
        while playing.len() < AT_ONCE
            && let Some(case) = queue.next()
        {
            playing.spawn(async move {
                let outcome = play(address, &case, Duration::from_secs(30)).await;
                (case.id, outcome)
            });
        }
        let Some(played) = playing.join_next().await else {
            break;
        };
        let (id, outcome) = played.unwrap();
        if let Err(why) = outcome {
            failures.push(format!("{id}: {why}"));
        }
    }
    failures.sort();
    assert!(
        failures.is_empty(),
        "{} of {CASES} failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
    println!("{CASES} cases in {} ms", started.elapsed().as_millis());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_can_fail() {
    let Some(gateway) = Gateway::start_changed(&UNHURRIED, with_echo).await else {
        return;
    };
    let text = |expected: &str| Case::new("x").text("hello").expect_text(expected);
    let rows = [
        (text("hello").clean(), true),
        (text("hallo").clean(), false),
        (Case::new("x").text("hello").clean(), false),
        (text("hello").fails(1002), false),
        (Case::new("x").frame(0, 3, "").fails(1002), true),
        (Case::new("x").frame(0, 3, "").fails(1007), false),
        (Case::new("x").frame(0, 3, "").clean(), false),
    ];
    for (n, (case, passes)) in rows.into_iter().enumerate() {
        let outcome = play(gateway.address, &case, Duration::from_secs(2)).await;
        assert_eq!(outcome.is_ok(), passes, "row {n}: {outcome:?}");
    }
}

/// Nobody who configures a gateway can open the route: without a test's word it is as absent as any other path.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_tests_word_there_is_no_such_route() {
    let Some(gateway) = Gateway::start(&UNHURRIED).await else {
        return;
    };
    for path in ["/v1/echo", "/v1/no-such-path"] {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        let request = format!("{}\r\n", UPGRADE.replace("/v1/ws", path));
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 13];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 404 ", "{path}");
    }
}
