//! Every setting of the gateway: variable, unit and default beside the field. 0 is never "unlimited".

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use roomcast_admin::AdminSettings;
use roomcast_chassis::config::Reader;
use roomcast_chassis::process::{Failure, Service};
use roomcast_issuers::{IssuerSettings, Tenancy};
use roomcast_proto::limits;
use roomcast_rights::PolicySettings;

use crate::allowance::Rates;
use crate::bucket::Rate;
use crate::nats_side::NatsSideSettings;
use crate::upgrade::Origins;
use crate::{admission, asking, beat, outbox, session, shard, ws};

/// What this service is.
pub const SERVICE: Service = Service {
    name: "roomcast-edge-gateway",
    about: "Edge gateway of Roomcast: reads events and state from NATS, serves them to browsers over WebSocket and HTTP.",
    admin_port: 9080,
    jetstream_api: "core.JS.API",
};

/// Fragments of one message: 64 KiB in pieces of 64 bytes.
const FRAGMENTS_MAX: u32 = 1024;

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
    pub admission: admission::Limits,
    /// How often one user may do what.
    pub operations: Rates,
    /// Limits of each client.
    pub clients: shard::Limits,
    /// Limits of what clients have others do.
    pub asks: asking::Limits,
    /// `ROOMCAST_POLLS_HELD_MAX`: polls held at the same time.
    pub polls_max: usize,
    /// Limits of a request's head.
    pub head: Head,
    /// Whether one tenant is served or several.
    pub tenancy: Tenancy,
    /// The side of NATS: copies of the streams, what of them is kept in memory.
    pub nats: NatsSideSettings,
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
}

impl Settings {
    /// Reads them.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
        let cores = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(1024);
        let tenancy = Tenancy::read(reader);
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
            admission: read_admission(reader, tenancy),
            operations: read_operations(reader),
            asks: asking::Limits::read(reader),
            clients: read_clients(reader, tenancy),
            polls_max: reader.number(
                "ROOMCAST_POLLS_HELD_MAX",
                1_000,
                1..=1_000_000,
                "Polls held at the same time until there is something new; more are answered 503.",
            ),
            head: Head {
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
                    "Bytes of a request's head.",
                ),
                fields_max: reader.number("ROOMCAST_HEADERS_MAX", 64, 8..=256, "Header fields of a request."),
            },
            nats: NatsSideSettings::read(reader, tenancy.cursors),
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

fn read_admission(reader: &mut Reader<'_>, tenancy: Tenancy) -> admission::Limits {
    const MOST: u64 = 1_000_000;
    const ALL: usize = 1_000_000;
    let connections_max = reader.number(
        "ROOMCAST_CONNECTIONS_MAX",
        10_000,
        1..=ALL,
        "Connections of the process.",
    );
    let per_tenant_max = reader.number(
        "ROOMCAST_CONNECTIONS_PER_TENANT_MAX",
        2_000,
        1..=ALL,
        "Connections of one tenant, where there are several (ROOMCAST_CURSOR_KEYS is set); one alone may have all.",
    );
    admission::Limits {
        connections_max,
        per_tenant_max: if tenancy.cursors.is_sealed() {
            per_tenant_max
        } else {
            connections_max
        },
        per_user_max: reader.number(
            "ROOMCAST_CONNECTIONS_PER_USER_MAX",
            10,
            1..=ALL,
            "Connections of one user: tabs and devices.",
        ),
        // Browsers open up to six connections at once before they ask for anything, and several people share an address.
        strangers_per_address_max: reader.number(
            "ROOMCAST_UNAUTHENTICATED_PER_ADDRESS_MAX",
            32,
            1..=ALL,
            "Connections of one address that have not shown a token or a request yet. Raise it where many share an address.",
        ),
        per_address_max: reader.number(
            "ROOMCAST_CONNECTIONS_PER_ADDRESS_MAX",
            100,
            1..=ALL,
            "Connections of one address (IPv6: of one /64). Raise it behind a balancer that hides addresses.",
        ),
        strangers_max: reader.number(
            "ROOMCAST_UNAUTHENTICATED_MAX",
            2_000,
            1..=ALL,
            "Connections that have not shown a token or a request yet.",
        ),
        rate: Rate {
            per_second: reader.number(
                "ROOMCAST_CONNECT_RATE",
                2_500,
                1..=MOST,
                "New connections a second.",
            ),
            burst: reader.number(
                "ROOMCAST_CONNECT_BURST",
                5_000,
                1..=MOST,
                "New connections at once.",
            ),
        },
        address_rate: Rate {
            per_second: reader.number(
                "ROOMCAST_CONNECT_RATE_PER_ADDRESS",
                20,
                1..=MOST,
                "New connections a second of one address.",
            ),
            burst: reader.number(
                "ROOMCAST_CONNECT_BURST_PER_ADDRESS",
                100,
                1..=MOST,
                "New connections at once of one address.",
            ),
        },
    }
}

fn read_clients(reader: &mut Reader<'_>, tenancy: Tenancy) -> shard::Limits {
    let beat = beat::Pace {
        every: reader.seconds(
            "ROOMCAST_PING_SECONDS",
            limits::PING_EVERY.as_secs(),
            1..=300,
            "Seconds between two pings of a client; less than what proxies in between wait for a word.",
        ),
        within: reader.seconds(
            "ROOMCAST_PONG_SECONDS",
            limits::PONG_WITHIN.as_secs(),
            1..=60,
            "Seconds in which a client must answer a ping (else 4004).",
        ),
    };
    shard::Limits {
        ws: ws::Limits {
            message_bytes_max: limits::CLIENT_MESSAGE_BYTES_MAX,
            fragments_max: FRAGMENTS_MAX,
        },
        outbox: outbox::Limits {
            bytes_max: reader.number(
                "ROOMCAST_OUTBOX_BYTES_MAX",
                1 << 20,
                (256 << 10)..=(64 << 20),
                "Bytes that may wait for one client; then it is told to come back (4002).",
            ),
            frames_max: reader.number(
                "ROOMCAST_OUTBOX_FRAMES_MAX",
                1_024,
                16..=65_536,
                "Messages that may wait for one client; then it is told to come back (4002).",
            ),
        },
        session: session::Limits {
            cursors: tenancy.cursors,
            ping_every: beat.every,
            subscriptions_max: reader.number(
                "ROOMCAST_SUBSCRIPTIONS_MAX",
                limits::SUBSCRIPTIONS_MAX,
                1..=512,
                "Rooms that one connection may ask for; rooms joined by the policy do not count.",
            ),
            requests: Rate {
                per_second: reader.number(
                    "ROOMCAST_REQUEST_RATE",
                    20,
                    1..=10_000,
                    "Messages a second of one client.",
                ),
                burst: reader.number(
                    "ROOMCAST_REQUEST_BURST",
                    60,
                    1..=10_000,
                    "Messages at once of one client.",
                ),
            },
        },
        ingress: Rate {
            per_second: reader.number(
                "ROOMCAST_INGRESS_BYTES_RATE",
                32 << 10,
                1_024..=(64 << 20),
                "Bytes a second that one client may send.",
            ),
            burst: reader.number(
                "ROOMCAST_INGRESS_BYTES_BURST",
                256 << 10,
                (128 << 10)..=(256 << 20),
                "Bytes that one client may send at once; at least two of the longest messages.",
            ),
        },
        beat,
        write_timeout: reader.seconds(
            "ROOMCAST_WRITE_SECONDS",
            5,
            1..=300,
            "Seconds in which a client must take some of what waits for it (else 4002).",
        ),
        quiet_every: reader.seconds(
            "ROOMCAST_QUIET_SECONDS",
            limits::QUIET_CAUGHT_UP_EVERY.as_secs(),
            1..=600,
            "Seconds after which the members of a quiet room are told a newer cursor, so that none grows too old.",
        ),
        page_events: reader.number(
            "ROOMCAST_RECOVERY_PAGE_EVENTS",
            300,
            1..=10_000,
            "Missed events sent to a returning client before it must have taken them.",
        ),
        flush_window: reader.milliseconds(
            "ROOMCAST_FLUSH_MILLIS",
            20,
            1..=1_000,
            "Milliseconds that the events of a busy room wait for each other, to leave in one write; in a quiet room \
             nothing waits. 1: hardly ever.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use roomcast_chassis::config::Environment;

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        let needed = [
            ("ROOMCAST_POLICY_FILE", "policy.yaml"),
            ("ROOMCAST_JWT_KEYS_FILE", "keys.json"),
            ("ROOMCAST_JWT_ISSUER", "https://issuer.example"),
        ];
        let environment = Environment::from_pairs(needed.iter().chain(pairs).copied());
        let mut reader = Reader::new(&environment);
        let settings = Settings::read(&mut reader);
        reader
            .finish()
            .map(|_| settings)
            .map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn what_the_page_is_told_is_one_object() {
        let folder = tempfile::tempdir().unwrap();
        for (text, good) in [
            (r#"{"ingest":"http://127.0.0.1:1"}"#, true),
            ("{}", true),
            ("[]", false),
            ("true", false),
            ("{} {}", false),
            ("", false),
        ] {
            let file = folder.path().join("page.json");
            std::fs::write(&file, text).unwrap();
            let file = file.display().to_string();
            let settings = read(&[("ROOMCAST_PAGE_CONFIG_FILE", &file)]).unwrap();
            assert_eq!(settings.load_page_config().is_ok(), good, "{text}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_reference() {
        let settings = read(&[]).unwrap();
        assert_eq!(
            settings.clients.outbox,
            outbox::Limits {
                bytes_max: 1_048_576,
                frames_max: 1_024
            }
        );
        assert_eq!(
            settings.clients.session.requests,
            Rate {
                per_second: 20,
                burst: 60
            }
        );
        assert_eq!(
            settings.admission.rate,
            Rate {
                per_second: 2_500,
                burst: 5_000
            }
        );
        assert_eq!(
            (settings.head.within, settings.head.bytes_max),
            (Duration::from_secs(5), 16_384)
        );
        assert!(settings.shards >= 1);
    }

    #[test]
    fn nought_is_a_mistake_for_every_limit() {
        let limits = [
            "ROOMCAST_CONNECTIONS_MAX",
            "ROOMCAST_CONNECTIONS_PER_ADDRESS_MAX",
            "ROOMCAST_CONNECTIONS_PER_TENANT_MAX",
            "ROOMCAST_CONNECTIONS_PER_USER_MAX",
            "ROOMCAST_UNAUTHENTICATED_MAX",
            "ROOMCAST_UNAUTHENTICATED_PER_ADDRESS_MAX",
            "ROOMCAST_OPERATION_RATES",
            "ROOMCAST_CONNECT_RATE",
            "ROOMCAST_CONNECT_BURST",
            "ROOMCAST_CONNECT_RATE_PER_ADDRESS",
            "ROOMCAST_CONNECT_BURST_PER_ADDRESS",
            "ROOMCAST_OUTBOX_BYTES_MAX",
            "ROOMCAST_OUTBOX_FRAMES_MAX",
            "ROOMCAST_SUBSCRIPTIONS_MAX",
            "ROOMCAST_REQUEST_RATE",
            "ROOMCAST_REQUEST_BURST",
            "ROOMCAST_INGRESS_BYTES_RATE",
            "ROOMCAST_INGRESS_BYTES_BURST",
            "ROOMCAST_WRITE_SECONDS",
            "ROOMCAST_PING_SECONDS",
            "ROOMCAST_PONG_SECONDS",
            "ROOMCAST_RECOVERY_PAGE_EVENTS",
            "ROOMCAST_QUIET_SECONDS",
            "ROOMCAST_SCAN_POSITIONS_MAX",
            "ROOMCAST_FLUSH_MILLIS",
            "ROOMCAST_HEADER_SECONDS",
            "ROOMCAST_HEADER_BYTES_MAX",
            "ROOMCAST_HEADERS_MAX",
            "ROOMCAST_SHARDS",
            "ROOMCAST_POLLS_HELD_MAX",
            "ROOMCAST_RING_BYTES",
            "ROOMCAST_RING_ROOM_EVENTS",
            "ROOMCAST_RING_WARM_EVENTS",
            "ROOMCAST_STATE_BYTES",
            "ROOMCAST_ASKS_PER_CONNECTION_MAX",
            "ROOMCAST_ASKS_PER_USER_MAX",
            "ROOMCAST_ASKS_MAX",
        ];
        let mistakes = read(&limits.map(|name| (name, "0"))).err().unwrap();
        for name in limits {
            assert!(mistakes.contains(name), "{name} = 0 is accepted");
        }
    }

    #[test]
    fn origins_are_checked() {
        let mistakes = read(&[("ROOMCAST_ALLOWED_ORIGINS", "https://desk.example,*")])
            .err()
            .unwrap();
        assert!(mistakes.contains("which \"*\" is not"), "{mistakes}");
        assert!(
            read(&[(
                "ROOMCAST_ALLOWED_ORIGINS",
                "http://127.0.0.1:8080, http://localhost:8080"
            )])
            .is_ok()
        );
    }
}
