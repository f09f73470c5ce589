//! A real nats-server in a temporary folder, ended with the test.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use roomcast_chassis::process::Service;

pub static SERVICE: Service = Service {
    name: "roomcast-test",
    about: "A test.",
    admin_port: 9089,
    jetstream_api: "$JS.API",
};

/// One server with JetStream.
pub struct Server {
    child: Child,
    folder: tempfile::TempDir,
    pub port: u16,
}

impl Server {
    /// Starts a server with more configuration; `None` (and SKIPPED) where nats-server is not installed.
    pub fn start(configuration: &str) -> Option<Self> {
        let program = find()?;
        let folder = tempfile::tempdir().unwrap();
        let (child, port) = launch(&program, folder.path(), -1, configuration);
        Some(Self { child, folder, port })
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub async fn client(&self) -> async_nats::Client {
        async_nats::connect(self.url()).await.unwrap()
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same port with the same store.
    pub fn restart(&mut self, configuration: &str) {
        let (child, _) = launch(
            &find().unwrap(),
            self.folder.path(),
            i32::from(self.port),
            configuration,
        );
        self.child = child;
    }

    /// Sends a signal by name (STOP, CONT).
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process this test started. Of `STOP` it waits until no thread of it runs: what is sent right after it would
/// still be answered by one that has not heard of it.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status()
        .unwrap();
    assert!(sent.success(), "kill -{name} {pid}");
    if name == "STOP" {
        roomcast_harness::stopped(pid);
    }
}

/// Asks until it is so, at most 10 s.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "not within 10 s: {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn find() -> Option<PathBuf> {
    let given = std::env::var_os("ROOMCAST_NATS_SERVER").map(PathBuf::from);
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/bin/nats-server");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("nats-server"));
    let found = given
        .into_iter()
        .chain([tools])
        .chain(on_path)
        .find(|program| program.is_file());
    if found.is_none() {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "no nats-server: run `make tools`"
        );
        eprintln!("SKIPPED: no nats-server; install it with: make tools");
    }
    found
}

fn launch(program: &Path, folder: &Path, port: i32, configuration: &str) -> (Child, u16) {
    let file = folder.join("nats.conf");
    let text = format!(
        "listen: \"127.0.0.1:{port}\"\nports_file_dir: \"{folder}\"\njetstream {{ store_dir: \"{folder}/js\" }}\n{configuration}\n",
        folder = folder.display(),
    );
    std::fs::write(&file, text).unwrap();
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let mut child = Command::new(program)
        .arg("-c")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::from(log))
        .spawn()
        .unwrap();
    let ports = folder.join(format!("nats-server_{}.ports", child.id()));
    let start = Instant::now();
    loop {
        if let Some(port) = std::fs::read_to_string(&ports)
            .ok()
            .and_then(|text| client_port(&text))
        {
            return (child, port);
        }
        let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        assert!(
            child.try_wait().unwrap().is_none(),
            "nats-server ended: {}",
            log()
        );
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "nats-server does not start: {}",
            log()
        );
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// The port in the file the server writes once it listens.
fn client_port(text: &str) -> Option<u16> {
    let ports: serde_json::Value = serde_json::from_str(text).ok()?;
    ports["nats"][0].as_str()?.rsplit(':').next()?.parse().ok()
}
