//! What the generated configuration allows, asked of a real nats-server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use roomcast_proto::accounts::{
    Backend, Cluster, Publisher, Security, ServerConfig, TenantAccount, Tls, User,
};
use roomcast_proto::ids::{Room, Tenant};
use roomcast_proto::stream::Sizing;

/// Public keys, with no secret half anywhere: only their form counts here.
const KEY: &str = "UBUFC5RJEF5LKT74FIZ5A62QZ3ARRB22Q5AV2JVVAJ4TNZ3Z6WAIG64J";
const OTHER_KEY: &str = "UDCUNQD65Z6TRPNCOAA5T7PSV7IKAH3OHU3M4RZVDOMU634HVBU76SVX";

fn login(name: &str) -> User {
    User {
        name: name.to_owned(),
        password: "p".to_owned(),
    }
}

/// Where nats-server is; `None` after saying how to get it. With `CI=true` its absence is a failure.
fn nats_server() -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let candidates = [
        std::env::var_os("ROOMCAST_NATS_SERVER").map(PathBuf::from),
        Some(root.join(".tools/bin/nats-server")),
    ];
    let found = candidates.into_iter().flatten().find(|path| path.exists());
    if found.is_none() {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "nats-server is missing: make tools"
        );
        println!("SKIPPED: nats-server is missing: make tools");
    }
    found
}

/// A development server, or one of three nodes.
fn config(replicas: usize, security: Security) -> ServerConfig {
    ServerConfig {
        server_name: "n1".into(),
        listen: "127.0.0.1:4222".into(),
        monitor: Some("127.0.0.1:8222".into()),
        store_dir: "store with \"quotes\"".into(),
        max_file_bytes: 1 << 30,
        admin: login("admin"),
        ingest: login("ingest"),
        aggregator: login("agg"),
        gateway: login("gw"),
        reader: (replicas == 1).then(|| login("reader")),
        system: login("sys"),
        tenants: vec![
            TenantAccount {
                tenant: Tenant::default(),
                publishers: vec![Publisher {
                    user: login("publisher"),
                    rooms: None,
                }],
                backends: vec![Backend {
                    user: login("backend"),
                    commands: None,
                }],
            },
            TenantAccount {
                tenant: Tenant::parse("acme-2").unwrap(),
                publishers: vec![],
                backends: vec![],
            },
        ],
        cluster: (replicas == 3).then(|| Cluster {
            listen: "127.0.0.1:6222".into(),
            routes: vec!["127.0.0.1:6222".into(), "127.0.0.1:6223".into()],
            user: login("route"),
        }),
        security,
    }
}

/// `nats-server -t` reads a configuration completely, imports, exports, certificates and keys included, and exits.
fn check(server: &Path, name: &str, text: &str) -> Result<(), String> {
    let file = std::env::temp_dir().join(format!("roomcast-proto-{}-{name}.conf", std::process::id()));
    std::fs::write(&file, text).unwrap();
    let output = Command::new(server)
        .arg("-t")
        .arg("-c")
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    std::fs::remove_file(&file).unwrap();
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn test_files() -> String {
    format!("{}/tests/tls", env!("CARGO_MANIFEST_DIR"))
}

fn tls(verify: bool) -> Tls {
    let file = |name: &str| format!("{}/{name}", test_files());
    Tls {
        cert: file("cert.pem"),
        key: file("key.pem"),
        ca: Some(file("ca.pem")),
        verify,
    }
}

fn nkeys(keys: &[(&str, &str)]) -> BTreeMap<String, String> {
    keys.iter()
        .map(|(name, key)| ((*name).to_owned(), (*key).to_owned()))
        .collect()
}

#[test]
fn the_server_accepts_what_is_generated() {
    let Some(server) = nats_server() else { return };
    let securities = [
        Security::default(),
        Security {
            tls: Some(tls(false)),
            nkeys: nkeys(&[("ingest", KEY)]),
        },
        Security {
            tls: Some(tls(true)),
            nkeys: nkeys(&[("publisher", KEY), ("sys", OTHER_KEY)]),
        },
    ];
    for replicas in [1, 3] {
        for security in &securities {
            let text = config(replicas, security.clone()).render();
            check(&server, "good", &text).unwrap();
        }
    }
}

/// The server itself tells what is not a key or not there, so that a mistake is one at the start.
#[test]
fn the_server_refuses_keys_and_files_that_are_none() {
    let Some(server) = nats_server() else { return };
    let no_file = Security {
        tls: Some(Tls {
            cert: "/nowhere.pem".into(),
            ..tls(false)
        }),
        ..Security::default()
    };
    let no_key = Security {
        nkeys: nkeys(&[("ingest", "UNOKEY")]),
        ..Security::default()
    };
    for (name, security, says) in [
        ("file", no_file, "nowhere.pem"),
        ("key", no_key, "Not a valid public nkey"),
    ] {
        let said = check(&server, name, &config(1, security).render()).unwrap_err();
        assert!(said.to_lowercase().contains(&says.to_lowercase()), "{said}");
    }
}

/// One of three nodes as an operator begins: everything that is to be changed says so.
fn example() -> String {
    let change = |name: &str| User {
        name: name.to_owned(),
        password: format!("CHANGE-ME-{name}"),
    };
    let node = |n: u32, port: u16| format!("nats-{n}.example.internal:{port}");
    let sizing = Sizing::PRODUCTION;
    let config = ServerConfig {
        server_name: "nats-1".into(),
        listen: "0.0.0.0:4222".into(),
        monitor: Some("127.0.0.1:8222".into()),
        store_dir: "/var/lib/nats".into(),
        // A queue for each of the two publishers below, and room for what the server keeps beside.
        max_file_bytes: sizing.total_bytes() + 2 * sizing.queue_bytes + (1 << 30),
        admin: change("admin"),
        ingest: change("ingest"),
        aggregator: change("agg"),
        gateway: change("gw"),
        reader: Some(change("reader")),
        system: change("sys"),
        tenants: vec![TenantAccount {
            tenant: Tenant::default(),
            publishers: vec![
                Publisher {
                    user: change("booking-system"),
                    rooms: Some(vec![Room::parse("bookings").unwrap()]),
                },
                Publisher {
                    user: change("warehouse"),
                    rooms: Some(vec![Room::parse("warehouse").unwrap()]),
                },
            ],
            backends: vec![Backend {
                user: change("fleet"),
                commands: Some(vec!["delivery".into()]),
            }],
        }],
        cluster: Some(Cluster {
            listen: "0.0.0.0:6222".into(),
            routes: (1..=3).map(|n| node(n, 6222)).collect(),
            user: change("route"),
        }),
        security: Security {
            tls: Some(Tls {
                cert: "/etc/nats/tls/cert.pem".into(),
                key: "/etc/nats/tls/key.pem".into(),
                ca: Some("/etc/nats/tls/ca.pem".into()),
                verify: false,
            }),
            // This publisher signs with a key of its own, and nobody but it has anything secret.
            nkeys: nkeys(&[("warehouse", KEY)]),
        },
    };
    format!(
        "# One of three NATS nodes. Generated: `ROOMCAST_UPDATE=1 cargo test -p roomcast-proto` writes it anew; deploy/nats/README.md says what to change.\n{}",
        config.render()
    )
}

#[test]
fn the_example_is_what_is_generated_and_the_server_accepts_it() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/nats/node.conf.example");
    if std::env::var_os("ROOMCAST_UPDATE").is_some() {
        std::fs::write(&path, example()).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(
        found == example(),
        "{} is not what is generated: ROOMCAST_UPDATE=1 cargo test -p roomcast-proto",
        path.display()
    );
    let Some(server) = nats_server() else { return };
    check(&server, "example", &found.replace("/etc/nats/tls", &test_files())).unwrap();
}
