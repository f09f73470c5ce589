//! A whole process: arguments, exit codes, readiness, signals. It runs the example `minimal`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use crate::nats::serve_old;
use crate::server::{Server, eventually, signal};

/// Cargo builds the examples of a package before it runs the package's tests.
fn program() -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    let program = deps
        .parent()
        .and_then(|deps| deps.parent())
        .unwrap()
        .join("examples/minimal");
    assert!(
        program.is_file(),
        "{} is missing: cargo build --example minimal",
        program.display()
    );
    program
}

fn command(arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).env_clear().envs(settings.iter().copied());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn output(arguments: &[&str], settings: &[(&str, &str)]) -> (i32, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command(arguments, settings).output().unwrap();
    (
        status.code().unwrap(),
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}

#[test]
fn arguments_answer_and_end() {
    let (code, version, _) = output(&["--version"], &[]);
    assert_eq!(code, 0);
    assert!(version.starts_with("roomcast-minimal 0.1.0 ("), "{version}");
    let (code, help, _) = output(&["--help"], &[("ROOMCAST_WRONG", "x")]);
    assert_eq!(code, 0);
    for part in [
        "ROOMCAST_LISTEN [127.0.0.1:8089]",
        "ROOMCAST_NATS_PASSWORD_FILE",
        "Address of the public listener.",
    ] {
        assert!(help.contains(part), "{part} in {help}");
    }
    let (code, _, complaint) = output(&["--colour"], &[]);
    assert_eq!(code, 64);
    assert!(complaint.contains("unknown argument \"--colour\""), "{complaint}");
}

#[test]
fn config_is_printed_without_secrets_and_checked_without_starting() {
    let secret = [
        ("ROOMCAST_NATS_USER", "gw"),
        ("ROOMCAST_NATS_PASSWORD", "hunter2"),
    ];
    let (code, printed, _) = output(&["--print-config"], &secret);
    assert_eq!(code, 0);
    assert!(printed.contains("ROOMCAST_NATS_PASSWORD=***\n"), "{printed}");
    assert!(
        printed.contains("ROOMCAST_LISTEN=127.0.0.1:8089  # default\n"),
        "{printed}"
    );
    assert!(!printed.contains("hunter2"), "{printed}");
    assert_eq!(output(&["--check-config"], &secret).0, 0);
    let wrong = [
        ("ROOMCAST_LISTEN", "0"),
        ("ROOMCAST_LISTN", "x"),
        ("ROOMCAST_NATS_PASSWORD", "hunter2"),
    ];
    for arguments in [&["--check-config"][..], &["--print-config"], &[]] {
        let (code, _, mistakes) = output(arguments, &wrong);
        assert_eq!(code, 64);
        assert!(mistakes.contains("3 mistakes in the settings"), "{mistakes}");
        assert!(mistakes.contains("did you mean ROOMCAST_LISTEN?"), "{mistakes}");
        assert!(!mistakes.contains("hunter2"), "{mistakes}");
    }
}

/// A running process, ended with the test.
struct Running {
    child: Child,
    admin: u16,
    public: u16,
}

impl Running {
    fn start(nats: &str) -> Self {
        let (admin, public) = (free_port(), free_port());
        let address = |port: u16| format!("127.0.0.1:{port}");
        let settings = [
            ("ROOMCAST_NATS_URL", nats),
            ("ROOMCAST_ADMIN_LISTEN", &address(admin)),
            ("ROOMCAST_LISTEN", &address(public)),
            ("ROOMCAST_DRAIN_SECONDS", "5"),
            ("ROOMCAST_LOG_FORMAT", "json"),
        ];
        Self {
            child: command(&[], &settings).spawn().unwrap(),
            admin,
            public,
        }
    }

    fn readiness(&self) -> String {
        get(self.admin, "/readyz")
    }

    /// Waits for the end; answers the exit code and the log.
    async fn ended(mut self) -> (Option<i32>, String) {
        eventually("the process ends", async || {
            self.child.try_wait().unwrap().is_some()
        })
        .await;
        let code = self.child.wait().unwrap().code();
        let mut log = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        (code, log)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// The answer to a GET, or nothing where nobody listens.
fn get(port: u16, path: &str) -> String {
    let mut answer = String::new();
    if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.read_to_string(&mut answer);
    }
    answer
}

#[tokio::test]
async fn a_process_gets_ready_and_ends_in_order_on_sigterm() {
    let Some(server) = Server::start("") else { return };
    let running = Running::start(&server.url());
    eventually("it is ready", async || {
        running.readiness().starts_with("HTTP/1.1 200")
    })
    .await;
    assert!(get(running.public, "/").ends_with("hello\n"));
    let stop = Instant::now();
    signal(running.child.id(), "TERM");
    let (code, log) = running.ended().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(stop.elapsed() < Duration::from_secs(4), "{:?}", stop.elapsed());
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
    }
    assert!(log.contains("SIGTERM received"), "{log}");
}

#[tokio::test]
async fn a_process_without_nats_waits_and_still_ends_on_sigint() {
    let running = Running::start("nats://127.0.0.1:1");
    eventually("it says why it waits", async || {
        running.readiness().contains("cannot connect to 127.0.0.1:1")
    })
    .await;
    assert!(get(running.admin, "/livez").starts_with("HTTP/1.1 200"));
    signal(running.child.id(), "INT");
    let (code, log) = running.ended().await;
    assert_eq!(code, Some(0), "{log}");
}

/// Started where NATS was away, a process answered 200 for an instant: its admin port was open before its first latch was taken.
#[tokio::test]
async fn a_process_that_cannot_work_yet_never_looks_ready() {
    for _ in 0..10 {
        let running = Running::start("nats://127.0.0.1:1");
        let mut waits = false;
        eventually("it says why it waits", async || {
            // As fast as the answers come, from before the port is open.
            let answer = running.readiness();
            assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
            waits |= answer.contains("cannot connect");
            waits
        })
        .await;
    }
}

/// A held request keeps the first signal waiting; the second ends at once.
#[tokio::test]
async fn the_second_signal_ends_at_once() {
    let Some(server) = Server::start("") else { return };
    let running = Running::start(&server.url());
    eventually("it is ready", async || {
        running.readiness().starts_with("HTTP/1.1 200")
    })
    .await;
    let mut held = TcpStream::connect(("127.0.0.1", running.public)).unwrap();
    held.write_all(b"GET /held HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let open = "roomcast_http_connections{listener=\"public\",service=\"minimal\"} 1";
    eventually("the request is in", async || {
        get(running.admin, "/metrics").contains(open)
    })
    .await;
    signal(running.child.id(), "TERM");
    eventually("the first is heard", async || {
        !running.readiness().starts_with("HTTP/1.1 200")
    })
    .await;
    signal(running.child.id(), "TERM");
    let (code, log) = running.ended().await;
    assert_eq!(code, Some(130), "{log}");
    assert!(log.contains("SIGTERM again"), "{log}");
}

#[tokio::test]
async fn what_cannot_be_used_is_exit_code_69() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let old = format!("nats://{}", listener.local_addr().unwrap());
    tokio::spawn(serve_old(listener));
    let (code, log) = Running::start(&old).ended().await;
    assert_eq!(code, Some(69), "{log}");
    assert!(log.contains("2.14.0 or newer is needed"), "{log}");
    let taken = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let holder = std::net::TcpListener::bind(taken).unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let (code, _, complaint) =
        tokio::task::spawn_blocking(move || output(&[], &[("ROOMCAST_ADMIN_LISTEN", &address)]))
            .await
            .unwrap();
    assert_eq!(code, 69);
    assert!(complaint.contains("the admin port"), "{complaint}");
}
