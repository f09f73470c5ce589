//! What an operator may set, and the files the settings name.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use roomcast_admin::AdminSettings;
use roomcast_chassis::bucket::Rate;
use roomcast_chassis::config::Reader;
use roomcast_chassis::process::Failure;
use roomcast_issuers::{IssuerSettings, Tenancy};
use roomcast_proto::limits::BATCH_BYTES_MAX;
use roomcast_rights::PolicySettings;
use roomcast_sinks::config::Config;

use crate::capture::CaptureSettings;
use crate::durability::{self, Durability};
use crate::quota;
use crate::schemas;

/// The settings of ingest, besides those every service has.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `ROOMCAST_LISTEN`: address of the HTTP door.
    pub listen: SocketAddr,
    /// `ROOMCAST_POLICY_FILE`: who may publish where.
    pub policy: PolicySettings,
    /// `ROOMCAST_JWT_…`, `ROOMCAST_JWKS_…`: whose tokens are accepted.
    pub issuers: IssuerSettings,
    /// `ROOMCAST_ADMIN_…`: who may enter the admin port.
    pub admin: AdminSettings,
    /// Whether one tenant is served or several.
    pub tenancy: Tenancy,
    /// `ROOMCAST_ALLOWED_ORIGINS`: pages that may publish; compared exactly.
    pub allowed_origins: Vec<String>,
    /// `ROOMCAST_CONNECTIONS_MAX`
    pub connections_max: usize,
    /// `ROOMCAST_REQUESTS_MAX`: requests worked on at the same time, over both doors.
    pub requests_max: usize,
    /// `ROOMCAST_SERVICE_REQUESTS_MAX`: requests of gateways for a service worked on at the same time.
    pub services_max: usize,
    /// `ROOMCAST_REQUEST_BYTES_MAX`: bytes of one HTTP body.
    pub body_bytes_max: usize,
    /// `ROOMCAST_IN_FLIGHT_BYTES_MAX`: bytes of all requests worked on at the same time.
    pub in_flight_bytes_max: usize,
    /// `ROOMCAST_PUBLISHER_…`, `ROOMCAST_TENANT_…`: what each publisher and tenant may have done.
    pub quotas: quota::Limits,
    /// `ROOMCAST_BODY_SECONDS`: time in which a body must have arrived.
    pub body_within: Duration,
    /// `ROOMCAST_ROOM_KEYS_MAX`: state keys of one room.
    pub room_keys_max: u64,
    /// `ROOMCAST_DURABILITY`: what an acknowledgement promises.
    pub durability: Durability,
    /// `ROOMCAST_WRITE_HANG_SECONDS`: publishes without an answer for so long mean that writes hang.
    pub write_hang: Duration,
    /// `ROOMCAST_CAPTURE_…`: the database whose changes are followed.
    pub capture: Option<CaptureSettings>,
    /// `ROOMCAST_SINKS_FILE`: webhooks and pushes; without it nothing leaves the house.
    pub sinks_file: Option<PathBuf>,
    /// `ROOMCAST_SCHEMAS_DIR`: what the data of events looks like; without it nothing is checked.
    pub schemas_dir: Option<PathBuf>,
}

impl Settings {
    /// Reads them all; mistakes are collected by the reader.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);
        let settings = Self {
            listen: reader.address("ROOMCAST_LISTEN", local, "Address of the HTTP door, POST /v1/events."),
            policy: PolicySettings::read(reader),
            issuers: IssuerSettings::read(reader),
            admin: AdminSettings::read(reader),
            tenancy: Tenancy::read(reader),
            allowed_origins: reader.list(
                "ROOMCAST_ALLOWED_ORIGINS",
                "",
                "Origins of pages that may publish, separated by commas, like https://desk.example; none by default.",
            ),
            connections_max: reader.number(
                "ROOMCAST_CONNECTIONS_MAX",
                2_000,
                1..=1_000_000,
                "HTTP connections at the same time; one more is answered 503.",
            ),
            requests_max: reader.number(
                "ROOMCAST_REQUESTS_MAX",
                1_024,
                1..=1_000_000,
                "Requests worked on at the same time, HTTP and NATS together; one more is answered 503.",
            ),
            services_max: reader.number(
                "ROOMCAST_SERVICE_REQUESTS_MAX",
                512,
                1..=1_000_000,
                "Requests of gateways (commands and the like) worked on at the same time; one more is told to come back.",
            ),
            body_bytes_max: reader.number(
                "ROOMCAST_REQUEST_BYTES_MAX",
                BATCH_BYTES_MAX,
                1_024..=BATCH_BYTES_MAX,
                "Bytes of one HTTP request's body.",
            ),
            in_flight_bytes_max: reader.number(
                "ROOMCAST_IN_FLIGHT_BYTES_MAX",
                64 << 20,
                1 << 20..=1 << 40,
                "Bytes of all requests worked on at the same time; beyond, requests are answered 503.",
            ),
            quotas: read_quotas(reader),
            body_within: reader.seconds(
                "ROOMCAST_BODY_SECONDS",
                10,
                1..=600,
                "Seconds in which a request's body must have arrived.",
            ),
            room_keys_max: reader.number(
                "ROOMCAST_ROOM_KEYS_MAX",
                roomcast_proto::limits::ROOM_KEYS_MAX as u64,
                1..=1_000_000,
                "State keys one room may hold.",
            ),
            durability: reader
                .choice(
                    durability::SETTING,
                    &[("synced", Durability::Synced), ("may_lose", Durability::MayLose)],
                    "synced: runs only on NATS servers with sync_interval: always, so that what is acknowledged survives a power cut. \
                     may_lose: runs on others too and says so in /readyz and as a metric.",
                )
                .unwrap_or(Durability::Synced),
            write_hang: reader.seconds(
                "ROOMCAST_WRITE_HANG_SECONDS",
                10,
                1..=600,
                "Seconds in which a stream answers no publish, and at least 8 of them, after which ingest is not ready and refuses at once. \
                 More than an election takes, 4 to 7.",
            ),
            capture: CaptureSettings::read(reader),
            sinks_file: reader.optional_path(
                "ROOMCAST_SINKS_FILE",
                "File (sinks.yaml) of the webhooks that are told of notifications, and of how web pushes are sent to users' devices. None: \
                 neither is.",
            ),
            schemas_dir: reader.optional_path(
                "ROOMCAST_SCHEMAS_DIR",
                "Folder of JSON Schemas (*.json), one for each version of an event's type. Events that break theirs are refused, or warned \
                 of where it says so. Changes are put in force at once; without a folder nothing is checked.",
            ),
        };
        if settings.in_flight_bytes_max < settings.body_bytes_max {
            reader.mistake(
                "ROOMCAST_IN_FLIGHT_BYTES_MAX",
                "at least ROOMCAST_REQUEST_BYTES_MAX",
            );
        }
        settings
    }

    /// Reads the file of sinks and those that it names, where there is one.
    ///
    /// # Errors
    /// Exit code 65 with every mistake as `file:line:column`.
    pub fn load_sinks(&self) -> Result<Option<Config>, Failure> {
        let file = self.sinks_file.as_deref();
        file.map(|file| Config::load(file).map_err(Failure::file))
            .transpose()
    }

    /// Reads the files the settings name, offline: what `--check-config` does.
    ///
    /// # Errors
    /// Exit code 65 for a file, 64 for a development key on a listener that is not loopback.
    pub fn check(&self) -> Result<(), Failure> {
        let policy = self.policy.load()?;
        if let Some(capture) = &self.capture {
            capture.load(&policy)?;
        }
        schemas::load(self.schemas_dir.as_deref())?;
        self.load_sinks()?;
        let trusted = self.issuers.load()?;
        self.tenancy.restrict(trusted.verifier.clone(), &policy)?;
        self.admin.check()?;
        trusted.refuse_open_development(&[self.listen])
    }
}

fn read_quotas(reader: &mut Reader<'_>) -> quota::Limits {
    const MOST: u64 = 10_000_000;
    let mut rate = |of: [&'static str; 2], usual: [u64; 2], about: [&'static str; 2]| Rate {
        per_second: reader.number(of[0], usual[0], 1..=MOST, about[0]),
        // A batch must fit.
        burst: reader.number(of[1], usual[1], 1_000..=MOST, about[1]),
    };
    // More than one instance stores on three nodes: they stop a loop that has gone wild. Where publishers are strangers they are lower.
    let publisher_rate = rate(
        [
            "ROOMCAST_PUBLISHER_EVENTS_RATE",
            "ROOMCAST_PUBLISHER_EVENTS_BURST",
        ],
        [50_000, 100_000],
        [
            "Events a second of one publisher at this instance; more is answered 429, rate.",
            "Events of one publisher at once.",
        ],
    );
    let tenant_rate = rate(
        ["ROOMCAST_TENANT_EVENTS_RATE", "ROOMCAST_TENANT_EVENTS_BURST"],
        [100_000, 200_000],
        [
            "Events a second of one tenant at this instance; more is answered 429, rate.",
            "Events of one tenant at once.",
        ],
    );
    let mut requests = |name: &'static str, usual: usize, about: &'static str| {
        reader.number(name, usual, 1..=1_000_000, about)
    };
    quota::Limits {
        publisher_rate,
        tenant_rate,
        publisher_requests_max: requests(
            "ROOMCAST_PUBLISHER_REQUESTS_MAX",
            768,
            "Requests of one publisher worked on at the same time; one more is answered 429, quota. Less than \
             ROOMCAST_REQUESTS_MAX, so that others find room.",
        ),
        tenant_requests_max: requests(
            "ROOMCAST_TENANT_REQUESTS_MAX",
            896,
            "Requests of one tenant worked on at the same time; one more is answered 429, quota.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use roomcast_chassis::config::Environment;

    use super::*;

    const NEEDED: [(&str, &str); 3] = [
        ("ROOMCAST_POLICY_FILE", "policy.yaml"),
        ("ROOMCAST_JWT_KEYS_FILE", "keys.json"),
        ("ROOMCAST_JWT_ISSUER", "issuer"),
    ];

    #[track_caller]
    fn check(more: &[(&str, &str)], expected: &[&str]) {
        let environment = Environment::from_pairs(NEEDED.iter().chain(more).copied());
        let mut reader = Reader::new(&environment);
        Settings::read(&mut reader);
        let found = reader.finish().map_or_else(
            |mistakes| mistakes.0.into_iter().map(|mistake| mistake.variable).collect(),
            |_| Vec::new(),
        );
        assert_eq!(found, expected);
    }

    #[test]
    fn mistakes_are_named_all_at_once() {
        check(&[], &[]);
        check(&[("ROOMCAST_REQUESTS_MAX", "0")], &["ROOMCAST_REQUESTS_MAX"]);
        for name in [
            "ROOMCAST_PUBLISHER_EVENTS_RATE",
            "ROOMCAST_PUBLISHER_EVENTS_BURST",
            "ROOMCAST_PUBLISHER_REQUESTS_MAX",
            "ROOMCAST_TENANT_EVENTS_RATE",
            "ROOMCAST_TENANT_EVENTS_BURST",
            "ROOMCAST_TENANT_REQUESTS_MAX",
        ] {
            check(&[(name, "0")], &[name]);
        }
        check(&[("ROOMCAST_LISTEN", "8081")], &["ROOMCAST_LISTEN"]);
        check(&[("ROOMCAST_JWT_ISSUER", "")], &["ROOMCAST_JWT_ISSUER"]);
        check(
            &[("ROOMCAST_IN_FLIGHT_BYTES_MAX", "1048576")],
            &["ROOMCAST_IN_FLIGHT_BYTES_MAX"],
        );
        check(
            &[("ROOMCAST_CAPTURE_FILE", "capture.yaml")],
            &["ROOMCAST_CAPTURE_DATABASE"],
        );
        for (address, expected) in [
            ("postgres://u:p@db/shop", &["ROOMCAST_CAPTURE_FILE"][..]),
            ("db", &["ROOMCAST_CAPTURE_FILE"]),
        ] {
            check(&[("ROOMCAST_CAPTURE_DATABASE", address)], expected);
        }
        for address in ["db", "postgres://u@db/shop?sslmode=require"] {
            let settings = [
                ("ROOMCAST_CAPTURE_FILE", "capture.yaml"),
                ("ROOMCAST_CAPTURE_DATABASE", address),
            ];
            check(&settings, &["ROOMCAST_CAPTURE_DATABASE"]);
        }
        check(
            &[("ROOMCAST_LISTN", "x"), ("ROOMCAST_BODY_SECONDS", "-1")],
            &["ROOMCAST_BODY_SECONDS", "ROOMCAST_LISTN"],
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let environment = Environment::from_pairs(NEEDED);
        let settings = Settings::read(&mut Reader::new(&environment));
        let failure = settings.check().unwrap_err();
        assert_eq!(failure.exit, roomcast_chassis::process::Exit::File);
        assert!(failure.message.starts_with("policy.yaml:1:1: "), "{failure}");
    }
}
