//! What attacks cost a gateway in a process of its own: the most memory it ever held while several of each kind were under way at
//! once, against a bound that is the sum of the settings; while a client beside them gets every event.

use std::net::SocketAddr;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use roomcast_harness::client::Client;
use roomcast_harness::{eventually, free_port};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::hostile::attacks;
use super::raw::{UPGRADE, masked};
use super::{Files, ids, setup, stored, stored_state};

const SOON: Duration = Duration::from_secs(30);
/// Attackers of one kind at the same time.
const ATTACKERS: usize = 8;
/// How long each of them goes on, coming back whenever it is ended.
const FOR: Duration = Duration::from_millis(300);
/// What may wait for one client, KiB.
const OUTBOX_KIB: usize = 256;
/// What one connection may hold at the most, KiB: a message, its outbox, an answer that is made for it, a request's head.
const CONNECTION_KIB: usize = 64 + OUTBOX_KIB + 256 + 16;
/// An attacker that was ended may come back while its last connection is still on its way out.
const CONNECTIONS: usize = 2 * ATTACKERS;
/// What may wait for all clients, KiB; answers over HTTP may be half of it.
const OUTBOXES_KIB: usize = 16 * 1024;
/// A room whose state nearly fills that half: keys, and KiB of each.
const STATE_ROOM: &str = "floor";
const STATE_KEYS: usize = 96;
const STATE_KEY_KIB: usize = 60;
/// Those who ask for it: their answers together are ten times what may wait.
const STATE_ATTACKERS: usize = 32;
/// Answers with state, KiB: those that wait, and of each thread one in the making and one that the allocator has just got back.
const ANSWERS_KIB: usize = OUTBOXES_KIB / 2 + 4 * STATE_KEYS * STATE_KEY_KIB;
/// What everything else may take meanwhile, KiB: threads, the allocator's slack, the events of the client beside.
const SLACK_KIB: usize = 8 * 1024;

/// A gateway in a process of its own.
struct Process {
    child: Child,
    files: Files,
    address: SocketAddr,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    async fn start() -> Option<Self> {
        let files = setup().await?;
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (listen, admin) = (address.to_string(), format!("127.0.0.1:{}", free_port()));
        let (outbox, outboxes) = ((OUTBOX_KIB * 1024).to_string(), (OUTBOXES_KIB * 1024).to_string());
        let own = [
            ("ROOMCAST_LISTEN", listen.as_str()),
            ("ROOMCAST_ADMIN_LISTEN", &admin),
            ("ROOMCAST_OUTBOX_BYTES_MAX", &outbox),
            ("ROOMCAST_OUTBOXES_BYTES_MAX", &outboxes),
            ("ROOMCAST_OPERATION_RATES", "read=1000/1000"),
            ("ROOMCAST_CONNECTIONS_PER_ADDRESS_MAX", "10000"),
            ("ROOMCAST_UNAUTHENTICATED_PER_ADDRESS_MAX", "10000"),
            ("ROOMCAST_CONNECTIONS_PER_USER_MAX", "10000"),
            ("ROOMCAST_CONNECT_RATE_PER_ADDRESS", "100000"),
            ("ROOMCAST_CONNECT_BURST_PER_ADDRESS", "100000"),
        ];
        let inherited =
            std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("ROOMCAST_"));
        let child = Command::new(env!("CARGO_BIN_EXE_roomcast-edge-gateway"))
            .env_clear()
            .envs(inherited)
            .envs(files.settings())
            .envs(own)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let made = Self {
            child,
            files,
            address,
        };
        let http = roomcast_harness::http::Http::default();
        eventually("the gateway is ready", SOON, || async {
            let answer = http.get(&format!("http://{admin}/readyz"), None).await;
            answer.is_ok_and(|answer| answer.status == 200)
        })
        .await;
        Some(made)
    }

    /// A line of what the kernel says of its memory, KiB.
    fn memory_kib(&self, line: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|of| of.starts_with(line)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// The most memory is counted afresh.
    fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    fn token(&self, user: &str) -> String {
        self.files.signer.token(user, &["staff"])
    }
}

/// How one kind of attack goes.
struct Attack {
    what: &'static str,
    /// What is said first; behind it comes `bytes`.
    first: Vec<u8>,
    bytes: Vec<u8>,
    /// Said for ever.
    again: bool,
    reads: bool,
}

fn all(token: &str) -> Vec<Attack> {
    let upgrade = format!("{UPGRADE}Authorization: Bearer {token}\r\n\r\n").into_bytes();
    let connect = br#"{"id":1,"connect":{"client":"x","rooms":[{"room":"bookings"}]}}"#;
    let connected = [upgrade.clone(), masked(0x81, connect)].concat();
    let socket = |what, bytes, again, reads| Attack {
        what,
        first: connected.clone(),
        bytes,
        again,
        reads,
    };
    let http = |what, path: &str, again| requests(token, what, path, again);
    let ask = |text: &str, times: usize| masked(0x81, text.as_bytes()).repeat(times);
    let half = {
        let mut frame = masked(0x81, &[b' '; 65_000]);
        frame.truncate(64_000);
        frame
    };
    let mut all: Vec<Attack> = attacks()
        .into_iter()
        .map(|(what, bytes, _)| socket(what, bytes, false, true))
        .collect();
    all.extend([
        socket(
            "pings for ever, nothing read",
            masked(0x89, &[b'p'; 125]).repeat(500),
            true,
            false,
        ),
        socket("half a message, then silence", half, false, false),
        socket(
            "history for ever, nothing read",
            ask(r#"{"id":7,"history":{"room":"bookings","limit":300}}"#, 30),
            false,
            false,
        ),
        socket(
            "rooms in and out, nothing read",
            [
                ask(r#"{"id":7,"subscribe":{"room":"bookings"}}"#, 1),
                ask(r#"{"id":8,"unsubscribe":{"room":"bookings"}}"#, 1),
            ]
            .concat()
            .repeat(28),
            false,
            false,
        ),
        Attack {
            what: "a head that never ends",
            first: b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ".to_vec(),
            bytes: vec![b'y'; 16_000],
            again: false,
            reads: false,
        },
        Attack {
            what: "a socket that never says who it is, and pings",
            first: format!("{UPGRADE}\r\n").into_bytes(),
            bytes: masked(0x89, &[b'p'; 125]).repeat(500),
            again: true,
            reads: false,
        },
        http(
            "history over HTTP, nothing read",
            "/v1/rooms/bookings/events?limit=300",
            true,
        ),
        http(
            "first paints, nothing read",
            "/v1/rooms/bookings/snapshot?events=300",
            true,
        ),
        http("polls, nothing read", "/v1/poll?room=bookings&wait=0", true),
        http("streams, nothing read", "/v1/sse?room=bookings", false),
    ]);
    all
}

/// Those for a room whose state is long.
fn for_state(token: &str) -> [Attack; 2] {
    let (state, poll) = (
        format!("/v1/state?room={STATE_ROOM}"),
        format!("/v1/poll?room={STATE_ROOM}&wait=0"),
    );
    [
        requests(token, "state, nothing read", &state, true),
        requests(token, "polls with state, nothing read", &poll, true),
    ]
}

fn requests(token: &str, what: &'static str, path: &str, again: bool) -> Attack {
    Attack {
        what,
        first: Vec::new(),
        bytes: format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n")
            .repeat(64)
            .into_bytes(),
        again,
        reads: false,
    }
}

/// The most memory that a gateway took for an attack of so many, KiB beyond `before`; held against `bound`. A line that says so, too.
async fn most_of(
    gateway: &Process,
    (attack, attackers): (&Attack, usize),
    before: usize,
    bound: usize,
) -> (usize, String) {
    gateway.forget_peak();
    let attackers = (0..attackers).map(|_| attacks_on(gateway.address, attack));
    let times: usize = futures_util::future::join_all(attackers).await.into_iter().sum();
    let grown = gateway.memory_kib("VmHWM:").saturating_sub(before);
    let what = attack.what;
    assert!(grown < bound, "{what}: {grown} KiB, more than {bound}");
    let line = format!("    {grown:>6} KiB at the most, {times:>4} connections: {what}");
    (grown, line)
}

/// One attacker: says its piece, comes back when it is ended, until its time is over. How often it began.
async fn attacks_on(address: SocketAddr, attack: &Attack) -> usize {
    let (begun, mut times) = (Instant::now(), 0);
    while begun.elapsed() < FOR {
        let socket = TcpSocket::new_v4().unwrap();
        if !attack.reads {
            socket.set_recv_buffer_size(4096).unwrap();
        }
        let Ok(stream) = socket.connect(address).await else {
            continue;
        };
        times += 1;
        let _ = tokio::time::timeout(FOR.saturating_sub(begun.elapsed()), once(stream, attack)).await;
    }
    times
}

async fn once(stream: TcpStream, attack: &Attack) {
    let (mut reader, mut writer) = stream.into_split();
    let writing = async {
        writer.write_all(&attack.first).await?;
        loop {
            writer.write_all(&attack.bytes).await?;
            if !attack.again {
                break;
            }
        }
        if !attack.reads {
            std::future::pending::<()>().await;
        }
        std::io::Result::Ok(())
    };
    let reading = async {
        let mut piece = [0; 4096];
        while attack.reads && matches!(reader.read(&mut piece).await, Ok(1..)) {}
    };
    tokio::join!(writing, reading).0.unwrap_or_default();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_attack_takes_more_memory_than_the_settings_say() {
    let Some(gateway) = Process::start().await else {
        return;
    };
    let url = format!("http://{}", gateway.address);
    let ingest = gateway.files.nats.connect("ingest").await;
    let padding = "x".repeat(8 * 1024);
    for n in 0..100 {
        let data = json!({ "data": { "padding": padding } });
        stored(&ingest, "bookings", &format!("old{n}"), data).await;
    }
    let none = std::collections::HashMap::new();
    let (mut calm, _) = Client::connect(&url, &gateway.token("calm"), &["bookings"], &none)
        .await
        .unwrap();
    calm.caught_up("bookings").await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let publishing = tokio::spawn(async move {
        let mut count = 0;
        while !*stopped.borrow() {
            stored(&ingest, "bookings", &format!("e{count}"), json!({})).await;
            count += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stored(&ingest, "bookings", "last", json!({})).await;
        count
    });
    let hearing = tokio::spawn(async move {
        let mut heard: Vec<String> = Vec::new();
        while heard.last().is_none_or(|id| id != "last") {
            let frame = calm.next(SOON).await.unwrap().expect("who does no harm stays");
            heard.extend(ids(&[frame], "bookings"));
        }
        heard
    });

    let attacks = all(&gateway.token("harm"));
    // What is needed once is not counted: code that runs for the first time, threads, pools.
    for attack in attacks.iter().filter(|attack| !attack.again).take(3) {
        attacks_on(gateway.address, attack).await;
    }
    let bound = CONNECTIONS * CONNECTION_KIB + SLACK_KIB;
    let before = gateway.memory_kib("VmRSS:");
    let mut most = (0, "");
    for attack in &attacks {
        let (grown, line) = most_of(&gateway, (attack, ATTACKERS), before, bound).await;
        println!("{line}");
        most = most.max((grown, attack.what));
    }
    stop.send(true).unwrap();
    let count = publishing.await.unwrap();
    let mut expected: Vec<String> = (0..count).map(|n| format!("e{n}")).collect();
    expected.push("last".to_owned());
    assert_eq!(hearing.await.unwrap(), expected, "each event once and in order");
    // Nothing stays behind.
    eventually("what was taken is given back", SOON, || async {
        gateway.memory_kib("VmRSS:").saturating_sub(before) < SLACK_KIB
    })
    .await;
    println!(
        "{} attacks, {ATTACKERS} attackers at once: at most {} KiB ({}) of {bound}; a client beside them got all {count} events",
        attacks.len(),
        most.0,
        most.1
    );

    let ingest = gateway.files.nats.connect("ingest").await;
    for n in 0..STATE_KEYS {
        let value = json!("x".repeat(STATE_KEY_KIB * 1024));
        stored_state(&ingest, (STATE_ROOM, "all"), &format!("k{n}"), value).await;
    }
    // Read once, for everybody.
    let http = roomcast_harness::http::Http::default();
    eventually("the state is there", SOON, || async {
        let state = format!("{url}/v1/state?room={STATE_ROOM}");
        let answer = http.get(&state, Some(&gateway.token("calm"))).await.unwrap();
        answer.json()["state"].as_array().map(Vec::len) == Some(STATE_KEYS)
    })
    .await;
    let (before, bound) = (gateway.memory_kib("VmRSS:"), ANSWERS_KIB + SLACK_KIB);
    for attack in &for_state(&gateway.token("harm")) {
        let (_, line) = most_of(&gateway, (attack, STATE_ATTACKERS), before, bound).await;
        println!("{line}");
    }
}
