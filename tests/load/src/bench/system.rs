//! The system under measurement, and the floor beside it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use roomcast_harness::stack::{Options, Stack};
use roomcast_load::cpu;
use roomcast_load::swarm::{Plan, Swarm};
use serde_json::json;

/// New connections a second.
pub const RATE: usize = 1_500;

/// The policy of a bench: fifty rooms that everybody with the role may open and publish to.
const POLICY: &str = "version: 1
roles:
  viewer: { permissions: [load.view] }
  loader: { inherits: [viewer], permissions: [load.publish] }
rooms:
  - { room: \"load.{rooms}\", subscribe: load.view, publish: load.publish }
publishers: [{ nats: main/publisher, roles: [loader] }]
";

/// Five metrics of the kinds that P8 speaks of, over every room.
const METRICS: &str = "version: 1
timezone: Europe/Istanbul
metrics:
  - { name: sum, from: { room: \"load.*\", type: load }, value: sum(data.amount), group_by: [data.group], window: { total: true } }
  - { name: count, from: { room: \"load.*\", type: load }, value: count(), group_by: [data.group], window: { total: true } }
";

/// The system as `roomcast dev` starts it, with the limits that protect one address from another lifted: all clients of a bench
/// come from one address.
pub struct System {
    /// The running system.
    pub stack: Stack,
    _files: tempfile::TempDir,
}

impl System {
    /// Starts it.
    ///
    /// # Errors
    /// When there is no nats-server.
    pub fn start(metrics: bool) -> anyhow::Result<Self> {
        let files = tempfile::Builder::new().prefix("roomcast-bench-").tempdir()?;
        let policy = files.path().join("policy.yaml");
        std::fs::write(&policy, POLICY)?;
        let definitions = files.path().join("metrics.yaml");
        std::fs::write(
            &definitions,
            if metrics {
                METRICS
            } else {
                "version: 1\ntimezone: UTC\nmetrics: []\n"
            },
        )?;
        let lifted = [
            "ROOMCAST_CONNECTIONS_MAX",
            "ROOMCAST_CONNECTIONS_PER_ADDRESS_MAX",
            "ROOMCAST_UNAUTHENTICATED_MAX",
            "ROOMCAST_CONNECT_RATE_PER_ADDRESS",
            "ROOMCAST_CONNECT_BURST_PER_ADDRESS",
        ];
        let more = lifted
            .iter()
            .flat_map(|name| ["--gateway-env".to_owned(), format!("{name}=20000")])
            .collect();
        let options = Options {
            policy: Some(policy),
            metrics: Some(definitions),
            more,
            env: HashMap::new(),
            ..Options::default()
        };
        let stack =
            Stack::start(&options).ok_or_else(|| anyhow::anyhow!("nats-server is missing: make tools"))?;
        Ok(Self { stack, _files: files })
    }

    /// A token for every room of the bench.
    #[must_use]
    pub fn token(&self, user: &str, role: &str) -> String {
        let rooms: Vec<String> = (0..50).map(|i| i.to_string()).collect();
        self.stack
            .signer
            .token_with(user, &[role], 3600, &json!({ "rooms": rooms }))
    }

    /// A gateway's address.
    ///
    /// # Errors
    /// When it is not one.
    pub fn gateway(&self) -> anyhow::Result<SocketAddr> {
        let gateways = self.stack.gateways();
        let first = gateways.first().ok_or_else(|| anyhow::anyhow!("no gateway"))?;
        Ok(first.trim_start_matches("http://").parse()?)
    }

    /// Opens connections that ask for the rooms that `rooms` names for each.
    ///
    /// # Errors
    /// When not all of them get in.
    pub fn swarm(
        &self,
        connections: usize,
        rooms: impl Fn(usize) -> Vec<usize> + Send + 'static,
    ) -> anyhow::Result<Swarm> {
        let token = self.token("viewer", "viewer");
        let hello = move |i: usize| {
            let rooms: Vec<_> = rooms(i)
                .into_iter()
                .map(|r| json!({ "room": format!("load.{r}") }))
                .collect();
            Some(
                json!({ "id": 1, "connect": { "token": token, "client": "bench", "rooms": rooms } })
                    .to_string(),
            )
        };
        let swarm = Swarm::start(Plan {
            address: self.gateway()?,
            connections,
            rate: RATE,
            hello: Box::new(hello),
        });
        swarm.ready(connections as u64, true, Duration::from_secs(60))?;
        Ok(swarm)
    }
}

/// A running floor.
pub struct Floor {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Floor {
    /// Starts one.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(rate: u32, frame_bytes: usize) -> anyhow::Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], roomcast_harness::free_port()));
        let child = Command::new(std::env::current_exe()?)
            .args(["floor", "--listen", &address.to_string()])
            .args([
                "--rate",
                &rate.to_string(),
                "--frame-bytes",
                &frame_bytes.to_string(),
            ])
            .stdin(Stdio::null())
            .spawn()?;
        let floor = Self { child, address };
        let start = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            anyhow::ensure!(
                start.elapsed() < Duration::from_secs(5),
                "the floor does not listen"
            );
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Ok(floor)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process spent while `events` frames reached the swarm.
pub struct Spent {
    /// CPU per frame, microseconds.
    pub micros_per_frame: f64,
    /// Frames in the time.
    pub frames: u64,
    /// Average size of a frame, bytes.
    pub frame_bytes: usize,
}

/// Watches a process and the swarm for some seconds.
pub async fn watch(pid: u32, swarm: &Swarm, seconds: u64) -> Spent {
    use std::sync::atomic::Ordering::Relaxed;
    let before = (
        cpu::read(pid),
        swarm.tally.events.load(Relaxed),
        swarm.tally.event_bytes.load(Relaxed),
    );
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = (
        cpu::read(pid),
        swarm.tally.events.load(Relaxed),
        swarm.tally.event_bytes.load(Relaxed),
    );
    let frames = after.1 - before.1;
    let per_frame = frames.max(1) as f64;
    Spent {
        micros_per_frame: (after.0.cpu_ns - before.0.cpu_ns) as f64 / 1000.0 / per_frame,
        frames,
        frame_bytes: ((after.2 - before.2) as f64 / per_frame) as usize,
    }
}
