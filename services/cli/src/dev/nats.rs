//! NATS for a development system: the server's program, its configuration, its users.

use std::path::{Path, PathBuf};
use std::time::Duration;

use roomcast_chassis::process::Failure;
use roomcast_proto::accounts::{
    Backend, Cluster, Publisher, Security, ServerConfig, TenantAccount, User, inbox_prefix,
};
use roomcast_proto::ids::Tenant;
use roomcast_proto::stream::Sizing;
use tokio::process::Command;

use super::child::{Role, Spec};
use super::home::Home;
use crate::find;

/// The oldest server we work with; older ones accept newer settings silently and do not honour them.
const VERSION_MIN: (u32, u32, u32) = (2, 14, 0);
/// Room for what the server itself keeps beside the streams.
const STORE_SPARE_BYTES: u64 = 1 << 30;

/// The users of a system: name and password of each.
#[derive(Clone)]
pub(crate) struct Users {
    pub(crate) admin: User,
    pub(crate) ingest: User,
    pub(crate) aggregator: User,
    pub(crate) gateway: User,
    pub(crate) publisher: User,
    pub(crate) backend: User,
    pub(crate) reader: User,
    system: User,
}

impl Users {
    /// The usual names with new random passwords.
    ///
    /// # Errors
    /// 70: the system gives no random numbers.
    pub(crate) fn random() -> Result<Self, Failure> {
        Self::with(|_| password())
    }

    /// Reads `name=password` lines, for a server that exists: the users that `dev` writes to `nats/users.env`.
    ///
    /// # Errors
    /// 65: a user is missing.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::file(format!("{}: {error}", path.display())))?;
        Self::with(|name| {
            let given = text
                .lines()
                .find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
            given.map(str::to_owned).ok_or_else(|| {
                Failure::file(format!("{}: expected a line {name}=<password>", path.display()))
            })
        })
    }

    fn with(password: impl Fn(&str) -> Result<String, Failure>) -> Result<Self, Failure> {
        let user = |name: &str| {
            Ok::<_, Failure>(User {
                name: name.to_owned(),
                password: password(name)?,
            })
        };
        Ok(Self {
            admin: user("admin")?,
            ingest: user("ingest")?,
            aggregator: user("agg")?,
            gateway: user("gw")?,
            publisher: user("publisher")?,
            backend: user("backend")?,
            reader: user("reader")?,
            system: user("sys")?,
        })
    }

    fn all(&self) -> [&User; 8] {
        [
            &self.admin,
            &self.ingest,
            &self.aggregator,
            &self.gateway,
            &self.publisher,
            &self.backend,
            &self.reader,
            &self.system,
        ]
    }

    /// The lines that [`Users::load`] reads.
    pub(crate) fn render(&self) -> String {
        self.all()
            .iter()
            .map(|user| format!("{}={}\n", user.name, user.password))
            .collect()
    }

    /// A user's login as the ready line has it.
    pub(crate) fn login(user: &User) -> serde_json::Value {
        serde_json::json!({ "user": user.name, "password": user.password, "inbox": inbox_prefix(&user.name) })
    }
}

/// 192 random bits as text that needs no quoting anywhere.
pub(super) fn password() -> Result<String, Failure> {
    use base64::Engine;
    let mut bytes = [0_u8; 24];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::internal("the system gives no random numbers"))?;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD
        .encode(bytes)
        .replace('-', "a"))
}

/// The server's program and its version.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    program: PathBuf,
    pub(crate) version: String,
}

impl Server {
    /// Finds it and asks for its version.
    ///
    /// # Errors
    /// 69: there is none, or it is too old, with how to get one.
    pub(crate) async fn find() -> Result<Self, Failure> {
        let program = find::nats_server()?;
        let asking = Command::new(&program)
            .arg("--version")
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(Duration::from_secs(10), asking).await;
        let said = match output {
            Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).into_owned(),
            Ok(Err(error)) => return Err(Failure::unavailable(format!("{}: {error}", program.display()))),
            Err(_) => {
                return Err(Failure::unavailable(format!(
                    "{} does not say its version",
                    program.display()
                )));
            }
        };
        let version = judge(&said).map_err(|found| {
            Failure::unavailable(format!(
                "{} is version {found}; 2.14.0 or newer is needed: `make tools` fetches 2.15.1 to .tools/bin, ROOMCAST_NATS_SERVER names it",
                program.display()
            ))
        })?;
        Ok(Self { program, version })
    }

    /// The processes of the nodes, their configurations written. `ports`: client and route port of each.
    ///
    /// # Errors
    /// 69: a file cannot be written.
    pub(crate) fn nodes(
        &self,
        home: &Home,
        users: &Users,
        ports: &[(u16, u16)],
        sizing: &Sizing,
    ) -> Result<Vec<Spec>, Failure> {
        home.write("nats/users.env", &users.render())?;
        let login = User {
            name: "route".to_owned(),
            password: password()?,
        };
        let cluster = |route: u16| Cluster {
            listen: format!("127.0.0.1:{route}"),
            routes: ports
                .iter()
                .map(|(_, route)| format!("127.0.0.1:{route}"))
                .collect(),
            user: login.clone(),
        };
        let mut specs = Vec::new();
        for (index, (client, route)) in ports.iter().enumerate() {
            let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
            let config = ServerConfig {
                server_name: format!("nats-{number}"),
                listen: format!("127.0.0.1:{client}"),
                monitor: None,
                store_dir: home
                    .path()
                    .join(format!("nats/store-{number}"))
                    .to_string_lossy()
                    .into_owned(),
                max_file_bytes: sizing.total_bytes() + STORE_SPARE_BYTES,
                admin: users.admin.clone(),
                ingest: users.ingest.clone(),
                aggregator: users.aggregator.clone(),
                gateway: users.gateway.clone(),
                reader: Some(users.reader.clone()),
                system: users.system.clone(),
                tenants: vec![TenantAccount {
                    tenant: Tenant::default(),
                    publishers: vec![Publisher {
                        user: users.publisher.clone(),
                        rooms: None,
                    }],
                    backends: vec![Backend {
                        user: users.backend.clone(),
                        commands: None,
                    }],
                }],
                cluster: (ports.len() > 1).then(|| cluster(*route)),
                security: Security::default(),
            };
            let file = home.write(&format!("nats/nats-{number}.conf"), &config.render())?;
            specs.push(Spec {
                role: Role::Nats,
                number,
                program: self.program.clone(),
                arguments: vec!["--config".into(), file.into()],
                environment: Vec::new(),
            });
        }
        Ok(specs)
    }
}

/// The version in `nats-server: v2.15.1`; the other way round what was found instead.
fn judge(said: &str) -> Result<String, String> {
    let version = said
        .split_whitespace()
        .last()
        .unwrap_or_default()
        .trim_start_matches('v')
        .to_owned();
    let mut numbers = version.split(['.', '-', '+']).map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(Result::ok);
    match (next(), next(), next()) {
        (Some(major), Some(minor), Some(patch)) if (major, minor, patch) >= VERSION_MIN => Ok(version),
        (Some(_), Some(_), Some(_)) => Err(version),
        _ => Err(format!("unknown ({})", crate::terminal::harmless(said.trim()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_old_ones_refused() {
        for (said, expected) in [
            ("nats-server: v2.15.1\n", Ok("2.15.1")),
            ("nats-server: v2.14.0", Ok("2.14.0")),
            ("nats-server: v3.0.0-beta.1", Ok("3.0.0-beta.1")),
            ("nats-server: v2.12.8", Err("2.12.8")),
            ("nats-server: v2.13.99", Err("2.13.99")),
            ("", Err("unknown ()")),
            ("hello", Err("unknown (hello)")),
        ] {
            assert_eq!(
                judge(said),
                expected.map(str::to_owned).map_err(str::to_owned),
                "{said:?}"
            );
        }
    }

    #[test]
    fn users_are_read_back_and_missing_ones_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.env");
        let users = Users::random().unwrap();
        std::fs::write(&path, users.render()).unwrap();
        assert_eq!(Users::load(&path).unwrap().render(), users.render());
        assert!(users.all().iter().all(|user| user.password.len() == 32));
        std::fs::write(&path, "admin=x\n").unwrap();
        let missing = Users::load(&path).err().unwrap();
        assert!(missing.message.contains("ingest=<password>"), "{missing}");
    }
}
