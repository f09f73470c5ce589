//! `roomcast dev` with the real server and the real services.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::system::{Dev, ROOMCAST, complaint, eventually, kill, repository, roomcast, runs};

/// A policy, so that there is no aggregator where none is needed.
fn policy() -> String {
    let path = repository().join("deploy/scenarios/bookings/policy.yaml");
    path.to_str().unwrap().to_owned()
}

#[test]
fn it_starts_says_where_everything_is_and_leaves_nothing() {
    let Some(mut dev) = Dev::start(&["--gateways", "2"]) else {
        return;
    };
    let ready = dev.ready.clone();
    assert_eq!(ready["gateways"].as_array().map(Vec::len), Some(2), "{ready}");
    assert!(
        ready["nats"]
            .as_str()
            .is_some_and(|url| url.starts_with("nats://127.0.0.1:")),
        "{ready}"
    );
    for user in ["publisher", "reader"] {
        assert_eq!(ready["nats_users"][user]["inbox"], format!("_INBOX_{user}"));
    }
    for name in ["nats-1", "ingest-1", "aggregator-1", "gateway-1", "gateway-2"] {
        assert!(runs(dev.pid(name)), "{name}");
    }
    let key = std::fs::metadata(ready["token_key_file"].as_str().unwrap()).unwrap();
    let env_file = dev.folder.path().join(".roomcast/dev.env");
    let env = std::fs::metadata(&env_file).unwrap();
    for file in [key, env] {
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
    }
    let text = std::fs::read_to_string(&env_file).unwrap();
    assert!(
        text.contains(&format!(
            "ROOMCAST_INGEST={}\n",
            ready["ingests"][0].as_str().unwrap()
        )),
        "{text}"
    );

    dev.signal("INT");
    let (status, said) = dev.ended();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    dev.assert_nothing_is_left();
}

#[test]
fn what_is_published_over_http_and_nats_reaches_a_follower() {
    let Some(dev) = Dev::start(&["--policy", &policy()]) else {
        return;
    };
    let folder = dev.folder.path();
    let publish = |more: &[&str]| {
        let base = [
            "publish",
            "--room",
            "bookings",
            "--audience",
            "staff",
            "--type",
            "booking:new",
            "--json",
            "--data",
        ];
        let output = roomcast(folder, &[&base[..], more].concat());
        assert!(output.status.success(), "{more:?}: {}", complaint(&output));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let first = publish(&["{\"n\":1}"]);
    assert_eq!(first["status"], "stored", "{first}");
    let cursor = first["cursor"].as_str().unwrap().to_owned();
    let tail = Command::new(ROOMCAST)
        .current_dir(folder)
        .args(["tail", "bookings", "--json", "--count", "2", "--from", &cursor])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    publish(&["{\"n\":2}"]);
    publish(&["{\"n\":3}", "--nats"]);
    let output = tail.wait_with_output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let seen: Vec<i64> = lines
        .lines()
        .filter_map(|line| {
            serde_json::from_str::<serde_json::Value>(line).ok()?["event"]["data"]["n"].as_i64()
        })
        .collect();
    assert_eq!(seen, [2, 3], "{lines}{}", String::from_utf8_lossy(&output.stderr));
    let refused = roomcast(folder, &["publish", "--room", "elsewhere", "--type", "x"]);
    assert_eq!(refused.status.code(), Some(65), "{}", complaint(&refused));
    let forbidden = roomcast(folder, &["tail", "elsewhere"]);
    assert_eq!(forbidden.status.code(), Some(69), "{}", complaint(&forbidden));
}

#[test]
fn a_child_that_dies_ends_all_with_its_reason() {
    let Some(mut dev) = Dev::start(&["--policy", &policy()]) else {
        return;
    };
    kill(dev.pid("ingest-1"), "KILL");
    let (status, said) = dev.ended();
    assert_eq!(status.code(), Some(70), "{said}");
    assert!(
        said.contains("ingest-1 was killed (signal 9); the last it said:"),
        "{said}"
    );
    dev.assert_nothing_is_left();
}

#[test]
fn with_restart_a_child_comes_back_on_its_port() {
    let Some(mut dev) = Dev::start(&["--restart", "--policy", &policy()]) else {
        return;
    };
    let before = dev.pid("ingest-1");
    kill(before, "KILL");
    eventually("ingest is started again", || dev.pid("ingest-1") != before);
    eventually("it takes events", || {
        let arguments = [
            "publish",
            "--room",
            "bookings",
            "--audience",
            "staff",
            "--type",
            "booking:new",
            "--data",
            "{}",
        ];
        roomcast(dev.folder.path(), &arguments).status.success()
    });
    dev.signal("TERM");
    let (status, said) = dev.ended();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(
        said.contains("ingest-1 was killed (signal 9); starting it again"),
        "{said}"
    );
    dev.assert_nothing_is_left();
}

#[test]
fn kill_nine_leaves_no_process() {
    let Some(mut dev) = Dev::start(&["--policy", &policy()]) else {
        return;
    };
    let pids = dev.pids();
    assert!(pids.iter().all(|pid| runs(*pid)));
    dev.signal("KILL");
    dev.ended();
    eventually("its children end with it", || pids.iter().all(|pid| !runs(*pid)));
    let _ = std::fs::remove_dir_all(dev.ready["dir"].as_str().unwrap());
}

#[test]
fn a_broken_file_is_named_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("policy.yaml"), "version: 1\nrolls: {}\n").unwrap();
    let output = roomcast(
        folder.path(),
        &["dev", "--ports", "free", "--policy", "policy.yaml"],
    );
    assert_eq!(output.status.code(), Some(65));
    assert!(
        complaint(&output).contains("policy.yaml:2:1"),
        "{}",
        complaint(&output)
    );
    assert!(!folder.path().join(".roomcast").exists());
}

#[test]
fn a_port_that_is_taken_is_named_with_its_holder() {
    // Whoever listens there, this test or another program: somebody does now, and is named.
    let held = TcpListener::bind("127.0.0.1:8080");
    let folder = tempfile::tempdir().unwrap();
    let output = roomcast(folder.path(), &["dev"]);
    let said = complaint(&output);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(
        said.contains("is taken by pid ") && said.contains("--ports free"),
        "{said}"
    );
    if held.is_ok() && !said.contains("port 4222") {
        let pid = std::process::id();
        assert!(
            said.contains(&format!("port 8080 is taken by pid {pid} (")),
            "{said}"
        );
    }
    assert!(!folder.path().join(".roomcast").exists());
}
