//! Processes that the bench starts by itself. They end with it, however it ends: a small shell waits for the end of a pipe whose other
//! end is here.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use roomcast_harness::http::Http;
use roomcast_harness::{binary, free_port};
use roomcast_proto::accounts::{API_OUTSIDE_CORE, inbox_prefix};

use super::system::System;

/// Runs a command, says its process id, and kills it when the input ends.
const WATCH: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- >&2 & child=$!
echo $child
exec >/dev/null
(cat <&3; kill -KILL $child) 2>/dev/null & watch=$!
wait $child; code=$?
kill $watch 2>/dev/null
exit $code"#;

/// How long a service may take to be ready, or to say why not.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How often it is asked.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A running process.
pub struct Owned {
    shell: Child,
    pid: u32,
}

impl Owned {
    /// Starts a program with its arguments and environment, and nothing of ours from this process's environment. What it says goes
    /// to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: &Command, log: &Path) -> anyhow::Result<Self> {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", WATCH, "roomcast-bench"])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ROOMCAST_"))
        {
            shell.env_remove(name);
        }
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                shell.env(name, value);
            }
        }
        // A group of its own: Ctrl-C reaches the bench alone, and what it started ends with it.
        shell.process_group(0);
        let log = File::options().create(true).append(true).open(log)?;
        let mut shell = shell
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()?;
        let mut line = String::new();
        if let Some(said) = shell.stdout.take() {
            BufReader::new(said).read_line(&mut line)?;
        }
        let pid = line.trim().parse()?;
        Ok(Self { shell, pid })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// A service beside those of the system, with the same settings.
pub struct Service {
    command: Command,
    admin: String,
    log: std::path::PathBuf,
}

impl Service {
    /// One more of a kind that the system runs: `gateway` or `ingest`.
    ///
    /// # Errors
    /// When the settings of the running one cannot be read.
    pub fn like(system: &System, kind: &str) -> anyhow::Result<Self> {
        let running = system.stack.pid(&format!("{kind}-1"));
        let program = match kind {
            "gateway" => "roomcast-edge-gateway",
            _ => "roomcast-ingest",
        };
        let mut service = Self::new(system, program, kind);
        service.command.envs(settings_of(running)?);
        service.listen();
        Ok(service)
    }

    /// An aggregator with definitions of its own; the system itself runs none.
    ///
    /// # Errors
    /// When a file cannot be written or the settings of ingest cannot be read.
    pub fn aggregator(system: &System, metrics: &str) -> anyhow::Result<Self> {
        let mut service = Self::new(system, "roomcast-metrics-aggregator", "aggregator");
        let write = |name: &str, text: &str| -> anyhow::Result<String> {
            let path = system.files().join(name);
            std::fs::write(&path, text)?;
            Ok(path.display().to_string())
        };
        let shared = ["ROOMCAST_NATS_URL", "ROOMCAST_REPLICAS", "ROOMCAST_DRAIN_SECONDS"];
        let settings = settings_of(system.stack.pid("ingest-1"))?;
        let settings = settings
            .into_iter()
            .filter(|(name, _)| shared.contains(&name.as_str()));
        service.command.envs(settings).envs([
            ("ROOMCAST_NATS_USER", "agg".to_owned()),
            (
                "ROOMCAST_NATS_PASSWORD_FILE",
                write("agg", &system.stack.nats_password("agg"))?,
            ),
            ("ROOMCAST_NATS_INBOX", inbox_prefix("agg")),
            ("ROOMCAST_NATS_API", API_OUTSIDE_CORE.to_owned()),
            ("ROOMCAST_METRICS_FILE", write("metrics.yaml", metrics)?),
            // Under its old name it goes on with its shards at once.
            ("ROOMCAST_INSTANCE", "bench".to_owned()),
        ]);
        service.listen();
        Ok(service)
    }

    fn new(system: &System, program: &str, kind: &str) -> Self {
        Self {
            command: Command::new(binary(program)),
            admin: format!("127.0.0.1:{}", free_port()),
            log: system.files().join(format!("{kind}.log")),
        }
    }

    fn listen(&mut self) {
        self.command.env("ROOMCAST_ADMIN_LISTEN", &self.admin);
        let listens = self.command.get_envs().any(|(name, _)| name == "ROOMCAST_LISTEN");
        if listens {
            self.command
                .env("ROOMCAST_LISTEN", format!("127.0.0.1:{}", free_port()));
        }
    }

    /// Starts it and waits until it says that it is ready; returns how long that took, from before its process was.
    ///
    /// # Errors
    /// When it is not ready in time, with the end of what it said.
    pub async fn start(&self, http: &Http) -> anyhow::Result<(Owned, Duration)> {
        let began = Instant::now();
        let owned = Owned::start(&self.command, &self.log)?;
        let url = format!("http://{}/readyz", self.admin);
        loop {
            if http
                .get(&url, None)
                .await
                .is_ok_and(|answer| answer.status == 200)
            {
                return Ok((owned, began.elapsed()));
            }
            if began.elapsed() > READY_WITHIN {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                let lines: Vec<&str> = said.lines().collect();
                let last = lines[lines.len().saturating_sub(20)..].join("\n");
                anyhow::bail!("{:?} is not ready:\n{last}", self.command.get_program());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// What its admin port says under `/metrics`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self, http: &Http) -> anyhow::Result<String> {
        Ok(http
            .get(&format!("http://{}/metrics", self.admin), None)
            .await?
            .text())
    }
}

/// The settings that a running service was started with.
fn settings_of(pid: u32) -> anyhow::Result<Vec<(String, String)>> {
    let bytes = std::fs::read(format!("/proc/{pid}/environ"))?;
    let pairs = bytes
        .split(|byte| *byte == 0)
        .filter_map(|pair| std::str::from_utf8(pair).ok()?.split_once('='));
    Ok(pairs
        .filter(|(name, _)| name.starts_with("ROOMCAST_"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}
