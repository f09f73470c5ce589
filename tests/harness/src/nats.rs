//! One real nats-server with our accounts, our permissions and our streams.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub use async_nats::HeaderMap;
use async_nats::{ConnectErrorKind, ConnectOptions};
use roomcast_proto::accounts::{
    Backend, Cluster, Publisher, Security, ServerConfig, TenantAccount, User, inbox_prefix,
};
use roomcast_proto::ids::{Room, Tenant};
use roomcast_proto::stream::{Sizing, definitions};
use serde_json::Value;

use crate::{free_port, repository, skip};

/// How often a first connection may be reset.
const RESETS_MAX: usize = 5;

/// Password of every user of a test server: it listens on loopback and lives for seconds.
pub const PASSWORD: &str = "test-only";
/// The users of a test server.
pub const USERS: [&str; 11] = [
    "admin",
    "ingest",
    "agg",
    "gw",
    "reader",
    "publisher",
    "erp",
    "stranger",
    "backend",
    "fleet",
    "sys",
];

/// Changes one member of a stream's configuration as an operator does; answers what it was.
///
/// # Errors
/// What the server says against it.
pub async fn change_stream(
    admin: &async_nats::Client,
    stream: &str,
    member: &str,
    value: Value,
) -> anyhow::Result<Value> {
    let ask = |verb: &str| format!("$JS.API.STREAM.{verb}.{stream}");
    let info = admin.request(ask("INFO"), "".into()).await?;
    let info: Value = serde_json::from_slice(&info.payload)?;
    let mut config = info["config"].clone();
    let before = std::mem::replace(&mut config[member], value);
    let answer = admin.request(ask("UPDATE"), config.to_string().into()).await?;
    let answer: Value = serde_json::from_slice(&answer.payload)?;
    anyhow::ensure!(answer.get("error").is_none(), "{}", answer["error"]);
    Ok(before)
}

/// A running nats-server with a store of its own.
pub struct Nats {
    dir: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
    server: PathBuf,
}

fn user(name: &str) -> User {
    User {
        name: name.to_owned(),
        password: PASSWORD.to_owned(),
    }
}

/// `publisher` may publish to any room, `erp` to `bookings` and below; `backend` carries out any command, `fleet` one; `stranger` is
/// another tenant's.
fn tenants() -> Vec<TenantAccount> {
    let publisher = |name: &str, rooms: Option<Vec<Room>>| Publisher {
        user: user(name),
        rooms,
    };
    let backend = |name: &str, commands| Backend {
        user: user(name),
        commands,
    };
    let bookings = Room::parse("bookings").expect("a room");
    vec![
        TenantAccount {
            tenant: Tenant::default(),
            publishers: vec![
                publisher("publisher", None),
                publisher("erp", Some(vec![bookings])),
            ],
            backends: vec![
                backend("backend", None),
                backend("fleet", Some(vec!["delivery.update".to_owned()])),
            ],
        },
        TenantAccount {
            tenant: Tenant::parse("acme").expect("a tenant"),
            publishers: vec![publisher("stranger", None)],
            backends: Vec::new(),
        },
    ]
}

/// The nats-server to run, or `None` after saying how to get one.
#[must_use]
pub fn server_binary() -> Option<PathBuf> {
    let given = std::env::var_os("ROOMCAST_NATS_SERVER").map(PathBuf::from);
    let on_path = std::env::var_os("PATH").into_iter().flat_map(|path| {
        std::env::split_paths(&path)
            .map(|dir| dir.join("nats-server"))
            .collect::<Vec<_>>()
    });
    let found = given
        .into_iter()
        .chain([repository().join(".tools/bin/nats-server")])
        .chain(on_path)
        .find(|p| p.is_file());
    if found.is_none() {
        skip("nats-server", "make tools");
    }
    found
}

impl Nats {
    /// Starts a server with accounts, and creates every stream and bucket. `None` when there is no nats-server on this machine.
    ///
    /// # Panics
    /// When the server does not start.
    pub async fn start() -> Option<Self> {
        Self::start_with(&Sizing::DEVELOPMENT).await
    }

    /// Likewise, with streams of another size.
    ///
    /// # Panics
    /// When the server does not start.
    pub async fn start_with(sizing: &Sizing) -> Option<Self> {
        let nats = Self::start_empty().await?;
        let admin = nats.connect("admin").await;
        for definition in definitions(sizing) {
            let body = definition.config.to_string();
            let subject = format!("$JS.API.STREAM.CREATE.{}", definition.name);
            let answer = admin
                .request(subject, body.into())
                .await
                .expect("the server answers");
            let answer: serde_json::Value = serde_json::from_slice(&answer.payload).expect("in JSON");
            assert!(
                answer.get("error").is_none(),
                "{}: {}",
                definition.name,
                answer["error"]
            );
        }
        Some(nats)
    }

    /// Starts a server with accounts and no stream.
    ///
    /// # Panics
    /// When the server does not start.
    pub async fn start_empty() -> Option<Self> {
        Self::start_secured(Security::default()).await
    }

    /// Likewise, with TLS or keys.
    ///
    /// # Panics
    /// When the server does not start.
    pub async fn start_secured(security: Security) -> Option<Self> {
        let mut nats = Self::configured(free_port(), security, None)?;
        nats.launch().await;
        Some(nats)
    }

    /// Starts three servers that are one cluster, and creates every stream and bucket on all of them.
    ///
    /// # Panics
    /// When a server does not start, or nobody leads within 30 s.
    pub async fn start_three() -> Option<Vec<Self>> {
        let routes: Vec<String> = (0..3).map(|_| format!("127.0.0.1:{}", free_port())).collect();
        let mut nodes = Vec::new();
        for listen in &routes {
            let cluster = Cluster {
                listen: listen.clone(),
                routes: routes.clone(),
                user: user("route"),
            };
            nodes.push(Self::configured(free_port(), Security::default(), Some(cluster))?);
        }
        for node in &mut nodes {
            node.launch().await;
        }
        let admin = nodes[0].connect("admin").await;
        let sizing = Sizing {
            replicas: 3,
            ..Sizing::DEVELOPMENT
        };
        for definition in definitions(&sizing) {
            let subject = format!("$JS.API.STREAM.CREATE.{}", definition.name);
            crate::eventually("a stream is created", Duration::from_secs(30), || async {
                let body = definition.config.to_string();
                let answer = admin.request(subject.clone(), body.into()).await;
                answer.is_ok_and(|answer| {
                    let answer: serde_json::Value =
                        serde_json::from_slice(&answer.payload).unwrap_or_default();
                    answer["config"].is_object()
                })
            })
            .await;
        }
        Some(nodes)
    }

    fn configured(port: u16, security: Security, cluster: Option<Cluster>) -> Option<Self> {
        let server = server_binary()?;
        let dir = tempfile::Builder::new()
            .prefix("roomcast-nats-")
            .tempdir()
            .expect("a temporary folder");
        let config = ServerConfig {
            server_name: format!("test-{port}"),
            listen: format!("127.0.0.1:{port}"),
            monitor: None,
            store_dir: dir.path().join("store").display().to_string(),
            max_file_bytes: 8 << 30,
            admin: user("admin"),
            ingest: user("ingest"),
            aggregator: user("agg"),
            gateway: user("gw"),
            reader: Some(user("reader")),
            system: user("sys"),
            tenants: tenants(),
            cluster,
            security,
        };
        std::fs::write(dir.path().join("nats.conf"), config.render()).expect("the folder is writable");
        Some(Self {
            dir,
            port,
            child: None,
            server,
        })
    }

    /// The server's name among the nodes.
    #[must_use]
    pub fn name(&self) -> String {
        format!("test-{}", self.port)
    }

    /// Starts the server again after [`Nats::kill`], on the same port, with the same store.
    ///
    /// # Panics
    /// When it does not come up within 10 s.
    pub async fn launch(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("the log can be written");
        let child = Command::new(&self.server)
            .arg("-c")
            .arg(self.dir.path().join("nats.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nats-server starts");
        self.child = Some(child);
        for _ in 0..500 {
            if tokio::net::TcpStream::connect(("127.0.0.1", self.port))
                .await
                .is_ok()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("nats-server did not come up: {}", self.log());
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends the server in good order: what it holds is on disk.
    pub fn stop(&mut self) {
        self.signal("TERM");
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    /// Sends a signal by its `kill` name: `STOP`, `CONT`, `TERM`.
    pub fn signal(&self, name: &str) {
        if let Some(child) = &self.child {
            let _ = Command::new("kill")
                .arg(format!("-{name}"))
                .arg(child.id().to_string())
                .status();
            if name == "STOP" {
                crate::stopped(child.id());
            }
        }
    }

    /// Changes the configuration; the server reads it when it is launched again.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn reconfigure(&self, change: impl FnOnce(&str) -> String) {
        let file = self.dir.path().join("nats.conf");
        let before = std::fs::read_to_string(&file).expect("the configuration can be read");
        std::fs::write(file, change(&before)).expect("the folder is writable");
    }

    /// Bounds the size of the files the server may write: beyond, its writes fail as on a full disk. `None`: no bound again.
    ///
    /// # Panics
    /// When that cannot be set.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let child = self.child.as_ref().expect("the server runs");
        let limit = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
        let set = Command::new("prlimit")
            .args([
                "--pid",
                &child.id().to_string(),
                &format!("--fsize={limit}:unlimited"),
            ])
            .status();
        assert!(set.is_ok_and(|set| set.success()), "prlimit sets a limit");
    }

    /// `nats://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The server's store and configuration.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("nats.log")
    }

    /// What the server has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Options to connect as one of [`USERS`], with its own inbox prefix.
    #[must_use]
    pub fn options(name: &str) -> ConnectOptions {
        ConnectOptions::with_user_and_password(name.to_owned(), PASSWORD.to_owned())
            .custom_inbox_prefix(inbox_prefix(name))
            .request_timeout(Some(Duration::from_secs(5)))
    }

    /// Connects as one of [`USERS`].
    ///
    /// # Panics
    /// When the server refuses.
    pub async fn connect(&self, name: &str) -> async_nats::Client {
        // The system's and the administrator's users have no permissions to keep to, and so the ordinary inbox.
        let options = if matches!(name, "admin" | "sys") {
            ConnectOptions::with_user_and_password(name.to_owned(), PASSWORD.to_owned())
        } else {
            Self::options(name)
        };
        // Many servers start and end beside this one, and once in some thousand times the first connection is reset: no service gives up
        // then, and no test should.
        for _ in 0..RESETS_MAX {
            match options.clone().connect(self.url()).await {
                Err(error) if error.kind() == ConnectErrorKind::Io => {
                    tokio::time::sleep(Duration::from_millis(100)).await
                }
                connected => return connected.unwrap_or_else(|error| panic!("{name} connects: {error}")),
            }
        }
        panic!("{name} connects: reset {RESETS_MAX} times")
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("nats-server said, last line first:\n{}", tail.join("\n"));
        }
    }
}
