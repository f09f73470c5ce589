//! The system under measurement, and the floor beside it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use roomcast_chassis::descriptors;
use roomcast_harness::stack::{Options, Stack};
use roomcast_load::dashboard::Dashboard;
use roomcast_load::swarm::{Conduct, Plan, Swarm};
use roomcast_load::tokens::Issuer;

use super::load::{Load, Users};
use super::owned::Owned;
use super::scrape;

/// New connections a second where their coming is not what is measured.
pub const RATE: usize = 1_500;
/// How long a wave of clients may take.
pub const READY_WITHIN: Duration = Duration::from_secs(60);

/// The policy of a bench: rooms that everybody with the role may open whose token names them.
const POLICY: &str = "version: 1
roles:
  viewer: { permissions: [load.view] }
  loader: { inherits: [viewer], permissions: [load.publish] }
rooms:
  - { room: \"load.{rooms}\", subscribe: load.view, publish: load.publish }
  - { room: load, subscribe: load.view, publish: load.publish }
  - { room: \"user.{user}\", publish: load.publish }
publishers: [{ nats: main/publisher, roles: [loader] }]
";

/// Names of limits on connections, and of whom: all clients of a bench have one address, one tenant, and may be one user.
const OF_CONNECTIONS: [&str; 2] = ["ROOMCAST_CONNECT", "ROOMCAST_UNAUTHENTICATED_"];
const OF_ONE_CALLER: [&str; 3] = ["_PER_ADDRESS", "_PER_USER", "_PER_TENANT"];

/// The system as `roomcast dev` starts it, with the limits of one caller lifted and all others as they are by default.
pub struct System {
    /// The running system.
    pub stack: Stack,
    /// Signs the clients' tokens.
    pub issuer: Issuer,
    files: tempfile::TempDir,
}

/// The settings of a service that limit one caller's connections, as it names them itself, each lifted.
fn lifted(service: &str) -> Vec<String> {
    let help = Command::new(roomcast_harness::binary(service))
        .arg("--help")
        .output();
    let help = help
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    let names = help
        .lines()
        .filter_map(|line| line.trim().split(' ').next())
        .filter(|word| word.starts_with("ROOMCAST_"));
    let of_one = |name: &&str| {
        OF_CONNECTIONS.iter().any(|kind| name.starts_with(kind))
            && OF_ONE_CALLER.iter().any(|caller| name.contains(caller))
    };
    names.filter(of_one).map(|name| format!("{name}=20000")).collect()
}

impl System {
    /// Starts it; `metrics`: definitions for the aggregator, without which there is none. `gateway`: settings of the gateway,
    /// `NAME=VALUE`.
    ///
    /// # Errors
    /// When there is no nats-server.
    pub fn start(metrics: Option<&str>, gateway: &[&str]) -> anyhow::Result<Self> {
        Self::start_with(metrics, gateway, Options::default())
    }

    /// Two gateways, and what is killed is started again.
    ///
    /// # Errors
    /// As [`System::start`].
    pub fn that_restarts() -> anyhow::Result<Self> {
        let options = Options {
            gateways: 2,
            restart: true,
            ..Options::default()
        };
        Self::start_with(None, &[], options)
    }

    /// On so many NATS servers, 1 or 3, with a copy of everything on each.
    ///
    /// # Errors
    /// As [`System::start`].
    pub fn on_nodes(nats_nodes: u32) -> anyhow::Result<Self> {
        let options = Options {
            nats_nodes,
            ..Options::default()
        };
        Self::start_with(None, &[], options)
    }

    /// Follows a database by a mapping.
    ///
    /// # Errors
    /// As [`System::start`].
    pub fn that_follows(database: &str, mapping: &str) -> anyhow::Result<Self> {
        // Read once, at the start.
        let folder = super::guard::folder()?;
        let file = folder.path().join("capture.yaml");
        std::fs::write(&file, mapping)?;
        Self::with_ingest(&[
            format!("ROOMCAST_CAPTURE_FILE={}", file.display()),
            format!("ROOMCAST_CAPTURE_DATABASE={database}"),
        ])
    }

    /// Checks events by a schema, which must stay where it is.
    ///
    /// # Errors
    /// As [`System::start`].
    pub fn that_checks(schemas: &Path) -> anyhow::Result<Self> {
        Self::with_ingest(&[format!("ROOMCAST_SCHEMAS_DIR={}", schemas.display())])
    }

    fn with_ingest(settings: &[String]) -> anyhow::Result<Self> {
        let more = settings
            .iter()
            .flat_map(|setting| ["--ingest-env".to_owned(), setting.clone()]);
        let options = Options {
            more: more.collect(),
            ..Options::default()
        };
        Self::start_with(None, &[], options)
    }

    fn start_with(metrics: Option<&str>, gateway: &[&str], options: Options) -> anyhow::Result<Self> {
        let files = super::guard::folder()?;
        let issuer = Issuer::new()?;
        let write = |name: &str, text: &str| -> anyhow::Result<PathBuf> {
            let path = files.path().join(name);
            std::fs::write(&path, text)?;
            Ok(path)
        };
        let keys = format!(
            "ROOMCAST_JWT_KEYS_FILE={}",
            write("jwks.json", &issuer.jwks()?)?.display()
        );
        let tokens = [keys, "ROOMCAST_JWT_ALLOW_HS=true".to_owned()];
        let mut more = options.more.clone();
        for (flag, service) in [
            ("--gateway-env", "roomcast-edge-gateway"),
            ("--ingest-env", "roomcast-ingest"),
        ] {
            let of_gateway = gateway
                .iter()
                .filter(|_| flag == "--gateway-env")
                .map(|one| (*one).to_owned());
            for setting in lifted(service)
                .into_iter()
                .chain(tokens.clone())
                .chain(of_gateway)
            {
                more.extend([flag.to_owned(), setting]);
            }
        }
        let options = Options {
            policy: Some(write("policy.yaml", POLICY)?),
            metrics: metrics.map(|text| write("metrics.yaml", text)).transpose()?,
            more,
            ..options
        };
        let stack =
            Stack::start(&options).ok_or_else(|| anyhow::anyhow!("nats-server is missing: make tools"))?;
        super::guard::now_running(stack.folder());
        Ok(Self { stack, issuer, files })
    }

    /// Where files of this system may be written.
    #[must_use]
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// The gateway's process id.
    #[must_use]
    pub fn gateway_pid(&self) -> u32 {
        self.stack.pid("gateway-1")
    }

    /// A gateway's address.
    ///
    /// # Errors
    /// When it is not one.
    pub fn gateway(&self) -> anyhow::Result<SocketAddr> {
        self.gateway_at(0)
    }

    /// Likewise, of several.
    ///
    /// # Errors
    /// When there is none.
    pub fn gateway_at(&self, index: usize) -> anyhow::Result<SocketAddr> {
        let gateways = self.stack.gateways();
        let address = gateways.get(index).ok_or_else(|| anyhow::anyhow!("no gateway"))?;
        Ok(address.trim_start_matches("http://").parse()?)
    }

    /// A service's figure about itself: see [`scrape::value`].
    ///
    /// # Errors
    /// When its admin port does not answer.
    pub async fn metric(&self, service: &str, metric: &str, labels: &[&str]) -> anyhow::Result<f64> {
        let text = self.stack.admin_metrics(service, 0).await?;
        Ok(scrape::value(&text, metric, labels))
    }

    /// Waits until a gateway's figure is as it must be.
    ///
    /// # Errors
    /// After 30 s.
    pub async fn until(
        &self,
        metric: &str,
        labels: &[&str],
        good: impl Fn(f64) -> bool,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let now = self.metric("gateway", metric, labels).await?;
            if good(now) {
                return Ok(());
            }
            anyhow::ensure!(
                start.elapsed() < Duration::from_secs(30),
                "{metric} is still {now}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until nobody is connected.
    ///
    /// # Errors
    /// After 30 s.
    pub async fn nobody(&self) -> anyhow::Result<()> {
        self.until("roomcast_gateway_connections", &[], |now| now == 0.0)
            .await
    }

    /// Clients that each ask for the rooms that `rooms` names for them; a token names those and no others.
    ///
    /// # Errors
    /// When a token cannot be signed.
    pub fn clients(
        &self,
        load: &Load,
        range: std::ops::Range<usize>,
        rooms: impl Fn(usize) -> Vec<usize>,
    ) -> anyhow::Result<Vec<Dashboard>> {
        self.clients_named("viewer", load, range, rooms)
    }

    /// Likewise, with users of another name, who have never been here.
    ///
    /// # Errors
    /// When a token cannot be signed.
    pub fn clients_named(
        &self,
        name: &str,
        load: &Load,
        range: std::ops::Range<usize>,
        rooms: impl Fn(usize) -> Vec<usize>,
    ) -> anyhow::Result<Vec<Dashboard>> {
        may_open(range.len())?;
        let one = match load.users {
            Users::Distinct => None,
            Users::One => {
                let mut all: Vec<usize> = range.clone().flat_map(&rooms).collect();
                all.sort_unstable();
                all.dedup();
                let all: Vec<String> = all.iter().map(ToString::to_string).collect();
                Some(self.issuer.token(load.algorithm, name, "viewer", &all)?)
            }
        };
        let client = |i: usize| {
            let numbers: Vec<String> = rooms(i).iter().map(ToString::to_string).collect();
            let token = match &one {
                Some(token) => token.clone(),
                None => self
                    .issuer
                    .token(load.algorithm, &format!("{name}{i}"), "viewer", &numbers)?,
            };
            let rooms = numbers.iter().map(|number| format!("load.{number}"));
            Ok(Dashboard::new(token, rooms))
        };
        range.map(client).collect()
    }

    /// Opens connections at [`RATE`] and waits until all have caught up.
    ///
    /// # Errors
    /// When not all of them get in.
    pub fn swarm(&self, load: &Load, dashboards: Vec<Dashboard>) -> anyhow::Result<Swarm> {
        self.swarm_at(RATE, load, dashboards)
    }

    /// Likewise, at a rate of its own.
    ///
    /// # Errors
    /// When not all of them get in.
    pub fn swarm_at(&self, rate: usize, load: &Load, dashboards: Vec<Dashboard>) -> anyhow::Result<Swarm> {
        Self::swarm_of(self.gateway()?, Some(rate), load, dashboards)
    }

    /// Likewise, all at once.
    ///
    /// # Errors
    /// When not all of them get in.
    pub fn swarm_at_once(&self, load: &Load, dashboards: Vec<Dashboard>) -> anyhow::Result<Swarm> {
        Self::swarm_of(self.gateway()?, None, load, dashboards)
    }

    /// Likewise, at one of several gateways.
    ///
    /// # Errors
    /// When not all of them get in.
    pub fn swarm_of(
        address: SocketAddr,
        rate: Option<usize>,
        load: &Load,
        dashboards: Vec<Dashboard>,
    ) -> anyhow::Result<Swarm> {
        all_in(Plan {
            address,
            host: None,
            tls: None,
            dashboards,
            rate,
            encoding: load.encoding(),
            conduct: Conduct::Reads,
            returns: false,
        })
    }
}

/// Whether this process may have so many sockets; the gateway and the floor may have as many.
fn may_open(sockets: usize) -> anyhow::Result<()> {
    descriptors::make_room(sockets).map_err(anyhow::Error::msg)
}

/// Opens a swarm and waits until all of it is there.
fn all_in(plan: Plan) -> anyhow::Result<Swarm> {
    may_open(plan.dashboards.len())?;
    let swarm = Swarm::start(plan);
    swarm.ready(READY_WITHIN)?;
    Ok(swarm)
}

/// A running floor.
pub struct Floor {
    process: Owned,
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
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["floor", "--listen", &address.to_string()])
            .args(["--rate", &rate.to_string()])
            .args(["--frame-bytes", &frame_bytes.to_string()]);
        let floor = Self {
            process: Owned::start(&command, Path::new("/dev/null"))?,
            address,
        };
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
        self.process.pid()
    }

    /// Opens clients of the floor at [`RATE`] and waits for them.
    ///
    /// # Errors
    /// When not all of them get in.
    pub fn swarm(&self, sockets: usize) -> anyhow::Result<Swarm> {
        self.swarm_at(RATE, sockets)
    }

    /// Likewise, at a rate of its own.
    ///
    /// # Errors
    /// When not all of them get in.
    pub fn swarm_at(&self, rate: usize, sockets: usize) -> anyhow::Result<Swarm> {
        all_in(Plan::floor(self.address, sockets, rate))
    }

    /// Likewise, clients that say hello when they are open and wait for the answer. They follow the floor's rooms. `rate`: so many a
    /// second; `None`: all at once.
    ///
    /// # Errors
    /// When not all of them get in.
    pub fn greeted(&self, dashboards: Vec<Dashboard>, rate: Option<usize>) -> anyhow::Result<Swarm> {
        all_in(Plan {
            dashboards,
            conduct: Conduct::Reads,
            rate,
            ..Plan::floor(self.address, 0, RATE)
        })
    }
}
