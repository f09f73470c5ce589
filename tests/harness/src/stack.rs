//! The whole system as its users start it: `roomcast dev --json`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::binary;
use crate::http::Http;
use crate::nats::server_binary;
use crate::token::Signer;

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// `--scenario`.
    pub scenario: Option<String>,
    /// `--nats-nodes`: 1 or 3.
    pub nats_nodes: u32,
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
            nats_nodes: 1,
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
///
/// It ends with this value, and also with the process that holds it, however that ends: a small shell waits for the end of a pipe
/// whose other end is here.
pub struct Stack {
    watch: Child,
    folder: PathBuf,
    /// What `roomcast dev --json` printed.
    pub ready: Value,
    /// Signs tokens that the system accepts.
    pub signer: Signer,
    /// For requests to it.
    pub http: Http,
}

/// Runs a command until it ends or the pipe on its input does; then removes the folder.
const WATCH: &str = r#"
folder=$1; shift; cd "$folder"; exec 3<&0
"$@" </dev/null 3<&- >stdout 2>stderr & child=$!
echo $child >pid.new; mv pid.new pid
(cat <&3; kill -TERM $child) >/dev/null 2>&1 & watch=$!
wait $child; code=$?
kill $watch 2>/dev/null; echo $code >ended
[ $code = 0 ] && cd / && rm -rf "$folder"
exit $code"#;

/// How long the whole system may take to be ready, the seeded history of a scenario included.
const READY_WITHIN: Duration = Duration::from_secs(120);

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
            .expect("a temporary folder")
            .keep();
        let mut command = Command::new("sh");
        command.args(["-c", WATCH, "roomcast-watch"]).arg(&folder);
        command
            .arg(binary("roomcast"))
            .arg("dev")
            .args(["--json", "--ports", "free"]);
        command.env("ROOMCAST_NATS_SERVER", server);
        if let Some(name) = &options.scenario {
            command.arg("--scenario").arg(name);
        }
        for (flag, count) in [
            ("--nats-nodes", options.nats_nodes),
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
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut watch = command.spawn().expect("sh starts");
        let Some(ready) = ready_line(&folder) else {
            let log = read(&folder, "stderr");
            drop(watch.stdin.take());
            let _ = watch.wait();
            let _ = std::fs::remove_dir_all(&folder);
            panic!("roomcast dev did not become ready:\n{log}");
        };
        let key_file = ready["token_key_file"].as_str().expect("token_key_file");
        let signer = Signer::from_pem(&std::fs::read_to_string(key_file).expect("the key can be read"));
        Some(Self {
            watch,
            folder,
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
        &self.folder
    }

    /// Everything said so far.
    #[must_use]
    pub fn log(&self) -> String {
        read(&self.folder, "stderr")
    }

    /// The last lines of [`Stack::log`].
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// The process id of a child, as `pids` names it (`gateway-1`, `nats-1`); after a restart too.
    ///
    /// # Panics
    /// When there is none of that name.
    #[must_use]
    pub fn pid(&self, name: &str) -> u32 {
        let now: Value = serde_json::from_str(&read(&self.folder, ".roomcast/pids.json")).unwrap_or_default();
        let pid = now[name].as_u64().or_else(|| self.ready["pids"][name].as_u64());
        u32::try_from(pid.unwrap_or_else(|| panic!("no child {name} in {now}"))).expect("a pid")
    }

    /// The process id of `roomcast dev`, which starts and watches the others.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn supervisor(&self) -> u32 {
        read(&self.folder, "pid").trim().parse().expect("a pid")
    }

    /// Sends a signal (`KILL`, `STOP`, `CONT`, `TERM`) to a child.
    pub fn signal(&self, name: &str, signal: &str) {
        let _ = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(self.pid(name).to_string())
            .status();
        if signal == "STOP" {
            crate::stopped(self.pid(name));
        }
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

    /// What a service's admin port says under `/metrics`. `service`: `gateway`, `ingest`, `aggregator`.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn admin_metrics(&self, service: &str, index: usize) -> anyhow::Result<String> {
        let address = self.ready["admin"][service][index].as_str().unwrap_or_default();
        Ok(self.http.get(&format!("{address}/metrics"), None).await?.text())
    }

    /// Connects to NATS as a user that the ready line names (`publisher`, `reader`), with its own inbox prefix.
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
        let options = async_nats::ConnectOptions::with_user_and_password(text("user"), text("password"));
        self.connect(options.custom_inbox_prefix(text("inbox"))).await
    }

    /// Connects to NATS as the administrator of its streams.
    ///
    /// # Panics
    /// When the system's folder does not hold its password.
    pub async fn nats_admin(&self) -> async_nats::Client {
        self.connect(async_nats::ConnectOptions::with_user_and_password(
            "admin".to_owned(),
            self.nats_password("admin"),
        ))
        .await
    }

    /// The password of any user of NATS.
    ///
    /// # Panics
    /// When the system's folder does not hold it.
    #[must_use]
    pub fn nats_password(&self, user: &str) -> String {
        let users = read(
            Path::new(self.ready["dir"].as_str().unwrap_or_default()),
            "nats/users.env",
        );
        let found = users
            .lines()
            .find_map(|line| line.strip_prefix(user)?.strip_prefix('='));
        found
            .unwrap_or_else(|| panic!("{user} has a password"))
            .to_owned()
    }

    async fn connect(&self, options: async_nats::ConnectOptions) -> async_nats::Client {
        let addresses = self.ready["nats"].as_str().expect("nats");
        let addresses: Vec<&str> = addresses.split(',').collect();
        // A killed server is back within a second; the default pause between attempts grows beyond that. A frozen one takes what is
        // sent and says nothing: after three pings without an answer the next server is asked.
        let options = options
            .retry_on_initial_connect()
            .ping_interval(Duration::from_secs(1))
            .reconnect_delay_callback(|_| Duration::from_millis(100));
        options
            .connect(&addresses[..])
            .await
            .expect("NATS accepts the login")
    }

    /// Reads a room's stored events with their sequences, in stream order, as `reader`.
    ///
    /// # Errors
    /// When NATS does not answer.
    pub async fn stored(&self, room: &str) -> anyhow::Result<Vec<(u64, Value)>> {
        let nats = self.nats("reader").await;
        let subject = roomcast_proto::subject::room_events_filter(
            &roomcast_proto::ids::Tenant::default(),
            &room.parse()?,
        );
        stored_in(&nats, "core.JS.API", "EVENTS", &subject).await
    }

    /// Reads the audit record with its sequences, in stream order, as the administrator of the streams.
    ///
    /// # Errors
    /// When NATS does not answer.
    pub async fn audit(&self) -> anyhow::Result<Vec<(u64, Value)>> {
        let nats = self.nats_admin().await;
        stored_in(&nats, "$JS.API", "AUDIT", "audit.>").await
    }

    /// A value of `.roomcast/dev.env`.
    #[must_use]
    pub fn dev_env(&self, name: &str) -> String {
        let text = read(&self.folder, ".roomcast/dev.env");
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_default().to_owned()
    }

    /// A call of a service's admin API with the administrator's token. `service`: `gateway`, `ingest`, `aggregator`.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub async fn admin(
        &self,
        service: &str,
        index: usize,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<crate::http::Answer> {
        let address = self.ready["admin"][service][index].as_str().unwrap_or_default();
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{address}{path}"))
            .header(
                "authorization",
                format!("Bearer {}", self.dev_env("ROOMCAST_ADMIN_TOKEN")),
            )
            .header("content-type", "application/json");
        let body = body.map(Value::to_string).unwrap_or_default();
        self.http
            .send(request.body(http_body_util::Full::new(body.into()))?)
            .await
    }

    /// Ends it as Ctrl-C does and waits. Answers how it ended, and all it said.
    ///
    /// # Panics
    /// When it has not ended after 45 s.
    #[must_use]
    pub fn stop(mut self) -> (Option<i32>, String) {
        let pid = read(&self.folder, "pid");
        let log_before = self.log();
        let _ = Command::new("kill").args(["-INT", pid.trim()]).status();
        let ended = wait(&mut self.watch, Duration::from_secs(45));
        // A good end removes the folder, and with it what was said on the way down.
        let log = if self.folder.exists() {
            self.log()
        } else {
            log_before
        };
        let status = ended.unwrap_or_else(|| panic!("roomcast dev did not end:\n{log}"));
        (status.code(), log)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the system said last:\n{}", self.log_tail(60));
        }
        // The end of the pipe is the sign to end.
        drop(self.watch.stdin.take());
        if wait(&mut self.watch, Duration::from_secs(40)).is_none() {
            let _ = Command::new("kill")
                .args(["-KILL", read(&self.folder, "pid").trim()])
                .status();
            let _ = self.watch.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read(folder.join(name))
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// The messages of a stream under a filter, as JSON, with their sequences.
async fn stored_in(
    nats: &async_nats::Client,
    api: &str,
    stream: &str,
    subject: &str,
) -> anyhow::Result<Vec<(u64, Value)>> {
    use futures_util::StreamExt as _;
    let (mut next, mut found) = (1_u64, Vec::new());
    loop {
        let inbox = nats.new_inbox();
        let mut answers = nats.subscribe(inbox.clone()).await?;
        let body = serde_json::json!({ "seq": next, "batch": 500, "next_by_subj": subject }).to_string();
        nats.publish_with_reply(format!("{api}.DIRECT.GET.{stream}"), inbox, body.into())
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

/// The line that says that all is ready, or `None` when the system ends or the time passes first.
fn ready_line(folder: &Path) -> Option<Value> {
    let start = Instant::now();
    while start.elapsed() < READY_WITHIN {
        if let Some((line, _)) = read(folder, "stdout").split_once('\n') {
            return serde_json::from_str(line).ok();
        }
        if folder.join("ended").exists() || !folder.exists() {
            return None;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    None
}

fn wait(child: &mut Child, within: Duration) -> Option<std::process::ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < within {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    None
}
