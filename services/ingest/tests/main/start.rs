//! What keeps ingest from starting, by exit code and words.

use std::process::{Command, Output};
use std::time::Duration;

use roomcast_harness::nats::Nats;
use roomcast_harness::token::Signer;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::fixture::{POLICY, environment};

pub fn run(dir: &std::path::Path, nats: &str, more: &[(&str, &str)], arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast-ingest"));
    command
        .env_clear()
        .envs(environment(nats, dir))
        .envs(more.iter().copied())
        .args(arguments);
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    (status.code().unwrap_or(-1), said)
}

pub fn files(policy: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("policy.yaml"), policy).unwrap();
    std::fs::write(dir.path().join("keys.json"), Signer::new().jwks()).unwrap();
    dir
}

#[test]
fn settings_and_files_are_checked_offline() {
    #[track_caller]
    fn check(policy: &str, more: &[(&str, &str)], code: i32, parts: &[&str]) {
        let dir = files(policy);
        for arguments in [&["--check-config"][..], &[]] {
            if code == 0 && arguments.is_empty() {
                continue;
            }
            let (found, said) = run(dir.path(), "nats://127.0.0.1:1", more, arguments);
            assert_eq!(found, code, "{said}");
            parts
                .iter()
                .for_each(|part| assert!(said.contains(part), "{part:?} in {said}"));
        }
    }
    check(POLICY, &[], 0, &[]);
    check(
        POLICY,
        &[("ROOMCAST_REQUESTS_MAX", "0"), ("ROOMCAST_LISTN", "x")],
        64,
        &["ROOMCAST_REQUESTS_MAX", "\"0\"", "ROOMCAST_LISTEN"],
    );
    check(
        "version: 1\nroles:\n  a: { inherit: [b] }\nrooms: []\n",
        &[],
        65,
        &["policy.yaml:3:8: ", "inherits"],
    );
    check("", &[], 65, &["policy.yaml:"]);
    check(
        POLICY,
        &[("ROOMCAST_JWT_KEYS_FILE", "/nowhere.json")],
        65,
        &["/nowhere.json:1:1: "],
    );
    check(
        POLICY,
        &[("ROOMCAST_LISTEN", "0.0.0.0:0")],
        64,
        &["development key", "0.0.0.0:0"],
    );
}

#[test]
fn a_development_key_is_refused_on_an_open_admin_port_too() {
    let dir = files(POLICY);
    let (code, said) = run(
        dir.path(),
        "nats://127.0.0.1:1",
        &[("ROOMCAST_ADMIN_LISTEN", "0.0.0.0:0")],
        &[],
    );
    assert_eq!(code, 64, "{said}");
}

#[tokio::test]
async fn streams_that_differ_are_named_and_never_adapted_to() {
    let Some(nats) = Nats::start_empty().await else {
        return;
    };
    let dir = files(POLICY);
    let (url, path) = (nats.url(), dir.path().to_owned());
    let start = move || run(&path, &url, &[], &[]);
    let (code, said) = tokio::task::spawn_blocking(start.clone()).await.unwrap();
    assert_eq!(code, 69, "{said}");
    assert!(
        said.contains("stream EVENTS does not exist") && said.contains("stream DLQ does not exist"),
        "{said}"
    );
    let streams = roomcast_chassis::jetstream::JetStream::new(nats.connect("admin").await, "$JS.API");
    for mut definition in roomcast_proto::stream::definitions(&roomcast_proto::stream::Sizing::DEVELOPMENT) {
        if definition.name == "EVENTS" {
            definition.config["duplicate_window"] = 1_000_000_000_u64.into();
        }
        streams.create_stream(&definition.config).await.unwrap();
    }
    let (code, said) = tokio::task::spawn_blocking(start).await.unwrap();
    assert_eq!(code, 69, "{said}");
    assert!(
        said.contains("stream EVENTS: duplicate_window is 1000000000, must be 120000000000"),
        "{said}"
    );
}

#[tokio::test]
async fn the_process_serves_and_ends_in_order_on_sigterm() {
    let Some(nats) = Nats::start().await else { return };
    let dir = files(POLICY);
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_roomcast-ingest"));
    command
        .env_clear()
        .envs(environment(&nats.url(), dir.path()))
        .kill_on_drop(true);
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = Vec::new();
    while !said
        .last()
        .is_some_and(|line: &String| line.contains("ingest takes events at http://"))
    {
        let line = tokio::time::timeout(Duration::from_secs(10), lines.next_line())
            .await
            .unwrap()
            .unwrap();
        said.push(line.unwrap_or_else(|| unreachable!("ended early: {said:?}")));
    }
    let pid = child.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    let status = tokio::time::timeout(Duration::from_secs(10), child.wait())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(status.code(), Some(0), "{said:?}");
}
