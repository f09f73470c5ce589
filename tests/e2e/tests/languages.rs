//! Other languages: the publishers of `clients/publish` that need a compiler or a bare socket, the subscribers of
//! `clients/subscribe`, and the runner that judges any client.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use roomcast_harness::client::{Client, Frame};
use roomcast_harness::stack::Stack;
use roomcast_harness::{repository, skip};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::world::{calm, faulty, publish};

/// A first run compiles, on a machine that is busy with other tests.
const RUN_WITHIN: Duration = Duration::from_secs(90);

/// Whether a program is here; says what would mend it when it is not.
fn have(program: &str, mend: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()));
    if !found {
        skip(program, mend);
    }
    found
}

/// The event of a frame that brings one.
fn booking(frame: &Frame) -> Option<Value> {
    let event = &frame["event"]["event"];
    event.is_object().then(|| event.clone())
}

/// `clients/publish/<language>/run.sh` publishes a booking with an id of its own, and a client gets that one.
fn publishes(language: &'static str) {
    calm(|stack| async move {
        let token = stack.signer.token("watcher", &["staff"]);
        let (mut client, _) =
            Client::connect(&stack.gateways()[0], &token, &["bookings"], &Default::default()).await?;
        client.caught_up("bookings").await?;
        let run = Command::new("sh")
            .arg(repository().join("clients/publish").join(language).join("run.sh"))
            .current_dir(stack.folder())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        // A first run compiles for longer than a client may be silent: it reads meanwhile, and answers pings.
        let mut bookings = Vec::new();
        let output = tokio::select! {
            output = run => output?,
            ended = client.until("the publisher's end", RUN_WITHIN, |frame| {
                bookings.extend(booking(frame));
                false
            }) => return ended.map(drop),
        };
        let complaint = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(
            output.status.success(),
            "{language}: {}\n{complaint}",
            output.status
        );
        let answer: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{language} prints the answer: {output:?}"))?;
        assert_eq!(answer["status"], "stored", "{answer}");
        let id = answer["id"].clone();
        assert!(
            id.as_str().is_some_and(|id| id.starts_with("bk-")),
            "an id of its own: {answer}"
        );
        let is_it = |event: &Value| event["id"] == id;
        if !bookings.iter().any(is_it) {
            let own = |frame: &Frame| booking(frame).is_some_and(|event| is_it(&event));
            let frames = client.until("the booking", Duration::from_secs(10), own).await?;
            bookings.extend(frames.last().and_then(booking));
        }
        let event = bookings.into_iter().find(is_it).unwrap_or_default();
        assert_eq!(event["type"], "booking:new", "{event}");
        assert_eq!(event["data"]["id"], id, "{event}");
        Ok(())
    });
}

#[test]
fn a_booking_from_go_reaches_a_client() {
    if have("go", "apt-get install golang-go") {
        publishes("go");
    }
}

#[test]
fn a_booking_from_java_reaches_a_client() {
    if have("java", "apt-get install default-jdk-headless") {
        publishes("java");
    }
}

#[test]
fn a_booking_from_rust_reaches_a_client() {
    publishes("rust");
}

#[test]
fn a_booking_from_a_bare_socket_reaches_a_client() {
    publishes("tcp");
}

/// Reads a stream of server-sent events as any HTTP library does, until all of the room's past is there; prints what came.
const READER: &str = "
const [url, token] = process.argv.slice(1);
const stream = await fetch(url, { headers: { authorization: `Bearer ${token}` }, signal: AbortSignal.timeout(20_000) });
let read = '';
for await (const part of stream.body.pipeThrough(new TextDecoderStream())) {
  read += part;
  if (read.includes('caughtUp')) break;
}
console.log(read);
process.exit(0);
";

/// The harness reads sockets by hand; a library of others also believes what the head says of the body.
#[test]
fn a_stream_is_read_by_an_http_library() {
    if !have("node", "apt-get install nodejs") {
        return;
    }
    calm(|stack| async move {
        let token = stack.signer.token("watcher", &["staff"]);
        let address = format!("{}/v1/sse?room=bookings", stack.gateways()[0]);
        let run = Command::new("node")
            .args(["--input-type=module", "--eval", READER, &address, &token])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(RUN_WITHIN, run).await??;
        let read = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{read}\n{complaint}");
        assert!(read.contains("caughtUp"), "{read}\n{complaint}");
        Ok(())
    });
}

/// A running subscriber of `clients/subscribe`, with a cursor file and everything it has printed in a folder of its own inside the system's, which goes with it.
struct Subscriber {
    language: &'static str,
    folder: PathBuf,
    child: Option<Child>,
}

impl Subscriber {
    fn new(stack: &Stack, language: &'static str) -> anyhow::Result<Self> {
        let folder = stack.folder().join(format!("subscriber-{language}"));
        std::fs::create_dir(&folder)?;
        Ok(Self {
            language,
            folder,
            child: None,
        })
    }

    fn printed_file(&self) -> PathBuf {
        self.folder.join("printed")
    }

    fn start(&mut self, stack: &Stack) -> anyhow::Result<()> {
        let append = |name: &str| {
            std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(self.folder.join(name))
        };
        let child = Command::new("sh")
            .arg(
                repository()
                    .join("clients/subscribe")
                    .join(self.language)
                    .join("run.sh"),
            )
            .args(["--cursor-file", "cursor"])
            .current_dir(&self.folder)
            .env("ROOMCAST_GATEWAY", &stack.gateways()[0])
            .env("ROOMCAST_VIEWER_TOKEN", stack.signer.token("watcher", &["staff"]))
            // What a killed one leaves behind goes with the folder.
            .env("TMPDIR", &self.folder)
            .stdin(Stdio::null())
            .stdout(append("printed")?)
            .stderr(append("complaints")?)
            // What it starts itself (`go run`) ends with it.
            .process_group(0)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// `kill -9`, for it and what it started.
    async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            kill_group(&child);
            child.wait().await?;
        }
        Ok(())
    }

    /// The ids printed so far that begin with `prefix`, in order.
    fn printed(&self, prefix: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.printed_file()).unwrap_or_default();
        let events = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let ids = events.filter_map(|event| event["id"].as_str().map(str::to_owned));
        ids.filter(|id| id.starts_with(prefix)).collect()
    }

    /// Waits until these and no others were printed, in this order.
    async fn has(&self, prefix: &str, expected: &[String]) -> anyhow::Result<()> {
        let start = Instant::now();
        while self.printed(prefix).len() < expected.len() && start.elapsed() < RUN_WITHIN {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let complaints = std::fs::read_to_string(self.folder.join("complaints")).unwrap_or_default();
        let printed = self.printed(prefix);
        anyhow::ensure!(
            printed == expected,
            "{}: {printed:?}, expected {expected:?}\n{complaints}",
            self.language
        );
        Ok(())
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            kill_group(child);
        }
    }
}

fn kill_group(child: &Child) {
    if let Some(pid) = child.id() {
        let _ = std::process::Command::new("kill")
            .args(["-KILL", "--", &format!("-{pid}")])
            .status();
    }
}

/// A subscriber gets everything once and in order while its gateway is killed and drained, and goes on from its cursor file after it
/// was killed itself.
fn follows_through_faults(language: &'static str) {
    faulty(|stack| async move {
        let mut subscriber = Subscriber::new(stack, language)?;
        let prefix = format!("{language}-{}-", std::process::id());
        let mut sent = Vec::new();
        let mut send = async |count: usize| -> anyhow::Result<Vec<String>> {
            for _ in 0..count {
                let id = format!("{prefix}{}", sent.len());
                publish(stack, &json!({ "id": id, "room": "bookings", "audience": "staff", "type": "booking:new", "data": { "id": id } })).await?;
                sent.push(id);
            }
            Ok(sent.clone())
        };
        subscriber.start(stack)?;
        // It is there when it has its first cursor: what is published before a fresh subscription is not for it.
        let cursor = subscriber.folder.join("cursor");
        let start = Instant::now();
        while std::fs::read(&cursor).unwrap_or_default().is_empty() {
            anyhow::ensure!(start.elapsed() < RUN_WITHIN, "{language} did not join");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        subscriber.has(&prefix, &send(5).await?).await?;
        for signal in ["KILL", "TERM"] {
            send(5).await?;
            stack.signal("gateway-1", signal);
            subscriber.has(&prefix, &send(5).await?).await?;
        }
        subscriber.kill().await?;
        send(5).await?;
        subscriber.start(stack)?;
        subscriber.has(&prefix, &send(5).await?).await?;
        subscriber.kill().await
    });
}

#[test]
fn a_subscriber_in_python_misses_nothing_and_doubles_nothing() {
    follows_through_faults("python");
}

#[test]
fn a_subscriber_in_go_misses_nothing_and_doubles_nothing() {
    if have("go", "apt-get install golang-go") {
        follows_through_faults("go");
    }
}

#[test]
fn the_conformance_runner_accepts_our_subscribers_and_finds_broken_ones() {
    let script = repository().join("clients/conformance/test.sh");
    let output = std::process::Command::new("bash")
        .arg(script)
        .stdin(Stdio::null())
        .output()
        .expect("bash starts");
    let said = String::from_utf8_lossy(&output.stdout);
    crate::world::say(&said);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
