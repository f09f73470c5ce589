//! The gateway as a process of its own: what only a process has, its descriptors and its end.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use roomcast_harness::client::Client;
use roomcast_harness::eventually;
use roomcast_harness::http::Http;
use roomcast_harness::nats::PASSWORD;
use roomcast_harness::token::ISSUER;
use roomcast_proto::accounts::inbox_prefix;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::{Gateway, POLICY, ids};

const SOON: Duration = Duration::from_secs(20);

/// A second gateway, beside the one in this process and at the same NATS.
struct Process {
    child: Child,
    address: SocketAddr,
    url: String,
    admin: String,
    _files: tempfile::TempDir,
}

impl Process {
    /// Starts it under a limit on open files.
    async fn start(beside: &Gateway, files_max: usize, more: &[(&str, &str)]) -> Self {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (public, admin) = (free(), free());
        let (address, admin_address) = (public.local_addr().unwrap(), admin.local_addr().unwrap());
        drop((public, admin));
        let files = tempfile::tempdir().unwrap();
        let (policy, keys) = (files.path().join("policy.yaml"), files.path().join("keys.json"));
        std::fs::write(&policy, POLICY).unwrap();
        std::fs::write(&keys, beside.signer.jwks()).unwrap();
        let mut command = Command::new("sh");
        // Settings of the tests are none of the service's.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ROOMCAST_")) {
            command.env_remove(name);
        }
        command
            .args(["-c", "ulimit -n \"$0\" && exec \"$1\"", &files_max.to_string()])
            .arg(env!("CARGO_BIN_EXE_roomcast-edge-gateway"))
            .env("ROOMCAST_LISTEN", address.to_string())
            .env("ROOMCAST_ADMIN_LISTEN", admin_address.to_string())
            .env("ROOMCAST_POLICY_FILE", policy)
            .env("ROOMCAST_JWT_KEYS_FILE", keys)
            .env("ROOMCAST_JWT_ISSUER", ISSUER)
            .env("ROOMCAST_NATS_URL", beside.nats.url())
            .env("ROOMCAST_NATS_USER", "gw")
            .env("ROOMCAST_NATS_PASSWORD", PASSWORD)
            .env("ROOMCAST_NATS_INBOX", inbox_prefix("gw"))
            .env("ROOMCAST_REPLICAS", "1")
            .env("ROOMCAST_CONNECTIONS_PER_ADDRESS_MAX", "5000")
            .env("ROOMCAST_CONNECT_RATE_PER_ADDRESS", "5000")
            .env("ROOMCAST_CONNECT_BURST_PER_ADDRESS", "5000")
            .env("ROOMCAST_UNAUTHENTICATED_PER_ADDRESS_MAX", "5000")
            .envs(more.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        let process = Self {
            child: command.spawn().unwrap(),
            address,
            url: format!("http://{address}"),
            admin: format!("http://{admin_address}"),
            _files: files,
        };
        // Beside many other tests a start takes its time.
        eventually("the process is ready", Duration::from_secs(60), || async {
            process.ready().await == Some(200)
        })
        .await;
        process
    }

    /// The status of `/readyz`.
    async fn ready(&self) -> Option<u16> {
        let answer = Http::default().get(&format!("{}/readyz", self.admin), None).await;
        answer.ok().map(|answer| answer.status)
    }

    async fn metric(&self, name: &str, label: &str) -> Option<f64> {
        let answer = Http::default()
            .get(&format!("{}/metrics", self.admin), None)
            .await;
        let text = answer.ok()?.text();
        let line = text
            .lines()
            .find(|line| line.starts_with(name) && line.contains(label))?;
        line.rsplit_once(' ')?.1.parse().ok()
    }

    async fn client(&self, beside: &Gateway, user: &str) -> Client {
        let token = beside.signer.token(user, &["staff"]);
        Client::connect(&self.url, &token, &["bookings"], &HashMap::new())
            .await
            .unwrap()
            .0
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([&format!("-{name}"), &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    async fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < SOON, "the process does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What somebody is told who connects and says nothing; nothing for a moment where a place is free.
async fn knock(process: &Process) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(process.address).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_millis(100), stream.read_to_end(&mut answer)).await;
    (stream, String::from_utf8(answer).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_descriptors_newcomers_are_told_and_clients_notice_nothing() {
    let Some(beside) = Gateway::start(&[]).await else {
        return;
    };
    // Those for whom the moment is too short to be told are only more of those who hold a descriptor.
    let few = [("ROOMCAST_SHARDS", "1"), ("ROOMCAST_HEADER_SECONDS", "60")];
    let process = Process::start(&beside, 64, &few).await;
    let mut here = process.client(&beside, "here").await;
    here.caught_up("bookings").await.unwrap();
    let mut held = Vec::new();
    let told = loop {
        assert!(held.len() < 200, "64 descriptors never end");
        let (stream, answer) = knock(&process).await;
        if !answer.is_empty() {
            break answer;
        }
        held.push(stream);
    };
    assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
    assert!(
        told.contains("retry-after: 1\r\n") && told.contains("application/problem+json"),
        "{told}"
    );
    beside.event("bookings", "all", "meanwhile", json!({})).await;
    let frames = here.until("the event", SOON, |frame| {
        frame["event"]["event"]["id"] == "meanwhile"
    });
    assert_eq!(ids(&frames.await.unwrap(), "bookings"), ["meanwhile"]);
    let holding = held.len();
    held.clear();
    // It comes back by itself.
    eventually("a new client is let in", SOON, || async {
        let token = beside.signer.token("late", &["staff"]);
        Client::connect(&process.url, &token, &["bookings"], &HashMap::new())
            .await
            .is_ok()
    })
    .await;
    let counted = process
        .metric("roomcast_gateway_turned_away_total", "descriptors")
        .await;
    assert!(counted >= Some(1.0), "{counted:?}");
    println!(
        "64 descriptors: {holding} silent connections, then 503 for everybody, {counted:?} counted; back when they had gone"
    );
}

/// SIGTERM as a whole: not ready before the first is sent away, nobody let in, everybody told once with a hint of its own, then the
/// process ends with 0.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_empties_the_gateway_at_a_pace_and_ends_it() {
    const CLIENTS: usize = 300;
    let Some(beside) = Gateway::start(&[]).await else {
        return;
    };
    let window = [("ROOMCAST_DRAIN_SECONDS", "10"), ("ROOMCAST_SHARDS", "2")];
    let mut process = Process::start(&beside, 4_096, &window).await;
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        clients.push(process.client(&beside, &format!("u{n}")).await);
    }
    let begun = Instant::now();
    process.signal("TERM");
    let (first, mut firsts) = tokio::sync::mpsc::channel(CLIENTS);
    let leaving: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let first = first.clone();
            tokio::spawn(async move {
                let frames = client
                    .until("4001", SOON, |frame| frame["disconnect"].is_object())
                    .await
                    .unwrap();
                let after = begun.elapsed();
                let _ = first.send(()).await;
                let told = frames.last().unwrap()["disconnect"].clone();
                assert_eq!(
                    (&told["code"], &told["reconnect"]),
                    (&json!(4001), &json!(true)),
                    "{told}"
                );
                assert_eq!(client.next(SOON).await.unwrap(), None);
                assert_eq!(client.closed.map(|closed| closed.0), Some(4001));
                (after, told["retryAfterMs"].as_u64().unwrap())
            })
        })
        .collect();
    firsts.recv().await.unwrap();
    assert_ne!(
        process.ready().await,
        Some(200),
        "ready although its clients are sent away"
    );
    // Whoever comes is told where there is still a door.
    if let Ok(mut late) = TcpStream::connect(process.address).await {
        let mut answer = Vec::new();
        let _ = late.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 503 "),
            "{answer}"
        );
    }
    let mut told = Vec::new();
    for client in leaving {
        told.push(client.await.unwrap());
    }
    let status = process.ended().await;
    assert_eq!(status.code(), Some(0));
    told.sort_unstable();
    let mut hints: Vec<u64> = told.iter().map(|(_, hint)| *hint).collect();
    hints.sort_unstable();
    let spread = (hints[0], hints[CLIENTS / 2], hints[CLIENTS - 1]);
    hints.dedup();
    assert!(hints.len() > CLIENTS / 3, "hints are spread: {hints:?}");
    // 500 a second: 300 take 600 ms, whatever the machine does meanwhile.
    let (first, last) = (told[0].0, told[CLIENTS - 1].0);
    assert!(
        last - first >= Duration::from_millis(400),
        "all at once: {first:?} to {last:?}"
    );
    println!(
        "SIGTERM with {CLIENTS} clients: not ready, 4001 from {first:.1?} to {last:.1?}, hints {} to {} ms (median {}), exit 0 after {:.1?}",
        spread.0,
        spread.2,
        spread.1,
        begun.elapsed()
    );
}
