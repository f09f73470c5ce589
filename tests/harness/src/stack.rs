//! The whole system as its users start it: `roomcast dev --json`.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::Http;
use crate::nats::server_binary;
use crate::token::Signer;
use crate::{binary, repository};

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// `--scenario`.
    pub scenario: Option<String>,
    /// `--gateways`.
    pub gateways: u32,
    /// `--ingests`.
    pub ingests: u32,
    /// `--aggregators`.
    pub aggregators: u32,
    /// `--policy`.
    pub policy: Option<PathBuf>,
    /// `--metrics`.
    pub metrics: Option<PathBuf>,
    /// `--restart`: a child that dies is started again.
    pub restart: bool,
    /// More arguments.
    pub more: Vec<String>,
    /// More environment.
    pub env: HashMap<String, String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            scenario: None,
            gateways: 1,
            ingests: 1,
            aggregators: 1,
            policy: None,
            metrics: None,
            restart: false,
            more: Vec::new(),
            env: HashMap::new(),
        }
    }
}

/// A running system.
pub struct Stack {
    child: Child,
    folder: tempfile::TempDir,
    log: Arc<Mutex<String>>,
    /// What `roomcast dev --json` printed.
    pub ready: Value,
    /// Signs tokens that the system accepts.
    pub signer: Signer,
    /// For requests to it.
    pub http: Http,
}

impl Stack {
    /// Starts the system and waits until all of it is ready. `None` when there is no nats-server on this machine.
    ///
    /// # Panics
    /// When it does not come up within 120 s, with everything it said.
    #[must_use]
    pub fn start(options: &Options) -> Option<Self> {
        let server = server_binary()?;
        let folder = tempfile::Builder::new()
            .prefix("roomcast-stack-")
            .tempdir()
            .expect("a temporary folder");
        let mut command = Command::new(binary("roomcast"));
        command
            .current_dir(folder.path())
            .arg("dev")
            .args(["--json", "--ports", "free"]);
        command.env("ROOMCAST_NATS_SERVER", server);
        if let Some(name) = &options.scenario {
            command
                .arg("--scenario")
                .arg(repository().join("deploy/scenarios").join(name));
        }
        for (flag, count) in [
            ("--gateways", options.gateways),
            ("--ingests", options.ingests),
            ("--aggregators", options.aggregators),
        ] {
            command.arg(flag).arg(count.to_string());
        }
        for (flag, file) in [("--policy", &options.policy), ("--metrics", &options.metrics)] {
            if let Some(file) = file {
                command.arg(flag).arg(file);
            }
        }
        if options.restart {
            command.arg("--restart");
        }
        command.args(&options.more).envs(&options.env);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("roomcast starts");
        let log = Arc::new(Mutex::new(String::new()));
        let mut stderr = child.stderr.take().expect("piped");
        let sink = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut chunk = [0_u8; 8192];
            while let Ok(n @ 1..) = stderr.read(&mut chunk) {
                sink.lock()
                    .expect("no panic")
                    .push_str(&String::from_utf8_lossy(&chunk[..n]));
            }
        });
        let ready = first_line(&mut child, Duration::from_secs(120));
        let ready = ready.and_then(|line| serde_json::from_str::<Value>(&line).ok());
        let Some(ready) = ready else {
            let _ = child.kill();
            let _ = child.wait();
            panic!(
                "roomcast dev did not become ready:\n{}",
                log.lock().expect("no panic")
            );
        };
        let key_file = ready["token_key_file"].as_str().expect("token_key_file");
        let signer = Signer::from_pem(&std::fs::read_to_string(key_file).expect("the key can be read"));
        Some(Self {
            child,
            folder,
            log,
            ready,
            signer,
            http: Http::default(),
        })
    }

    fn list(&self, name: &str) -> Vec<String> {
        let list = self.ready[name].as_array();
        list.into_iter()
            .flatten()
            .filter_map(|url| url.as_str().map(str::to_owned))
            .collect()
    }

    /// Addresses of the gateways, `http://…`.
    #[must_use]
    pub fn gateways(&self) -> Vec<String> {
        self.list("gateways")
    }

    /// Addresses of the ingests.
    #[must_use]
    pub fn ingests(&self) -> Vec<String> {
        self.list("ingests")
    }

    /// The folder `roomcast dev` runs in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Everything said so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().expect("no panic").clone()
    }

    /// The process id of a child, as `pids` names it (`gateway-1`, `nats-1`); after a restart too.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn pid(&self, name: &str) -> u32 {
        let file = self.folder.path().join(".roomcast/pids.json");
        let now = std::fs::read_to_string(file)
            .ok()
            .and_then(|text| serde_json::from_str::<Value>(&text).ok());
        let pid = now
            .as_ref()
            .and_then(|now| now[name].as_u64())
            .or_else(|| self.ready["pids"][name].as_u64());
        u32::try_from(pid.unwrap_or_else(|| panic!("no child {name} in {}", self.ready["pids"])))
            .expect("a pid")
    }

    /// Sends a signal (`KILL`, `STOP`, `CONT`, `TERM`) to a child.
    pub fn signal(&self, name: &str, signal: &str) {
        let _ = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(self.pid(name).to_string())
            .status();
    }

    /// Publishes one event over HTTP to ingest `index`, and returns the answer.
    ///
    /// # Errors
    /// When ingest cannot be reached.
    pub async fn publish(
        &self,
        index: usize,
        token: &str,
        event: &Value,
    ) -> anyhow::Result<crate::http::Answer> {
        let ingests = self.ingests();
        let url = format!("{}/v1/events", ingests[index % ingests.len()]);
        self.http
            .post(&url, token, "application/json", event.to_string())
            .await
    }

    /// The NATS address and a user's login (`publisher`, `reader`): user, password, inbox prefix.
    ///
    /// # Panics
    /// When there is no such user.
    pub async fn nats(&self, user: &str) -> async_nats::Client {
        let login = &self.ready["nats_users"][user];
        let text = |name: &str| {
            login[name]
                .as_str()
                .unwrap_or_else(|| panic!("{user} has {name}"))
                .to_owned()
        };
        async_nats::ConnectOptions::with_user_and_password(text("user"), text("password"))
            .custom_inbox_prefix(text("inbox"))
            .retry_on_initial_connect()
            .connect(self.ready["nats"].as_str().expect("nats"))
            .await
            .expect("NATS accepts the login")
    }

    /// Reads a room's stored event ids in stream order, as `reader`, by unfiltered batches from the beginning.
    ///
    /// # Errors
    /// When NATS does not answer.
    pub async fn stored(&self, room: &str) -> anyhow::Result<Vec<(u64, Value)>> {
        use futures_util::StreamExt as _;
        let nats = self.nats("reader").await;
        let subject = roomcast_proto::subject::room_events_filter(
            &roomcast_proto::ids::Tenant::default(),
            &room.parse()?,
        );
        let (mut next, mut found) = (1_u64, Vec::new());
        loop {
            let inbox = nats.new_inbox();
            let mut answers = nats.subscribe(inbox.clone()).await?;
            let body = serde_json::json!({ "seq": next, "batch": 500, "next_by_subj": subject }).to_string();
            nats.publish_with_reply("core.JS.API.DIRECT.GET.EVENTS", inbox, body.into())
                .await?;
            let mut more = 0;
            loop {
                let message = tokio::time::timeout(Duration::from_secs(10), answers.next()).await?;
                let Some(message) = message else {
                    anyhow::bail!("NATS is gone")
                };
                if message.status.is_some() {
                    break;
                }
                let headers = message.headers.unwrap_or_default();
                let sequence: u64 = headers
                    .get_last("Nats-Sequence")
                    .map_or("0", |v| v.as_str())
                    .parse()?;
                found.push((sequence, serde_json::from_slice(&message.payload)?));
                next = sequence + 1;
                more += 1;
            }
            if more == 0 {
                return Ok(found);
            }
        }
    }

    /// Ends it as Ctrl-C does and waits.
    ///
    /// # Panics
    /// When it has not ended after 45 s.
    pub fn stop(mut self) -> (std::process::ExitStatus, String) {
        let _ = Command::new("kill")
            .arg("-INT")
            .arg(self.child.id().to_string())
            .status();
        let start = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return (status, self.log());
            }
            assert!(
                start.elapsed() < Duration::from_secs(45),
                "roomcast dev did not end:\n{}",
                self.log()
            );
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // TERM first: dev ends its children; then, whatever happens, nothing is left.
        let _ = Command::new("kill")
            .arg("-TERM")
            .arg(self.child.id().to_string())
            .status();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::park_timeout(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("the system said, last line first:\n{}", tail.join("\n"));
        }
    }
}

/// The first line a child prints, or `None` when it ends or the time passes first.
fn first_line(child: &mut Child, within: Duration) -> Option<String> {
    let stdout = child.stdout.take()?;
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Later lines are read and dropped, so that the pipe never fills.
            let _ = send.send(line);
        }
    });
    receive.recv_timeout(within).ok()
}
