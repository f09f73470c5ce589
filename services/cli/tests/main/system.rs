//! A running `roomcast dev` for tests: in a folder of its own, ended and looked at whatever happens.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The binary under test.
pub const ROOMCAST: &str = env!("CARGO_BIN_EXE_roomcast");
/// Two cores are shared with everything else that is tested.
const WITHIN: Duration = Duration::from_secs(90);

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// Runs `roomcast` to its end.
pub fn roomcast(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(ROOMCAST)
        .current_dir(folder)
        .args(arguments)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Standard error as text.
pub fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether the aggregator can be asked; where it cannot, that is said.
pub fn has_aggregator() -> bool {
    let why = missing(&[]);
    if let Some(why) = &why {
        eprintln!("SKIPPED: {why}");
    }
    why.is_none()
}

/// Why a whole system cannot run here; with `CI=true` that is a failure, because then it should.
fn missing(arguments: &[&str]) -> Option<String> {
    let beside = Path::new(ROOMCAST).parent().unwrap();
    let mut services = vec!["roomcast-ingest", "roomcast-edge-gateway"];
    // A policy without metrics runs without an aggregator.
    if !arguments.contains(&"--policy") {
        services.push("roomcast-metrics-aggregator");
    }
    let service = services.iter().find(|name| !beside.join(name).is_file());
    let server = [
        std::env::var_os("ROOMCAST_NATS_SERVER").map(PathBuf::from),
        Some(repository().join(".tools/bin/nats-server")),
    ];
    let why = match service {
        Some(name) => Some(format!("{name} is not built: make build")),
        None if !server.iter().flatten().any(|path| path.is_file()) => {
            Some("nats-server is not here: make tools".to_owned())
        }
        None => None,
    }?;
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{why}");
    Some(why)
}

/// `roomcast dev --ports free --json` with more arguments.
pub struct Dev {
    pub child: Child,
    pub folder: tempfile::TempDir,
    /// The line it printed.
    pub ready: Value,
    said: Receiver<String>,
}

impl Dev {
    /// Starts it and waits for its line. `None` after saying what is missing on this machine.
    pub fn start(arguments: &[&str]) -> Option<Self> {
        if let Some(why) = missing(arguments) {
            eprintln!("SKIPPED: {why}");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(ROOMCAST);
        command
            .current_dir(folder.path())
            .args(["dev", "--ports", "free", "--json"])
            .args(arguments);
        let tools = repository().join(".tools/bin/nats-server");
        if std::env::var_os("ROOMCAST_NATS_SERVER").is_none() && tools.is_file() {
            command.env("ROOMCAST_NATS_SERVER", tools);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (out, error) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (send, lines) = channel();
        std::thread::spawn(move || {
            BufReader::new(out)
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| send.send(line))
        });
        let (send, said) = channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = BufReader::new(error).read_to_string(&mut text);
            send.send(text)
        });
        match lines.recv_timeout(WITHIN) {
            Ok(line) => {
                let ready = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                Some(Self {
                    child,
                    folder,
                    ready,
                    said,
                })
            }
            Err(_) => {
                let _ = Command::new("kill").arg(child.id().to_string()).status();
                panic!("not ready:\n{}", said.recv_timeout(WITHIN).unwrap_or_default());
            }
        }
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: &str) {
        kill(self.child.id(), signal);
    }

    /// The process id of one of its children, now.
    pub fn pid(&self, name: &str) -> u32 {
        let text = std::fs::read_to_string(self.folder.path().join(".roomcast/pids.json")).unwrap();
        let pids: Value = serde_json::from_str(&text).unwrap();
        u32::try_from(pids[name].as_u64().unwrap()).unwrap()
    }

    /// All its children.
    pub fn pids(&self) -> Vec<u32> {
        let pids = self.ready["pids"].as_object().unwrap().values();
        pids.map(|pid| u32::try_from(pid.as_u64().unwrap()).unwrap())
            .collect()
    }

    /// Waits for its end; answers with the status and everything it said on standard error.
    pub fn ended(&mut self) -> (ExitStatus, String) {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (
                    status,
                    self.said
                        .recv_timeout(Duration::from_secs(10))
                        .unwrap_or_default(),
                );
            }
            assert!(since.elapsed() < WITHIN, "roomcast dev does not end");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Nothing may be left: no process, no file in the working directory, no temporary folder.
    pub fn assert_nothing_is_left(&self) {
        eventually("its children end", || self.pids().iter().all(|pid| !runs(*pid)));
        assert!(!self.folder.path().join(".roomcast").exists());
        assert!(!Path::new(self.ready["dir"].as_str().unwrap()).exists());
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal("TERM");
            let since = Instant::now();
            while since.elapsed() < Duration::from_secs(20) && matches!(self.child.try_wait(), Ok(None)) {
                std::thread::park_timeout(Duration::from_millis(20));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Sends a signal.
pub fn kill(pid: u32, signal: &str) {
    assert!(
        Command::new("kill")
            .args([format!("-{signal}"), pid.to_string()])
            .status()
            .unwrap()
            .success()
    );
}

/// Whether a process runs; one that has ended and is not yet buried does not.
pub fn runs(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    status.is_ok_and(|line| {
        !line
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with('Z'))
    })
}

/// Waits for something to become true.
#[track_caller]
pub fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is() {
        assert!(since.elapsed() < WITHIN, "still waiting: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
