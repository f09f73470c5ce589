//! What every test above one crate stands on: a real nats-server, the real services, a client that keeps account.
//!
//! Everything listens on loopback, on ports that were free a moment ago, in a temporary folder; everything is gone when the value is
//! dropped, also after a panic.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a harness stops the test at the first surprise"
)]

pub mod account;
pub mod client;
pub mod cluster;
pub mod collector;
pub mod follower;
pub mod http;
pub mod jwks;
pub mod nats;
pub mod outsider;
pub mod postgres;
pub mod receiver;
pub mod rover;
pub mod secured;
pub mod stack;
pub mod stream;
pub mod token;
pub mod traffic;

use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the repository exists")
}

/// A port of loopback that is free now.
#[must_use]
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|l| l.local_addr())
        .expect("loopback has free ports")
        .port()
}

/// A folder of the test's own, gone with the value.
#[must_use]
pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("roomcast-test-")
        .tempdir()
        .expect("a temporary folder")
}

/// Where a binary of this workspace was built: beside the test that runs now.
///
/// # Panics
/// When it was not built; `make test` builds all of them first.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let exe = std::env::current_exe().expect("a test knows its own path");
    let dirs = exe.ancestors().skip(1).take(2);
    let found = dirs.map(|dir| dir.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not built: cargo build --workspace (make test does)"))
}

/// Says that a test cannot run here, and what would mend it. With `CI=true` that is a failure.
///
/// # Panics
/// With `CI=true`.
pub fn skip(what: &str, mend: &str) {
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "{what} is missing: {mend}"
    );
    println!("SKIPPED: {what} is missing: {mend}");
}

/// Waits until each thread of a process stands still: SIGSTOP is sent at once and takes its time. Gives up after a second.
pub fn stopped(process: u32) {
    let stands = |task: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(task?.path().join("stat"))?;
        // The state follows the name, which stands in brackets.
        std::io::Result::Ok(stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')))
    };
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        let Ok(mut tasks) = std::fs::read_dir(format!("/proc/{process}/task")) else {
            return;
        };
        if tasks.all(|task| stands(task).unwrap_or(true)) {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Asks until the answer is yes, every 20 ms.
///
/// # Panics
/// After `within`, with `what`.
pub async fn eventually<F, Fut>(what: &str, within: Duration, mut ask: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let start = Instant::now();
    loop {
        if ask().await {
            return;
        }
        assert!(start.elapsed() < within, "after {within:?} still not: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
