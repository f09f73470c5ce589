//! The three services as processes: which binary, which settings.

use std::path::PathBuf;
use std::time::Duration;

use roomcast_chassis::process::Failure;
use roomcast_proto::accounts::{API_IN_CORE, API_OUTSIDE_CORE, User, inbox_prefix};

use super::child::{Role, Spec};
use super::files::Files;
use super::home::Home;
use super::nats::Users;
use super::ports::Ports;
use super::postgres::Postgres;
use crate::find;
use crate::token::{AUDIENCE, DEVELOPMENT_ISSUER};

/// How long a service may take to let its clients go: on one machine nobody needs the thirty seconds of a cluster.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);

/// The services' binaries; the aggregator's is the last, because it is not always needed.
pub(crate) const BINARIES: [&str; 3] = [
    "roomcast-ingest",
    "roomcast-edge-gateway",
    "roomcast-metrics-aggregator",
];

/// Settings of one's own for one kind of service, on top of those that `dev` makes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Extra {
    pub(crate) gateway: Vec<(String, String)>,
    pub(crate) ingest: Vec<(String, String)>,
    pub(crate) aggregator: Vec<(String, String)>,
}

/// Everything the services' settings are made from.
pub(crate) struct Services<'a> {
    pub(crate) home: &'a Home,
    pub(crate) files: &'a Files,
    pub(crate) users: &'a Users,
    pub(crate) ports: &'a Ports,
    pub(crate) nats_url: &'a str,
    pub(crate) replicas: u32,
    pub(crate) keys_file: PathBuf,
    pub(crate) admin_keys_file: PathBuf,
    pub(crate) page_file: Option<PathBuf>,
    /// The database that is followed.
    pub(super) database: Option<&'a Postgres>,
    pub(crate) extra: &'a Extra,
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

fn pair(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_owned(), value.into())
}

/// What of our own environment is the services' as well.
const PASSED_ON: [&str; 4] = [
    "ROOMCAST_LOG",
    "ROOMCAST_LOG_FORMAT",
    "ROOMCAST_TRACES_ENDPOINT",
    "ROOMCAST_TRACES_SAMPLE",
];

fn shown(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}

impl Services<'_> {
    /// What every service is told.
    fn common(&self, user: &User, api: &str, admin_port: u16) -> Result<Vec<(String, String)>, Failure> {
        // In a file, not in the environment: other processes of this user could read that.
        let password = self
            .home
            .write(&format!("secrets/{}", user.name), &user.password)?;
        let mut settings = vec![
            pair("ROOMCAST_NATS_URL", self.nats_url),
            pair("ROOMCAST_NATS_USER", &user.name),
            pair("ROOMCAST_NATS_PASSWORD_FILE", shown(&password)),
            pair("ROOMCAST_NATS_INBOX", inbox_prefix(&user.name)),
            pair("ROOMCAST_NATS_API", api),
            pair("ROOMCAST_ADMIN_LISTEN", local(admin_port)),
            pair("ROOMCAST_ADMIN_JWT_KEYS_FILE", shown(&self.admin_keys_file)),
            pair("ROOMCAST_ADMIN_JWT_ISSUER", DEVELOPMENT_ISSUER),
            // The page has a view for operators; it needs an admin token all the same.
            pair("ROOMCAST_ADMIN_ORIGINS", self.origins()),
            pair("ROOMCAST_DRAIN_SECONDS", DRAIN.as_secs().to_string()),
            pair("ROOMCAST_REPLICAS", self.replicas.to_string()),
        ];
        for name in PASSED_ON {
            settings.extend(std::env::var(name).ok().map(|value| pair(name, value)));
        }
        Ok(settings)
    }

    /// What those that read tokens are told.
    fn tokens(&self) -> [(String, String); 4] {
        [
            pair("ROOMCAST_POLICY_FILE", shown(&self.files.policy)),
            pair("ROOMCAST_JWT_KEYS_FILE", shown(&self.keys_file)),
            pair("ROOMCAST_JWT_ISSUER", DEVELOPMENT_ISSUER),
            pair("ROOMCAST_JWT_AUDIENCE", AUDIENCE),
        ]
    }

    /// The gateways' pages: their own address under both of its names.
    fn origins(&self) -> String {
        let names = ["127.0.0.1", "localhost"];
        let of_port = |(port, _): &(u16, u16)| names.map(|name| format!("http://{name}:{port}"));
        self.ports
            .gateways
            .iter()
            .flat_map(of_port)
            .collect::<Vec<_>>()
            .join(",")
    }

    /// The ingests.
    ///
    /// # Errors
    /// 69: the binary is not here, or a file cannot be written.
    pub(crate) fn ingests(&self) -> Result<Vec<Spec>, Failure> {
        let program = find::service(BINARIES[0])?;
        let each = |index: usize, (listen, admin): (u16, u16)| {
            let mut environment = self.common(&self.users.ingest, API_IN_CORE, admin)?;
            environment.extend(self.tokens());
            environment.push(pair("ROOMCAST_LISTEN", local(listen)));
            // The page may publish too: that is how its own test button works.
            environment.push(pair("ROOMCAST_ALLOWED_ORIGINS", self.origins()));
            environment.extend(
                self.files
                    .schemas
                    .iter()
                    .map(|folder| pair("ROOMCAST_SCHEMAS_DIR", shown(folder))),
            );
            if let Some(database) = self.database {
                environment.push(pair("ROOMCAST_CAPTURE_FILE", shown(&database.capture)));
                let address = shown(&database.address_file);
                environment.push(pair("ROOMCAST_CAPTURE_DATABASE_FILE", address));
            }
            Ok(spec(
                Role::Ingest,
                index,
                program.clone(),
                environment,
                &self.extra.ingest,
            ))
        };
        self.ports
            .ingests
            .iter()
            .enumerate()
            .map(|(index, ports)| each(index, *ports))
            .collect()
    }

    /// The aggregators; none without definitions.
    ///
    /// # Errors
    /// As [`Services::ingests`].
    pub(crate) fn aggregators(&self) -> Result<Vec<Spec>, Failure> {
        let Some(metrics) = &self.files.metrics else {
            return Ok(Vec::new());
        };
        let program = find::service(BINARIES[2])?;
        let each = |index: usize, admin: u16| {
            let mut environment = self.common(&self.users.aggregator, API_OUTSIDE_CORE, admin)?;
            environment.push(pair("ROOMCAST_METRICS_FILE", shown(metrics)));
            environment.push(pair("ROOMCAST_POLICY_FILE", shown(&self.files.policy)));
            Ok(spec(
                Role::Aggregator,
                index,
                program.clone(),
                environment,
                &self.extra.aggregator,
            ))
        };
        self.ports
            .aggregators
            .iter()
            .enumerate()
            .map(|(index, admin)| each(index, *admin))
            .collect()
    }

    /// The gateways.
    ///
    /// # Errors
    /// As [`Services::ingests`].
    pub(crate) fn gateways(&self) -> Result<Vec<Spec>, Failure> {
        let program = find::service(BINARIES[1])?;
        let each = |index: usize, (listen, admin): (u16, u16)| {
            let mut environment = self.common(&self.users.gateway, API_OUTSIDE_CORE, admin)?;
            environment.extend(self.tokens());
            environment.push(pair("ROOMCAST_LISTEN", local(listen)));
            environment.push(pair("ROOMCAST_ALLOWED_ORIGINS", self.origins()));
            // As in its image, which says why.
            environment.push(pair("MIMALLOC_PAGE_RECLAIM_ON_FREE", "-1"));
            environment.extend(
                self.page_file
                    .iter()
                    .map(|file| pair("ROOMCAST_PAGE_CONFIG_FILE", shown(file))),
            );
            Ok(spec(
                Role::Gateway,
                index,
                program.clone(),
                environment,
                &self.extra.gateway,
            ))
        };
        self.ports
            .gateways
            .iter()
            .enumerate()
            .map(|(index, ports)| each(index, *ports))
            .collect()
    }
}

fn spec(
    role: Role,
    index: usize,
    program: PathBuf,
    mut environment: Vec<(String, String)>,
    extra: &[(String, String)],
) -> Spec {
    environment.retain(|(name, _)| !extra.iter().any(|(other, _)| other == name));
    environment.extend_from_slice(extra);
    Spec {
        role,
        number: u32::try_from(index + 1).unwrap_or(u32::MAX),
        program,
        arguments: Vec::new(),
        environment,
    }
}

/// Reads `NAME=VALUE` of a service's settings.
///
/// # Errors
/// What is expected.
pub(crate) fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if name.starts_with("ROOMCAST_") => Ok(pair(name, value)),
        _ => Err("expected ROOMCAST_NAME=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_ones_own_win() {
        let ours = vec![pair("ROOMCAST_A", "1"), pair("ROOMCAST_B", "2")];
        let spec = spec(
            Role::Gateway,
            0,
            PathBuf::from("x"),
            ours,
            &[pair("ROOMCAST_B", "3")],
        );
        assert_eq!(spec.name(), "gateway-1");
        assert_eq!(
            spec.environment,
            [pair("ROOMCAST_A", "1"), pair("ROOMCAST_B", "3")]
        );
    }

    #[test]
    fn settings_have_our_prefix() {
        assert_eq!(parse_setting("ROOMCAST_X=a=b"), Ok(pair("ROOMCAST_X", "a=b")));
        assert!(parse_setting("PATH=/").is_err());
        assert!(parse_setting("ROOMCAST_X").is_err());
    }
}
