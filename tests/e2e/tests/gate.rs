//! A NATS server that is too old takes newer settings without a word and does not keep to them: nothing of ours starts on one.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use roomcast_harness::nats::PASSWORD;
use roomcast_harness::token::{ISSUER, Signer};
use roomcast_harness::{binary, folder, repository};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::world::alone;

/// A process that refuses says so within this, on however busy a machine.
const REFUSES_WITHIN: Duration = Duration::from_secs(60);
pub const UNAVAILABLE: i32 = 69;

/// Greets as version 2.12.8 does, which has every feature but those of 2.14, and answers pings.
async fn serve_old(listener: TcpListener) {
    const INFO: &[u8] = b"INFO {\"server_id\":\"old\",\"server_name\":\"old\",\"version\":\"2.12.8\",\"proto\":1,\"headers\":true,\"jetstream\":true,\"max_payload\":1048576}\r\n";
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (read, mut write) = stream.into_split();
            let mut lines = BufReader::new(read).lines();
            let mut alive = write.write_all(INFO).await.is_ok();
            while alive && let Ok(Some(line)) = lines.next_line().await {
                alive = !line.starts_with("PING") || write.write_all(b"PONG\r\n").await.is_ok();
            }
        });
    }
}

/// Runs a command to its end, with no setting but its own; its exit code and what it said.
pub async fn run(command: &mut Command) -> anyhow::Result<(Option<i32>, String)> {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ROOMCAST_")) {
        // A setting of whoever runs the tests is none of the test's, unless the test gives it itself.
        if command
            .as_std()
            .get_envs()
            .all(|(given, _)| given != name.as_str())
        {
            command.env_remove(name);
        }
    }
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(REFUSES_WITHIN, running).await??;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

/// A service that would run at `url`, with the files of these tests and `keys.json` in `folder`.
pub fn service(name: &str, user: &str, url: &str, folder: &Path) -> Command {
    let own = repository().join("tests/e2e");
    let mut command = Command::new(binary(name));
    command
        .env("ROOMCAST_NATS_URL", url)
        .env("ROOMCAST_NATS_USER", user)
        .env("ROOMCAST_NATS_PASSWORD", PASSWORD)
        .env("ROOMCAST_ADMIN_LISTEN", "127.0.0.1:0")
        .env("ROOMCAST_POLICY_FILE", own.join("policy.yaml"));
    match user {
        "agg" => command.env("ROOMCAST_METRICS_FILE", own.join("metrics.yaml")),
        _ => command
            .env("ROOMCAST_LISTEN", "127.0.0.1:0")
            .env("ROOMCAST_JWT_KEYS_FILE", folder.join("keys.json"))
            .env("ROOMCAST_JWT_ISSUER", ISSUER)
            .env("ROOMCAST_ALLOWED_ORIGINS", "https://desk.example"),
    };
    command
}

#[test]
fn no_service_runs_on_an_older_server() {
    alone(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("nats://{}", listener.local_addr()?);
        tokio::spawn(serve_old(listener));
        let folder = folder();
        std::fs::write(folder.path().join("keys.json"), Signer::new().jwks())?;
        for (name, user) in [
            ("roomcast-ingest", "ingest"),
            ("roomcast-metrics-aggregator", "agg"),
            ("roomcast-edge-gateway", "gw"),
        ] {
            let (code, said) = run(&mut service(name, user, &url, folder.path())).await?;
            assert_eq!(code, Some(UNAVAILABLE), "{name}: {said}");
            assert!(
                said.contains("2.12.8") && said.contains("2.14.0 or newer is needed"),
                "{name}: {said}"
            );
        }
        Ok(())
    });
}

#[test]
fn dev_starts_nothing_on_an_older_server() {
    use std::os::unix::fs::PermissionsExt as _;
    alone(async {
        let folder = folder();
        let old = folder.path().join("nats-server");
        std::fs::write(&old, "#!/bin/sh\necho 'nats-server: v2.12.8'\n")?;
        std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o755))?;
        let mut dev = Command::new(binary("roomcast"));
        dev.args(["dev", "--json", "--ports", "free"])
            .current_dir(folder.path());
        let (code, said) = run(dev.env("ROOMCAST_NATS_SERVER", &old)).await?;
        assert_eq!(code, Some(UNAVAILABLE), "{said}");
        assert!(
            said.contains("is version 2.12.8; 2.14.0 or newer is needed"),
            "{said}"
        );
        assert!(
            !folder.path().join(".roomcast/dev.env").exists(),
            "nothing was started"
        );
        Ok(())
    });
}
