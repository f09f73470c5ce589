//! NATS on one node or three, each on a file system of its own where that can be, one ingest before them, and what is done to them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use roomcast_chassis::jetstream::JetStream;
use roomcast_harness::cluster::Cluster;
use roomcast_harness::http::Http;
use roomcast_harness::nats::server_binary;
use roomcast_harness::token::{ISSUER, Signer};
use roomcast_harness::{binary, eventually, folder, free_port};
use roomcast_proto::accounts::{self, Security, ServerConfig, TenantAccount, User};
use roomcast_proto::ids::Tenant;
use roomcast_proto::stream::{Sizing, definitions};

use crate::image::Image;

/// Time for anything to come up or back on a busy machine.
pub const BACK_WITHIN: Duration = Duration::from_secs(60);
/// What ingest calls a hang, seconds: short, because runs wait for it.
const HANG_SECONDS: &str = "3";
const PASSWORD: &str = "test-only";
const POLICY: &str = "version: 1
roles:
  desk: { permissions: [bookings.publish] }
rooms:
  - { room: bookings, publish: bookings.publish }
";

/// What a rig is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// One or three.
    pub nodes: usize,
    /// Each node on a file system of its own.
    pub images: bool,
    /// As it must be; else as the server does unasked, which ingest is told to bear.
    pub sync_always: bool,
}

/// One nats-server.
pub struct Node {
    name: String,
    dir: PathBuf,
    port: u16,
    server: PathBuf,
    child: Option<Child>,
    /// Its file system, where it has one.
    pub image: Option<Image>,
}

impl Node {
    fn launch(&mut self) -> anyhow::Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))?;
        let child = Command::new(&self.server)
            .arg("-c")
            .arg(self.dir.join("nats.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        if let Some(child) = &self.child {
            signal(child.id(), name);
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again after [`Node::kill`].
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        self.launch()
    }
}

fn signal(pid: u32, name: &str) {
    let _ = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status();
}

/// All of it; gone with the value.
pub struct Rig {
    /// The servers.
    pub nodes: Vec<Node>,
    /// Where events are posted.
    pub url: String,
    /// For publishers.
    pub token: String,
    /// For looking.
    pub streams: JetStream,
    cluster: Option<Cluster>,
    admin_url: String,
    ingest: Option<Child>,
    environment: Vec<(String, String)>,
    http: Http,
    dir: tempfile::TempDir,
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(mut ingest) = self.ingest.take() {
            let _ = ingest.kill();
            let _ = ingest.wait();
        }
        self.nodes.iter_mut().for_each(|node| {
            node.signal("CONT");
            node.kill();
        });
    }
}

fn user(name: &str) -> User {
    User {
        name: name.to_owned(),
        password: PASSWORD.to_owned(),
    }
}

impl Rig {
    /// Starts servers, makes the streams, starts ingest and waits until it is ready.
    ///
    /// # Errors
    /// Where any of that does not come about.
    pub async fn start(setup: Setup) -> anyhow::Result<Self> {
        let server = server_binary().context("nats-server is missing: make tools")?;
        let dir = folder();
        let routes: Vec<u16> = (0..setup.nodes).map(|_| free_port()).collect();
        let mut nodes = Vec::new();
        for index in 0..setup.nodes {
            nodes.push(node(&server, dir.path(), setup, index, &routes)?);
        }
        for node in &mut nodes {
            node.launch()?;
        }
        let urls: Vec<String> = nodes
            .iter()
            .map(|node| format!("nats://127.0.0.1:{}", node.port))
            .collect();
        let admin = connect(&urls).await?;
        let streams =
            JetStream::new(admin.clone(), accounts::API_IN_CORE).with_timeout(Duration::from_secs(5));
        let sizing = Sizing {
            replicas: u32::try_from(setup.nodes)?,
            ..Sizing::DEVELOPMENT
        };
        for definition in definitions(&sizing) {
            eventually(definition.name, BACK_WITHIN, || async {
                streams.create_stream(&definition.config).await.is_ok()
            })
            .await;
        }
        let signer = Signer::new();
        std::fs::write(dir.path().join("policy.yaml"), POLICY)?;
        std::fs::write(dir.path().join("keys.json"), signer.jwks())?;
        let (port, admin_port) = (free_port(), free_port());
        let mut rig = Self {
            nodes,
            url: format!("http://127.0.0.1:{port}/v1/events"),
            token: signer.token("desk", &["desk"]),
            streams,
            cluster: (setup.nodes > 1).then(|| Cluster::new(admin)),
            admin_url: format!("http://127.0.0.1:{admin_port}"),
            ingest: None,
            environment: environment(dir.path(), setup, &urls, port, admin_port),
            http: Http::default(),
            dir,
        };
        rig.start_ingest()?;
        rig.is_ready().await;
        Ok(rig)
    }

    fn start_ingest(&mut self) -> anyhow::Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.path().join("ingest.log"))?;
        let inherited =
            std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("ROOMCAST_"));
        let child = Command::new(binary("roomcast-ingest"))
            .env_clear()
            .envs(inherited)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.ingest = Some(child);
        Ok(())
    }

    /// `kill -9` of ingest, and another one at once.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub async fn restart_ingest(&mut self) -> anyhow::Result<()> {
        if let Some(mut ingest) = self.ingest.take() {
            ingest.kill()?;
            ingest.wait()?;
        }
        self.start_ingest()?;
        self.is_ready().await;
        Ok(())
    }

    async fn readiness(&self) -> Option<(u16, serde_json::Value)> {
        let answer = self
            .http
            .get(&format!("{}/readyz", self.admin_url), None)
            .await
            .ok()?;
        Some((answer.status, answer.json()))
    }

    /// Waits until ingest is ready.
    ///
    /// # Panics
    /// When that takes longer than [`BACK_WITHIN`].
    pub async fn is_ready(&self) {
        eventually("ingest is ready", BACK_WITHIN, || async {
            self.readiness().await.is_some_and(|(status, _)| status == 200)
        })
        .await;
    }

    /// Waits until ingest says that writes hang, and gives its words; `None` when it does not within that time.
    pub async fn says_that_writes_hang(&self, within: Duration) -> Option<String> {
        let start = std::time::Instant::now();
        while start.elapsed() < within {
            let report = self.readiness().await;
            let words =
                report.and_then(|(_, report)| report["waiting"]["writes"].as_str().map(str::to_owned));
            if words.is_some() {
                return words;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        None
    }

    /// Waits until every stream answers and has all its copies. A copy that stays behind is helped by starting all nodes anew, which is
    /// then said.
    ///
    /// # Errors
    /// Where nodes cannot be started.
    ///
    /// # Panics
    /// When that does not help within [`BACK_WITHIN`].
    pub async fn is_whole(&mut self) -> anyhow::Result<Option<String>> {
        let Some(cluster) = &self.cluster else {
            eventually("the stream answers", BACK_WITHIN, || async {
                self.streams.stream_info("EVENTS").await.is_ok()
            })
            .await;
            return Ok(None);
        };
        let start = std::time::Instant::now();
        let behind = loop {
            match cluster.behind().await {
                None => return Ok(None),
                Some(why) if start.elapsed() > BACK_WITHIN => break why,
                Some(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        };
        self.nodes.iter_mut().for_each(Node::kill);
        self.nodes.iter_mut().try_for_each(Node::start)?;
        cluster.is_whole(BACK_WITHIN).await;
        self.is_ready().await;
        Ok(Some(format!(
            "a copy stayed behind until all nodes were started anew: {behind}"
        )))
    }

    /// Whether the stream is still there, once the servers answer.
    ///
    /// # Panics
    /// When they do not within [`BACK_WITHIN`].
    pub async fn has_events(&self) -> bool {
        let found = std::sync::atomic::AtomicBool::new(false);
        eventually("the servers answer", BACK_WITHIN, || async {
            let info = self.streams.stream_info("EVENTS").await;
            found.store(matches!(info, Ok(Some(_))), std::sync::atomic::Ordering::Relaxed);
            info.is_ok()
        })
        .await;
        found.into_inner()
    }

    /// The node that leads `EVENTS`.
    pub async fn leader(&self) -> usize {
        let Some(cluster) = &self.cluster else { return 0 };
        let name = cluster.leader("EVENTS").await;
        self.nodes.iter().position(|node| node.name == name).unwrap_or(0)
    }

    /// Makes another node lead `EVENTS`; whether one does.
    pub async fn step_down(&self) -> bool {
        match &self.cluster {
            Some(cluster) => cluster.step_down("EVENTS").await,
            None => false,
        }
    }
}

async fn connect(urls: &[String]) -> anyhow::Result<async_nats::Client> {
    let servers: Vec<async_nats::ServerAddr> = urls.iter().filter_map(|url| url.parse().ok()).collect();
    let options = async_nats::ConnectOptions::with_user_and_password("admin".into(), PASSWORD.into())
        .retry_on_initial_connect()
        .reconnect_delay_callback(|_| Duration::from_millis(200))
        .ping_interval(Duration::from_secs(2));
    Ok(options.connect(servers).await?)
}

fn node(server: &Path, dir: &Path, setup: Setup, index: usize, routes: &[u16]) -> anyhow::Result<Node> {
    let name = format!("nats-{}", index + 1);
    let dir = dir.join(&name);
    std::fs::create_dir_all(&dir)?;
    let image = setup.images.then(|| Image::new(&dir)).transpose()?;
    let store = image.as_ref().map_or(dir.as_path(), Image::path).join("store");
    let port = free_port();
    let address = |port: &u16| format!("127.0.0.1:{port}");
    let config = ServerConfig {
        server_name: name.clone(),
        listen: address(&port),
        monitor: None,
        store_dir: store.display().to_string(),
        max_file_bytes: 8 << 30,
        admin: user("admin"),
        ingest: user("ingest"),
        aggregator: user("agg"),
        gateway: user("gw"),
        reader: None,
        system: user("sys"),
        tenants: vec![TenantAccount {
            tenant: Tenant::default(),
            publishers: Vec::new(),
            backends: Vec::new(),
        }],
        cluster: (setup.nodes > 1).then(|| accounts::Cluster {
            listen: address(&routes[index]),
            routes: routes.iter().map(address).collect(),
            user: user("route"),
        }),
        security: Security::default(),
    };
    let mut text = config.render();
    if !setup.sync_always {
        text = text.replace("  sync_interval: always\n", "");
    }
    std::fs::write(dir.join("nats.conf"), text)?;
    Ok(Node {
        name,
        dir,
        port,
        server: server.to_owned(),
        child: None,
        image,
    })
}

fn environment(
    dir: &Path,
    setup: Setup,
    urls: &[String],
    port: u16,
    admin_port: u16,
) -> Vec<(String, String)> {
    let path = |name: &str| dir.join(name).display().to_string();
    let durability = if setup.sync_always { "synced" } else { "may_lose" };
    [
        ("ROOMCAST_NATS_URL", urls.join(",")),
        ("ROOMCAST_NATS_USER", "ingest".to_owned()),
        ("ROOMCAST_NATS_PASSWORD", PASSWORD.to_owned()),
        ("ROOMCAST_REPLICAS", setup.nodes.to_string()),
        ("ROOMCAST_DURABILITY", durability.to_owned()),
        ("ROOMCAST_WRITE_HANG_SECONDS", HANG_SECONDS.to_owned()),
        ("ROOMCAST_POLICY_FILE", path("policy.yaml")),
        ("ROOMCAST_JWT_KEYS_FILE", path("keys.json")),
        ("ROOMCAST_JWT_ISSUER", ISSUER.to_owned()),
        ("ROOMCAST_LISTEN", format!("127.0.0.1:{port}")),
        ("ROOMCAST_ADMIN_LISTEN", format!("127.0.0.1:{admin_port}")),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}
