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

use crate::accept::Sockets;
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
            asks: asking::Limits::read(reader, tenancy),
            clients: read_clients(reader, tenancy),
            polls: read_polls(reader, tenancy),
            sockets: read_sockets(reader),
            head: read_head(reader),
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
    // Twice that fits into the least burst of bytes, and NATS takes it with what we add.
    let message_bytes_max = reader.number(
        "ROOMCAST_MESSAGE_BYTES_MAX",
        limits::CLIENT_MESSAGE_BYTES_MAX,
        (16 << 10)..=(64 << 10),
        "Bytes of one message of a client (else 1009), and of a request's body (else 413); clients are told.",
    );
    shard::Limits {
        ws: ws::Limits {
            message_bytes_max,
            fragments_max: reader.number(
                "ROOMCAST_FRAGMENTS_MAX",
                1_024,
                1..=65_536,
                "Frames in which one message of a client may come (else 1009).",
            ),
        },
        authenticate_within: reader.seconds(
            "ROOMCAST_AUTHENTICATE_SECONDS",
            limits::AUTHENTICATE_WITHIN.as_secs(),
            1..=60,
            "Seconds in which a connection must have shown a token (else 4500).",
        ),
        answer_bytes_max: reader.number(
            "ROOMCAST_ANSWER_BYTES_MAX",
            256 << 10,
            (128 << 10)..=(256 << 10),
            "Bytes of events in a page of history or a snapshot; what would be longer holds fewer.",
        ),
        comment_every: reader.seconds(
            "ROOMCAST_COMMENT_SECONDS",
            limits::COMMENT_EVERY.as_secs(),
            1..=60,
            "Seconds after which a stream that has nothing to say says a comment; less than what proxies in between wait for a word.",
        ),
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
            message_bytes_max,
            rooms_max: reader.number(
                "ROOMCAST_ROOMS_PER_REQUEST_MAX",
                limits::CONNECT_ROOMS_MAX,
                1..=512,
                "Rooms that a `connect`, a stream or a poll may name (else `limit`).",
            ),
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
                "Bytes a second that one connection may send: more ends a WebSocket or a stream (4006); requests are read more slowly. Raise \
                 it behind a proxy that sends many users' requests over one connection.",
            ),
            burst: reader.number(
                "ROOMCAST_INGRESS_BYTES_BURST",
                256 << 10,
                (128 << 10)..=(256 << 20),
                "Bytes that one connection may send at once; at least two of the longest messages.",
            ),
        },
        beat,
        write_timeout: reader.seconds(
            "ROOMCAST_WRITE_SECONDS",
            5,
            1..=300,
            "Seconds in which a client must take some of what waits for it (else 4002; a connection of requests is cut).",
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

    /// Numbers that are no limits on anybody.
    const NO_LIMITS: [&str; 5] = [
        "ROOMCAST_LISTEN",
        "ROOMCAST_REPLICAS",
        "ROOMCAST_SHARDS",
        "ROOMCAST_JWKS_INTERVAL_SECONDS",
        "ROOMCAST_JWKS_REFRESH_SECONDS",
    ];

    /// A row of the README's tables: setting, usual value, bounds, where it is counted.
    struct Row<'a> {
        name: &'a str,
        usual: &'a str,
        bounds: String,
        counted: &'a str,
    }

    fn documented() -> Vec<Row<'static>> {
        let rows = include_str!("../README.md").lines().filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let &[_, name, usual, bounds, _, counted, _] = cells.as_slice() else {
                return None;
            };
            let name = name.strip_prefix("`ROOMCAST_")?.strip_suffix('`')?;
            Some(Row {
                name,
                usual,
                bounds: format!("a number from {}", bounds.replace(", ", " to ")),
                counted: counted.trim_matches('`'),
            })
        });
        rows.collect()
    }

    fn numbers() -> Vec<(&'static str, String)> {
        let environment = Environment::from_pairs(Vec::<(&str, &str)>::new());
        let mut reader = Reader::new(&environment);
        Settings::read(&mut reader);
        let is_number = |text: &String| text.parse::<u64>().is_ok();
        let listed = reader
            .listed()
            .iter()
            .filter(|listed| !NO_LIMITS.contains(&listed.name));
        listed
            .filter_map(|listed| Some((listed.name, listed.default.clone().filter(is_number)?)))
            .collect()
    }

    #[test]
    fn every_limit_is_in_the_readme_as_it_is_and_nought_is_a_mistake() {
        let (numbers, rows) = (numbers(), documented());
        let all: Vec<(&str, &str)> = numbers.iter().map(|(name, _)| (*name, "0")).collect();
        let mistakes = read(&all).err().unwrap();
        for (name, default) in &numbers {
            let row = rows
                .iter()
                .find(|row| name.strip_prefix("ROOMCAST_") == Some(row.name));
            let row = row.unwrap_or_else(|| panic!("{name} is not in the README"));
            assert_eq!(row.usual, default, "{name}");
            let said = format!("{name} is \"0\": expected {}\n", row.bounds);
            assert!(format!("{mistakes}\n").contains(&said), "{said} in {mistakes}");
        }
        assert_eq!(rows.len(), numbers.len(), "each is there once, and nothing else");
        let rates = read(&[("ROOMCAST_OPERATION_RATES", "history=0/1")])
            .err()
            .unwrap();
        assert!(rates.contains("ROOMCAST_OPERATION_RATES"), "{rates}");
        for (_, name, rate) in crate::allowance::Operation::ALL {
            let said = format!("`{name}={}/{}`", rate.per_second, rate.burst);
            assert!(include_str!("../README.md").contains(&said), "{said}");
        }
    }

    #[test]
    fn every_counter_in_the_readme_is_there_and_every_limit_that_is_counted() {
        let metrics = roomcast_chassis::metrics::Metrics::new("gateway").unwrap();
        let _gateway = crate::metrics::GatewayMetrics::new(&metrics).unwrap();
        let hub = crate::hub::HubSettings::default();
        let _hub = crate::hub::Hub::new(hub, Box::new(|_| None), &metrics).unwrap();
        let text = String::from_utf8(metrics.encode().unwrap()).unwrap();
        let has = |family: &str, label: &str| {
            let name = format!("roomcast_gateway_{family}_total");
            let label = format!("=\"{label}\"");
            text.lines()
                .any(|line| line.starts_with(&name) && (label == "=\"\"" || line.contains(&label)))
        };
        let rows = documented();
        for row in rows.iter().filter(|row| !row.counted.is_empty()) {
            let (family, label) = row.counted.split_once(": ").unwrap_or((row.counted, ""));
            assert!(has(family, label), "{}: {}", row.name, row.counted);
        }
        for (_, limit) in crate::limit::Limit::ALL {
            let said = format!("`limited: {limit}`");
            assert!(include_str!("../README.md").contains(&said), "{said}");
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
