//! Every setting of the gateway: variable, unit and default beside the field. 0 is never "unlimited".

mod admission;
mod clients;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use roomcast_admin::AdminSettings;
use roomcast_chassis::config::Reader;
use roomcast_chassis::process::{Failure, Service};
use roomcast_issuers::{IssuerSettings, Tenancy};
use roomcast_proto::limits;
use roomcast_rights::PolicySettings;

use crate::accept::Sockets;
use crate::allowance::Rates;
use crate::nats_side::NatsSideSettings;
use crate::upgrade::Origins;
use crate::{asking, shard};

/// What this service is.
pub const SERVICE: Service = Service {
    name: "roomcast-edge-gateway",
    about: "Edge gateway of Roomcast: reads events and state from NATS, serves them to browsers over WebSocket and HTTP.",
    admin_port: 9080,
    jetstream_api: "core.JS.API",
};

/// The settings of the gateway.
#[derive(Clone)]
pub struct Settings {
    /// `ROOMCAST_LISTEN`: where browsers come in.
    pub listen: SocketAddr,
    /// `ROOMCAST_POLICY_FILE`
    pub policy: PolicySettings,
    /// `ROOMCAST_JWT_…`, `ROOMCAST_JWKS_…`: whose tokens are accepted.
    pub issuers: IssuerSettings,
    /// `ROOMCAST_ADMIN_…`: who may enter the admin port.
    pub admin: AdminSettings,
    /// `ROOMCAST_ALLOWED_ORIGINS`
    pub origins: Origins,
    /// `ROOMCAST_PAGE_CONFIG_FILE`
    pub page_config_file: Option<PathBuf>,
    /// `ROOMCAST_SHARDS`: threads that own sockets.
    pub shards: usize,
    /// Limits on who may come in.
    pub admission: crate::admission::Limits,
    /// How often one user may do what.
    pub operations: Rates,
    /// Limits of each client.
    pub clients: shard::Limits,
    /// `ROOMCAST_OUTBOXES_BYTES_MAX`: what may wait for all clients together, half of it as answers over HTTP.
    pub outboxes_bytes_max: usize,
    /// `ROOMCAST_BODY_SECONDS`: time to send the body of a request.
    pub body_within: Duration,
    /// Limits of what clients have others do.
    pub asks: asking::Limits,
    /// Limits of polls.
    pub polls: Polls,
    /// What the kernel is told of every socket.
    pub sockets: Sockets,
    /// Limits of a request's head.
    pub head: Head,
    /// Whether one tenant is served or several.
    pub tenancy: Tenancy,
    /// The side of NATS: copies of the streams, what of them is kept in memory.
    pub nats: NatsSideSettings,
    /// Whether `/v1/echo` is there. No variable says so: a test that assembles a gateway does.
    #[cfg(all(feature = "echo", debug_assertions))]
    pub echo: bool,
}

/// Limits of a request's head.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// `ROOMCAST_HEADER_SECONDS`: time to send it, and to rest between two requests.
    pub within: Duration,
    /// `ROOMCAST_HEADER_BYTES_MAX`
    pub bytes_max: usize,
    /// `ROOMCAST_HEADERS_MAX`
    pub fields_max: usize,
    /// `ROOMCAST_URL_BYTES_MAX`
    pub url_bytes_max: usize,
}

/// Limits of polls.
#[derive(Clone, Copy, Debug)]
pub struct Polls {
    /// `ROOMCAST_POLLS_HELD_MAX`: held at the same time.
    pub held_max: usize,
    /// `ROOMCAST_POLLS_HELD_PER_TENANT_MAX`
    pub per_tenant_max: usize,
    /// `ROOMCAST_POLL_SECONDS`: the longest that one is held.
    pub longest: Duration,
}

impl Settings {
    /// Reads them.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
        let cores = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(1024);
        let tenancy = Tenancy::read(reader);
        let clients = clients::read(reader, tenancy);
        Self {
            tenancy,
            listen: reader.address(
                "ROOMCAST_LISTEN",
                listen,
                "Address of the WebSocket, the HTTP routes and the page.",
            ),
            policy: PolicySettings::read(reader),
            issuers: IssuerSettings::read(reader),
            admin: AdminSettings::read(reader),
            origins: read_origins(reader),
            page_config_file: reader.optional_path(
                "ROOMCAST_PAGE_CONFIG_FILE",
                "JSON that the page reads at /page.json; public.",
            ),
            shards: reader.number(
                "ROOMCAST_SHARDS",
                cores,
                1..=1024,
                "Threads that own sockets; default: one per core.",
            ),
            admission: admission::read(reader, tenancy),
            operations: read_operations(reader),
            asks: asking::Limits::read(reader, tenancy, clients.answer_bytes_max),
            clients,
            outboxes_bytes_max: reader.number(
                "ROOMCAST_OUTBOXES_BYTES_MAX",
                512 << 20,
                (1 << 20)..=(1 << 40),
                "Bytes that may wait for all clients together; beyond, those for whom most waits are told to come back (4002). What several \
                 wait for is counted for each. Half of it is for answers over HTTP; beyond, the longest of those that are taken slowly are \
                 cut, or there is no room for more (503).",
            ),
            body_within: reader.seconds(
                "ROOMCAST_BODY_SECONDS",
                5,
                1..=60,
                "Seconds to send a request's body.",
            ),
            polls: read_polls(reader, tenancy),
            sockets: read_sockets(reader),
            head: read_head(reader),
            nats: NatsSideSettings::read(reader, tenancy.cursors),
            #[cfg(all(feature = "echo", debug_assertions))]
            echo: false,
        }
    }

    /// What the page is told; `None` when no file is set.
    ///
    /// # Errors
    /// A file that cannot be read or is not one JSON object; exit code 65.
    pub fn load_page_config(&self) -> Result<Option<serde_json::Value>, Failure> {
        let Some(path) = &self.page_config_file else {
            return Ok(None);
        };
        let config: serde_json::Map<_, _> = serde_json::from_str(&read_file(path)?).map_err(|error| {
            Failure::file(format!(
                "{}:{}:{}: {error}",
                path.display(),
                error.line(),
                error.column()
            ))
        })?;
        Ok(Some(config.into()))
    }

    /// Checks offline what `--check-config` can check.
    ///
    /// # Errors
    /// As [`IssuerSettings::load`], [`PolicySettings::load`] and [`Settings::load_page_config`]; development keys on an open
    /// address.
    pub fn check(&self) -> Result<(), Failure> {
        let trusted = self.issuers.load()?;
        self.tenancy
            .restrict(trusted.verifier.clone(), &self.policy.load()?)?;
        self.load_page_config()?;
        self.admin.check()?;
        trusted.refuse_open_development(&[self.listen])
    }
}

fn read_file(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure::file(format!("{}: {error}", path.display())))
}

fn read_origins(reader: &mut Reader<'_>) -> Origins {
    const NAME: &str = "ROOMCAST_ALLOWED_ORIGINS";
    let list = reader.list(
        NAME,
        "",
        "Origins whose pages may connect, comma-separated, exact: https://desk.example.",
    );
    Origins::new(list).unwrap_or_else(|bad| {
        reader.mistake(
            NAME,
            format!("origins like https://desk.example or http://127.0.0.1:8080, which {bad:?} is not"),
        );
        Origins::default()
    })
}

fn read_operations(reader: &mut Reader<'_>) -> Rates {
    const NAME: &str = "ROOMCAST_OPERATION_RATES";
    let parts = reader.list(
        NAME,
        "",
        "How often one user may do what, each as name=per_second/burst, comma-separated; of subscribe, history, deep_history, read, \
         publish, command, presence, feed, mark, preferences, activity, refresh, ticket. Those left out keep their usual rates.",
    );
    parts.join(",").parse().unwrap_or_else(|bad: String| {
        reader.mistake(NAME, bad);
        Rates::default()
    })
}

fn read_head(reader: &mut Reader<'_>) -> Head {
    Head {
        within: reader.seconds(
            "ROOMCAST_HEADER_SECONDS",
            5,
            1..=60,
            "Seconds to send a request's head.",
        ),
        bytes_max: reader.number(
            "ROOMCAST_HEADER_BYTES_MAX",
            16_384,
            8_192..=65_536,
            "Bytes of a request's head (else 431).",
        ),
        fields_max: reader.number(
            "ROOMCAST_HEADERS_MAX",
            64,
            8..=256,
            "Header fields of a request (else 431).",
        ),
        url_bytes_max: reader.number(
            "ROOMCAST_URL_BYTES_MAX",
            4_096,
            256..=65_536,
            "Bytes of a request's path with its query (else 431).",
        ),
    }
}

fn read_polls(reader: &mut Reader<'_>, tenancy: Tenancy) -> Polls {
    let held_max = reader.number(
        "ROOMCAST_POLLS_HELD_MAX",
        1_000,
        1..=1_000_000,
        "Polls held at the same time until there is something new; more are answered 503.",
    );
    let per_tenant_max = reader.number(
        "ROOMCAST_POLLS_HELD_PER_TENANT_MAX",
        500,
        1..=1_000_000,
        "The same of one tenant, where there are several (ROOMCAST_CURSOR_KEYS is set); one alone may have all.",
    );
    Polls {
        held_max,
        per_tenant_max: if tenancy.cursors.is_sealed() {
            per_tenant_max
        } else {
            held_max
        },
        longest: reader.seconds(
            "ROOMCAST_POLL_SECONDS",
            limits::POLL_WAIT_MAX.as_secs(),
            1..=300,
            "Seconds that a poll is held at the longest; less than what proxies in between wait for an answer.",
        ),
    }
}

fn read_sockets(reader: &mut Reader<'_>) -> Sockets {
    Sockets {
        send_buffer_bytes: reader.number(
            "ROOMCAST_SEND_BUFFER_BYTES",
            256 << 10,
            (16 << 10)..=(16 << 20),
            "Bytes that the kernel may hold for a client, beside its outbox.",
        ),
        unacknowledged: reader.seconds(
            "ROOMCAST_UNACKNOWLEDGED_SECONDS",
            30,
            1..=300,
            "Seconds without an acknowledgement of sent bytes, after which the other side has vanished.",
        ),
    }
}

#[cfg(test)]
mod tests;
