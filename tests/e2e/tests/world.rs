//! The systems that tests share or have to themselves, and what tests ask of them.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io::Write as _;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use roomcast_harness::client::Encoding;
use roomcast_harness::follower::{Follower, Following};
use roomcast_harness::nats::Nats;
use roomcast_harness::repository;
use roomcast_harness::stack::{Options, Stack};
use roomcast_harness::traffic::{Maker, Way};
use roomcast_proto::cursor::Cursors;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// One runtime for all tests: connections of the shared systems live longer than a test.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
});

/// Nothing dies here. Two gateways and two aggregators.
static CALM: LazyLock<Option<Stack>> = LazyLock::new(|| start(false, 1));

/// What dies here is started again on the same ports.
static FAULTY: LazyLock<Option<Stack>> = LazyLock::new(|| start(true, 1));

/// One test at a time has the faulty system.
static ALONE: Mutex<()> = Mutex::new(());

/// The policy and the metrics of these tests, and what else is in the environment of all services.
pub fn options(env: &[(&str, &str)]) -> Options {
    let file = |name: &str| Some(repository().join("tests/e2e").join(name));
    Options {
        policy: file("policy.yaml"),
        metrics: file("metrics.yaml"),
        env: env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..Options::default()
    }
}

/// A system of a test's own, started without holding up the others. `None`: there is no NATS here.
pub async fn own(options: Options) -> anyhow::Result<Option<Stack>> {
    Ok(tokio::task::spawn_blocking(move || Stack::start(&options)).await?)
}

fn start(restart: bool, nats_nodes: u32) -> Option<Stack> {
    let key = format!("ROOMCAST_CURSOR_KEYS={}", cursor_key());
    let keyed = |service: &str| [format!("--{service}-env"), key.clone()];
    Stack::start(&Options {
        more: [
            keyed("gateway"),
            keyed("ingest"),
            // Tests share users and one address.
            [
                "--gateway-env".to_owned(),
                "ROOMCAST_CONNECTIONS_PER_USER_MAX=1000".to_owned(),
            ],
            [
                "--gateway-env".to_owned(),
                "ROOMCAST_OPERATION_RATES=subscribe=1000/1000,history=1000/1000,read=1000/1000,feed=1000/1000".to_owned(),
            ],
            [
                "--gateway-env".to_owned(),
                "ROOMCAST_CONNECT_BURST_PER_ADDRESS=100000".to_owned(),
            ],
        ]
        .concat(),
        gateways: 2,
        aggregators: 2,
        restart,
        nats_nodes,
        ..options(&[])
    })
}

/// Two tenants are served, so cursors are sealed.
fn cursor_key() -> String {
    "5e".repeat(32)
}

/// How the systems write and read cursors.
pub fn cursors() -> Cursors {
    Cursors::sealed(&cursor_key()).expect("a key")
}

fn run<Fut: Future<Output = anyhow::Result<()>>>(stack: &Stack, test: Fut) {
    let tail = Tail(stack);
    let outcome = RUNTIME.block_on(test);
    if let Err(error) = outcome {
        panic!("{error:#}");
    }
    drop(tail);
}

/// Says what the system said when a test fails.
struct Tail<'a>(&'a Stack);

impl Drop for Tail<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the system said last:\n{}", self.0.log_tail(40));
        }
    }
}

/// Runs a test on the calm system; other tests are there at the same time.
pub fn calm<Fut: Future<Output = anyhow::Result<()>>>(test: impl FnOnce(&'static Stack) -> Fut) {
    if let Some(stack) = CALM.as_ref() {
        run(stack, test(stack));
    }
}

/// Runs a test that has the faulty system to itself.
pub fn faulty<Fut: Future<Output = anyhow::Result<()>>>(test: impl FnOnce(&'static Stack) -> Fut) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(stack) = FAULTY.as_ref() {
        run(stack, test(stack));
    }
}

/// Runs a test on a system with three NATS nodes of its own, which ends with the test. No faulty system works meanwhile.
pub fn three_nodes(test: impl AsyncFnOnce(&Stack) -> anyhow::Result<()>) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(stack) = start(true, 3) {
        run(&stack, test(&stack));
        let (code, said) = stack.stop();
        assert_eq!(code, Some(0), "{said}");
    }
}

/// Runs a test that needs none of the systems.
pub fn alone(test: impl Future<Output = anyhow::Result<()>>) {
    if let Err(error) = RUNTIME.block_on(test) {
        panic!("{error:#}");
    }
}

/// Runs a test with a NATS server of its own: accounts, streams, and no service.
pub fn alone_with_nats(test: impl AsyncFnOnce(&Nats) -> anyhow::Result<()>) {
    alone(async {
        match Nats::start().await {
            Some(nats) => test(&nats).await,
            None => Ok(()),
        }
    });
}

/// Whether it is the faulty system.
fn restarts(stack: &Stack) -> bool {
    FAULTY.as_ref().is_some_and(|faulty| std::ptr::eq(faulty, stack))
}

/// Says something whether or not the test fails: the test runner keeps back what goes through `println!`.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A token of the service that publishes everywhere.
pub fn desk(stack: &Stack) -> String {
    stack
        .signer
        .token_with("desk", &["desk"], 3600, &json!({ "property_ids": ["42", "43"] }))
}

/// A follower of rooms that begins at gateway `first`.
pub async fn follower(stack: &Stack, first: usize, role: &str, rooms: &[&str]) -> Follower {
    follower_from(stack, stack.gateways(), first, role, rooms, HashMap::new()).await
}

/// A follower that begins where `cursors` say, and keeps to these gateways. Who is an admin speaks Protobuf, so that every trial has
/// clients of both encodings at each gateway.
pub async fn follower_from(
    stack: &Stack,
    gateways: Vec<String>,
    first: usize,
    role: &str,
    rooms: &[&str],
    cursors: HashMap<String, String>,
) -> Follower {
    let token = stack.signer.token(&format!("{role}-{first}"), &[role]);
    let rooms = rooms.iter().map(|room| (*room).to_owned()).collect();
    Follower::start(Following {
        gateways,
        first,
        encoding: if role == "admin" {
            Encoding::Protobuf
        } else {
            Encoding::Json
        },
        token,
        rooms,
        cursors,
    })
    .await
}

/// Publishes one event as the desk, and asks for its being stored.
pub async fn publish(stack: &Stack, event: &Value) -> anyhow::Result<Value> {
    let answer = stack.publish(0, &desk(stack), event).await?;
    anyhow::ensure!(
        answer.status == 200,
        "{event}: {} {}",
        answer.status,
        answer.text()
    );
    Ok(answer.json())
}

/// All state values of a room, from one gateway.
pub async fn state(stack: &Stack, gateway: &str, room: &str, role: &str) -> anyhow::Result<Vec<Value>> {
    let token = stack.signer.token("reader-of-state", &[role]);
    let answer = stack
        .http
        .get(&format!("{gateway}/v1/state?room={room}"), Some(&token))
        .await?;
    anyhow::ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let values = answer.json()["state"].as_array().cloned();
    values.context("state is a list")
}

/// Bookings that an operator's cut took from the faulty system's stream; its numbers still hold them.
static CUT: Mutex<BTreeMap<u64, Value>> = Mutex::new(BTreeMap::new());

/// Remembers the bookings of the faulty system before they are cut.
pub async fn remember_bookings(stack: &Stack) -> anyhow::Result<()> {
    let events = stack.stored("bookings").await?;
    CUT.lock().expect("nobody panics with it").extend(events);
    Ok(())
}

/// The events of a room as they are stored.
pub async fn stored(stack: &Stack, room: &str) -> anyhow::Result<Vec<Value>> {
    Ok(stack
        .stored(room)
        .await?
        .into_iter()
        .map(|(_, event)| event)
        .collect())
}

/// Three publishers over HTTP and one over NATS.
pub async fn ways(stack: &Stack) -> Vec<Way> {
    let http = Way::Http {
        ingests: stack.ingests(),
        token: desk(stack),
    };
    vec![
        http.clone(),
        http.clone(),
        http,
        Way::Nats(stack.nats("publisher").await),
    ]
}

/// Bookings of every kind: amounts as numbers and as texts, two currencies, a few that no sum can take.
pub fn bookings() -> Maker {
    Arc::new(|publisher, n| {
        let amount = match n % 25 {
            7 => json!(format!("{}.{:012}", n, n * 7 + 1)),
            13 => json!("no number"),
            19 => Value::Null,
            _ => json!(f64::from(u32::try_from(n * 37 % 900_000).unwrap_or(0)) / 4.0),
        };
        let category = ["property", "car", "transfer", "tour"][usize::try_from(n % 4).unwrap_or(0)];
        json!({
            "room": "bookings", "audience": "staff",
            "type": if n % 3 == 0 { "booking:confirmed" } else { "booking:new" },
            "data": {
                "id": format!("bk-{publisher}-{n}"), "customer": format!("customer {}", n % 97), "category": category,
                "amount": amount, "currency": if n % 11 == 0 { "EUR" } else { "TRY" },
            },
        })
    })
}

/// Waits until the numbers of every gateway are what the stored events say, to the last digit.
pub async fn numbers_are_exact(stack: &Stack, within: Duration) -> anyhow::Result<usize> {
    let start = std::time::Instant::now();
    loop {
        let mut all: BTreeMap<u64, Value> = stack.stored("bookings").await?.into_iter().collect();
        if restarts(stack) {
            all.extend(CUT.lock().expect("nobody panics with it").clone());
        }
        let events: Vec<Value> = all.into_values().collect();
        let (mut wrong, mut values) = (Vec::new(), 0);
        for gateway in stack.gateways() {
            let state = state(stack, &gateway, "os_dashboard", "admin").await?;
            values += state.len();
            wrong.extend(crate::oracle::differences(&state, &events));
        }
        if wrong.is_empty() {
            return Ok(values);
        }
        anyhow::ensure!(
            start.elapsed() < within,
            "after {within:?} numbers differ from the {} events:\n{}",
            events.len(),
            wrong.join("\n")
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
