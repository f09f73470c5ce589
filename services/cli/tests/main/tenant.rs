//! A tenant added, its key exchanged and the tenant removed on a running nats-server, while everybody else stays connected.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};
use futures_util::StreamExt;
use roomcast_proto::accounts::{Publisher, Security, ServerConfig, TenantAccount, User, inbox_prefix};
use roomcast_proto::ids::Tenant;

use crate::system::{ROOMCAST, complaint, repository, roomcast};

const WITHIN: Duration = Duration::from_secs(30);
/// Another user than whoever runs this.
const NOBODY: u32 = 65_534;
const POLICY: &str = "version: 1
roles:
  desk: { permissions: [orders.publish] }
rooms:
  - { room: orders, publish: orders.publish }
publishers:
  - { nats: main/publisher, roles: [desk] }
";

struct Server {
    child: Child,
    url: String,
    folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn user(name: &str) -> User {
    User {
        name: name.to_owned(),
        password: "test-only".to_owned(),
    }
}

/// A server from our generator; `None` after saying what is missing.
fn start() -> Option<Server> {
    let told = std::env::var_os("ROOMCAST_NATS_SERVER").map(PathBuf::from);
    let binary = told
        .into_iter()
        .chain([repository().join(".tools/bin/nats-server")])
        .find(|path| path.is_file());
    let Some(binary) = binary else {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "no nats-server: make tools"
        );
        eprintln!("SKIPPED: nats-server is not here: make tools");
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = listener.local_addr().unwrap().to_string();
    drop(listener);
    let config = ServerConfig {
        server_name: "n1".to_owned(),
        listen: listen.clone(),
        monitor: None,
        store_dir: folder.path().join("store").display().to_string(),
        max_file_bytes: 1 << 30,
        admin: user("admin"),
        ingest: user("ingest"),
        aggregator: user("agg"),
        gateway: user("gw"),
        reader: Some(user("reader")),
        system: user("sys"),
        tenants: vec![TenantAccount {
            tenant: Tenant::default(),
            publishers: vec![Publisher {
                user: user("publisher"),
                rooms: None,
            }],
            backends: Vec::new(),
        }],
        cluster: None,
        security: Security::default(),
    };
    std::fs::write(folder.path().join("nats.conf"), config.render()).unwrap();
    std::fs::write(folder.path().join("policy.yaml"), POLICY).unwrap();
    let child = Command::new(binary)
        .args(["-c", "nats.conf"])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Some(Server {
        child,
        url: format!("nats://{listen}"),
        folder,
    })
}

/// A connection, and how often it was lost.
struct Connection {
    client: Client,
    lost: Arc<AtomicU32>,
}

impl Connection {
    fn lost(&self) -> u32 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Asks ingest's side something; whether it answered.
    async fn is_heard(&self) -> bool {
        let asked = self.client.request("in.orders.all", "x".into());
        let answer = tokio::time::timeout(Duration::from_secs(5), asked).await;
        answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.payload == "heard"))
    }
}

/// What becomes of it.
fn tried(folder: &Path, arguments: &[&str]) -> Output {
    let files = [
        "--conf",
        "nats.conf",
        "--policy",
        "policy.yaml",
        "--secrets",
        "keys",
    ];
    roomcast(folder, &[&["tenant"], arguments, &files].concat())
}

fn tenant(folder: &Path, arguments: &[&str]) {
    let output = tried(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", complaint(&output));
}

impl Server {
    /// Has the server read its configuration again; what it is told.
    fn reloading(&self, user: &str, tenant: Option<&str>) -> Output {
        let mut command = Command::new(ROOMCAST);
        command
            .args(["tenant", "reload", "--nats", &self.url])
            .args(tenant)
            .env("NO_COLOR", "1")
            .env("ROOMCAST_NATS_USER", user)
            .env("ROOMCAST_NATS_PASSWORD", "test-only");
        command.output().unwrap()
    }

    fn reloads(&self, tenant: Option<&str>) {
        let output = self.reloading("sys", tenant);
        assert!(output.status.success(), "{}", complaint(&output));
    }

    /// The newest secret key, and the file's name.
    fn key(&self, known: &[String]) -> (String, String) {
        let listed = std::fs::read_dir(self.folder.path().join("keys")).unwrap();
        let names = listed.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        let name = names.into_iter().find(|name| !known.contains(name)).unwrap();
        let path = self.folder.path().join("keys").join(&name);
        let mode = std::fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{name} is its owner's alone");
        (std::fs::read_to_string(&path).unwrap().trim().to_owned(), name)
    }

    async fn connected(&self, options: ConnectOptions, name: &str) -> Option<Connection> {
        let lost = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&lost);
        let options = options
            .custom_inbox_prefix(inbox_prefix(name))
            .event_callback(move |event| {
                if matches!(event, Event::Disconnected | Event::ClientError(_)) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                async {}
            });
        let client = options.connect(&self.url).await.ok()?;
        Some(Connection { client, lost })
    }

    async fn with_password(&self, name: &str) -> Connection {
        let deadline = tokio::time::Instant::now() + WITHIN;
        loop {
            let options = ConnectOptions::with_user_and_password(name.to_owned(), "test-only".to_owned());
            if let Some(connection) = self.connected(options, name).await {
                return connection;
            }
            assert!(tokio::time::Instant::now() < deadline, "{name} cannot connect");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the server knows a key.
    async fn with_key(&self, seed: &str) -> Connection {
        let deadline = tokio::time::Instant::now() + WITHIN;
        loop {
            let options = ConnectOptions::with_nkey(seed.to_owned());
            if let Some(connection) = self.connected(options, "erp").await {
                return connection;
            }
            assert!(tokio::time::Instant::now() < deadline, "the key is not known");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + WITHIN;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether other users' files can be made here.
fn is_root() -> bool {
    let folder = tempfile::tempdir().unwrap();
    std::fs::metadata(folder.path()).unwrap().uid() == 0
}

fn policy(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("policy.yaml")).unwrap()
}

#[tokio::test]
async fn keys_are_exchanged_without_a_gap() {
    let add = [
        "add",
        "acme",
        "--publisher",
        "erp",
        "--role",
        "desk",
        "--room",
        "orders",
    ];
    let Some(server) = start() else {
        return;
    };
    let folder = server.folder.path();
    let ingest = server.with_password("ingest").await;
    let others = [
        server.with_password("gw").await,
        server.with_password("publisher").await,
    ];
    let mut requests = ingest
        .client
        .queue_subscribe("in.*.>", "ingest".to_owned())
        .await
        .unwrap();
    let answering = ingest.client.clone();
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            assert!(
                request.subject.starts_with("in.acme.orders.") || request.subject.starts_with("in.main.")
            );
            if let Some(reply) = request.reply {
                answering.publish(reply, "heard".into()).await.unwrap();
            }
        }
    });

    until("ingest listens", async || others[1].is_heard().await).await;
    tenant(folder, &add);
    let (first_seed, first_name) = server.key(&[]);
    // One reload alone does not make a server route what a new account imports: this sees to it.
    server.reloads(Some("acme"));
    assert!(policy(folder).contains("nats: acme/U"), "{}", policy(folder));
    let first = server.with_key(&first_seed).await;
    assert!(first.is_heard().await, "the first key publishes at once");
    assert!(others[1].is_heard().await);

    // Two keys at once: neither connection is touched.
    tenant(folder, &["rotate", "acme", "erp"]);
    let (second_seed, _) = server.key(&[first_name]);
    server.reloads(None);
    let second = server.with_key(&second_seed).await;
    assert!(first.is_heard().await && second.is_heard().await);
    assert_eq!((first.lost(), second.lost()), (0, 0));
    assert_eq!(
        policy(folder).matches("nats: acme/U").count(),
        2,
        "{}",
        policy(folder)
    );

    // The older one ends, the newer one goes on.
    tenant(folder, &["rotate", "acme", "erp", "--finish"]);
    server.reloads(None);
    until("the older key is gone", async || first.lost() > 0).await;
    assert!(second.is_heard().await);
    assert_eq!(second.lost(), 0);
    assert_eq!(
        policy(folder).matches("nats: acme/U").count(),
        1,
        "{}",
        policy(folder)
    );

    tenant(folder, &["remove", "acme"]);
    // Whether it is there is seen on the server, and asked for by those who may.
    for (user, name, words) in [
        ("sys", "acme", "its configuration has no account acme"),
        ("admin", "main", "set ROOMCAST_NATS_USER"),
    ] {
        let output = server.reloading(user, Some(name));
        assert_eq!(output.status.code(), Some(69));
        assert!(complaint(&output).contains(words), "{}", complaint(&output));
    }
    until("the tenant is gone", async || second.lost() > 0).await;
    assert_eq!(policy(folder), POLICY);
    // Nobody else has noticed.
    assert!(others[1].is_heard().await);
    for other in others.iter().chain([&ingest]) {
        assert_eq!(other.lost(), 0);
    }
}

#[test]
fn what_cannot_be_done_is_said_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let conf = std::fs::read_to_string(repository().join("deploy/nats/node.conf.example")).unwrap();
    std::fs::write(folder.path().join("nats.conf"), &conf).unwrap();
    std::fs::write(folder.path().join("policy.yaml"), POLICY).unwrap();
    std::fs::write(folder.path().join("other.conf"), "port: 4222\n").unwrap();
    #[track_caller]
    fn check(folder: &Path, conf: &str, arguments: &[&str], code: i32, words: &str) {
        let files = ["--conf", conf, "--policy", "policy.yaml", "--secrets", "keys"];
        let output = roomcast(folder, &[&["tenant"], arguments, &files].concat());
        assert_eq!(output.status.code(), Some(code), "{}", complaint(&output));
        assert!(complaint(&output).contains(words), "{}", complaint(&output));
    }
    let add =
        |tenant: &'static str, role: &'static str| ["add", tenant, "--publisher", "erp", "--role", role];
    let folder = folder.path();
    check(
        folder,
        "nats.conf",
        &add("main", "desk"),
        64,
        "the tenant main is there already",
    );
    check(folder, "nats.conf", &add("GW", "desk"), 64, "GW");
    check(
        folder,
        "nats.conf",
        &add("acme", "nobody"),
        65,
        "the policy would not hold",
    );
    check(
        folder,
        "other.conf",
        &add("acme", "desk"),
        65,
        "node.conf.example",
    );
    check(folder, "absent.conf", &add("acme", "desk"), 69, "absent.conf");
    check(
        folder,
        "nats.conf",
        &["rotate", "acme", "erp"],
        64,
        "there is no tenant acme",
    );
    check(
        folder,
        "nats.conf",
        &["rotate", "main", "erp"],
        64,
        "main has no user erp",
    );
    check(
        folder,
        "nats.conf",
        &["rotate", "main", "fleet", "--finish"],
        64,
        "one key only",
    );
    assert_eq!(std::fs::read_to_string(folder.join("nats.conf")).unwrap(), conf);
    assert_eq!(policy(folder), POLICY);
}

/// Services read these files as another user than the one who runs this, and by links as often as not.
#[test]
fn links_owners_and_rights_stay() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let conf = std::fs::read_to_string(repository().join("deploy/nats/node.conf.example")).unwrap();
    std::fs::create_dir(folder.join("etc")).unwrap();
    let real = ["etc/nats-1.conf", "etc/policy-1.yaml"].map(|name| folder.join(name));
    let links = ["nats.conf", "policy.yaml"].map(|name| folder.join(name));
    std::fs::write(&real[0], &conf).unwrap();
    std::fs::write(&real[1], POLICY).unwrap();
    symlink("etc/nats-1.conf", &links[0]).unwrap();
    symlink(&real[1], &links[1]).unwrap();
    for file in &real {
        std::fs::set_permissions(file, Permissions::from_mode(0o640)).unwrap();
        if is_root() {
            chown(file, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    let seen = || {
        real.each_ref().map(|file| {
            let found = std::fs::symlink_metadata(file).unwrap();
            (found.uid(), found.gid(), found.mode())
        })
    };
    let before = seen();
    // One that was left of a process that was killed.
    std::fs::write(folder.join("etc/nats-1.conf.next"), "half of").unwrap();
    tenant(folder, &["add", "acme", "--publisher", "erp", "--role", "desk"]);
    assert_eq!(seen(), before);
    for link in &links {
        assert!(link.is_symlink(), "{}", link.display());
    }
    assert!(std::fs::read_to_string(&real[0]).unwrap().contains("acme"));
    assert!(
        std::fs::read_to_string(&real[1])
            .unwrap()
            .contains("nats: acme/U")
    );
    assert_eq!(std::fs::read_dir(folder.join("etc")).unwrap().count(), 2);
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 4, "and the secrets");
    tenant(folder, &["remove", "acme"]);
    assert_eq!(std::fs::read_to_string(&links[0]).unwrap(), conf);
    assert_eq!(policy(folder), POLICY);
}

/// Who may write beside a file and not give another one to its owner would lock the services out of it.
#[test]
fn who_cannot_keep_the_owner_changes_nothing() {
    if !is_root() {
        eprintln!("SKIPPED: a file of somebody else can be made by root alone");
        return;
    }
    // The other user may write into the folder, which alone is needed to put a file in the place of another.
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::set_permissions(folder, Permissions::from_mode(0o777)).unwrap();
    let conf = std::fs::read_to_string(repository().join("deploy/nats/node.conf.example")).unwrap();
    std::fs::write(folder.join("nats.conf"), &conf).unwrap();
    std::fs::write(folder.join("policy.yaml"), POLICY).unwrap();
    // The one is its own; the other is not, and nothing of either may change.
    chown(folder.join("nats.conf"), Some(NOBODY), Some(NOBODY)).unwrap();
    let ran = Command::new(ROOMCAST)
        .current_dir(folder)
        .args(["tenant", "add", "acme", "--publisher", "erp", "--role", "desk"])
        .args([
            "--conf",
            "nats.conf",
            "--policy",
            "policy.yaml",
            "--secrets",
            "keys",
        ])
        .env("NO_COLOR", "1")
        .uid(NOBODY)
        .gid(NOBODY)
        .output();
    let output = match ran {
        Ok(output) => output,
        Err(error) => {
            eprintln!("SKIPPED: {ROOMCAST} as another user: {error}");
            return;
        }
    };
    assert_eq!(output.status.code(), Some(69), "{}", complaint(&output));
    let said = complaint(&output);
    for words in [
        "policy.yaml belongs to user 0 and group 0",
        "nothing was changed",
        "as root",
    ] {
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(std::fs::read_to_string(folder.join("nats.conf")).unwrap(), conf);
    assert_eq!(policy(folder), POLICY);
    let left = std::fs::read_dir(folder).unwrap().count();
    assert_eq!(left, 2, "no file beside them, and no key without a use");
}

/// An entry that is not a line of its own is not rewritten: that is said, with the form it has to have, and both files stay as they are.
#[test]
fn an_entry_in_another_form_is_not_passed_over() {
    const HEAD: &str = "version: 1
roles:
  desk: { permissions: [orders.publish] }
rooms:
  - { room: orders, publish: orders.publish }
";
    #[track_caller]
    fn check(folder: &Path, arguments: &[&str], login: &str) {
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        let before = ["nats.conf", "policy.yaml"].map(read);
        let keys = || std::fs::read_dir(folder.join("keys")).map_or(0, Iterator::count);
        let keys_before = keys();
        let output = tried(folder, arguments);
        let said = complaint(&output);
        assert_eq!(output.status.code(), Some(65), "{arguments:?}: {said}");
        let entry = format!("- {{ nats: {login}, roles: […] }}");
        assert!(said.contains("policy.yaml") && said.contains(&entry), "{said}");
        assert_eq!(["nats.conf", "policy.yaml"].map(read), before, "{arguments:?}");
        assert_eq!(keys(), keys_before, "{arguments:?}: no key without a use");
    }
    let rewrite = |folder: &Path, publishers: &str| {
        std::fs::write(folder.join("policy.yaml"), format!("{HEAD}{publishers}")).unwrap();
    };
    for form in [
        "publishers: [{ nats: LOGIN, roles: [desk] }]\n",
        "publishers:\n  - nats: LOGIN\n    roles: [desk]\n",
        "publishers:\n  - nats: LOGIN # the shop\n    roles: [desk]\n",
        "publishers:\n  - roles: [desk]\n    nats: LOGIN\n",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let conf = std::fs::read_to_string(repository().join("deploy/nats/node.conf.example")).unwrap();
        std::fs::write(folder.join("nats.conf"), conf).unwrap();
        let lines = |logins: &[&str]| {
            let entries = logins
                .iter()
                .map(|login| format!("  - {{ nats: {login}, roles: [desk] }}\n"));
            format!("publishers:\n{}", entries.collect::<String>())
        };
        // A user with a password, as the example has it.
        rewrite(folder, &form.replace("LOGIN", "main/fleet"));
        check(folder, &["rotate", "main", "fleet"], "main/fleet");
        rewrite(folder, &lines(&["main/fleet"]));
        tenant(folder, &["rotate", "main", "fleet"]);
        assert_eq!(
            policy(folder).matches("nats: main/").count(),
            2,
            "{}",
            policy(folder)
        );
        rewrite(folder, &form.replace("LOGIN", "main/fleet"));
        check(folder, &["rotate", "main", "fleet", "--finish"], "main/fleet");
        rewrite(folder, &form.replace("LOGIN", "main/fleet"));
        check(folder, &["remove", "main"], "main/fleet");
    }
}
