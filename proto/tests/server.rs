//! What the generated configuration allows, asked of a real nats-server.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use roomcast_proto::accounts::{Publisher, ServerConfig, TenantAccount, User};
use roomcast_proto::ids::Tenant;

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

/// `nats-server -t` reads a configuration completely, imports and exports included, and exits.
#[test]
fn the_server_accepts_what_is_generated() {
    let Some(server) = nats_server() else { return };
    let file = std::env::temp_dir().join(format!("roomcast-proto-{}.conf", std::process::id()));
    for replicas in [1, 3] {
        let config = ServerConfig {
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
                },
                TenantAccount {
                    tenant: Tenant::parse("acme-2").unwrap(),
                    publishers: vec![],
                },
            ],
            cluster: (replicas == 3).then(|| roomcast_proto::accounts::Cluster {
                listen: "127.0.0.1:6222".into(),
                routes: vec!["127.0.0.1:6222".into(), "127.0.0.1:6223".into()],
                user: login("route"),
            }),
        };
        std::fs::write(&file, config.render()).unwrap();
        let output = Command::new(&server)
            .arg("-t")
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}\n{}", config.render());
    }
    std::fs::remove_file(&file).unwrap();
}
